"""The splits that training takes: those that the data declares, or drawn ones; and what is refused before that."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foveate.counts import plural
from foveate.data.container import MISSING
from foveate.data.source import Source, listed, measurements_told, name_warnings
from foveate.data.splits import SPLITS, UNDECLARED, group_numbers, grouped_split, stratified_split
from foveate.errors import DataError
from foveate.settings import DataConfig

UNREADABLE_CLASS = "convert or repair them, or remove the class"
_FIXES = {
    "foreign": "convert those of other formats",
    "missing": "correct or remove the names of files that are missing",
    "other": "repair or remove the others",
}
"""By the kind of reason for which images cannot be read."""


@dataclass(frozen=True)
class BadImage:
    """An image that cannot be decoded; it is in no split."""

    id: str
    reason: str


def training_splits(
    source: Source, good: NDArray[np.bool_], bad: tuple[BadImage, ...], config: DataConfig, notes: list[str]
) -> dict[str, NDArray[np.int64]]:
    """The splits that training takes; DataError for what it refuses."""
    if source.fault is not None:
        raise DataError(source.fault)
    _refuse_measurements(source)
    _check_share(source.location, bad, len(good), config.max_bad)
    notes += (text for _, text in name_warnings(source.class_names))
    splits = _declared_or_drawn(source, good, config, notes)
    if shared := shared_groups(source.groups, splits):
        notes.append(shared_groups_text(shared))
    _check_classes(source.location, source, splits, notes)
    return splits


def _check_share(data: str, bad: tuple[BadImage, ...], count: int, allowed: float) -> None:
    if len(bad) > allowed * count:
        first = {image.reason: image.id for image in reversed(bad)}
        told = "; ".join(f"{first[reason]}: {reason}" for reason in [*first][:-4:-1])
        raise DataError(
            f"{len(bad)} of {count} images of {data} cannot be read, more than max_bad={allowed:g} allows "
            f"({told}{'; …' if len(bad) > min(3, len(first)) else ''}): {unreadable_fix(first)}; or train without "
            "them by --allow-bad, which lists them all"
        )


def unreadable_fix(reasons: Iterable[str]) -> str:
    """What to do with images that cannot be read for these `reasons`."""
    kinds = {_kind_of(reason) for reason in reasons}
    if kinds == {"other"}:
        return "repair or remove them"
    return ", and ".join(fix for kind, fix in _FIXES.items() if kind in kinds)


def _kind_of(reason: str) -> str:
    if reason == MISSING:
        return "missing"
    # What a reason says itself to do comes after a colon; in brackets is what a decoder said.
    return "foreign" if ": " in reason.partition(" (")[0] else "other"


def _refuse_measurements(source: Source) -> None:
    """Refuse labels that are numbers where a class has two images or fewer: none could be held out of it."""
    names = source.class_names
    if 2 * len(names) >= len(source.labels) and (line := measurements_told(names)) is not None:
        raise DataError(f"{source.location}: {line}")


def _declared_or_drawn(
    source: Source, good: NDArray[np.bool_], config: DataConfig, notes: list[str]
) -> dict[str, NDArray[np.int64]]:
    declared = source.declared
    train = np.flatnonzero(good & np.isin(declared, (SPLITS.index("train"), UNDECLARED)))
    validation, test = (np.flatnonzero(good & (declared == SPLITS.index(name))) for name in ("validation", "test"))
    if not len(train):
        raise DataError(f"{source.location} has no training images: add a train split, or leave the splits out")
    for name, left in (("validation", validation), ("test", test)):
        if not len(left) and (count := int((declared == SPLITS.index(name)).sum())):
            raise DataError(
                f"{source.location}: none of the {plural(count, 'image')} of its {name} split can be read: "
                "convert or repair them, or remove the split"
            )
    if len(validation) and not len(test):
        notes.append("the data declares a validation split but no test split: there is no test split")
    if (undeclared := np.count_nonzero(good & (declared == UNDECLARED))) and undeclared < good.sum():
        notes.append(f"{undeclared} images that declare no split are used for training")
    if not len(validation) and not len(test):
        train, test = _hold_out(source, train, config.test_fraction, config.split_seed)
    if not len(validation):
        train, validation = _hold_out(source, train, config.val_fraction, config.split_seed)
    return {"train": train, "validation": validation, "test": test}


def _hold_out(
    source: Source, indices: NDArray[np.int64], fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    labels = source.labels[indices]
    if source.groups is None:
        kept, held = stratified_split(labels, fraction, seed)
        if not len(held):
            raise DataError(
                f"{source.location} has too few images to hold some out: give every class three or more"
            )
        return indices[kept], indices[held]
    groups = group_numbers(source.groups)[indices]
    kept, held = grouped_split(labels, groups, fraction, seed)
    if not len(held):
        raise DataError(
            f"{source.location}: its {len(np.unique(groups))} groups cannot be parted into splits that share none "
            "and have every class to train on: give every class three groups or more, or declare the splits, or "
            "leave the groups out"
        )
    return indices[kept], indices[held]


def shared_groups(
    groups: Sequence[str] | None, splits: Mapping[str, NDArray[np.int64]]
) -> dict[str, tuple[str, ...]]:
    """By name the groups that have images in more than one split, and in which."""
    found: dict[str, list[str]] = {}
    if groups is None:
        return {}
    for split, indices in splits.items():
        for name in dict.fromkeys(groups[index] for index in indices.tolist()):
            found.setdefault(name, []).append(split)
    return {name: tuple(places) for name, places in found.items() if name and len(places) > 1}


def shared_groups_text(shared: Mapping[str, Sequence[str]]) -> str:
    """A line about what `shared_groups` found."""
    first, places = next(iter(shared.items()))
    have = "1 group has" if len(shared) == 1 else f"{len(shared):,} groups have"
    return (
        f"{have} images in more than one split ({'the first, ' if len(shared) > 1 else ''}{first}: "
        f"{listed(places)}): images of one group are alike, so what is measured may be too good: give each group "
        "one split"
    )


def _check_classes(data: str, source: Source, splits: Mapping[str, NDArray[np.int64]], notes: list[str]) -> None:
    if len(source.class_names) < 2:
        only = source.class_names[0]
        inner = sorted({Path(each).parent.name for each in source.ids} - {only, ""})
        hint = f"; if {listed(inner)} are the classes, move them out of {only}" if len(inner) > 1 else ""
        raise DataError(f"{data} has one class, {only}: training needs images of two or more{hint}")
    counts = {
        name: np.bincount(source.labels[indices], minlength=len(source.class_names))
        for name, indices in splits.items()
    }
    for label, name in enumerate(source.class_names):
        if counts["train"][label]:
            continue
        if elsewhere := [split for split in counts if counts[split][label]]:
            alike = dict(name_warnings(source.class_names)).get("alike_names")
            raise DataError(
                f"{data}: class {name} has images in {listed(elsewhere)} but none to train on: add some to "
                "train, or remove the class; images without labels are for `foveate predict`"
                + (f"; {alike}" if alike else "")
            )
        if (source.labels == label).any():
            raise DataError(f"{data}: no image of class {name} can be read: {UNREADABLE_CLASS}")
        raise DataError(f"{data}: class {name} is empty, it has no images: add some, or remove the class")
    for split in ("validation", "test"):
        missing = [name for label, name in enumerate(source.class_names) if not counts[split][label]]
        if missing and len(splits[split]):
            notes.append(f"no image of {listed(missing)} in {split}")
