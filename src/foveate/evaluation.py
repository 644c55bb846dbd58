"""Logits and labels to a Report: metrics in both families, 95 % intervals, calibration, groups; NumPy alone."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from foveate.bootstrap import Images, Interval, bootstrap
from foveate.errors import DataError
from foveate.metrics import BINS, Sums, metrics, point_metrics, wilson_ends, wilson_interval

MOST_GROUPS = 100
"""Groups that are measured and kept: each takes milliseconds and a kilobyte, and every image may have its own."""


@dataclasses.dataclass(frozen=True)
class ClassScores:
    """One class. What is 0/0 is None: precision of a class never predicted, recall of one without images."""

    precision: float | None
    recall: float | None
    f1: float | None
    support: int
    intervals: dict[str, Interval | None]


@dataclasses.dataclass(frozen=True)
class ReliabilityBin:
    """Images whose confidence lies in (low, high]: mean confidence and accuracy, None where none are."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclasses.dataclass(frozen=True)
class Scores:
    """Metrics of `n` images, each with its 95 % interval `[low, high]` in `intervals`.

    Macro metrics average classes over the argmax, as scikit-learn does with `zero_division=0`: a class that
    has no images and is never predicted is left out, any other 0/0 counts as 0. The balanced accuracy is the mean
    recall of the classes that have images, whatever is predicted. Thresholded micro metrics
    are those of Keras' `Precision()` and `Recall()` on one-hot labels: every class score above 0.5 is a
    positive, pooled over classes; 0/0 is 0 there too. `loss` is the mean cross-entropy in nats.
    """

    n: int
    loss: float
    accuracy: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    thresholded_micro_precision: float
    thresholded_micro_recall: float
    thresholded_micro_f1: float
    expected_calibration_error: float
    intervals: dict[str, Interval]
    balanced_accuracy: float | None = dataclasses.field(default=None, kw_only=True)
    """None of an earlier version, which did not measure it."""


@dataclasses.dataclass(frozen=True)
class AblationResult:
    """The same images, measured another way."""

    n: int
    loss: float
    accuracy: float
    intervals: dict[str, Interval]
    """Wilson's, of the accuracy."""


@dataclasses.dataclass(frozen=True)
class Report(Scores):
    """Scores of a split, with what lies behind them; `confusion_matrix` has true classes as rows."""

    class_names: list[str]
    per_class: dict[str, ClassScores]
    confusion_matrix: list[list[int]]
    reliability: list[ReliabilityBin]
    groups: dict[str, Scores]
    """Those of the lowest accuracy, at most `MOST_GROUPS`."""
    group_count: int
    """How many groups there are."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without groups where there are none."""
        plain = dataclasses.asdict(self)
        if not plain["groups"]:
            del plain["groups"], plain["group_count"]
        return plain


