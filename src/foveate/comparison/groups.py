"""Which images of a comparison are of one group: kept in its folder, as its verdicts count groups."""

import io
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from foveate.comparison.training import JudgedSplit
from foveate.data.dataset import Dataset
from foveate.data.splits import group_numbers, write_codes
from foveate.errors import CheckpointError
from foveate.files import read_regular, reading_from


def keep_groups(folder: Path, dataset: Dataset) -> None:
    """Keep the group of each image that a comparison may be judged on, where they have groups.

    What was kept before stays: a comparison is judged by the groups that its data had when it began, and one that
    an earlier version began by those that it has when it goes on.

    Raises:
        OutputError: when a file cannot be written.
    """
    if dataset.groups is None:
        return
    numbers = group_numbers(dataset.groups)
    for split in get_args(JudgedSplit):
        if split in dataset.splits and not (path := _path(folder, split)).exists():
            write_codes(path, numbers[dataset.splits[split]])


def kept_groups(folder: Path, split: JudgedSplit, images: int) -> NDArray[np.int64] | None:
    """The number of each image's group, [images], in the order of the results; None where none are kept.

    Raises:
        CheckpointError: when the file is damaged, or of another number of images.
    """
    path, fix = _path(folder, split), "remove it and resume the comparison, and it is written again"
    if not path.exists():
        return None
    try:
        with reading_from(path, fix):
            found = np.load(io.BytesIO(read_regular(path, 8 * images + 1024)), allow_pickle=False)
    except (ValueError, EOFError, MemoryError) as error:
        raise CheckpointError(f"{path} is damaged: {fix}") from error
    if not isinstance(found, np.ndarray) or found.shape != (images,) or found.dtype != np.int64:
        raise CheckpointError(f"{path} does not fit results on {images:,} images: {fix}")
    return found


def _path(folder: Path, split: JudgedSplit) -> Path:
    return folder / f"groups-{split}.npy"
