"""How often is a verdict of `foveate compare` wrong in the population, by each rule? By simulation.

Studies are drawn from a model of what arms, seeds and images do, so that the truth is known. docs/benchmarks.md
says how. There is no peer but the rule of earlier versions, `seeds`.

    python benchmarks/verdict_rates.py --json FILE    # resumes when it was killed
"""

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from foveate.comparison.pooling import Family, Rule, pooled_spread
from foveate.comparison.statistics import Verdict, compare, conclude, spread_of
from harness import begin, command_line, print_row, read_record, write_record

RULES: tuple[Rule, ...] = ("seeds", "pairs", "blocks", "dunnett")


@dataclass(frozen=True)
class World:
    """What is true: a probit of what an image asks for, and of what an arm and a seed bring to it.

    Args:
        difficulty: mean and standard deviation over images.
        own: standard deviation of what an arm alone finds difficult, in all of its seeds. Beside 1, the chance of
            each answer, it says how much the networks of an arm agree.
        skill: standard deviation of what a seed's network brings to all images.
        shared: part of the variance of `skill` that a seed gives to all arms alike.
        last: how many times as much as the others the last arm varies by seed.
        apart: whether the last arm has seeds of its own, and so nothing of what is shared.
    """

    difficulty: tuple[float, float] = (4.0, 3.0)
    own: float = 1.5
    skill: float = 0.1
    shared: float = 0.0
    last: float = 1.0
    apart: bool = False

    def right(
        self, draw: np.random.Generator, arms: int, seeds: int, images: int, gain: float
    ) -> NDArray[np.bool_]:
        """Who is right: [arms, seeds, images]; all arms but the first are better by `gain` on the probit."""
        spreads = np.ones((arms, 1, 1))
        spreads[-1] = self.last
        common = math.sqrt(self.shared) * draw.normal(0, self.skill, (1, seeds, 1))
        alone = math.sqrt(1 - self.shared) * draw.normal(0, self.skill, (arms, seeds, 1))
        common = np.repeat(common, arms, axis=0)
        if self.apart:
            common[-1] = math.sqrt(self.shared) * draw.normal(0, self.skill, (seeds, 1))
        asked = draw.normal(*self.difficulty, (1, 1, images)) + draw.normal(0, self.own, (arms, 1, images))
        better = np.where(np.arange(arms) > 0, gain, 0.0)[:, None, None]
        chance = ndtr((asked + better + spreads * (common + alone)).astype(np.float32))
        answers: NDArray[np.bool_] = draw.random(chance.shape, dtype=np.float32) < chance
        return answers

    def gain(self, effect: float) -> float:
        """What an arm must be better by on the probit, to be right on a share `effect` more of all images."""
        mean, sd = self.difficulty
        width = math.sqrt(1 + sd**2 + self.own**2 + self.skill**2)
        low, high = 0.0, 10.0 * width
        while high - low > 1e-9:
            middle = (low + high) / 2
            found = ndtr((mean + middle) / width) - ndtr(mean / width)
            low, high = (middle, high) if found < effect else (low, middle)
        return low


_ELSEWHERE = (287, 10_000)
"""Images of the worlds beside the first."""
WORLDS = {
    "as it is": World(),
    "seeds give all arms something in common": World(shared=0.5),
    "networks of an arm agree less": World((1.5, 1.0), 0.5, 0.06),
    "one arm varies three times as much": World(last=3.0),
    "one arm has seeds of its own": World(shared=0.8, apart=True),
}


def main() -> None:
    """Simulate every cell, and print and write the rates."""
    parser = command_line(
        __doc__,
        studies=(1000, "of each cell; of 10,000 images a half"),
        points=(2.0, "δ, and the true difference where there is one, in points"),
        alpha=0.05,
        images=([100, 287, 1000, 10000], "images that are judged"),
        seeds=([3, 5, 10], "of every arm"),
    )
    arguments = begin(parser)
    record: dict[str, Any] = read_record(arguments.json, {})
    record |= {"studies": arguments.studies, "points": arguments.points, "alpha": arguments.alpha}
    cells = record.setdefault("cells", {})
    print_row("", *RULES)
    for name, world in WORLDS.items():
        whole = name == "as it is"
        for arms in (2, 5) if whole else (5,):
            for images in (each for each in arguments.images if whole or each in _ELSEWHERE):
                for seeds in arguments.seeds:
                    key = f"{name}: {arms} arms, {images} images, {seeds} seeds"
                    if key not in cells:
                        studies = arguments.studies // (2 if images >= 10_000 else 1)
                        delta = arguments.points / 100
                        cells[key] = rates(world, arms, seeds, images, studies, delta, arguments.alpha)
                        write_record(arguments.json, record)
                    tell(key, cells[key])


def rates(
    world: World, arms: int, seeds: int, images: int, studies: int, delta: float, alpha: float
) -> dict[str, Any]:
    """How often each rule is wrong of arms that are alike, and of arms that differ by δ; and how often right."""
    began, draw = time.perf_counter(), np.random.default_rng([arms, seeds, images])
    found: dict[str, Any] = {"studies": studies}
    for truth, gain in ((0.0, 0.0), (delta, world.gain(delta))):
        told = [judged(world.right(draw, arms, seeds, images, gain), delta, alpha) for _ in range(studies)]
        for rule in RULES:
            verdicts = [each[rule] for each in told]
            kept = found.setdefault(rule, {})
            covered = [all(_holds(one.image_interval, truth) for one in each) for each in verdicts]
            if truth == 0:
                kept["called different"] = _share(
                    any(one.answer in ("helps", "hurts") for one in each) for each in verdicts
                )
                kept["no difference"] = _share(one.answer == "no difference" for each in verdicts for one in each)
                kept["covered"] = _share(covered)
            else:
                kept["δ excluded"] = _share(any(_excludes(one) for one in each) for each in verdicts)
                kept["helps"] = _share(one.answer == "helps" for each in verdicts for one in each)
    return found | {"seconds": round(time.perf_counter() - began, 1)}


def judged(right: NDArray[np.bool_], delta: float, alpha: float) -> dict[str, list[Verdict]]:
    """The verdicts of one study on every arm against the first, by each rule.

    Args:
        right: [arms, seeds, images].
    """
    arms = len(right)
    pairs = tuple((arm, 0) for arm in range(1, arms))
    differences = [compare(right[arm], right[0]) for arm, _ in pairs]
    verdicts: dict[str, list[Verdict]] = {}
    for rule in RULES:
        family = Family(rule, pairs, arms)
        pooled = pooled_spread(right.mean(axis=2), blocks=rule == "blocks")
        verdicts[rule] = [
            conclude(each, family, spread_of(each, family, pooled), delta=delta, alpha=alpha)
            for each in differences
        ]
    return verdicts


def tell(name: str, cell: Any) -> None:
    """A line for each rate."""
    print(name)
    for rate in cell["seeds"]:
        print_row(f"  {rate}", *(f"{cell[rule][rate]:.3f}" for rule in RULES))


def _holds(interval: tuple[float, float] | None, value: float) -> bool:
    return interval is not None and interval[0] <= value <= interval[1]


def _excludes(verdict: Verdict) -> bool:
    """Whether it says that the difference is smaller than δ."""
    return verdict.answer == "no difference" or verdict.small


def _share(answers: Any) -> float:
    return float(np.mean([*answers]))


if __name__ == "__main__":
    main()
