"""How many seeds a comparison takes, by the spread that a pilot has seen."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import ndtr

from foveate.comparison.pooling import Family, Spread
from foveate.comparison.statistics import Difference, Widths, first

POWER = 0.8
"""Share of comparisons that are to come to an answer."""
ASSURANCE = 0.8
"""Share of pilots whose plan keeps that promise: they see a spread of which the upper bound is no smaller than the
true one. By the spread itself a pilot of four seeds plans for .8 and gives .74 in the mean."""

_GRID = (np.arange(400) + 0.5) / 400


@dataclass(frozen=True)
class Plan:
    """Seeds of every arm; None: more than `MAX_SEEDS`, or there are too few images for any number."""

    difference: int | None
    """At which a true difference of δ is told from none."""
    no_difference: int | None
    """At which arms that do not differ are said to differ by less than δ."""
    sd: float
    """Upper bound of the spread of a seed's difference, for which this holds."""


def plan(difference: Difference, family: Family, spread: Spread, *, delta: float, alpha: float) -> Plan:
    """The seeds that a comparison like this one takes, to be right with `POWER` at a spread of its upper bound.

    What the images add to the intervals stays as the pilot has seen it, as they are the same.
    """
    sd = upper_sd(spread)
    widths = Widths(difference, family, sd)
    image_sd = math.sqrt(difference.image_variance)
    return Plan(
        first(2, lambda seeds: chance_to_see(widths, seeds, delta, alpha, image_sd) >= POWER),
        first(2, lambda seeds: chance_to_exclude(widths, seeds, delta, alpha, image_sd) >= POWER),
        sd,
    )


def upper_sd(spread: Spread) -> float:
    """A standard deviation that the true one does not exceed, with the certainty of `ASSURANCE`."""
    return spread.sd * math.sqrt(spread.freedom / stats.chi2.ppf(1 - ASSURANCE, spread.freedom))


def chance_to_see(widths: Widths, seeds: int, delta: float, alpha: float, image_sd: float) -> float:
    """That a true difference of δ is told from none."""
    half, error = _halves(widths, seeds, alpha, image_sd)
    return float((ndtr((delta - half) / error) + ndtr((-delta - half) / error)).mean())


def chance_to_exclude(widths: Widths, seeds: int, delta: float, alpha: float, image_sd: float) -> float:
    """That two one-sided tests say of arms that do not differ that they differ by less than δ."""
    half, error = _halves(widths, seeds, 2 * alpha, image_sd)
    return float(np.maximum(2 * ndtr((delta - half) / error) - 1, 0).mean())


def _halves(widths: Widths, seeds: int, alpha: float, image_sd: float) -> tuple[NDArray[np.float64], float]:
    """Half the interval over seeds and images, as often as its spread is seen; and the mean's standard error."""
    freedom = widths.family.freedom(seeds)
    seen = np.sqrt(stats.chi2.ppf(_GRID, freedom) / freedom)
    half = np.hypot(widths.seeds(alpha, seeds, freedom) * seen, widths.images(alpha))
    return half, math.hypot(widths.sd / math.sqrt(seeds), image_sd)
