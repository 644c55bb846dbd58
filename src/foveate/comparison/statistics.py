"""From which images each network classifies correctly to a difference, its intervals and a verdict. No I/O."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from foveate.comparison.pooling import Family, Spread, student

Interval = tuple[float, float]
Answer = Literal["no difference", "helps", "hurts", "inconclusive"]

MAX_SEEDS = 10_000
"""Larger numbers of seeds are not looked for."""


@dataclass(frozen=True)
class Difference:
    """By how much one arm is more accurate than another, −1…1, over the same seeds and images."""

    mean: float
    images: int
    per_seed: tuple[float, ...]
    sd: float | None
    """Standard deviation of the seeds' differences; None of one seed. It is half an image at least: of few images
    several seeds may differ alike by chance, and none is known better."""
    image_variance: float
    """Of the mean, by which images there happen to be, or groups of them; 0 of one seed."""
    mcnemar: tuple[float, ...]
    """Exact p of each seed: for these two trained networks on other images, and of no other question."""
    alike: bool = False
    """Whether both are right on the same images in every seed."""
    correlation: float | None = None
    """Pearson's, of the two arms' accuracies over seeds; None of fewer than three, or where one is constant."""
    groups: int | None = None
    """Of how many groups the images are; None: no two are of one group."""

    @property
    def grouped(self) -> bool:
        """Whether groups are counted, and not images; of a single group nothing is known of others."""
        return self.groups is not None and self.groups > 1

    @property
    def independent(self) -> int:
        """How many groups there are where these are counted, else how many images."""
        return self.groups if self.groups is not None and self.grouped else self.images


@dataclass(frozen=True)
class Verdict:
    """What may be said of a difference, by the rule of its `Family`."""

    answer: Answer
    interval: Interval | None
    """Over seeds alone, at 1 − α for all pairs together: for other seeds on these images. None of one seed."""
    image_interval: Interval | None
    """The same, for other seeds and other images: wider."""
    delta: float
    level: float
    """1 − α of the two intervals: of all pairs together; by the rule `seeds`, of each."""
    seeds: int | None
    """How many would decide wherever the difference lies, if they spread as these do, where the answer is
    `inconclusive`; None: with one seed nobody knows, it is more than `MAX_SEEDS`, or there are too few images."""
    equivalence_interval: Interval | None = None
    """Over seeds and images, at 1 − 2α for all pairs together: inside ±δ, both one-sided tests reject a difference
    of δ. None by the rule `seeds`."""
    small: bool = False
    """Whether it helps or hurts, and both one-sided tests say that it is by less than δ."""
    on_these_images: Answer = "inconclusive"
    """What the interval over seeds alone says: it may not hold for other images."""
    images: int | None = None
    """Images, or groups where these are counted, that it takes at least to decide a difference like this one,
    where no number of seeds would on so few."""
    by_seeds: bool = False
    """Whether the rule is `seeds`: the interval over seeds alone has judged."""
    seeds_alike: int | None = None
    """As `seeds`, if the difference is this one too: no more than these, and often far fewer."""

    @property
    def judging(self) -> Interval | None:
        """The interval that says whether it helps or hurts."""
        return self.interval if self.by_seeds else self.image_interval


def compare(
    arm: NDArray[np.bool_], other: NDArray[np.bool_], groups: NDArray[np.int64] | None = None
) -> Difference:
    """The difference in accuracy of `arm` from `other`: [S, N], right or wrong of S seeds on the same N images.

    Seeds and images are crossed random effects: with the mean squares of seeds, images and rest, the variance of
    the mean is MSₛ / SN + max(MSᵢ − MSₑ, 0) / SN, of which the first is the seeds' variance over S. Where images
    come in groups, such as patients, those of one are alike: the random effects are seeds and groups.

    Args:
        groups: [N] number of each image's group; None: every image is one.

    Raises:
        ValueError: when the two are not of one shape [S, N], S ≥ 1, N ≥ 2, or `groups` is not [N].
    """
    if arm.shape != other.shape or arm.ndim != 2 or not arm.shape[0] or arm.shape[1] < 2:
        raise ValueError(f"shapes {arm.shape} and {other.shape}: give both as [seeds, images]")
    if groups is not None and groups.shape != arm.shape[1:]:
        raise ValueError(f"groups {groups.shape}: give one for each of {arm.shape[1]} images")
    differences = arm.astype(np.float64) - other
    per_seed = differences.mean(axis=1)
    several = len(differences) > 1
    places, count = (None, None) if groups is None else _places(groups)
    return Difference(
        mean=float(per_seed.mean()),
        images=differences.shape[1],
        per_seed=tuple(per_seed.tolist()),
        sd=max(float(per_seed.std(ddof=1)), 0.5 / differences.shape[1]) if several else None,
        image_variance=_image_variance(differences, places) if several else 0.0,
        mcnemar=_mcnemar(arm, other),
        alike=not differences.any(),
        correlation=_correlation(arm.mean(axis=1), other.mean(axis=1)),
        groups=count,
    )


def spread_of(difference: Difference, family: Family, pooled: Spread | None) -> Spread | None:
    """The spread by which a family judges a difference, half an image at least; None of one seed.

    Args:
        pooled: what all arms of the family share.
    """
    if difference.sd is None:
        return None
    if not family.pooled:
        return Spread(difference.sd, len(difference.per_seed) - 1)
    return None if pooled is None else Spread(max(pooled.sd, 0.5 / difference.images), pooled.freedom)


@dataclass(frozen=True)
class Widths:
    """Half the widths of the intervals of a pair, at any number of seeds.

    The interval for other images too adds their part in quadrature, with Student's quantile by its own degrees of
    freedom, N − 1 (Zou and Donner 2008), or one less than there are groups: Satterthwaite's one quantile for both
    parts covers 91 to 93 % of three seeds in place of 95. This one covers 95 to 97.6 % of three seeds, 95 to
    96.5 % of five.

    Args:
        sd: of the seeds' differences.
    """

    difference: Difference
    family: Family
    sd: float

    def seeds(self, alpha: float, count: int, freedom: int) -> float:
        """Of the interval over `count` seeds, whose spread has `freedom` degrees of freedom."""
        return self.family.quantile(alpha, freedom) * self.sd / math.sqrt(count)

    def images(self, alpha: float) -> float:
        """The part of the images, which more seeds do not lessen."""
        quantile = student(alpha / self.family.comparisons, self.difference.independent - 1)
        return quantile * math.sqrt(self.difference.image_variance)

    def both(self, alpha: float, count: int, freedom: int) -> float:
        """Of the interval over seeds and images."""
        return math.hypot(self.seeds(alpha, count, freedom), self.images(alpha))


def conclude(
    difference: Difference, family: Family, spread: Spread | None, *, delta: float, alpha: float = 0.05
) -> Verdict:
    """One answer, for new seeds and new images; by the rule `seeds` of earlier versions, for new seeds alone.

    `helps` or `hurts`: the interval over seeds and images, at 1 − α for all pairs of the family together, leaves
    zero out. `no difference` larger than δ: that at 1 − 2α lies inside ±δ, which is two one-sided tests at α
    (Schuirmann 1987). Where both hold the answer is the first, and `small`. Else `inconclusive`.

    By the rule `seeds` the interval over seeds judges alone: inside ±δ no difference, then helps or hurts.

    Args:
        spread: of the pair's differences from seed to seed, by the family's rule; None: it is not known.
        delta: δ, the smallest difference that matters, above 0.
    """
    of_old = family.rule == "seeds"
    level = 1 - alpha / family.comparisons if of_old else 1 - alpha
    if spread is None:
        return Verdict("inconclusive", None, None, delta, level, None)
    count, mean, freedom = len(difference.per_seed), difference.mean, spread.freedom
    widths = Widths(difference, family, spread.sd)
    seeds, both = (width(alpha, count, freedom) for width in (widths.seeds, widths.both))
    if of_old:
        answer, small = _answer(mean, seeds, seeds, delta, inside_first=True)
        on_these, equivalence = answer, None
    else:
        tested = widths.both(2 * alpha, count, freedom)
        answer, small = _answer(mean, both, tested, delta)
        on_these, _ = _answer(mean, seeds, widths.seeds(2 * alpha, count, freedom), delta)
        equivalence = (mean - tested, mean + tested)
    more = alike = images = None
    if answer == "inconclusive":

        def halves(count: int) -> tuple[float, float]:
            """Half the two intervals that judge, over so many seeds."""
            freedom = family.freedom(count)
            if of_old:
                return widths.seeds(alpha, count, freedom), widths.seeds(alpha, count, freedom)
            return widths.both(alpha, count, freedom), widths.both(2 * alpha, count, freedom)

        # Then a difference that is not told from zero lies within ±δ.
        more = first(count + 1, lambda seeds: sum(halves(seeds)) <= delta)
        alike = first(count + 1, lambda seeds: _answer(mean, *halves(seeds), delta)[0] != "inconclusive")
        if alike is None and not of_old:
            images = _images_wanted(widths, alpha, delta)
    return Verdict(
        answer,
        (mean - seeds, mean + seeds),
        (mean - both, mean + both),
        delta,
        level,
        more,
        equivalence,
        small,
        on_these,
        images,
        of_old,
        alike,
    )


def _images_wanted(widths: Widths, alpha: float, delta: float) -> int | None:
    """Images, or groups, from which seeds can decide a difference like this one; None: there are enough."""
    mean = abs(widths.difference.mean)
    times = [widths.images(alpha) / mean] if mean else []
    times += [widths.images(2 * alpha) / (delta - mean)] if mean < delta else []
    return math.ceil(widths.difference.independent * min(times) ** 2) if min(times) >= 1 else None


def first(low: int, enough: Callable[[int], bool]) -> int | None:
    """The first number from `low` on that is enough, as are all after it; None: more than `MAX_SEEDS`."""
    if not enough(MAX_SEEDS):
        return None
    high = MAX_SEEDS
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low


def _answer(
    mean: float, half: float, tested: float, delta: float, *, inside_first: bool = False
) -> tuple[Answer, bool]:
    """By half the interval, and by half of that for two one-sided tests; and whether it is small."""
    inside, apart = abs(mean) + tested < delta, abs(mean) > half
    if inside and (inside_first or not apart):
        return "no difference", False
    if not apart:
        return "inconclusive", False
    return ("helps" if mean > 0 else "hurts"), inside


def _correlation(arm: NDArray[np.float64], other: NDArray[np.float64]) -> float | None:
    if len(arm) < 3 or not np.ptp(arm) or not np.ptp(other):  # of equal numbers the spread may be rounding
        return None
    return float(np.corrcoef(arm, other)[0, 1])


def _places(groups: NDArray[np.int64]) -> tuple[NDArray[np.intp] | None, int | None]:
    """The place of each image's group, from 0 on, where there are several; how many, where any has two images."""
    numbers, places = np.unique(groups, return_inverse=True)
    if len(numbers) == len(groups):
        return None, None
    return (places if len(numbers) > 1 else None), len(numbers)


