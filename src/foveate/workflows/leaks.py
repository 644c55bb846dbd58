"""Whether images that are measured on were trained on: told before a figure is believed."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from foveate.counts import plural
from foveate.data.copies import copies_among, exact_groups, near_copies_across, near_copies_among
from foveate.data.dataset import Dataset, load_known
from foveate.errors import FoveateError
from foveate.progress import Track
from foveate.settings import DataConfig
from foveate.training.runs import RunFolder
from foveate.workflows.request import Display, tell


def copies_told(dataset: Dataset, split: str, other: Dataset, splits: Sequence[str], trained: str) -> str | None:
    """A line on how many images of a split are, by their pixels, in the `splits` of `other`; None: none is.

    Exact copies are always found; near ones where `near_copies_among` looks for them.

    Args:
        trained: what was trained on the images of `other`, for the line.
    """
    exact, conflicts = copies_among(dataset, split, other, splits)
    near = np.setdiff1d(near_copies_among(dataset, split, other, splits), exact)
    if not len(exact) and not len(near):
        return None
    kinds = "copies" if not len(near) else "near copies"
    if len(exact) and len(near):
        kinds = f"copies ({len(exact):,}) or near copies ({len(near):,})"
    of_split = "images" if split == "all" else f"{split} images"
    count = len(exact) + len(near)
    told = f"{count:,} of {len(dataset.splits[split]):,} {of_split} are {kinds} of images that {trained}"
    if not len(conflicts):
        return f"{told}: on others it will do worse"
    of_them = "with another label" if len(conflicts) == count else f"{len(conflicts):,} of them with another label"
    return f"{told}, {of_them}: the figures are wrong until the labels are corrected, or the copies removed"


def copies_of_run_told(
    dataset: Dataset,
    measured: Sequence[str],
    folder: RunFolder,
    splits: Sequence[str],
    network: str,
    trained: str,
    track: Track,
) -> list[str]:
    """A line for each of the `measured` splits of which some images are, by their pixels, in the `splits` of the
    data set of a run; or one that this is not known, where that data set cannot be read.

    Args:
        network: how the lines call the network of that run.
        trained: what it did with the images in `splits`, such as `was trained on`.

    Raises:
        CheckpointError: when the settings or the record of the run are damaged.
    """
    record, known = folder.read_record(), folder.known_data(folder.read_record())
    same = DataConfig.of(dataset.preprocessing).model_dump(include={"size", "fit", "depth"})
    settings = folder.read_config().data.model_copy(update=same)  # pixels are compared
    try:
        own = load_known(record.dataset, settings, known, data_dir=record.data_dir, track=track)
    except FoveateError as error:  # it is not there any more, or has changed
        return [
            f"whether {network} was trained on images of {dataset.name} is not known, as its own cannot be read: "
            f"{error}"
        ]
    asked = [split for split in measured if split in dataset.splits]
    told = [copies_told(dataset, split, own, splits, f"{network} {trained}") for split in asked]
    return [line for line in told if line is not None]


def tell_own_copies(dataset: Dataset, display: Display, *, final: bool = False, folds: bool = False) -> None:
    """Say how many of the images that a run is or will be measured on are copies of those that it learns from.

    Of the test split this is said before it is opened, when something can still be done about it.

    Args:
        final: whether the test split is measured at the end, and validation is trained on.
        folds: whether validation is trained on, and nothing but the folds is measured.
    """
    if not final and not folds:
        tell(display, copies_told(dataset, "validation", dataset, ("train",), "it is trained on"))
    if "test" in dataset.splits:
        learned = "it is trained on" if final or folds else "it is trained or validated on"
        tell(display, copies_told(dataset, "test", dataset, ("train", "validation"), learned))


def copies_across_folds(dataset: Dataset, held_out: Sequence[NDArray[np.int64]]) -> int:
    """How many images have a copy or a near copy in another fold, which the network asked about them saw.

    Folds that are drawn now part no exact copies; those of a run of an earlier version may.
    """
    fold_of = np.zeros(len(dataset.labels), np.int64)
    for fold, indices in enumerate(held_out):
        fold_of[indices] = fold
    train = dataset.splits["train"]
    exact = [each for each in exact_groups(dataset.images, train) if len(np.unique(fold_of[each])) > 1]
    return len(np.unique(np.concatenate([near_copies_across(dataset.images, train, fold_of[train]), *exact])))


def across_folds_told(dataset: Dataset, count: int) -> str | None:
    """A line on what `copies_across_folds` found; None where it found none."""
    if not count:
        return None
    return (
        f"of {plural(count, 'image')} there is a copy or a near copy in another fold, so the network that is "
        "asked about it was trained on that copy: remove all but one of each; "
        f"`foveate check {dataset.location}` lists them"
    )
