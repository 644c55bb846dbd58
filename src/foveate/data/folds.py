"""Folds: the images of a data set parted so that each is held out once, and the file that keeps which is where."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from foveate.data.copies import exact_groups
from foveate.data.dataset import Dataset
from foveate.data.splits import UNDECLARED, group_numbers, read_codes, write_codes
from foveate.errors import CheckpointError, DataError

FOLDS_FILE = "folds.npy"
MOST_FOLDS = 100
USUAL_FOLDS = 5
OUT_OF_FOLD = "out-of-fold"
"""Stands in the place of a split for all images of the folds, each predicted by a network trained without it."""


def fold_units(joined: Dataset) -> NDArray[np.int64]:
    """The number [n] of the unit of each training image of `joined`; the images of a unit share a fold.

    Images of one group are a unit, and so are images with the same pixels: a network that was trained on the copy
    of an image has seen it. Where these overlap, all that hang together are one. Any other image is one by itself.
    """
    train = joined.splits["train"]
    count = len(train)
    tied = [np.searchsorted(train, copies) for copies in exact_groups(joined.images, train)]
    ends = [np.arange(0), *(places[1:] for places in tied)]
    firsts = [np.arange(0), *(np.full(len(places) - 1, places[0]) for places in tied)]
    if joined.groups is not None:
        numbers = group_numbers([joined.groups[index] for index in train])
        _, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
        ends.append(np.arange(count))
        firsts.append(first[inverse])
    one, other = np.concatenate(ends), np.concatenate(firsts)
    graph = coo_array((np.ones(len(one), bool), (one, other)), shape=(count, count))
    units: NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(np.int64)
    return units


def check_units(joined: Dataset, units: NDArray[np.int64], count: int) -> None:
    """Refuse more folds than a class of `joined` has units, as `fold_units` gives them.

    Raises:
        DataError: naming the class, how many of its images are in the folds, and how many are in the test split.
    """
    labels, test = joined.labels[joined.splits["train"]], joined.labels[joined.splits.get("test", [])]
    present = np.unique(labels)
    of_classes = [len(np.unique(units[labels == label])) for label in present]
    fewest, label = min(of_classes), present[int(np.argmin(of_classes))]
    if fewest >= count:
        return
    images, tested = int((labels == label).sum()), int((test == label).sum())
    what = "images" if fewest == images else "groups" if joined.groups is not None else "different images"
    one, added = what[:-1], "groups" if what == "groups" else "images"
    has = f"the class {joined.class_names[label]} has {fewest} {one if fewest == 1 else what}"
    has += " in train and validation"
    has += f" ({tested} more {'image is' if tested == 1 else 'images are'} in the test split)" if tested else ""
    if fewest == 1:
        raise DataError(f"folds={count}: {has}; a fold that holds it out has none to train on: add {added}")
    most = "--folds 2" if fewest == 2 else f"--folds {fewest} or fewer"
    raise DataError(f"folds={count}: {has}, and each fold holds out one or more: give {most}, or add {added}")


def draw_folds(labels: NDArray[np.int64], units: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int8]:
    """The fold [N] of each image: every class is spread evenly, and images of one unit share a fold.

    Where every image is a unit by itself, the images of a class in two folds differ by one at most.

    Args:
        labels: [N] class of each image.
        units: [N] number of each image's unit; every class has `count` or more, as `check_units` makes sure.
        count: 2 to `MOST_FOLDS`.
        seed: of the draw.

    Raises:
        DataError: when a fold would leave a class no image to train on.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold  # slow to import

    make = StratifiedKFold if len(np.unique(units)) == len(labels) else StratifiedGroupKFold
    folds = np.full(len(labels), UNDECLARED, np.int8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a class has few images was looked at before
        parts = make(count, shuffle=True, random_state=seed % 2**32).split(labels, labels, units)
        for fold, (_, held_out) in enumerate(parts):
            folds[held_out] = fold
    for fold in range(count):
        rest = folds != fold
        if rest.all() or len(np.unique(labels[rest])) < len(np.unique(labels)):
            fewer = "give fewer folds, or " if count > 2 else ""
            raise DataError(
                f"folds={count}: images of one group, and copies of one image, share a fold. So the images cannot "
                f"be parted in such a way that every fold leaves each class some to train on: {fewer}add images"
            )
    return folds


def most_folds(joined: Dataset, seed: int) -> int:
    """How many folds of the training images of `joined` can be drawn, up to the usual number; 0: none."""
    train, units = joined.splits["train"], fold_units(joined)
    for count in range(USUAL_FOLDS, 1, -1):
        try:
            check_units(joined, units, count)
            draw_folds(joined.labels[train], units, count, seed)
        except DataError:
            continue
        return count
    return 0


def hold_out(joined: Dataset, count: int, seed: int) -> dict[str, NDArray[np.int64]] | None:
    """The training images of `joined` in `train` and `validation`, which has one in `count`; units stay together.

    None where the images of a class cannot be parted so.
    """
    train, units = joined.splits["train"], fold_units(joined)
    try:
        check_units(joined, units, count)
        folds = draw_folds(joined.labels[train], units, count, seed)
    except DataError:
        return None
    return {"train": train[folds != 0], "validation": train[folds == 0]}


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
