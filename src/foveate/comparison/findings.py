"""What is known of every pair of a comparison: its difference, its verdict, a plan; also in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from foveate.comparison.arms import short_labels
from foveate.comparison.experiment import ArmRun, Experiment
from foveate.comparison.planning import Plan, plan
from foveate.comparison.pooling import Family, Spread, pooled_spread
from foveate.comparison.settings import ComparisonConfig
from foveate.comparison.statistics import Difference, Verdict, compare, conclude, spread_of


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
    """Those of the arm in which both have a result."""
    other_seeds: tuple[int, ...]
    """Those of the other, one by one: the same, unless an arm has seeds of its own."""
    difference: Difference | None
    """None where no seed has a result of both."""
    spread: Spread | None
    """By which it is judged."""
    verdict: Verdict | None
    plan: Plan | None
    """How many seeds a comparison takes; None: unknown."""
    arm: str
    other: str
    labels: tuple[str, str]
    """The same two, shortened for a plot."""
    seeds_wanted: int
    next_seed: int | None
    """The first seed of a comparison that shares none with this one; None where arms have seeds of their own."""

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
        delta = f"{100 * verdict.delta:g} points"
        here = {
            "helps": "; on these images it helps",
            "hurts": "; on these images it hurts",
            "no difference": f"; on these images no difference larger than {delta}",
            "inconclusive": "",
        }[verdict.on_these_images]
        if verdict.answer == "no difference":
            here = "" if verdict.on_these_images == verdict.answer else here
            return f"No difference larger than {delta} ({points}){here}."
        if verdict.answer == "inconclusive":
            return f"Inconclusive: {points}{here}; {self._what_would_decide(verdict, difference)}."
        return f"{verdict.answer.capitalize()}{f', by less than {delta}' if verdict.small else ''}: {points}."

    def _what_would_decide(self, verdict: Verdict, difference: Difference) -> str:
        if verdict.seeds_alike is not None:
            seeds = f"about {verdict.seeds_alike:,} new seeds would decide"
            if verdict.seeds != verdict.seeds_alike:
                seeds += " if they differ by as much as these do"
                seeds += "" if verdict.seeds is None else f", and {verdict.seeds:,} whatever they differ by"
            again = "" if self.next_seed is None else f" (--first-seed {self.next_seed})"
            return f"{seeds}, in a separate comparison{again}"
        if verdict.images is None:
            return "not even thousands of seeds would decide"
        things = "groups" if difference.grouped else "images"
        return (
            f"no number of seeds would decide a difference like this one on {difference.independent:,} {things}: "
            f"it takes more than {verdict.images:,} {things}"
        )

    @property
    def plan_words(self) -> str:
        """How many seeds a comparison of this pair takes, judged by a pilot."""
        if self.plan is None or self.spread is None or self.verdict is None:
            return "unknown: at least two seeds of both arms must have ended"
        see, exclude = (
            "no number of seeds" if seeds is None else f"{seeds:,} seeds"
            for seeds in (self.plan.difference, self.plan.no_difference)
        )
        delta = f"{100 * self.verdict.delta:g} points"
        return (
            f"{see} to see a difference of {delta}, {exclude} to say that there is none (the spread from seed to "
            f"seed was {100 * self.spread.sd:.2f} points, and is taken as {100 * self.plan.sd:.2f})"
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
    config = experiment.config
    findings = []
    for subset in range(len(config.subsets)):
        runs = [
            {run.seed - config.first_seed_of(arm): run for run in experiment.done(arm, subset)}
            for arm in range(len(config.arms))
        ]
        family = Family(config.rule, tuple(pairs_of(config)), sum(map(bool, runs)), len(config.subsets))
        pooled = pooled_spread(_accuracies(experiment, runs), blocks=config.rule == "blocks")
        findings += [
            _finding(experiment, pair, config.subsets[subset], [runs[arm] for arm in pair], family, pooled)
            for pair in pairs_of(config)
        ]
    return findings


def _finding(
    experiment: Experiment,
    pair: Pair,
    images: int | None,
    sides: Sequence[Mapping[int, ArmRun]],
    family: Family,
    pooled: Spread | None,
) -> PairFinding:
    """What is known of a pair.

    Args:
        sides: the runs of both, by the place of their seed.
        pooled: the spread that all arms share.
    """
    config, labels = experiment.config, short_labels(experiment.config.arms)
    places = sorted(sides[0].keys() & sides[1].keys())
    paired = [[side[place] for place in places] for side in sides]
    difference = verdict = spread = planned = None
    if places:
        ours, theirs = map(experiment.right, paired)
        difference = compare(ours, theirs, experiment.groups)
        spread = spread_of(difference, family, pooled)
        verdict = conclude(difference, family, spread, delta=config.delta, alpha=config.alpha)
        if spread is not None:
            planned = plan(difference, family, spread, delta=config.delta, alpha=config.alpha)
    shared = all(arm.first_seed is None for arm in config.arms)
    return PairFinding(
        pair=pair,
        subset=images,
        seeds=tuple(run.seed for run in paired[0]),
        other_seeds=tuple(run.seed for run in paired[1]),
        difference=difference,
        spread=spread,
        verdict=verdict,
        plan=planned,
        arm=config.arms[pair.arm].name,
        other=config.arms[pair.other].name,
        labels=(labels[pair.arm], labels[pair.other]),
        seeds_wanted=config.seeds,
        next_seed=config.first_seed + config.seeds if shared else None,
    )


def _accuracies(experiment: Experiment, runs: Sequence[Mapping[int, ArmRun]]) -> NDArray[np.float64]:
    """[arms, seeds]; NaN where a run has no result."""
    accuracies = np.full((len(runs), experiment.config.seeds), np.nan)
    for arm, of_arm in enumerate(runs):
        for place, run in of_arm.items():
            if (result := experiment.result(run)) is not None:
                accuracies[arm, place] = result.accuracy
    return accuracies
