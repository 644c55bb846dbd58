"""How sure a network may be: temperature, conformal sets, and a threshold for images unlike those trained on.

All three are fitted on validation images, after training, and change no prediction. NumPy alone: a model that runs
without torch has them as well.
"""

from itertools import pairwise
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from foveate.records import Count, Record

MAX_SCORES = 10_000
"""Calibration scores that are kept: of more, a seeded sample. With 10,000 the coverage of a draw varies by .2
points (standard deviation, at 95 %)."""
UNLIKE_SHARE = 0.01
"""The share of validation images that are called unlike."""
FEWEST_IMAGES = 100
"""Held-out images below which nothing is fitted.

The temperature is fitted on half of them. For a network that is calibrated already and right on 91 % of two
classes, 200 simulated fits raised the cross-entropy on other images from .22 to .32 with 25 images, .28 with 36
and .23 with 50 (`tests/test_confidence.py` has the simulation): fewer do more harm than good. The other half, 50
scores, suffices for sets of 98 %. And the hundredth part, which the threshold of `unlike` leaves out, is one image
of 100.
"""
_MISSING = "probabilities are not calibrated, there are no prediction sets, and no image is called unlike"
_TEMPERATURES = (0.05, 20.0)
"""Between which one is looked for: of images that are all right it would be 0."""

Floats = NDArray[np.float64]


class Unlike(Record):
    """The energy above which an image is unlike those that the network was trained on."""

    threshold: Annotated[float, Field(strict=True)]
    images: Count
    """Validation images that it was fitted on."""


