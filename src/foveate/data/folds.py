"""Folds: the images of a data set parted so that each is held out once, and the file that keeps which is where."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foveate.data.dataset import Dataset
from foveate.data.splits import UNDECLARED, group_numbers, read_codes, write_codes
from foveate.errors import CheckpointError, DataError

__all__ = ["FOLDS_FILE", "MOST_FOLDS", "OUT_OF_FOLD", "StoredFolds", "draw_folds"]

FOLDS_FILE = "folds.npy"
MOST_FOLDS = 100
OUT_OF_FOLD = "out-of-fold"
"""Stands in the place of a split for all images of the folds, each predicted by a network that never saw it."""


def draw_folds(labels: NDArray[np.int64], groups: Sequence[str] | None, count: int, seed: int) -> NDArray[np.int8]:
    """The fold [N] of each image: every class is spread evenly, and images of one group share a fold.

    Without groups the images of a class in two folds differ by one at most.

    Args:
        labels: [N] class of each image.
        groups: [N] name of each image's group; an empty one is none.
        count: 2 to `MOST_FOLDS`.
        seed: of the draw.

    Raises:
        DataError: when a class has fewer images, or groups, than there are folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold  # slow to import

    numbers = np.arange(len(labels)) if groups is None else group_numbers(groups)
    for label in np.unique(labels):
        of_class = len(np.unique(numbers[labels == label]))
        if of_class < count:
            what = "images" if groups is None else "groups"
            raise DataError(
                f"folds={count}: the smallest class has {of_class} {what}, and each fold must hold some out: give "
                f"{of_class} folds or fewer, or add {what}"
                if of_class > 1
                else f"folds={count}: a class has a single {what[:-1]}, so none is left to train on: add {what}"
            )
    make = StratifiedKFold if len(np.unique(numbers)) == len(labels) else StratifiedGroupKFold
    folds = np.full(len(labels), UNDECLARED, np.int8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a class has few images was looked at above
        parts = make(count, shuffle=True, random_state=seed % 2**32).split(labels, labels, numbers)
        for fold, (_, held_out) in enumerate(parts):
            folds[held_out] = fold
    for fold in range(count):
        rest = folds != fold
        if rest.all() or len(np.unique(labels[rest])) < len(np.unique(labels)):
            raise DataError(
                f"folds={count}: the groups cannot be parted so that every fold leaves each class some images to "
                "train on: give fewer folds, or add groups"
            )
    return folds


@dataclass(frozen=True)
class StoredFolds:
    """The folds of a data set in a file: a byte for each image, its fold counted from 0, or `UNDECLARED`.

    A fold that was trained without some images must be measured on these very images.
    """

    path: Path
    count: int
    sha256: str
    """Of the file."""

    @classmethod
    def write(cls, folder: Path, dataset: Dataset, folds: NDArray[np.int8], count: int) -> "StoredFolds":
        """Keep the fold of each image of the training split of `dataset`, which `folds` [n] has in its order."""
        codes = np.full(len(dataset.labels), UNDECLARED, np.int8)
        codes[dataset.splits["train"]] = folds
        return cls(folder / FOLDS_FILE, count, write_codes(folder / FOLDS_FILE, codes))

    def held_out(self, dataset: Dataset) -> list[NDArray[np.int64]]:
        """Of each fold the sorted indices of its images, which are the training images of `dataset`.

        Raises:
            CheckpointError: when the file is missing, changed, or of other images.
        """
        codes = read_codes(self.path, self.sha256, len(dataset.labels), most=self.count - 1)
        if not np.array_equal(np.flatnonzero(codes != UNDECLARED), dataset.splits["train"]):
            raise CheckpointError(f"{self.path} does not fit the splits of the run: restore it from a copy")
        return [np.flatnonzero(codes == fold) for fold in range(self.count)]
