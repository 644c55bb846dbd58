"""Plans: the number of seeds against statsmodels, and what it gives by simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from foveate.comparison.planning import Plan, chance_to_exclude, chance_to_see, plan, upper_sd
from foveate.comparison.pooling import Family, Rule, Spread
from foveate.comparison.statistics import Difference, Widths

KNOWN = 10**7
"""Degrees of freedom of a spread that is known: its upper bound is the spread itself."""


def family(rule: Rule = "pairs", arms: int = 2) -> Family:
    return Family(rule, tuple((place, 0) for place in range(1, arms)), arms)


def planned(
    sd: float, delta: float, *, alpha: float = 0.05, freedom: int = KNOWN, image_sd: float = 0.0, arms: int = 2
) -> Plan:
    difference = Difference(0.0, 1_000, (0.0, 0.0), sd, image_sd**2, ())
    return plan(difference, family("blocks", arms), Spread(sd, freedom), delta=delta, alpha=alpha)


@pytest.mark.parametrize(("sd", "delta"), [(1.0, 1.0), (0.004, 0.01), (0.004, 0.002), (3.0, 2.0)])
def test_to_see_a_difference_it_is_the_first_number_with_the_power(sd: float, delta: float) -> None:
    power = pytest.importorskip("statsmodels.stats.power").TTestPower()
    needed = planned(sd, delta).difference
    assert needed is not None
    assert power.power(delta / sd, needed, 0.05) >= 0.8
    assert needed == 2 or power.power(delta / sd, needed - 1, 0.05) < 0.8


@pytest.mark.parametrize("rule", ["pairs", "blocks", "dunnett"])
@pytest.mark.parametrize("image_sd", [0.0, 0.0015])
def test_both_chances_are_what_is_simulated(rule: Rule, image_sd: float) -> None:
    generator, seeds, sd, delta, arms = np.random.default_rng(0), 8, 0.004, 0.005, 4
    judged = family(rule, arms)
    widths = Widths(Difference(0.0, 1_000, (), sd, image_sd**2, ()), judged, sd)
    freedom = judged.freedom(seeds)
    means = generator.normal(0, math.hypot(sd / math.sqrt(seeds), image_sd), 100_000)
    seen = sd * np.sqrt(generator.chisquare(freedom, 100_000) / freedom)
    halves = [
        np.hypot(judged.quantile(alpha, freedom) * seen / math.sqrt(seeds), widths.images(alpha))
        for alpha in (0.05, 0.1)
    ]
    apart = abs(means + delta) > halves[0]
    inside = abs(means) + halves[1] < delta
    assert chance_to_see(widths, seeds, delta, 0.05, image_sd) == pytest.approx(apart.mean(), abs=0.006)
    assert chance_to_exclude(widths, seeds, delta, 0.05, image_sd) == pytest.approx(inside.mean(), abs=0.006)


def test_more_arms_take_more_seeds_at_one_spread() -> None:
    two, ten = planned(0.01, 0.01).difference, planned(0.01, 0.01, arms=10).difference
    assert two is not None
    assert ten is not None
    assert ten > two


def test_bounds() -> None:
    assert planned(1e-9, 0.01) == Plan(2, 2, pytest.approx(1e-9, rel=1e-3))
    assert planned(60.0, 1.0).difference is None


def test_where_images_are_too_few_no_number_of_seeds_is_enough() -> None:
    got = planned(0.001, 0.005, image_sd=0.003)
    assert (got.difference, got.no_difference) == (None, None)


@pytest.mark.parametrize("freedom", [3, 8, 27])
def test_the_true_spread_is_below_the_upper_bound_in_four_pilots_of_five(freedom: int) -> None:
    seen = np.sqrt(np.random.default_rng(0).chisquare(freedom, 20_000) / freedom)
    bound = upper_sd(Spread(1.0, freedom))
    assert np.mean(bound * seen >= 1) == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize(("pilot", "mean_power"), [(4, 0.9), (10, 0.85)])
def test_a_pilot_s_plan_has_the_power_that_it_promises(pilot: int, mean_power: float) -> None:
    """In four plans of five, and in the mean: by the spread that a pilot of four sees it would be .74."""
    generator, delta = np.random.default_rng(1), 0.01
    powers = []
    for seen in 0.01 * np.sqrt(generator.chisquare(pilot - 1, 100) / (pilot - 1)):
        needed = planned(seen, delta, freedom=pilot - 1).difference
        assert needed is not None
        shift, bound = math.sqrt(needed), stats.t.ppf(0.975, needed - 1)
        powers.append(stats.nct.sf(bound, needed - 1, shift))
    assert np.mean(np.array(powers) >= 0.79) == pytest.approx(0.8, abs=0.1)
    assert np.mean(powers) >= mean_power