def _image_variance(differences: NDArray[np.float64], places: NDArray[np.intp] | None) -> float:
    """Of the mean of [S, N], by which images there happen to be, max(MSᵢ − MSₑ, 0) / SN.

    With the place [N] of each image's group, groups stand for images: the deviations are summed in each. A sum is
    weighed by how far the mean moves without its group (the jackknife), which is the same for groups of one size:
    else one that is much larger than the others would pass for known (Cameron and Miller 2015, section VI).
    """
    seeds, images = differences.shape
    units = images
    mean = differences.mean()
    of_seeds, of_images = differences.mean(axis=1) - mean, differences.mean(axis=0) - mean
    rest = differences - mean - of_seeds[:, None] - of_images[None, :]
    if places is not None:
        sizes = np.bincount(places)
        units = len(sizes)
        weights = images * (units - 1) / (units * (images - sizes))
        of_images = weights * np.bincount(places, of_images)
        rest = weights * np.stack([np.bincount(places, of_seed) for of_seed in rest])
    of_image = seeds * (of_images**2).sum() / (units - 1)
    of_rest = (rest**2).sum() / ((seeds - 1) * (units - 1))
    return float(max(of_image - of_rest, 0.0) * (units / images) / (seeds * images))


def _mcnemar(arm: NDArray[np.bool_], other: NDArray[np.bool_]) -> tuple[float, ...]:
    """Exact (binomial) test of McNemar (1947) that of the images on which they differ either is right as often."""
    better, worse = (arm & ~other).sum(axis=1), (~arm & other).sum(axis=1)
    p = np.minimum(1.0, 2 * stats.binom.cdf(np.minimum(better, worse), better + worse, 0.5))
    return tuple(p.tolist())
