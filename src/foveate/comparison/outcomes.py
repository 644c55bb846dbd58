"""What the runs of a comparison come to: a summary of every arm, and a verdict on every pair, also in words."""

from dataclasses import dataclass
from statistics import mean, median, stdev
from typing import NamedTuple

from foveate.comparison.arms import short_labels
from foveate.comparison.controls import NetworkCost, network_cost
from foveate.comparison.experiment import ArmRun, Experiment
from foveate.comparison.settings import ComparisonConfig
from foveate.comparison.statistics import Difference, Verdict, compare, conclude, sd_interval, seeds_needed


class Pair(NamedTuple):
    """An arm and what it is compared with: places in `ComparisonConfig.arms`."""

    arm: int
    other: int


@dataclass(frozen=True)
class PairFinding:
    """What is known of a pair: the accuracy of an arm minus that of the other."""

    pair: Pair
    subset: int | None
    """Training images; None: all."""
    seeds: tuple[int, ...]
    """Those in which both have a result."""
    difference: Difference | None
    """None where there are none."""
    verdict: Verdict | None
    seeds_needed: int | None
    """With these δ is found with a power of 80 %, if they spread as here; None: unknown, or too many."""
    arm: str
    other: str
    labels: tuple[str, str]
    """The same two, shortened for a plot."""
    seeds_wanted: int
    next_seed: int
    """The first seed of a comparison that shares none with this one."""

    @property
    def title(self) -> str:
        """Which pair, trained on how many images."""
        return f"{self.arm} minus {self.other}" + ("" if self.subset is None else f" ({self.subset:,} images)")

    @property
    def words(self) -> str:
        """The verdict in one sentence."""
        verdict, difference = self.verdict, self.difference
        if verdict is None or difference is None:
            return "No seed has a result of both."
        points = f"{100 * difference.mean:+.2f} points"
        if len(self.seeds) < self.seeds_wanted:
            points += f" over the {len(self.seeds)} of {self.seeds_wanted} seeds in which both came to an end"
        if difference.alike:
            points += ", both right on the same images in every seed: what differs may have no effect"
        if verdict.interval is None:
            return f"Inconclusive: {points}, from one seed, which has no interval."
        if verdict.answer == "no difference":
            return f"No difference larger than {100 * verdict.delta:g} points ({points})."
        if verdict.answer == "inconclusive":
            if verdict.seeds is None:
                return f"Inconclusive: {points}; not even thousands of seeds would decide."
            return (
                f"Inconclusive: {points}; about {verdict.seeds:,} new seeds would decide, "
                f"in a separate comparison (--first-seed {self.next_seed})."
            )
        return f"{verdict.answer.capitalize()}: {points}."

    @property
    def plan(self) -> str:
        """How many seeds a comparison of this pair takes, judged by a pilot."""
        if self.difference is None or self.difference.sd is None:
            return "unknown, it takes at least two seeds of both"
        needed = "not even thousands" if self.seeds_needed is None else f"{self.seeds_needed:,}"
        return f"{needed} ({len(self.seeds)} pilot seeds spread by {100 * self.difference.sd:.2f} points)"


@dataclass(frozen=True)
class ArmSummary:
    """What an arm's runs came to, with all training images or a subset."""

    arm: int
    subset: int | None
    seeds: tuple[int, ...]
    accuracies: tuple[float, ...]
    without_attention: float | None
    """Mean accuracy with the attention ablated."""
    gates: tuple[float, ...]
    cost: NetworkCost
    ms_per_image: float | None
    """Of training, the median of the runs."""

    @property
    def cells(self) -> list[str]:
        """Its figures as a row of a table."""
        values = [100 * value for value in self.accuracies]
        return [
            f"{mean(values):.2f}" if values else "–",
            f"{stdev(values):.2f}" if len(values) > 1 else "–",
            f"{100 * self.without_attention:.2f}" if self.without_attention is not None else "–",
            f"{self.cost.parameters:,}",
            f"{self.ms_per_image:.3f}" if self.ms_per_image is not None else "–",
            str(len(self.seeds)),
        ]


def spread_words(seeds: int) -> str:
    """How well a pilot knows by how much seeds differ."""
    low, high = sd_interval(seeds)
    return (
        f"the true spread is {low:.2g} to {high:.2g} times that of {seeds} seeds: take more where they are cheap"
    )


def pairs_of(config: ComparisonConfig) -> list[Pair]:
    """Every arm against the reference, and against its own controls."""
    return [
        Pair(place, against)
        for place, arm in enumerate(config.arms)
        if place and not arm.matched
        for against, other in enumerate(config.arms)
        if against == 0 or arm.name in other.matched
    ]


