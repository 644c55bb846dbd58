"""Logits and labels to a Report: metrics in both families, 95 % intervals, calibration, groups.

Every metric here is a function of sums over images. So each image becomes one row of a sparse matrix of
`statistics`; the estimate is `metrics(sum of rows)`, a resample is `metrics(weighted sum of rows)`,
and a group is some of the rows.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import sparse, special

from foveate.errors import DataError, TrainingError

__all__ = [
    "BINS",
    "AblationResult",
    "ClassScores",
    "ReliabilityBin",
    "Report",
    "Scores",
    "few_images_told",
    "point_metrics",
    "score",
    "score_ablation",
    "uneven_told",
    "wilson_interval",
]

BINS = 15
"""Equal-width bins of confidence, as in Guo et al., "On Calibration of Modern Neural Networks", 2017."""

_FEW_WRONG = ((50, 2), (np.inf, 3))
"""Of at most so many trials, so many failures, or successes, are few to Brown, Cai and DasGupta (2001)."""
_UNEVEN = 10
"""Images of the largest class to those of the smallest from which accuracy says little of small classes."""
_WIDE = 0.05
"""Half the width of an interval of accuracy above which other images may give quite another figure."""
_RESAMPLED_AT_ONCE = 2**22
"""Weights of images held at once while resampling: 32 MiB in float64."""

Interval = list[float]
Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]


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
    has no images and is never predicted is left out, any other 0/0 counts as 0. Thresholded micro metrics
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

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without `groups` where there are none."""
        plain = dataclasses.asdict(self)
        if not plain["groups"]:
            del plain["groups"]
        return plain


