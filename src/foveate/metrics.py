"""Metrics as functions of sums over images, and the interval of a proportion; NumPy alone.

Each image becomes one row of a sparse matrix of `statistics`. The estimate is `metrics(sum of rows)`, a group
is some of the rows, and a resample (`bootstrap`) is `metrics(weighted sum of rows)`.
"""

import dataclasses
from typing import Any

import numpy as np
from scipy import sparse, special

from foveate.errors import TrainingError

BINS = 15
"""Equal-width bins of confidence, as in Guo et al., "On Calibration of Modern Neural Networks", 2017."""
_FEW_WRONG = ((50, 2), (np.inf, 3))
"""(n, k): of at most n trials, k failures or successes are few to Brown, Cai and DasGupta (2001)."""
Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]


def point_metrics(logits: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> dict[str, float]:
    """The scalar metrics of a `Report` for logits [N, K] and labels [N], without their intervals.

    Raises:
        TrainingError: when a logit is not finite.
    """
    sums = Sums.of(np.asarray(statistics(logits, labels.astype(np.int64)).sum(axis=0)), logits.shape[1])
    return {name: float(value) for name, value in metrics(sums).items()}


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


def wilson_ends(successes: Any, trials: Any) -> list[float]:
    """`wilson_interval` of a single proportion, in plain numbers."""
    return [float(end) for end in wilson_interval(successes, trials)]


def statistics(logits: np.ndarray[Any, Any], labels: Ints) -> sparse.csr_array:
    """One sparse row per image, whose sums over images give every metric; columns as `Sums` splits them."""
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
class Sums:
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
    def of(cls, rows: Any, classes: int) -> "Sums":
        """Name the columns of `rows` [R, M], or of their sum where they are sparse rows of images."""
        sums = np.asarray(rows.sum(axis=0)) if sparse.issparse(rows) else rows
        scalars, *rest = np.split(sums, np.cumsum([3, classes, classes, classes, BINS, BINS]), axis=-1)
        return cls(scalars[..., 0], scalars[..., 1], scalars[..., 2], *rest)


def _divide(numerator: Floats, denominator: Floats) -> Floats:
    """The ratio, 0 for 0/0: no numerator here is positive where its denominator is 0."""
    return numerator / np.where(denominator > 0, denominator, 1)


def balanced_accuracy(correct: Floats, true: Floats) -> Floats:
    """Mean recall [...] of the classes that have images, of which [..., K] are `true`, and of these `correct`."""
    return np.asarray(_divide(correct, true).sum(-1) / (true > 0).sum(-1))


def metrics(sums: Sums) -> dict[str, Floats]:
    """Scalar metrics [...] from summed statistics, by name."""
    n = sums.true.sum(-1)
    present = (sums.true + sums.predicted) > 0

    def macro(numerator: Floats, denominator: Floats) -> Floats:
        return np.asarray(_divide(numerator, denominator).sum(-1) / present.sum(-1))

    return {
        "loss": sums.loss / n,
        "accuracy": sums.correct.sum(-1) / n,
        "balanced_accuracy": balanced_accuracy(sums.correct, sums.true),
        "macro_precision": macro(sums.correct, sums.predicted),
        "macro_recall": macro(sums.correct, sums.true),
        "macro_f1": macro(2 * sums.correct, sums.predicted + sums.true),
        "thresholded_micro_precision": _divide(sums.sure_correct, sums.sure),
        "thresholded_micro_recall": sums.sure_correct / n,
        "thresholded_micro_f1": 2 * sums.sure_correct / (sums.sure + n),
        "expected_calibration_error": np.abs(sums.bin_confidence - sums.bin_correct).sum(-1) / n,
    }
