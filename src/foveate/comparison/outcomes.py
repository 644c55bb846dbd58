"""What the runs of a comparison come to: a summary of every arm, and a verdict on every pair, also in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean, median, stdev

from foveate.comparison.controls import NetworkCost, network_cost
from foveate.comparison.experiment import ArmRun, Experiment
from foveate.comparison.findings import PairFinding, pair_findings
from foveate.comparison.planning import ASSURANCE, POWER
from foveate.comparison.settings import ComparisonConfig

PLAN_WORDS = (
    "a pilot knows a spread only roughly: these are for an upper bound of it, which holds in "
    f"{100 * ASSURANCE:g} % of pilots; more pilot seeds bring it down"
)
"""What a plan is made for."""


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
            runs = experiment.done(place, subset)
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


def unused_attention(summaries: Sequence[ArmSummary], config: ComparisonConfig) -> list[str]:
    """A sentence on each attention without which the same weights are as good, to within δ.

    What is not used neither helps nor hurts, whatever attention could do there: on pictures that need it, a gate
    that opened too slowly hid a gain of 40 points (docs/evidence.md, "Where attention helps").
    """
    lines = []
    for each in summaries:
        without = each.without_attention
        if without is None or abs(mean(each.accuracies) - without) >= config.delta:
            continue
        arm = config.arms[each.arm]
        ways = ["attention_mode=replace"] if arm.config.model.attention_mode == "residual" else []
        if ways and arm.config.train.optimizer in ("muon", "sgd"):
            ways.insert(0, f"gate_lr={10 * arm.config.train.gate_lr:g}")
        again = f"; to be sure, compare it also with {' and with '.join(ways)}" if ways else ""
        lines.append(
            f"{arm_words(arm.name, each.subset)}: its networks hardly use their attention: without it, the same "
            f"weights reach {100 * without:.2f}% in place of {100 * mean(each.accuracies):.2f}%. So "
            f"this verdict does not say what attention could do here{again}"
        )
    return lines


def verdict_lines(outcome: Outcome) -> list[str]:
    """Runs that are left out, the verdict on every pair, and what limits the verdicts."""
    config = outcome.config
    lines = []
    for run, reason in outcome.failures.items():
        arm = arm_words(config.arms[run.arm].name, config.subsets[run.subset])
        lines.append(f"failed and left out: {arm}, seed {run.seed}: {reason}")
    over = "seeds" if config.rule == "seeds" else "seeds and images"
    images = measured_images(outcome.findings, outcome.experiment.split)
    lines += group_lines(outcome.findings)
    lines.append(
        f"accuracies are of {images}; differences in points "
        f"[interval over {over}, all together at {100 * (1 - config.alpha):g} %]:"
    )
    for finding in outcome.findings:
        verdict, bounds = finding.verdict, ""
        if verdict and (interval := verdict.judging):
            bounds = f" [{100 * interval[0]:+.2f}, {100 * interval[1]:+.2f}]"
        lines += [f"{finding.title}:", f"  {finding.words}{bounds}"]
    return [*lines, *unused_attention(outcome.summaries, config)]


def measured_images(findings: Sequence[PairFinding], split: str) -> str:
    """`287 validation images`: what every run was measured on; without the number where no pair has a result."""
    counts = {each.difference.images for each in findings if each.difference}
    return "".join(f"{count:,} " for count in counts) + f"{split} images"


def group_lines(findings: Sequence[PairFinding]) -> list[str]:
    """A sentence on what the verdicts count where images come in groups: whether they hold for other groups."""
    differences = [each.difference for each in findings if each.difference]
    if not differences or (groups := differences[0].groups) is None:
        return []
    if groups == 1:
        return ["all images are of one group: what is said of new images holds for others of this group alone"]
    return [
        f"the images are of {groups:,} groups, and those of one are alike: intervals for new images count groups, "
        "and hold for new groups"
    ]


def plan_lines(outcome: Outcome) -> list[str]:
    """By the spread of a pilot's differences, how many seeds would come to an answer."""
    return [
        f"seeds of every arm, for an answer in {100 * POWER:g} % of comparisons:",
        *(f"  {finding.title}: {finding.plan_words}" for finding in outcome.findings),
        PLAN_WORDS,
        *group_lines(outcome.findings),
    ]


def arm_words(arm: str, subset: int | None) -> str:
    """An arm, and on how many images it was trained where that is not all."""
    return arm if subset is None else f"{arm}, {subset:,} images"