def pair_findings(experiment: Experiment) -> list[PairFinding]:
    """What the runs that are done say of every pair, with every number of training images."""
    config, pairs = experiment.config, pairs_of(experiment.config)
    labels, comparisons = short_labels(config.arms), len(pairs) * len(config.subsets)
    findings = []
    for subset, images in enumerate(config.subsets):
        for pair in pairs:
            sides = [{run.seed: run for run in _done(experiment, arm, subset)} for arm in pair]
            seeds = tuple(sorted(sides[0].keys() & sides[1].keys()))
            difference = verdict = needed = None
            if seeds:
                difference = compare(*(experiment.right([side[seed] for seed in seeds]) for side in sides))
                verdict = conclude(difference, delta=config.delta, alpha=config.alpha, comparisons=comparisons)
                if difference.sd is not None:
                    needed = seeds_needed(difference.sd, config.delta, level=verdict.level)
            finding = PairFinding(
                pair,
                images,
                seeds,
                difference,
                verdict,
                needed,
                arm=config.arms[pair.arm].name,
                other=config.arms[pair.other].name,
                labels=(labels[pair.arm], labels[pair.other]),
                seeds_wanted=config.seeds,
                next_seed=config.first_seed + config.seeds,
            )
            findings.append(finding)
    return findings


def arm_summaries(experiment: Experiment) -> list[ArmSummary]:
    """Every arm, with every number of training images."""
    config = experiment.config
    summaries = []
    for subset, images in enumerate(config.subsets):
        for place, arm in enumerate(config.arms):
            runs = _done(experiment, place, subset)
            results = [result for run in runs if (result := experiment.result(run)) is not None]
            without = [each.without_attention for each in results if each.without_attention is not None]
            speeds = [1e3 * each.train_s / each.images_shown for each in results if each.images_shown]
            assert arm.config.data.size is not None
            summary = ArmSummary(
                arm=place,
                subset=images,
                seeds=tuple(run.seed for run in runs),
                accuracies=tuple(each.accuracy for each in results),
                without_attention=mean(without) if without else None,
                gates=tuple(each.gate for each in results if each.gate is not None),
                cost=network_cost(arm.config, num_classes=config.num_classes, size=arm.config.data.size),
                ms_per_image=median(speeds) if speeds else None,
            )
            summaries.append(summary)
    return summaries


ARM_TITLES = ("arm", "accuracy %", "sd", "without attention", "parameters", "ms an image", "seeds")
"""Of the table of arms."""


def arm_rows(experiment: Experiment) -> list[list[str]]:
    """The table of arms."""
    arms = experiment.config.arms
    return [[_arm_words(arms[each.arm].name, each.subset), *each.cells] for each in arm_summaries(experiment)]


def verdict_lines(experiment: Experiment) -> list[str]:
    """Runs that are left out, and the verdict on every pair."""
    config = experiment.config
    lines = []
    for run, reason in experiment.failures().items():
        arm = _arm_words(config.arms[run.arm].name, config.subsets[run.subset])
        lines.append(f"failed and left out: {arm}, seed {run.seed}: {reason}")
    lines.append(
        f"on the {experiment.split} images, differences in points "
        f"[interval over seeds, all together at {100 * (1 - config.alpha):g} %]:"
    )
    for finding in pair_findings(experiment):
        interval = finding.verdict.interval if finding.verdict else None
        bounds = f" [{100 * interval[0]:+.2f}, {100 * interval[1]:+.2f}]" if interval else ""
        lines += [f"{finding.title}:", f"  {finding.words}{bounds}"]
    return lines


def plan_lines(experiment: Experiment) -> list[str]:
    """By the spread of a pilot's differences, how many seeds would find δ."""
    config = experiment.config
    points = f"{100 * config.delta:g} points"
    return [
        f"seeds at which a true difference of {points} would be seen in 80% of comparisons:",
        *(f"  {finding.title}: {finding.plan}" for finding in pair_findings(experiment)),
        spread_words(config.seeds),
    ]


def _arm_words(arm: str, subset: int | None) -> str:
    return arm if subset is None else f"{arm}, {subset:,} images"


def _done(experiment: Experiment, arm: int, subset: int) -> list[ArmRun]:
    return [
        run
        for run in experiment.runs
        if (run.arm, run.subset) == (arm, subset) and experiment.result(run) is not None
    ]
