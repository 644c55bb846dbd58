"""What a network's confidence is worth: how often it is right where it may abstain, and what its sets hold."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from foveate.confidence import Confidence
from foveate.evaluation import Interval, wilson_interval
from foveate.report.plots import BLUE, LINE, MUTED, new_axes, styled

__all__ = ["Abstaining", "Answered", "ClassThreshold", "SetsMeasured", "abstaining", "risk_coverage"]

SHARES = (1.0, 0.95, 0.9, 0.8, 0.5)
"""Of the images, the surest, that are answered."""
THRESHOLDS = (0.5, 0.7, 0.9, 0.95, 0.99)
_POINTS = 300
COVERAGES = (0.8, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Answered:
    """The surest share of the images, and the accuracy on them."""

    share: float
    images: int
    threshold: float
    """The lowest probability among them: `--min-probability` that answers these."""
    accuracy: float
    interval: Interval


@dataclass(frozen=True)
class ClassThreshold:
    """A class where only labels of at least some probability are given."""

    name: str
    precision: tuple[float | None, ...]
    """Of the labels that are given, one for each of `THRESHOLDS`; None where none is given."""
    recall: tuple[float | None, ...]
    """Of the images of the class; None where there are none."""


@dataclass(frozen=True)
class SetsMeasured:
    """Prediction sets of one asked coverage, on images that nothing was fitted on."""

    asked: float
    held: float
    interval: Interval
    size: float
    """Classes in a set, on average."""
    lowest: tuple[str, float, Interval]
    """The class whose sets hold it least often."""


@dataclass(frozen=True)
class Abstaining:
    """The section of a report."""

    split: str
    calibrated: bool
    answered: list[Answered]
    thresholds: tuple[float, ...]
    classes: list[ClassThreshold]
    sets: list[SetsMeasured]
    """Empty where the split is the one that they were fitted on, or none were fitted."""
    grouped: bool
    curve: tuple[NDArray[np.float64], ...]
    """Shares of the images, the accuracy on them, and both ends of its interval."""


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
    sets = [] if split == "validation" or not confidence.scores else COVERAGES
    return Abstaining(
        split=split,
        calibrated=confidence.temperature is not None,
        answered=_answered(scaled, labels),
        thresholds=THRESHOLDS,
        classes=[_class(name, index, scaled, labels) for index, name in enumerate(class_names)],
        sets=[_measured(each, scaled, labels, class_names, confidence) for each in sets],
        grouped=confidence.grouped,
        curve=_curve((scaled.argmax(axis=1) == labels)[np.argsort(-scaled.max(axis=1), kind="stable")]),
    )


def _answered(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> list[Answered]:
    top, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    order = np.argsort(-top, kind="stable")
    rows = []
    for share in SHARES:
        count = max(1, round(share * len(labels)))
        chosen = order[:count]
        low, high = wilson_interval(right[chosen].sum(), count)
        rows.append(
            Answered(
                share=share,
                images=count,
                threshold=float(top[chosen[-1]]),
                accuracy=float(right[chosen].mean()),
                interval=[float(low), float(high)],
            )
        )
    return rows


def _class(name: str, index: int, probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> ClassThreshold:
    given, of_class = probabilities.argmax(axis=1) == index, labels == index
    precision: list[float | None] = []
    recall: list[float | None] = []
    for threshold in THRESHOLDS:
        kept = given & (probabilities[:, index] >= threshold)
        right = float((kept & of_class).sum())
        precision.append(right / float(kept.sum()) if kept.any() else None)
        recall.append(right / float(of_class.sum()) if of_class.any() else None)
    return ClassThreshold(name, tuple(precision), tuple(recall))


def _measured(
    coverage: float,
    probabilities: NDArray[np.float64],
    labels: NDArray[np.int64],
    class_names: Sequence[str],
    confidence: Confidence,
) -> SetsMeasured:
    chosen = confidence.sets(probabilities, coverage)
    holds = chosen[np.arange(len(labels)), labels]
    low, high = wilson_interval(holds.sum(), len(labels))
    by_class = [
        (float(holds[labels == index].mean()), index)
        for index in range(len(class_names))
        if (labels == index).any()
    ]
    worst, index = min(by_class)
    of_worst = wilson_interval(holds[labels == index].sum(), (labels == index).sum())
    return SetsMeasured(
        asked=coverage,
        held=float(holds.mean()),
        interval=[float(low), float(high)],
        size=float(chosen.sum(axis=1).mean()),
        lowest=(class_names[index], worst, [float(end) for end in of_worst]),
    )


def risk_coverage(measured: Abstaining) -> Figure:
    """Accuracy on the surest share of the images, over that share (Geifman and El-Yaniv 2017, figure 1)."""
    shares, accuracy, low, high = measured.curve
    with styled():
        figure, axes = new_axes(3.3)
        axes.fill_between(shares, low, high, color=LINE, linewidth=0)
        axes.plot(shares, accuracy, color=BLUE)
        axes.axhline(accuracy[-1], color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
        axes.set(xlabel="Share of the images that is answered, the surest", ylabel="Accuracy on it", xlim=(0, 1))
    return figure


def _curve(right: NDArray[np.bool_]) -> tuple[NDArray[np.float64], ...]:
    """Shares of the images, the accuracy on them, and the ends of its interval, of answers from the surest on."""
    counts, hits = np.arange(1, len(right) + 1), right.cumsum()
    some = np.unique(np.linspace(len(right) // 50, len(right) - 1, _POINTS).astype(int))  # the first say nothing
    low, high = wilson_interval(hits[some], counts[some])
    return counts[some] / len(right), hits[some] / counts[some], low, high
