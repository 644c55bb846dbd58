"""How often verdicts are wrong in the population, by simulation; at length: `benchmarks/verdict_rates.py`."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import ndtr

from foveate.comparison.pooling import Family, Rule, pooled_spread
from foveate.comparison.statistics import Verdict, compare, conclude, spread_of

STUDIES, ALPHA, DELTA = 150, 0.05, 0.02


def study(generator: np.random.Generator, seeds: int, images: int, gain: float) -> np.ndarray:
    """Who is right of three arms, [arms, seeds, images]: each finds some images difficult that others do not.

    In the population the first is worse than the other two by what `gain` on a probit is worth.
    """
    asked = generator.normal(4, 3, (1, 1, images)) + generator.normal(0, 1.5, (3, 1, images))
    skill = generator.normal(0, 0.1, (3, seeds, 1)) + np.array([0, gain, gain])[:, None, None]
    return generator.random((3, seeds, images)) < ndtr(asked + skill)


def judged(right: np.ndarray, rule: Rule, groups: np.ndarray | None = None) -> list[Verdict]:
    family = Family(rule, ((1, 0), (2, 0)), 3)
    pooled = pooled_spread(right.mean(axis=2), blocks=rule == "blocks")
    differences = [compare(right[arm], right[0], groups) for arm in (1, 2)]
    return [
        conclude(each, family, spread_of(each, family, pooled), delta=DELTA, alpha=ALPHA) for each in differences
    ]


@pytest.mark.parametrize(("seeds", "images"), [(3, 100), (5, 1000), (10, 287)])
def test_arms_that_are_alike_are_called_different_no_more_often_than_alpha(seeds: int, images: int) -> None:
    generator = np.random.default_rng([seeds, images])
    called = dict.fromkeys(("seeds", "pairs", "blocks", "dunnett"), 0)
    for _ in range(STUDIES):
        right = study(generator, seeds, images, 0.0)
        for rule in called:
            called[rule] += any(one.answer in ("helps", "hurts") for one in judged(right, rule))
    most = stats.binom.ppf(0.999, STUDIES, ALPHA)
    assert all(called[rule] <= most for rule in ("pairs", "blocks", "dunnett")), called
    if seeds == 10:  # by the interval over seeds alone, as earlier versions judged
        assert called["seeds"] > 0.3 * STUDIES


def test_a_difference_of_delta_is_excluded_no_more_often_than_alpha() -> None:
    """On images enough for two one-sided tests to have a chance."""
    generator = np.random.default_rng(5)
    width = np.sqrt(1 + 3**2 + 1.5**2 + 0.1**2)
    gain = width * stats.norm.ppf(ndtr(4 / width) + DELTA) - 4
    excluded = dict.fromkeys(("pairs", "blocks", "dunnett"), 0)
    for _ in range(STUDIES):
        right = study(generator, 5, 3000, gain)
        for rule in excluded:
            told = judged(right, rule)
            excluded[rule] += any(one.answer == "no difference" or one.small for one in told)
            assert all(one.answer != "hurts" for one in told)
    assert max(excluded.values()) <= stats.binom.ppf(0.999, STUDIES, ALPHA)


@pytest.mark.parametrize("sizes", [[15] * 40, [*range(1, 41)]], ids=["of one size", "of many sizes"])
def test_of_images_in_groups_that_are_alike_groups_are_counted(sizes: list[int]) -> None:
    """Each arm finds some of 40 groups difficult that the others do not; over all groups they are alike."""
    generator, groups = np.random.default_rng(sizes), np.repeat(np.arange(40), sizes)
    called, by_image = dict.fromkeys(("pairs", "blocks", "dunnett"), 0), 0
    excluded = dict(called)
    for _ in range(STUDIES):
        chance = ndtr(generator.normal(1, 0.5, (3, 1, 40))[:, :, groups])
        right = generator.random((3, 5, len(groups))) < chance
        for rule in called:
            told = judged(right, rule, groups)
            called[rule] += any(one.answer in ("helps", "hurts") for one in told)
            excluded[rule] += any(one.answer == "no difference" for one in told)
        by_image += any(one.answer in ("helps", "hurts") for one in judged(right, "blocks"))
    assert max(called.values()) <= stats.binom.ppf(0.999, STUDIES, ALPHA), called
    assert not any(excluded.values())  # 40 groups are far too few
    assert by_image > 0.3 * STUDIES