def score(
    logits: ArrayLike,
    labels: ArrayLike,
    class_names: Sequence[str],
    groups: Sequence[str] | None = None,
    *,
    clusters: np.ndarray[Any, Any] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Report:
    """Measure logits [N, K] against labels [N], and again for those of `groups` [N] with the lowest accuracy.

    An image whose group is empty has none.

    Intervals are 95 %: `wilson_interval` for proportions of images (accuracy, precision and recall per class and
    thresholded), else `bootstrap` of `resamples` samples drawn from `seed`. None claims certainty, however few
    the images are, or however many of them are right: each allows for an image that was not seen.

    Args:
        clusters: [N] number of what each image belongs to, such as a patient, where the images of one are alike.
            Then whole clusters are resampled (Davison and Hinkley 1997, section 3.8), the interval of a proportion
            is the wider of that and Wilson's, and each allows for a cluster that was not seen. Those of single
            classes stay Wilson's, and those of a group that is one cluster count its images.

    Raises:
        DataError: when there are no images.
        TrainingError: when a logit is not finite.
        ValueError: when shapes or labels do not agree with `class_names`, or `resamples` is below one.
    """
    classes = len(class_names)
    if resamples < 1:
        raise ValueError(f"resamples={resamples}: give 1 or more")
    logits = np.asarray(logits)
    labels = np.asarray(labels).astype(np.int64)  # products with K overflow narrower integers, silently
    if len(labels) == 0:
        raise DataError("there are no images to evaluate: choose a split or a data set that has some")
    if logits.shape != (len(labels), classes):
        raise ValueError(f"logits {logits.shape} must be [{len(labels)} labels, {classes} class names]")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels must lie in 0…{classes - 1}")
    if groups is not None and len(groups) != len(labels):
        raise ValueError(f"{len(groups)} groups for {len(labels)} labels")
    generator = np.random.default_rng(seed)
    images = Images.of(logits, labels, generator, clusters)
    sums = Sums.of(images.measured, classes)
    overall = _scores(images, classes, resamples, generator)
    predicted = logits.argmax(axis=1)
    confusion = np.bincount(labels * classes + predicted, minlength=classes**2)
    members, count = ({}, 0) if groups is None else _members(groups, predicted == labels)
    return Report(
        **vars(overall),
        class_names=list(class_names),
        per_class=_per_class(sums, class_names),
        confusion_matrix=confusion.reshape(classes, classes).tolist(),
        reliability=_reliability(sums),
        groups={name: _scores(images.some(rows), classes, resamples, generator) for name, rows in members.items()},
        group_count=count,
    )


def score_ablation(logits: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> AblationResult:
    """Loss and accuracy of logits [N, K] against labels [N]."""
    found = point_metrics(logits, labels)
    ends = wilson_ends((logits.argmax(axis=1) == labels).sum(), len(labels))
    return AblationResult(len(labels), found["loss"], found["accuracy"], {"accuracy": ends})


def _members(groups: Sequence[str], right: np.ndarray[Any, Any]) -> tuple[dict[str, Any], int]:
    """Which images are of each group, of those that are listed, by name; and how many groups there are."""
    names, places, sizes = np.unique(np.asarray(groups, dtype=str), return_inverse=True, return_counts=True)
    named = np.flatnonzero(names != "")
    accuracy = (np.bincount(places, right) / sizes)[named]
    listed = np.sort(named[np.argsort(accuracy, kind="stable")[:MOST_GROUPS]])
    return {str(names[index]): places == index for index in listed}, len(named)


def _scores(images: Images, classes: int, resamples: int, generator: np.random.Generator) -> Scores:
    n = images.measured.shape[0]
    sums = Sums.of(images.measured, classes)
    values = {name: float(value) for name, value in metrics(sums).items()}
    intervals = bootstrap(images, values, classes, resamples, generator)
    for name, successes, trials in (
        ("accuracy", sums.correct.sum(), n),
        ("thresholded_micro_precision", sums.sure_correct, sums.sure),
        ("thresholded_micro_recall", sums.sure_correct, n),
    ):
        low, high = wilson_ends(successes, trials)
        wider = [low, high] if images.clusters is None else intervals[name]
        intervals[name] = [min(low, wider[0]), max(high, wider[1])]
    return Scores(n=n, **values, intervals=intervals)


def _per_class(sums: Sums, class_names: Sequence[str]) -> dict[str, ClassScores]:
    trials = {"precision": sums.predicted, "recall": sums.true}
    bounds = {
        ratio: np.stack(wilson_interval(sums.correct, counts), axis=-1).tolist()
        for ratio, counts in trials.items()
    }

    def defined(numerator: float, denominator: float) -> float | None:
        return float(numerator / denominator) if denominator else None

    return {
        name: ClassScores(
            precision=defined(sums.correct[k], sums.predicted[k]),
            recall=defined(sums.correct[k], sums.true[k]),
            f1=defined(2 * sums.correct[k], sums.predicted[k] + sums.true[k]),
            support=int(sums.true[k]),
            intervals={ratio: bounds[ratio][k] if counts[k] else None for ratio, counts in trials.items()},
        )
        for k, name in enumerate(class_names)
    }


def _reliability(sums: Sums) -> list[ReliabilityBin]:
    return [
        ReliabilityBin(
            low=index / BINS,
            high=(index + 1) / BINS,
            count=int(count),
            confidence=float(confidence / count) if count else None,
            accuracy=float(correct / count) if count else None,
        )
        for index, (count, confidence, correct) in enumerate(
            zip(sums.bin_count, sums.bin_confidence, sums.bin_correct, strict=True)
        )
    ]
