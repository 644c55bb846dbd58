"""A data set ready to train or evaluate on: decoded images, labels, splits, and what is wrong with it."""

import difflib
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foveate.data.cache import decoded_images
from foveate.data.decoding import TOO_SLOW
from foveate.data.depth import faint_images, faint_text, white_of
from foveate.data.source import Source, listed, name_warnings, reading, typical_side
from foveate.data.splits import (
    SPLITS,
    UNDECLARED,
    StoredSplits,
    group_numbers,
    grouped_split,
    stratified_split,
)
from foveate.errors import CheckpointError, DataError
from foveate.preprocessing import Fit, Preprocessing
from foveate.progress import Track, untracked
from foveate.settings import DataConfig

_KNOWN = ("cifar10", "digits", "cue")
_GIVE = f"{', '.join(_KNOWN)}, a folder or a file"
_SIDES = (16, 64)
"""Smallest and largest side that is chosen by itself, in pixels."""


@dataclass(frozen=True)
class BadImage:
    """An image that cannot be decoded; it is in no split."""

    id: str
    reason: str


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images of one size with their labels and splits.

    `images` is [N, H, W, 3] uint8, memory-mapped copy-on-write, so that torch takes it as it is; the row of a
    bad image means nothing.
    """

    name: str
    """Names a run: a known name, or the stem of the folder or file."""
    location: str
    """What finds it again: a known name, or an absolute path."""
    class_names: tuple[str, ...]
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    """[N], index into `class_names`."""
    ids: Sequence[str]
    """[N], path within the data set, or `shard.parquet#row`."""
    groups: tuple[str, ...] | None
    splits: Mapping[str, NDArray[np.int64]]
    """Sorted indices into `images` of `train`, `validation`, `test` or `all`; a split that is absent is no key."""
    bad: tuple[BadImage, ...]
    notes: tuple[str, ...]
    """Lines that a person should be told."""
    fingerprint: str
    """sha256 of contents, labels, declared splits and class names; not of size or place."""
    mirror_safe: bool
    """Whether a mirror image is of the same class."""
    white: int | None = None
    """The value that became 255 in images of more than 8 bits; None: the largest of their format."""
    fit: Fit = "crop"
    """How images that are no squares became some."""

    @property
    def size(self) -> int:
        """Width and height of the images, in pixels."""
        return int(self.images.shape[1])

    @property
    def preprocessing(self) -> Preprocessing:
        """How the images were decoded; whoever uses a network that was trained on them decodes others so."""
        return Preprocessing(self.size, self.fit, self.white)

    def for_final(self) -> "Dataset":
        """The same data set for a last training before its test split is opened: `train` holds validation too."""
        joined = np.sort(np.concatenate([self.splits["train"], self.splits["validation"]]))
        rest = {name: self.splits[name] for name in self.splits if name not in ("train", "validation")}
        return replace(self, splits={"train": joined, **rest})


def load_dataset(
    data: str,
    config: DataConfig,
    *,
    data_dir: Path | str | None = None,
    for_training: bool = True,
    track: Track = untracked,
) -> Dataset:
    """Find, check, decode (or take from the cache) and split a data set.

    To train, splits that the data does not declare are held out, stratified and seeded by `config.split_seed`:
    a test and then a validation split where it declares neither, a validation split where it declares a test split
    alone; a validation split alone leaves it without a test split. Images of one group are held out together.
    Images without a declared split train where others have one. To evaluate, nothing is held out: images without a
    declared split are the split `all`, and one class and any share of bad images will do.

    Args:
        data: `digits`, `cue`, `cifar10`, a folder `[{train,val,test}/]<class>/`, a CSV table, Parquet, or .npz.
        config: the size (None: chosen from the images), what is held out, and the share of bad images allowed.
        data_dir: where `cifar10` lies.
        for_training: whether to hold out splits and to refuse what cannot be trained on.
        track: follows reading, downloading and decoding.

    Raises:
        DataError: when there is no such data set, it is damaged, or does not suit training.
        OutputError: when the cache cannot be written.
    """
    return dataset_of(open_source(data, data_dir, track), config, for_training=for_training, track=track)


def dataset_of(
    source: Source,
    config: DataConfig,
    *,
    for_training: bool = True,
    stored: StoredSplits | None = None,
    track: Track = untracked,
) -> Dataset:
    """As `load_dataset`, of what was opened already.

    Args:
        stored: the splits to use, instead of drawing them.

    Raises:
        CheckpointError: when `stored` does not fit the data set.
        DataError, OutputError: as `load_dataset`.
    """
    data = source.location
    size = config.size or int(np.clip(source.side or typical_side(source.blocks) or 0, *_SIDES))
    white = white_of(source.blocks, config.depth, track)
    preprocessing = Preprocessing(size, config.fit, white)
    images, reasons = decoded_images(source, preprocessing, timeout_s=config.decode_timeout_s, track=track)
    good = np.ones(len(source.labels), bool)
    good[list(reasons)] = False
    bad = tuple(BadImage(source.ids[index], reason) for index, reason in reasons.items())
    if not good.any():
        raise DataError(f"{data}: none of its images can be read; the first, {bad[0].id}: {bad[0].reason}")
    notes = list(source.notes)
    if slow := sum(reason.startswith(TOO_SLOW) for reason in reasons.values()):
        have = "1 image takes" if slow == 1 else f"{slow:,} images take"
        longer = f"--set decode_timeout_s={3 * config.decode_timeout_s:g}"
        notes.append(f"{have} too long to decode and count as unreadable; {longer} allows more time")
    if stored is not None:
        splits = _stored_splits(source, reasons, stored, notes)
    elif for_training:
        splits = _to_train_on(source, good, bad, config, notes)
        if config.depth == "format" and (faint := len(faint_images(source.blocks, images, good))):
            notes.append(faint_text(faint))
    else:
        splits = {name: np.flatnonzero(good & (source.declared == code)) for code, name in enumerate(SPLITS)}
        splits["all"] = np.flatnonzero(good & (source.declared == UNDECLARED))
    return Dataset(
        name=source.name,
        location=source.location,
        class_names=source.class_names,
        images=images,
        labels=source.labels,
        ids=source.ids,
        groups=source.groups,
        splits={name: indices for name, indices in splits.items() if len(indices)},
        bad=bad,
        notes=tuple(notes),
        fingerprint=_fingerprint(source),
        mirror_safe=source.mirror_safe,
        white=white,
        fit=config.fit,
    )


def training_splits(source: Source, dataset: Dataset, config: DataConfig) -> dict[str, NDArray[np.int64]]:
    """The splits that `dataset_of` would train on, of a data set that it has taken as declared.

    Raises:
        DataError: for what it would refuse to train on.
    """
    good = np.zeros(len(source.labels), bool)
    good[np.concatenate(list(dataset.splits.values()))] = True
    return _to_train_on(source, good, dataset.bad, config, [])


@dataclass(frozen=True)
class KnownData:
    """By what work that has begun knows its data set, and which images it trains and tests on."""

    fingerprint: str
    splits: StoredSplits | None
    """None: an earlier version of Foveate kept none; they are drawn again."""
    owner: object
    """Names the work in a message."""


def load_known(
    data: str,
    config: DataConfig,
    known: KnownData,
    *,
    data_dir: Path | str | None = None,
    track: Track = untracked,
) -> Dataset:
    """As `load_dataset`, the very data set that work was begun with, in the splits that it was begun with.

    Raises:
        CheckpointError: when it is another data set now, or its splits cannot be had: images that were trained on
            would make new figures too good.
    """
    source = open_source(data, data_dir, track)
    if _fingerprint(source) != known.fingerprint:
        raise CheckpointError(
            f"{data} is not the data set of {known.owner}, or has changed since: restore the images that it had"
        )
    return dataset_of(source, config, stored=known.splits, track=track)


def align_classes(dataset: Dataset, class_names: Sequence[str]) -> Dataset:
    """The data set with its labels as positions in `class_names`, matched by name.

    Raises:
        DataError: when it has images of a class that is not in `class_names`.
    """
    position = {name: index for index, name in enumerate(class_names)}
    present = [dataset.class_names[label] for label in np.unique(dataset.labels)]
    if unknown := [name for name in present if name not in position]:
        raise DataError(
            f"{dataset.location} has images of {listed(unknown)}, unknown to the model, whose classes are "
            f"{listed(class_names)}: rename or remove them"
        )
    notes = [f"{dataset.name} has no image of class {name}" for name in class_names if name not in present]
    table = np.array([position.get(name, -1) for name in dataset.class_names], np.int64)
    return replace(
        dataset,
        class_names=tuple(class_names),
        labels=table[dataset.labels],
        notes=tuple(dict.fromkeys([*dataset.notes, *notes])),
    )


def open_source(data: str, data_dir: Path | str | None, track: Track = untracked) -> Source:
    """Find a data set and read what it says of itself; no image is decoded.

    Raises:
        DataError: when there is none, or it is damaged.
    """
    # Each kind is imported when it is wanted: pyarrow and scikit-learn are slow to import.
    if data == "digits":
        from foveate.data.digits import open_digits

        return open_digits()
    if data == "cue" or data.startswith("cue:"):
        from foveate.data.cue import open_cue

        return open_cue(data)
    if data == "cifar10":
        from foveate.data.cifar10 import open_cifar10

        return open_cifar10(Path(data_dir) if data_dir else None, track)
    if not data.strip():
        raise DataError(f"the name of the data set is empty: give {_GIVE}")
    try:
        path = Path(data).expanduser()
        # Not `Path.resolve`, which raises RuntimeError for a loop of links.
        os.path.realpath(path).encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{data!a}: its path has a name that is not UTF-8, to be written down: rename it"
        ) from error
    except (ValueError, RuntimeError) as error:  # a NUL character; a user without a home
        raise DataError(f"{data!a} is not a path ({error}): give {_GIVE}") from error
    with reading(path):
        if path.is_dir():
            return _open_folder(path, track)
        if not path.exists():
            raise DataError(_not_found(data, path))
        if not path.is_file():
            raise DataError(f"{path} is a device, pipe or socket: give a folder or a regular file")
    return _open_file(path, track)


def _open_folder(path: Path, track: Track) -> Source:
    from foveate.data.folder import open_folder, refuse_other_splits
    from foveate.data.tree import read_trees

    kinds: dict[str, set[str]] = {}
    with reading(path):
        trees, notes = read_trees(path, [path])
        files = trees[0].files
        for file in files:
            folder, name = os.path.split(file)
            kinds.setdefault(folder, set()).add(os.path.splitext(name)[1].lower())  # noqa: PTH122
    # A stray table among a class's images makes no Parquet data set.
    if any(
        ".parquet" in found and (folder == os.fspath(path) or found == {".parquet"})
        for folder, found in kinds.items()
    ):
        from foveate.data.parquet import open_parquet

        shards = [Path(file) for file in files if Path(file).suffix.lower() == ".parquet"]
        others = [Path(file) for file in files if Path(file).suffix.lower() != ".parquet"]
        source = open_parquet(path, shards, track)
        refuse_other_splits(path, others, set(np.unique(source.declared).tolist()))
        return replace(source, notes=(*source.notes, *notes))
    del trees, files  # a million paths, which are read again
    return open_folder(path, track)


def _open_file(path: Path, track: Track) -> Source:
    match path.suffix.lower():
        case ".csv" | ".tsv":
            from foveate.data.table import open_csv

            return open_csv(path, track)
        case ".parquet":
            from foveate.data.parquet import open_parquet

            return open_parquet(path, [path], track)
        case ".npz":
            from foveate.data.npz import open_npz

            return open_npz(path, track)
    raise DataError(f"{path} is not a data set: give a folder of images, a .csv, .parquet or .npz file")


def _not_found(data: str, path: Path) -> str:
    if path.is_symlink():
        return f"{data} is a link that leads nowhere, or back to itself: repair it"
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, siblings, n=1)
    near = [str(path.parent / name) for name in close] or difflib.get_close_matches(data, _KNOWN, n=1)
    hint = f"did you mean {near[0]}?" if near else f"give {_GIVE}"
    return f"there is no data set {data}: {hint}"


def _stored_splits(
    source: Source, bad: Mapping[int, str], stored: StoredSplits, notes: list[str]
) -> dict[str, NDArray[np.int64]]:
    """The splits that were stored; CheckpointError where an image in them cannot be read any more."""
    splits = stored.read(len(source.labels))
    placed = np.zeros(len(source.labels), bool)
    for indices in splits.values():
        placed[indices] = True
    if lost := [index for index in bad if placed[index]]:
        raise CheckpointError(
            f"{len(lost)} images of {source.location} that could be read cannot be read any more (the first, "
            f"{source.ids[lost[0]]}: {bad[lost[0]]}): restore them"
        )
    if new := len(placed) - np.count_nonzero(placed) - len(bad):
        notes.append(f"{new} images are in no split: they could not be read when the splits were drawn")
    return splits


def _to_train_on(
    source: Source, good: NDArray[np.bool_], bad: tuple[BadImage, ...], config: DataConfig, notes: list[str]
) -> dict[str, NDArray[np.int64]]:
    """The splits that training takes; DataError for what it refuses."""
    if source.fault is not None:
        raise DataError(source.fault)
    _check_share(source.location, bad, len(good), config.max_bad)
    notes += (text for _, text in name_warnings(source.class_names))
    splits = _training_splits(source, good, config, notes)
    if shared := shared_groups(source.groups, splits):
        notes.append(shared_groups_text(shared))
    _check_classes(source.location, source, splits, notes)
    return splits


def _check_share(data: str, bad: tuple[BadImage, ...], count: int, allowed: float) -> None:
    if len(bad) > allowed * count:
        first = "; ".join(f"{image.id}: {image.reason}" for image in bad[:3])
        raise DataError(
            f"{len(bad)} of {count} images of {data} cannot be read, more than max_bad={allowed:g} allows "
            f"({first}{'; …' if len(bad) > 3 else ''}): repair or remove them, or train without them by "
            "--allow-bad, which lists them all"
        )


def _training_splits(
    source: Source, good: NDArray[np.bool_], config: DataConfig, notes: list[str]
) -> dict[str, NDArray[np.int64]]:
    declared = source.declared
    train = np.flatnonzero(good & np.isin(declared, (SPLITS.index("train"), UNDECLARED)))
    validation, test = (np.flatnonzero(good & (declared == SPLITS.index(name))) for name in ("validation", "test"))
    if not len(train):
        raise DataError(f"{source.location} has no training images: add a train split, or leave the splits out")
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
            raise DataError(
                f"{data}: class {name} has images in {listed(elsewhere)} but none to train on: add some to "
                "train, or remove the class; images without labels are for `foveate predict`"
            )
        why = "no image that can be read" if (source.labels == label).any() else "no images"
        raise DataError(f"{data}: class {name} is empty, it has {why}: add some, or remove the class")
    for split in ("validation", "test"):
        missing = [name for label, name in enumerate(source.class_names) if not counts[split][label]]
        if missing and len(splits[split]):
            notes.append(f"no image of {listed(missing)} in {split}")


def _fingerprint(source: Source) -> str:
    digest = hashlib.sha256(source.content.digest.encode())
    digest.update(source.labels.astype("<i8").tobytes())
    digest.update(source.declared.tobytes())
    digest.update("\0".join(source.class_names).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
