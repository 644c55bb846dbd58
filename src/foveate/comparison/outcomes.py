"""What the runs of a comparison come to: a summary of every arm, and a verdict on every pair, also in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
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
            return "unknown: at least two seeds of both arms must have ended"
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
    def cells(self) -> dict[str, str]:
        """Its figures in words, by the titles of their columns in a table."""
        values = [100 * value for value in self.accuracies]
        gates = [min(self.gates), max(self.gates)] if len(self.gates) > 1 else self.gates
        spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
        return {
            "Accuracy": f"{mean(values):.2f}{spread}\u00a0%" if values else "–",
            "Attention ablated": (
                "–" if self.without_attention is None else f"{100 * self.without_attention:.2f}\u00a0%"
            ),
            "Gate": " to ".join(f"{gate:+.3g}" for gate in gates) or "–",
            "Parameters": f"{self.cost.parameters:,}",
            "MFLOP per image": f"{self.cost.training_flops / 1e6:,.1f}",
            "ms per image": "–" if self.ms_per_image is None else f"{self.ms_per_image:.3f}",
            "Seeds": str(len(self.seeds)),
        }


@dataclass(frozen=True)
class Outcome:
    """What the runs come to that an experiment has measured: each part is computed once, when it is asked for."""

    experiment: Experiment

    @property
    def config(self) -> ComparisonConfig:
        """The settings of the comparison."""
        return self.experiment.config

    @cached_property
    def failures(self) -> Mapping[ArmRun, str]:
        """Why runs have no result."""
        return self.experiment.failures()

    @cached_property
    def summaries(self) -> list[ArmSummary]:
        """Every arm, with every number of training images."""
        return arm_summaries(self.experiment)

    @cached_property
    def findings(self) -> list[PairFinding]:
        """Every pair, with every number of training images."""
        return pair_findings(self.experiment)


def fewest_seeds(findings: Sequence[PairFinding]) -> int | None:
    """Seeds of the pair that has the fewest of those that have a spread; None: none has."""
    known = [len(each.seeds) for each in findings if len(each.seeds) > 1]
    return min(known, default=None)


def spread_words(seeds: int | None) -> str:
    """How well a pilot knows by how much seeds differ."""
    if seeds is None:
        return "no pair has two seeds that ended, so that nothing is known of the spread"
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
    costs = [
        network_cost(arm.config, num_classes=config.num_classes, size=arm.config.data.size)
        for arm in config.arms
        if arm.config.data.size is not None  # as `ComparisonConfig` makes sure
    ]
    summaries = []
    for subset, images in enumerate(config.subsets):
        for place, cost in enumerate(costs):
            runs = _done(experiment, place, subset)
            results = [result for run in runs if (result := experiment.result(run)) is not None]
            without = [each.without_attention for each in results if each.without_attention is not None]
            speeds = [1e3 * each.train_s / each.images_shown for each in results if each.images_shown]
            summary = ArmSummary(
                arm=place,
                subset=images,
                seeds=tuple(run.seed for run in runs),
                accuracies=tuple(each.accuracy for each in results),
                without_attention=mean(without) if without else None,
                gates=tuple(each.gate for each in results if each.gate is not None),
                cost=cost,
                ms_per_image=median(speeds) if speeds else None,
            )
            summaries.append(summary)
    return summaries


def verdict_lines(outcome: Outcome) -> list[str]:
    """Runs that are left out, and the verdict on every pair."""
    config = outcome.config
    lines = []
    for run, reason in outcome.failures.items():
        arm = arm_words(config.arms[run.arm].name, config.subsets[run.subset])
        lines.append(f"failed and left out: {arm}, seed {run.seed}: {reason}")
    lines.append(
        f"on the {outcome.experiment.split} images, differences in points "
        f"[interval over seeds, all together at {100 * (1 - config.alpha):g} %]:"
    )
    for finding in outcome.findings:
        interval = finding.verdict.interval if finding.verdict else None
        bounds = f" [{100 * interval[0]:+.2f}, {100 * interval[1]:+.2f}]" if interval else ""
        lines += [f"{finding.title}:", f"  {finding.words}{bounds}"]
    return lines


def plan_lines(outcome: Outcome) -> list[str]:
    """By the spread of a pilot's differences, how many seeds would find δ."""
    points = f"{100 * outcome.config.delta:g} points"
    return [
        f"seeds at which a true difference of {points} would be seen in 80% of comparisons:",
        *(f"  {finding.title}: {finding.plan}" for finding in outcome.findings),
        spread_words(fewest_seeds(outcome.findings)),
    ]


def arm_words(arm: str, subset: int | None) -> str:
    """An arm, and on how many images it was trained where that is not all."""
    return arm if subset is None else f"{arm}, {subset:,} images"


def _done(experiment: Experiment, arm: int, subset: int) -> list[ArmRun]:
    return [
        run
        for run in experiment.runs
        if (run.arm, run.subset) == (arm, subset) and experiment.result(run) is not None
    ]
