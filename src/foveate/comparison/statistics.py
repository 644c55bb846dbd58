"""From who was right on which image, by seed, to a difference with its intervals, and one verdict. No I/O."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

__all__ = [
    "SEEDS_AT_MOST",
    "Answer",
    "Difference",
    "Interval",
    "Verdict",
    "compare",
    "conclude",
    "seeds_needed",
    "t_interval",
]

Interval = tuple[float, float]
Answer = Literal["no difference", "helps", "hurts", "cannot tell"]

SEEDS_AT_MOST = 10_000
"""What is said to be needed where it is more."""
_NO_SPREAD = 0.01
"""Of δ, below which two seeds are enough."""


@dataclass(frozen=True)
class Difference:
    """By how much one arm is more accurate than another, −1…1, over the same seeds and images."""

    mean: float
    images: int
    per_seed: tuple[float, ...]
    sd: float | None
    """Standard deviation of the seeds' differences; None of one seed."""
    interval: Interval | None
    """Student-t, 95 %, over the seeds' differences: for other seeds on these images. None of one seed."""
    image_interval: Interval | None
    """95 %, for other seeds and other images."""
    mcnemar: tuple[float, ...]
    """Exact p of each seed: for these two trained networks on other images, and of no other question."""


@dataclass(frozen=True)
class Verdict:
    """What may be said of a difference, by its simultaneous interval alone."""

    answer: Answer
    interval: Interval | None
    """Student-t over seeds, at 1 − α over the number of comparisons; None of one seed."""
    delta: float
    level: float
    seeds: int | None
    """So many would tell for certain, if the spread stays, where the answer is `cannot tell`."""


def compare(arm: NDArray[np.bool_], other: NDArray[np.bool_]) -> Difference:
    """The difference in accuracy of `arm` from `other`: [S, N], right or wrong of S seeds on the same N images.

    The second interval is that of a two-way layout of random effects, seed and image crossed: with the mean
    squares of seeds, images and rest, Var = MSₛ / SN + max(MSᵢ − MSₑ, 0) / SN. Each part has Student's quantile by
    its own degrees of freedom, S − 1 and N − 1, and the half-widths are added in quadrature (Zou and Donner 2008):
    Satterthwaite's one quantile for both covers 91 to 93 % of three seeds in place of 95.

    Raises:
        ValueError: when the two are not of one shape [S, N], S ≥ 1, N ≥ 2.
    """
    if arm.shape != other.shape or arm.ndim != 2 or not arm.shape[0] or arm.shape[1] < 2:
        raise ValueError(f"shapes {arm.shape} and {other.shape}: give both as [seeds, images]")
    apart = arm.astype(np.float64) - other
    per_seed = apart.mean(axis=1)
    mean, interval, image_interval = float(per_seed.mean()), None, None
    if len(apart) > 1:
        interval = t_interval(per_seed, 0.95)
        image_interval = _crossed_interval(apart, 0.95)
    return Difference(
        mean=mean,
        images=apart.shape[1],
        per_seed=tuple(per_seed.tolist()),
        sd=float(per_seed.std(ddof=1)) if len(apart) > 1 else None,
        interval=interval,
        image_interval=image_interval,
        mcnemar=tuple(_mcnemar(one, two) for one, two in zip(arm, other, strict=True)),
    )


def conclude(difference: Difference, *, delta: float, alpha: float = 0.05, comparisons: int = 1) -> Verdict:
    """One answer, in this order, by the interval at 1 − α / `comparisons` (Bonferroni).

    Inside ±δ: `no difference` larger than δ, whatever its sign. Without zero: `helps` or `hurts`. Else `cannot
    tell`, and about how many seeds would.

    Args:
        delta: δ, the smallest difference that matters, above 0.
    """
    level = 1 - alpha / comparisons
    if difference.sd is None:
        return Verdict("cannot tell", None, delta, level, None)
    count = len(difference.per_seed)
    # Of few images several seeds may differ alike by chance: none is known better than to a part of one image.
    sd = max(difference.sd, 0.5 / difference.images)
    half = float(stats.t.ppf((1 + level) / 2, count - 1)) * sd / math.sqrt(count)
    low, high = difference.mean - half, difference.mean + half
    if -delta < low and high < delta:
        return Verdict("no difference", (low, high), delta, level, None)
    if low > 0 or high < 0:
        return Verdict("helps" if low > 0 else "hurts", (low, high), delta, level, None)
    return Verdict("cannot tell", (low, high), delta, level, _seeds_to_tell(sd, delta, level, more_than=count))


def seeds_needed(sd: float, delta: float, *, level: float = 0.95, power: float = 0.8) -> int:
    """Seeds at which a true difference of `delta` is seen, that is the interval excludes zero, with `power`.

    By the noncentral t distribution (Cohen 1988, section 2.3), for seeds' differences of standard deviation `sd`.
    """
    if sd < _NO_SPREAD * delta:
        return 2
    enough = (seeds for seeds in range(2, SEEDS_AT_MOST) if _power(seeds, sd, delta, level) >= power)
    return next(enough, SEEDS_AT_MOST)


def t_interval(values: NDArray[np.float64], level: float) -> Interval:
    """Student's for the mean of two values or more."""
    half = float(stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    return float(values.mean()) - half, float(values.mean()) + half


def _seeds_to_tell(sd: float, delta: float, level: float, *, more_than: int) -> int:
    """The first number whose interval is δ wide: it lies within ±δ or leaves zero out, wherever it lies."""

    def tells(seeds: int) -> bool:
        return bool(stats.t.ppf((1 + level) / 2, seeds - 1) * sd / math.sqrt(seeds) <= delta / 2)

    return next((seeds for seeds in range(more_than + 1, SEEDS_AT_MOST) if tells(seeds)), SEEDS_AT_MOST)


def _power(seeds: int, sd: float, delta: float, level: float) -> float:
    bound = stats.t.ppf((1 + level) / 2, seeds - 1)
    shift = delta / sd * math.sqrt(seeds)
    return float(stats.nct.sf(bound, seeds - 1, shift) + stats.nct.cdf(-bound, seeds - 1, shift))


def _crossed_interval(apart: NDArray[np.float64], level: float) -> Interval:
    seeds, images = apart.shape
    mean = apart.mean()
    of_seeds, of_images = apart.mean(axis=1) - mean, apart.mean(axis=0) - mean
    rest = apart - mean - of_seeds[:, None] - of_images[None, :]
    of_seed = images * (of_seeds**2).sum() / (seeds - 1)
    of_image = seeds * (of_images**2).sum() / (images - 1)
    of_rest = (rest**2).sum() / ((seeds - 1) * (images - 1))
    halves = [
        stats.t.ppf((1 + level) / 2, degrees) ** 2 * max(square, 0.0) / (seeds * images)
        for degrees, square in ((seeds - 1, of_seed), (images - 1, of_image - of_rest))
    ]
    half = math.sqrt(sum(halves))
    return float(mean - half), float(mean + half)


def _mcnemar(arm: NDArray[Any], other: NDArray[Any]) -> float:
    """Exact (binomial) test of McNemar (1947) that of the images on which they differ either is right as often."""
    better, worse = int((arm & ~other).sum()), int((~arm & other).sum())
    return float(stats.binomtest(better, better + worse).pvalue) if better + worse else 1.0
