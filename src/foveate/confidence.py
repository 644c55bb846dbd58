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

__all__ = [
    "MAX_SCORES",
    "Confidence",
    "Unlike",
    "conformal_scores",
    "energy",
    "fit_confidence",
    "fit_temperature",
]

MAX_SCORES = 10_000
"""Calibration scores that are kept: of more, a seeded sample. With so many, the coverage of a draw varies by .2
points (standard deviation, at 95 %)."""
UNLIKE_SHARE = 0.01
"""Of validation images that are called unlike."""
FEWEST_FOR_UNLIKE = 100
"""Validation images below which the hundredth part of them is nothing that could be measured."""
_TEMPERATURES = (0.05, 20.0)
"""Between which one is looked for: of images that are all right it would be 0."""

Floats = NDArray[np.float64]


class Unlike(Record):
    """Above which energy an image is unlike those that the network was trained on."""

    threshold: Annotated[float, Field(strict=True)]
    images: Count
    """Validation images that it was fitted on."""


class Confidence(Record):
    """What was fitted on validation images.

    A field is None where it was not fitted: there were too few images, or none were held out.
    """

    temperature: Annotated[float, Field(ge=1e-6, le=1e6, strict=True)] | None = None
    """By which logits are divided, so that confidence is deserved."""
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
        the likeliest class, before which there is none, is always in it.

        Args:
            probabilities: [N, K], calibrated.
            coverage: above 0 and below 1.

        Raises:
            ValueError: where no scores were kept, or `coverage` is no share.
        """
        if not self.scores:
            raise ValueError("no images were held out to fit prediction sets on")
        if not 0 < coverage < 1:
            raise ValueError(f"coverage={coverage:g} must be above 0 and below 1")
        before, order = _sums_before(probabilities)
        needed = int(np.ceil((len(self.scores) + 1) * coverage - 1e-9))
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
    logits: NDArray[Any], labels: NDArray[np.integer[Any]], *, seed: int, grouped: bool = False
) -> Confidence:
    """Fit all that confidence needs on logits [N, K] and labels [N] of validation images.

    The temperature is fitted on one half of them, drawn by `seed`, and the scores of prediction sets are those of
    the other half: the sets' coverage is promised only for images that nothing was fitted on.
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    one, other = shuffled[: len(labels) // 2], shuffled[len(labels) // 2 :][:MAX_SCORES]
    if not len(one):
        return Confidence(grouped=grouped)
    temperature = fit_temperature(logits[one], labels[one])
    scaled = Confidence(temperature=temperature).probabilities(logits[other])
    scores = np.sort(conformal_scores(scaled, labels[other])).tolist()
    unlike = None
    if len(labels) >= FEWEST_FOR_UNLIKE:
        threshold = float(np.quantile(energy(logits), 1 - UNLIKE_SHARE, method="higher"))
        unlike = Unlike(threshold=threshold, images=len(labels))
    return Confidence(temperature=temperature, scores=tuple(scores), unlike=unlike, grouped=grouped)


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
