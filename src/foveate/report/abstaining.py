"""What a network's confidence is worth: accuracy where it may abstain, and how often prediction sets are right."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foveate.bootstrap import Interval
from foveate.confidence import Confidence
from foveate.data.folds import OUT_OF_FOLD
from foveate.metrics import wilson_ends, wilson_interval

Floats = NDArray[np.float64]

SHARES = (1.0, 0.95, 0.9, 0.8, 0.5)
"""Shares of the images that are answered, the most confident first."""
THRESHOLDS = np.arange(101) / 100
"""Lowest probabilities that are answered, at which every class is measured."""
COVERAGES = (0.8, 0.9, 0.95, 0.99)
_POINTS = 300
_DIGITS = range(3, 7)
"""Digits that a threshold may have; it has no more than needed."""
_ROUNDING = 1e-7
"""By how much the probability of an image may differ from the one that was recorded in 32 bits."""


@dataclass(frozen=True)
class Answered:
    """The surest share of the images, and the accuracy on them."""

    share: float
    images: int
    threshold: float
    """The `--min-probability` that answers these: a number of few digits between the lowest probability among them
    and the next lower one."""
    accuracy: float
    interval: Interval


@dataclass(frozen=True)
class ClassCurves:
    """A class where only predictions of at least some probability are given, at each of `THRESHOLDS`."""

    name: str
    precision: Floats
    """Among the predictions of this class that are given; NaN where none is."""
    recall: Floats
    """Among the images of the class; NaN where there are none."""


@dataclass(frozen=True)
class SetsMeasured:
    """Prediction sets of one coverage, on images that nothing was fitted on."""

    asked: float
    held: float
    interval: Interval
    size: float
    """Classes in a set, on average."""
    lowest: tuple[str, float, Interval]
    """The class whose sets contain it least often."""


@dataclass(frozen=True)
class Abstaining:
    """All of it, on one split."""

    split: str
    calibrated: bool
    missing: str | None
    """What the model cannot say of its confidence, in words."""
    answered: list[Answered]
    classes: list[ClassCurves]
    sets: list[SetsMeasured]
    """Empty where the split is the one that they were fitted on, or none were fitted."""
    grouped: bool
    curve: tuple[Floats, Floats, Floats]
    """Shares of the images [P], the accuracy on them [P], and both ends of its interval [2, P]."""


def abstaining(
    probabilities: NDArray[np.float32],
    labels: NDArray[np.int64],
    class_names: Sequence[str],
    confidence: Confidence,
    *,
    split: str,
) -> Abstaining:
    """Measure what confidence is worth on the images of a split.

    Args:
        probabilities: [N, K], as softmax gives them.
        labels: [N].
    """
    # The logarithm of a probability is its logit, but for a number that is the same for all classes of an image.
    scaled = confidence.probabilities(np.log(np.maximum(probabilities.astype(np.float64), 1e-45)))
    top, predicted = scaled.max(axis=1), scaled.argmax(axis=1)
    order = np.argsort(-top, kind="stable")
    top, counts = top[order], np.arange(1, len(labels) + 1)
    hits = (predicted == labels)[order].cumsum()
    accuracy, (low, high) = hits / counts, wilson_interval(hits, counts)
    answered = []
    for share in SHARES:
        last = max(1, round(share * len(labels))) - 1
        ends = [float(low[last]), float(high[last])]
        answered.append(Answered(share, last + 1, _threshold(top, last), float(accuracy[last]), ends))
    some = np.unique(np.linspace(len(labels) // 50, len(labels) - 1, _POINTS).astype(int))  # the first say nothing
    coverages = () if split in ("validation", OUT_OF_FOLD) or not confidence.scores else COVERAGES
    return Abstaining(
        split=split,
        calibrated=confidence.temperature is not None,
        missing=confidence.told,
        answered=answered,
        classes=[
            _class_curves(name, scaled[predicted == index, index], scaled[labels == index], index)
            for index, name in enumerate(class_names)
        ],
        sets=[_measured_sets(each, scaled, labels, class_names, confidence) for each in coverages],
        grouped=confidence.grouped,
        curve=(counts[some] / len(labels), accuracy[some], np.stack([low[some], high[some]])),
    )


def _threshold(top: Floats, last: int) -> float:
    """The lowest probability to answer, so that the images down to `last` are, of probabilities in falling order.

    It is rounded down: where the next image is as sure but for the last digits, that is answered as well.
    """
    following = top[last + 1] if last + 1 < len(top) else -np.inf
    found = 0.0
    for digits in _DIGITS:
        found = max(0, math.floor((top[last] - _ROUNDING) * 10**digits)) / 10**digits
        if found > following:
            break
    return found


def _class_curves(name: str, given: Floats, of_class: Floats, index: int) -> ClassCurves:
    """From the probabilities [P] with which the class is predicted, and all of its own images [C, K]."""
    right = of_class[of_class.argmax(axis=1) == index, index]
    kept, hits = (len(each) - np.searchsorted(np.sort(each), THRESHOLDS) for each in (given, right))
    with np.errstate(invalid="ignore"):
        return ClassCurves(name, hits / kept, hits / np.float64(len(of_class)))


def _measured_sets(
    coverage: float,
    probabilities: Floats,
    labels: NDArray[np.int64],
    class_names: Sequence[str],
    confidence: Confidence,
) -> SetsMeasured:
    chosen = confidence.sets(probabilities, coverage)
    holds = chosen[np.arange(len(labels)), labels]

    def share(of: NDArray[np.bool_]) -> tuple[float, Interval]:
        return float(of.mean()), wilson_ends(of.sum(), len(of))

    by_class = {name: holds[labels == index] for index, name in enumerate(class_names) if (labels == index).any()}
    lowest = min(by_class, key=lambda name: by_class[name].mean())
    return SetsMeasured(
        coverage, *share(holds), float(chosen.sum(axis=1).mean()), (lowest, *share(by_class[lowest]))
    )