class Confidence(Record):
    """What was fitted on validation images.

    A field is None where it was not fitted: there were too few images, or none were held out.
    """

    temperature: Annotated[float, Field(ge=1e-6, le=1e6, strict=True)] | None = None
    """Logits are divided by it, so that confidence agrees with accuracy."""
    images: Count | None = None
    """Held-out images that there were to fit on; None: none, or a file of an earlier version."""
    scores: Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(max_length=MAX_SCORES)] | None = None
    """Conformal scores of validation images that the temperature was not fitted on, ascending."""
    unlike: Unlike | None = None
    grouped: bool = False
    """Whether images came in groups, such as patients: those of one are alike, and the coverage may be lower."""

    @field_validator("scores")
    @classmethod
    def _ascending(cls, scores: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if scores is not None and any(after < before for before, after in pairwise(scores)):
            raise ValueError("must be ascending")
        return scores

    @property
    def told(self) -> str | None:
        """A line on what this model cannot say of its confidence; None where all of it was fitted."""
        if self.unlike is not None:
            return None
        if self.temperature is None:
            if self.images is None:
                return f"no image was held out to fit confidence on: {_MISSING}"
            return too_few_told(self.images) or f"confidence was not fitted: {_MISSING}"
        if self.scores is None:
            return "this model is of an earlier version: it has no prediction sets and calls no image unlike"
        return (
            f"confidence was fitted on about {2 * len(self.scores) - 1} images: probabilities and prediction sets "
            f"mean little, and no image is called unlike; {FEWEST_IMAGES} images would do"
        )

    def coverage_told(self, coverage: float) -> str | None:
        """A line where every set of this coverage holds all classes, for want of scores; None elsewhere."""
        fitted = len(self.scores or ())
        if not fitted or self._place(coverage) <= fitted:
            return None
        needed = int(np.ceil(coverage / (1 - coverage) - 1e-9))
        return (
            f"coverage {coverage:g}: every set holds all classes, as sets were fitted on {fitted:,} images only; "
            f"it takes {needed:,}, and twice as many validation images"
        )

    def _place(self, coverage: float) -> int:
        """Rank (from 1) of the ascending score that is the quantile; beyond the last where there are too few."""
        return int(np.ceil((len(self.scores or ()) + 1) * coverage - 1e-9))

    def probabilities(self, logits: NDArray[Any]) -> Floats:
        """Calibrated probabilities [N, K] of logits [N, K]; those of softmax where there is no temperature."""
        scaled = logits.astype(np.float64) / (self.temperature or 1.0)
        values: Floats = np.exp(scaled - _log_sum_exp(scaled)[:, None])
        return values

    def sets(self, probabilities: Floats, coverage: float) -> NDArray[np.bool_]:
        """Which classes are in each image's prediction set, [N, K], by split conformal prediction.

        On average over draws of the calibration images, the set holds the true class of at least a share
        `coverage` of images that are like the validation images (Angelopoulos and Bates 2021, "A Gentle
        Introduction to Conformal Prediction", section 1). The sets are adaptive, as in section 2.1 there, and not
        random: classes join from the likeliest on, while those before them sum up to no more than a quantile. So
        the likeliest class is always in it.

        Args:
            probabilities: [N, K], calibrated.
            coverage: above 0 and below 1.

        Raises:
            ValueError: where no scores were kept, or `coverage` is not between 0 and 1.
        """
        if not self.scores:
            raise ValueError("no images were held out to fit prediction sets on")
        if not 0 < coverage < 1:
            raise ValueError(f"coverage={coverage:g} must be above 0 and below 1")
        before, order = _sums_before(probabilities)
        needed = self._place(coverage)
        # With too few scores no quantile is high enough: then only all classes are sure to hold the true one.
        limit = self.scores[needed - 1] if needed <= len(self.scores) else np.inf
        chosen = np.zeros(probabilities.shape, np.bool_)
        np.put_along_axis(chosen, order, before <= limit, axis=1)
        return chosen

    def is_unlike(self, logits: NDArray[Any]) -> NDArray[np.bool_] | None:
        """Whether each image is unlike what the network was trained on, [N]; None where there is no threshold."""
        return None if self.unlike is None else energy(logits) > self.unlike.threshold


def energy(logits: NDArray[Any]) -> Floats:
    """How little each image resembles those trained on, [N]: minus the logarithm of the sum of exp(logits).

    Liu et al. 2020, "Energy-based Out-of-distribution Detection", equation 4, at temperature 1.
    """
    return -_log_sum_exp(logits.astype(np.float64))


def conformal_scores(probabilities: Floats, labels: NDArray[np.integer[Any]]) -> Floats:
    """For each image the sum of the probabilities of all classes that are likelier than its true one, [N].

    The probability of the true class itself is left out: with it, an image that is right and sure would have a
    score near 1, and raise the quantile by which other images get large sets.
    """
    before, order = _sums_before(probabilities)
    place = (order == labels[:, None]).argmax(axis=1)
    scores: Floats = before[np.arange(len(labels)), place]
    return scores


def fit_confidence(
    logits: NDArray[Any],
    labels: NDArray[np.integer[Any]],
    *,
    seed: int,
    grouped: bool = False,
    least_temperature: float = 0.0,
) -> Confidence:
    """Fit all that confidence needs on logits [N, K] and labels [N] of validation images.

    The temperature is fitted on one half of them, drawn by `seed`, and the scores of prediction sets are those of
    the other half: the sets' coverage is promised only for images that nothing was fitted on. Of fewer images than
    `FEWEST_IMAGES` nothing is fitted.

    Args:
        least_temperature: a lower one is not taken.
    """
    if len(labels) < FEWEST_IMAGES:
        return Confidence(images=len(labels), grouped=grouped)
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    one, other = shuffled[: len(labels) // 2], shuffled[len(labels) // 2 :][:MAX_SCORES]
    temperature = max(least_temperature, fit_temperature(logits[one], labels[one]))
    scaled = Confidence(temperature=temperature).probabilities(logits[other])
    scores = np.sort(conformal_scores(scaled, labels[other])).tolist()
    threshold = float(np.quantile(energy(logits), 1 - UNLIKE_SHARE, method="higher"))
    return Confidence(
        temperature=temperature,
        images=len(labels),
        scores=tuple(scores),
        unlike=Unlike(threshold=threshold, images=len(labels)),
        grouped=grouped,
    )


def too_few_told(images: int) -> str | None:
    """A line that says that there are too few images to fit confidence on; None where there are enough."""
    if images >= FEWEST_IMAGES:
        return None
    few = "1 held-out image is" if images == 1 else f"{images} held-out images are"
    return f"{few} too few to fit confidence on: {_MISSING}; {FEWEST_IMAGES} images would do"


def fit_temperature(logits: NDArray[Any], labels: NDArray[np.integer[Any]]) -> float:
    """The T above 0 for which logits [N, K] / T have the least cross-entropy with labels [N].

    Temperature scaling (Guo et al. 2017, section 4.2): one number that changes no prediction, only how sure it is.
    The image that costs least with a label that nobody knows, spread over all classes, is counted once more with
    that label: where no image is wrong the least would be at T = 0 else (as Platt 1999, section 2.2, does of two
    classes). Not a part of every image: with large logits that weighs as much as many real errors, and of 100
    images from a calibrated network that is right on 94 % T would be 2.4, with a cross-entropy of .185 on others;
    so it is 1.7 and .150.
    """
    from scipy import optimize  # slow to import, and not needed to predict

    images = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        total = _log_sum_exp(scaled)
        unknown = (total - scaled.mean(axis=1)).min()
        return float((total - scaled[images, labels]).sum() + unknown) / (len(labels) + 1)

    found = optimize.minimize_scalar(loss, bounds=np.log(_TEMPERATURES), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def _log_sum_exp(values: Floats) -> Floats:
    """Log Σ exp of each row of [N, K], [N]; scipy's is the same, and takes longer to import than to predict."""
    top = values.max(axis=1)
    total: Floats = top + np.log(np.exp(values - top[:, None]).sum(axis=1))
    return total


def _sums_before(probabilities: Floats) -> tuple[Floats, NDArray[np.intp]]:
    """The classes from the likeliest on, and the sum of the probabilities before each, both [N, K]."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    sums = np.zeros_like(probabilities)
    np.cumsum(np.take_along_axis(probabilities, order, axis=1)[:, :-1], axis=1, out=sums[:, 1:])
    return np.minimum(sums, 1.0), order
