"""95 % intervals of all metrics, by a bootstrap that does not collapse on few images; NumPy alone."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import sparse

from foveate.metrics import Floats, Ints, Sums, balanced_accuracy, metrics, statistics

_RESAMPLED_AT_ONCE = 2**22
"""Weights of images held at once while resampling: 32 MiB in float64."""
Interval = list[float]


@dataclasses.dataclass(frozen=True)
class Images:
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
    ) -> "Images":
        """Of logits [N, K] and labels [N]; the other label is drawn."""
        predicted, classes = logits.argmax(axis=1), logits.shape[1]
        other = (predicted + 1 + generator.integers(max(1, classes - 1), size=len(labels))) % classes
        measured, right, wrong = (statistics(logits, each) for each in (labels, predicted, other))
        places = None if clusters is None else np.unique(clusters, return_inverse=True)[1].astype(np.int64)
        return cls(measured, right, wrong, places)

    def some(self, rows: Any) -> "Images":
        """A part of them; where it is of one cluster, its images are counted: of others it tells nothing."""
        clusters = None if self.clusters is None else np.unique(self.clusters[rows], return_inverse=True)[1]
        clusters = clusters if clusters is not None and clusters.any() else None
        return Images(self.measured[rows], self.right[rows], self.wrong[rows], clusters)

    @property
    def independent(self) -> int:
        """How many clusters there are, or images where every one is a cluster."""
        return int(self.measured.shape[0] if self.clusters is None else self.clusters.max() + 1)


def bootstrap(
    images: Images, estimates: Mapping[str, float], classes: int, resamples: int, generator: np.random.Generator
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
    own, seen = Sums.of(images.measured[unseen].toarray(), classes).true, Sums.of(weighed, classes)
    for rows, right in ((images.right, 1.0), (images.wrong, 0.0)):
        one_more = rows[unseen].toarray()
        one_more[:, 1:3] = right, 1.0  # sure of it: where no image that was seen was, one may be
        sums = weighed + weight * one_more
        found = metrics(Sums.of(sums, classes))
        # Where it is of a class that has no images here it tells nothing of the others: so it is of its own class.
        found["balanced_accuracy"] = balanced_accuracy(
            seen.correct + right * weight * own, seen.true + weight * own
        )
        for name, values in found.items():
            ends[name] += np.quantile(values, [0.025, 0.975]).tolist()
    # A mistake in a class of few images weighs much in a mean over classes: one more of each may be right.
    present = np.asarray((images.measured.sum(axis=0) > 0).reshape(-1)[3 + 2 * classes : 3 + 3 * classes])
    each_right = generator.standard_exponential((resamples, classes)) * present
    weighed[:, 3 : 3 + 3 * classes] += np.tile(each_right, 3)
    for name, values in metrics(Sums.of(weighed, classes)).items():
        if name.startswith(("macro", "balanced")):
            ends[name].append(float(np.quantile(values, 0.975)))
    error = ends["expected_calibration_error"]
    error.append(max(0.0, 2 * error[0] - max(error)))
    # Sums of shares may be above 1 by a last bit.
    largest = {name: np.inf if name == "loss" else 1.0 for name in ends}
    return {name: [min(each), min(max(each), largest[name])] for name, each in ends.items()}


def _resample(images: Images, resamples: int, generator: np.random.Generator) -> Floats:
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
