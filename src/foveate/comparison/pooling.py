"""Several pairs judged together: the spread that they share, and the quantile that holds for all of them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import brentq

Rule = Literal["blocks", "dunnett", "pairs", "seeds"]
"""How pairs are judged together, fixed before the runs.

`blocks`: one spread for all arms, after the mean effect of each seed is removed (a randomised block design): it
supposes that every two arms have as much in common; `dunnett`: one spread for all arms, as in Dunnett (1955), as
if seeds gave arms nothing in common; `pairs`: each pair has its own spread, and Bonferroni's share of α; `seeds`:
the same by the interval over seeds alone, which earlier versions judged by.
"""

_DRAWS = 200_000
_STEPS = 2_000
"""Quantiles that stand for the draws: with them a critical value costs milliseconds, and changes by 0.01 %."""


@dataclass(frozen=True)
class Spread:
    """How much the difference of a pair varies from seed to seed."""

    sd: float
    """Standard deviation of a seed's difference."""
    freedom: int
    """Degrees of freedom by which it is known."""


@dataclass(frozen=True)
class Family:
    """Pairs of arms that are judged together.

    Args:
        rule: how.
        pairs: of places of arms.
        arms: that have runs.
        sets: numbers of training images, for each of which there are these pairs: α is shared among them.
    """

    rule: Rule
    pairs: tuple[tuple[int, int], ...]
    arms: int
    sets: int = 1

    @property
    def comparisons(self) -> int:
        """Pairs with every number of training images."""
        return len(self.pairs) * self.sets

    @property
    def pooled(self) -> bool:
        """Whether all arms share one spread."""
        return self.rule in ("blocks", "dunnett")

    def freedom(self, seeds: int) -> int:
        """Degrees of freedom of the spread, where every arm has this many `seeds`."""
        return {"blocks": self.arms - 1, "dunnett": self.arms}.get(self.rule, 1) * (seeds - 1)

    def quantile(self, alpha: float, freedom: int) -> float:
        """How many standard errors from the truth a difference may lie, so that with 1 − α none of all does."""
        if not self.pooled or len(self.pairs) == 1:
            return student(alpha / self.comparisons, freedom)
        return _largest_t(self.pairs, alpha / self.sets, freedom)


@cache
def student(alpha: float, freedom: int) -> float:
    """Student's two-sided quantile."""
    return float(stats.t.isf(alpha / 2, freedom))


def pooled_spread(accuracies: NDArray[np.float64], *, blocks: bool) -> Spread | None:
    """The spread of the difference of any two arms, by the runs of all.

    The standard deviation of what is left of the accuracies beyond each arm's level, and with `blocks` beyond each
    seed's, times √2.

    Args:
        accuracies: [arms, seeds]; NaN where a run has failed.

    Returns:
        None where nothing is left to know it by.
    """
    arm, seed = np.nonzero(~np.isnan(accuracies))
    columns: Iterable[NDArray[np.bool_]] = [arm == each for each in np.unique(arm)]
    if blocks:
        columns = [*columns, *(seed == each for each in np.unique(seed))]
    values = accuracies[arm, seed]
    design = np.stack([*columns], axis=1).astype(np.float64) if len(values) else np.zeros((0, 0))
    weights, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
    if (freedom := len(values) - int(rank)) < 1:
        return None
    left = values - design @ weights
    return Spread(math.sqrt(2 * float(left @ left) / freedom), freedom)


@cache
def _largest_t(pairs: tuple[tuple[int, int], ...], alpha: float, freedom: int) -> float:
    """The 1 − α quantile of the largest |t| of differences of arms that share their spread.

    SciPy's `multivariate_t` is no help: where differences depend on each other, as those with controls do, its
    distribution function is wrong (4.48 in place of 3.84 for four pairs of four arms, of four degrees of freedom).
    """
    largest = _largest_z(pairs)
    return float(
        brentq(lambda bound: stats.chi2.sf(freedom * (largest / bound) ** 2, freedom).mean() - 1 + alpha, 0.1, 1e9)
    )


@cache
def _largest_z(pairs: tuple[tuple[int, int], ...]) -> NDArray[np.float64]:
    """Quantiles of the largest |z| of differences of arms that have no spread but a known one, of fixed draws."""
    generator = np.random.default_rng(0)
    arms = sorted({place for pair in pairs for place in pair})
    columns = np.array([[arms.index(place) for place in pair] for pair in pairs])
    at_once = max(1, 2_000_000 // max(len(arms), len(pairs)))
    found = []
    for begin in range(0, _DRAWS, at_once):
        drawn = generator.standard_normal((min(at_once, _DRAWS - begin), len(arms)))
        found.append(np.abs(drawn[:, columns[:, 0]] - drawn[:, columns[:, 1]]).max(axis=1) / math.sqrt(2))
    quantiles: NDArray[np.float64] = np.quantile(np.concatenate(found), (np.arange(_STEPS) + 0.5) / _STEPS)
    return quantiles
