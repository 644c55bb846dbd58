"""Whether images that are measured on were trained on: told before a figure is believed."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from foveate.data.copies import copies_among, exact_groups, near_copies_among
from foveate.data.dataset import Dataset
from foveate.workflows.request import Display


def copies_told(dataset: Dataset, split: str, other: Dataset, splits: Sequence[str], trained: str) -> str | None:
    """A line on how many images of a split are, by their pixels, in the `splits` of `other`; None: none is.

    Exact copies are always found; near ones where `near_copies_among` looks for them.

    Args:
        trained: what was trained on the images of `other`, for the line.
    """
    exact = copies_among(dataset, split, other, splits)
    near = np.setdiff1d(near_copies_among(dataset, split, other, splits), exact)
    if not len(exact) and not len(near):
        return None
    kinds = "copies" if not len(near) else "near copies"
    if len(exact) and len(near):
        kinds = f"copies ({len(exact):,}) or near copies ({len(near):,})"
    of_split = "images" if split == "all" else f"{split} images"
    return (
        f"{len(exact) + len(near):,} of {len(dataset.splits[split]):,} {of_split} are {kinds} of images that "
        f"{trained}: on others it will do worse"
    )


def tell_own_copies(dataset: Dataset, display: Display, *, final: bool) -> None:
    """Say how many of the images that a run will be measured on are copies of those that it is trained on."""
    split, trained = ("test", ("train", "validation")) if final else ("validation", ("train",))
    if (line := copies_told(dataset, split, dataset, trained, "it is trained on")) is not None:
        display.say(line)


def copies_across_folds_told(dataset: Dataset, held_out: Sequence[NDArray[np.int64]]) -> str | None:
    """A line on how many images have an exact copy in another fold, which the network asked about them saw."""
    fold_of = np.zeros(len(dataset.labels), np.int64)
    for fold, indices in enumerate(held_out):
        fold_of[indices] = fold
    groups = exact_groups(dataset.images, dataset.splits["train"])
    count = sum(len(group) for group in groups if len(np.unique(fold_of[group])) > 1)
    if not count:
        return None
    return (
        f"{count:,} images have a copy in another fold, so the network that is asked about them saw them: remove "
        f"all but one of each; `foveate check {dataset.location}` lists them"
    )