def score(
    logits: np.ndarray[Any, Any],
    labels: np.ndarray[Any, Any],
    class_names: Sequence[str],
    groups: Sequence[str] | None = None,
    *,
    clusters: np.ndarray[Any, Any] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Report:
    """Measure logits [N, K] against labels [N], and again for each of `groups` [N] where given.

    Intervals are 95 %: `wilson_interval` for proportions of images (accuracy, precision and recall per class and
    thresholded), else `_bootstrap` of `resamples` samples drawn from `seed`. None claims certainty, however few
    the images are, or however many of them are right: each allows for an image that was not seen.

    Args:
        clusters: [N] number of what each image belongs to, such as a patient, where the images of one are alike.
            Then whole clusters are resampled (Davison and Hinkley 1997, section 3.8), the interval of a proportion
            is the wider of that and Wilson's, and each allows for a cluster that was not seen. Those of single
            classes stay Wilson's.

    Raises:
        DataError: when there are no images.
        TrainingError: when a logit is not finite.
        ValueError: when shapes or labels do not agree with `class_names`.
    """
    classes = len(class_names)
    labels = labels.astype(np.int64)  # products with K overflow narrower integers, silently
    if len(labels) == 0:
        raise DataError("there are no images to evaluate: choose a split or a data set that has some")
    if logits.shape != (len(labels), classes):
        raise ValueError(f"logits {logits.shape} must be [{len(labels)} labels, {classes} class names]")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels must lie in 0…{classes - 1}")
    if groups is not None and len(groups) != len(labels):
        raise ValueError(f"{len(groups)} groups for {len(labels)} labels")
    generator = np.random.default_rng(seed)
    images = _Images.of(logits, labels, generator, clusters)
    sums = _Sums.of(images.measured, classes)
    overall = _scores(images, classes, resamples, generator)
    names, members = np.unique(np.asarray([] if groups is None else groups, dtype=str), return_inverse=True)
    confusion = np.bincount(labels * classes + logits.argmax(axis=1), minlength=classes**2)
    return Report(
        **vars(overall),
        class_names=list(class_names),
        per_class=_per_class(sums, class_names),
        confusion_matrix=confusion.reshape(classes, classes).tolist(),
        reliability=_reliability(sums),
        groups={
            str(name): _scores(images.some(members == index), classes, resamples, generator)
            for index, name in enumerate(names)
        },
    )


def score_ablation(logits: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> AblationResult:
    """Loss and accuracy of logits [N, K] against labels [N]."""
    metrics = point_metrics(logits, labels)
    low, high = wilson_interval((logits.argmax(axis=1) == labels).sum(), len(labels))
    return AblationResult(
        len(labels), metrics["loss"], metrics["accuracy"], {"accuracy": [float(low), float(high)]}
    )


def point_metrics(logits: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> dict[str, float]:
    """The scalar metrics of a `Report` for logits [N, K] and labels [N], without their intervals.

    And `balanced_accuracy`, the mean recall of the classes that have images: `macro_recall`, unless a class has no
    images and is predicted all the same.

    Raises:
        TrainingError: when a logit is not finite.
    """
    sums = _Sums.of(np.asarray(_statistics(logits, labels.astype(np.int64)).sum(axis=0)), logits.shape[1])
    found = {name: float(value) for name, value in _metrics(sums).items()}
    present = sums.true > 0
    return {**found, "balanced_accuracy": float((sums.correct[present] / sums.true[present]).mean())}


def few_images_told(split: str, images: int, interval: Sequence[float]) -> str | None:
    """A line on how little validation images, or those of all folds, tell by their accuracy's interval.

    None where it is narrow, and of other splits.
    """
    half = (interval[1] - interval[0]) / 2
    if split not in ("validation", "out-of-fold") or half <= _WIDE:
        return None
    if split != "validation":
        return (
            f"{images:,} images tell only that the accuracy is between {interval[0]:.1%} and {interval[1]:.1%}: "
            "only more images tell more"
        )
    return (
        f"{images:,} validation images tell only that the accuracy is between {interval[0]:.1%} and "
        f"{interval[1]:.1%}: train with --folds 5, which measures every image by a network that never saw it"
    )


def uneven_told(images: Mapping[str, int], *, balanced: bool = False) -> str | None:
    """A line where the largest class has ten times the images of the smallest, or more; else None.

    Args:
        images: how many there are of each class.
        balanced: whether training counts all classes the same already.
    """
    present = {name: count for name, count in images.items() if count}
    largest, smallest = (pick(present, key=present.__getitem__, default="") for pick in (max, min))
    if len(present) < 2 or present[largest] < _UNEVEN * present[smallest]:
        return None
    line = (
        f"{largest} has {present[largest]:,} of these images, and {smallest} has {present[smallest]:,}: look at "
        "the recall of each class, as accuracy says little of the small ones"
    )
    return line if balanced else f"{line}; --set class_weights=balanced counts all classes the same in training"


def wilson_interval(successes: Any, trials: Any) -> tuple[Floats, Floats]:
    """The 95 % interval of Wilson (1927) for binomial proportions; [0, 1] where there are no trials.

    Where all but 1 to 3 of the trials succeed, or fail, its end at that side is moved outward, as Brown, Cai and
    DasGupta ("Interval Estimation for a Binomial Proportion", 2001, 4.1.1) do: Wilson's own covers a proportion
    near 0 or 1 in as few as 84 % of samples.
    """
    z2 = special.ndtri(0.975) ** 2
    n, k = np.broadcast_arrays(np.asarray(trials, np.float64), np.asarray(successes, np.float64))
    safe = np.maximum(n, 1)
    p = k / safe
    centre = (p + z2 / (2 * safe)) / (1 + z2 / safe)
    margin = np.sqrt(z2 * (p * (1 - p) / safe + z2 / (4 * safe**2))) / (1 + z2 / safe)
    few = np.where(n <= _FEW_WRONG[0][0], _FEW_WRONG[0][1], _FEW_WRONG[1][1])

    def nearest(count: Floats) -> Floats:
        """The end near 0 where `count` is few: over n, half the 5 % point of χ² with 2 · count degrees."""
        return np.where((count >= 1) & (count <= few), special.gammaincinv(np.maximum(count, 1), 0.05) / safe, 1.0)

    low = np.where(k > 0, np.minimum(np.clip(centre - margin, 0, 1), nearest(k)), 0.0)
    high = np.where(k < n, np.maximum(np.clip(centre + margin, 0, 1), 1 - nearest(n - k)), 1.0)
    return low, high


def _statistics(logits: np.ndarray[Any, Any], labels: Ints) -> sparse.csr_array:
    """One sparse row per image, whose sums over images give every metric; columns as `_Sums` splits them."""
    if broken := int((~np.isfinite(logits).all(axis=1)).sum()):
        raise TrainingError(
            f"the model's output is not finite for {broken} of {len(labels)} images: "
            "train again with a lower lr or in fp32"
        )
    images, classes = np.arange(len(labels)), logits.shape[1]
    predicted = logits.argmax(axis=1)
    correct = predicted == labels
    # The top score is exp(0) / sum(exp(logit - top)); no other class can be above 0.5.
    margins = logits.astype(np.float64) - logits.max(axis=1, keepdims=True).astype(np.float64)
    log_norm = special.logsumexp(margins, axis=1)
    confidence = np.exp(-log_norm)
    sure = confidence > 0.5
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    columns_and_values = [
        (np.zeros_like(predicted), log_norm - margins[images, labels]),
        (np.full_like(predicted, 1), sure & correct),
        (np.full_like(predicted, 2), sure),
        (3 + labels, correct),
        (3 + classes + predicted, np.ones_like(correct)),
        (3 + 2 * classes + labels, np.ones_like(correct)),
        (3 + 3 * classes + bins, np.ones_like(correct)),
        (3 + 3 * classes + BINS + bins, confidence),
        (3 + 3 * classes + 2 * BINS + bins, correct),
    ]
    columns = np.concatenate([column for column, _ in columns_and_values])
    values = np.concatenate([np.asarray(value, dtype=np.float64) for _, value in columns_and_values])
    rows = np.tile(images, len(columns_and_values))
    return sparse.csr_array((values, (rows, columns)), shape=(len(labels), 3 + 3 * classes + 3 * BINS))


@dataclasses.dataclass(frozen=True)
class _Images:
    """Rows of statistics, one an image: as it was measured, and had it had the label that the model predicts, or
    another one.
    """

    measured: sparse.csr_array
    right: sparse.csr_array
    wrong: sparse.csr_array
    clusters: Ints | None
    """[N] the place of each image's cluster, from 0 on; None: every image is one."""

    @classmethod
    def of(
        cls,
        logits: np.ndarray[Any, Any],
        labels: Ints,
        generator: np.random.Generator,
        clusters: np.ndarray[Any, Any] | None,
    ) -> "_Images":
        predicted, classes = logits.argmax(axis=1), logits.shape[1]
        other = (predicted + 1 + generator.integers(max(1, classes - 1), size=len(labels))) % classes
        measured, right, wrong = (_statistics(logits, each) for each in (labels, predicted, other))
        places = None if clusters is None else np.unique(clusters, return_inverse=True)[1].astype(np.int64)
        return cls(measured, right, wrong, places)

    def some(self, rows: Any) -> "_Images":
        """Those of them alone."""
        clusters = None if self.clusters is None else np.unique(self.clusters[rows], return_inverse=True)[1]
        return _Images(self.measured[rows], self.right[rows], self.wrong[rows], clusters)

    @property
    def independent(self) -> int:
        """How many clusters there are, or images where every one is a cluster."""
        return int(self.measured.shape[0] if self.clusters is None else self.clusters.max() + 1)


@dataclasses.dataclass(frozen=True)
class _Sums:
    """Columns of summed statistics [..., M] by name; the leading axes, if any, are resamples."""

    loss: Floats  # [...]
    sure_correct: Floats  # [...] images whose own class scores above 0.5
    sure: Floats  # [...] images with a class above 0.5
    correct: Floats  # [..., K]
    predicted: Floats  # [..., K]
    true: Floats  # [..., K]
    bin_count: Floats  # [..., BINS]
    bin_confidence: Floats  # [..., BINS]
    bin_correct: Floats  # [..., BINS]

    @classmethod
    def of(cls, rows: Any, classes: int) -> "_Sums":
        """Name the columns of `rows` [R, M], or of their sum where they are sparse rows of images."""
        sums = np.asarray(rows.sum(axis=0)) if sparse.issparse(rows) else rows
        scalars, *rest = np.split(sums, np.cumsum([3, classes, classes, classes, BINS, BINS]), axis=-1)
        return cls(scalars[..., 0], scalars[..., 1], scalars[..., 2], *rest)


def _divide(numerator: Floats, denominator: Floats) -> Floats:
    """The ratio, 0 for 0/0: no numerator here is positive where its denominator is 0."""
    return numerator / np.where(denominator > 0, denominator, 1)


def _metrics(sums: _Sums) -> dict[str, Floats]:
    """Scalar metrics [...] from summed statistics, by name."""
    n = sums.true.sum(-1)
    present = (sums.true + sums.predicted) > 0

    def macro(numerator: Floats, denominator: Floats) -> Floats:
        return np.asarray(_divide(numerator, denominator).sum(-1) / present.sum(-1))

    return {
        "loss": sums.loss / n,
        "accuracy": sums.correct.sum(-1) / n,
        "macro_precision": macro(sums.correct, sums.predicted),
        "macro_recall": macro(sums.correct, sums.true),
        "macro_f1": macro(2 * sums.correct, sums.predicted + sums.true),
        "thresholded_micro_precision": _divide(sums.sure_correct, sums.sure),
        "thresholded_micro_recall": sums.sure_correct / n,
        "thresholded_micro_f1": 2 * sums.sure_correct / (sums.sure + n),
        "expected_calibration_error": np.abs(sums.bin_confidence - sums.bin_correct).sum(-1) / n,
    }


def _scores(images: _Images, classes: int, resamples: int, generator: np.random.Generator) -> Scores:
    n = images.measured.shape[0]
    sums = _Sums.of(images.measured, classes)
    values = {name: float(value) for name, value in _metrics(sums).items()}
    intervals = _bootstrap(images, values, classes, resamples, generator)
    for name, successes, trials in (
        ("accuracy", sums.correct.sum(), n),
        ("thresholded_micro_precision", sums.sure_correct, sums.sure),
        ("thresholded_micro_recall", sums.sure_correct, n),
    ):
        low, high = (float(end) for end in wilson_interval(successes, trials))
        wider = [low, high] if images.clusters is None else intervals[name]
        intervals[name] = [min(low, wider[0]), max(high, wider[1])]
    return Scores(n=n, **values, intervals=intervals)


def _bootstrap(
    images: _Images,
    estimates: Mapping[str, float],
    classes: int,
    resamples: int,
    generator: np.random.Generator,
) -> dict[str, Interval]:
    """95 % intervals of all metrics by a bootstrap that does not collapse, whatever the images are.

    The Bayesian bootstrap (Rubin 1981) weighs every image by a draw from an exponential distribution. One image
    that was not seen is weighed with them: one of those that were, once with the label that the model predicts and
    once with another. The interval reaches from the lowest to the highest of the percentiles of both, and includes
    the estimate. Of a proportion these are the ends of Clopper and Pearson (1934): of n images that are all right
    the lower end is .025^(1/n).

    The calibration error is a mean of absolute values, which noise can only raise, in the estimate as in the
    resamples. So its interval reaches down to where the estimate is less by what the resamples add to it.
    """
    weighed = _resample(images, resamples, generator)
    unseen = generator.integers(images.measured.shape[0], size=resamples)
    size = images.measured.shape[0] / images.independent  # of the cluster that was not seen
    weight = size * generator.standard_exponential((resamples, 1))
    ends: dict[str, list[float]] = {name: [value, value] for name, value in estimates.items()}
    for rows, right in ((images.right, 1.0), (images.wrong, 0.0)):
        one_more = rows[unseen].toarray()
        one_more[:, 1:3] = right, 1.0  # sure of it: where no image that was seen was, one may be
        sums = weighed + weight * one_more
        for name, values in _metrics(_Sums.of(sums, classes)).items():
            ends[name] += np.quantile(values, [0.025, 0.975]).tolist()
    # A mistake in a class of few images weighs much in a mean over classes: one more of each may be right.
    present = np.asarray((images.measured.sum(axis=0) > 0).reshape(-1)[3 + 2 * classes : 3 + 3 * classes])
    each_right = generator.standard_exponential((resamples, classes)) * present
    weighed[:, 3 : 3 + 3 * classes] += np.tile(each_right, 3)
    for name, values in _metrics(_Sums.of(weighed, classes)).items():
        if name.startswith("macro"):
            ends[name].append(float(np.quantile(values, 0.975)))
    error = ends["expected_calibration_error"]
    error.append(max(0.0, 2 * error[0] - max(error)))
    # Sums of shares may be above 1 by a last bit.
    largest = {name: np.inf if name == "loss" else 1.0 for name in ends}
    return {name: [min(each), min(max(each), largest[name])] for name, each in ends.items()}


def _resample(images: _Images, resamples: int, generator: np.random.Generator) -> Floats:
    """Sums [R, M] over N images weighed by `resamples` draws each, all of a cluster alike, in bounded memory."""
    n = images.measured.shape[0]
    transposed = images.measured.T.tocsr()
    at_once = max(1, _RESAMPLED_AT_ONCE // n)
    sums = []
    for start in range(0, resamples, at_once):
        weights = generator.standard_exponential((images.independent, min(at_once, resamples - start)))
        if images.clusters is not None:
            weights = weights[images.clusters]
        sums.append((transposed @ weights).T)
    return np.concatenate(sums)


def _per_class(sums: _Sums, class_names: Sequence[str]) -> dict[str, ClassScores]:
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


def _reliability(sums: _Sums) -> list[ReliabilityBin]:
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
