"""A data set ready to train or evaluate on: decoded images, labels, splits, and what is wrong with it."""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foveate.data.cache import decoded_images
from foveate.data.decoding import TOO_SLOW
from foveate.data.depth import faint_images, faint_text, white_of
from foveate.data.opening import open_source
from foveate.data.source import Source, listed, typical_side
from foveate.data.splits import SPLITS, UNDECLARED, StoredSplits
from foveate.data.training_splits import BadImage, training_splits
from foveate.errors import CheckpointError, DataError
from foveate.preprocessing import Fit, Preprocessing
from foveate.progress import Track, untracked
from foveate.settings import DataConfig

_SIDES = (16, 64)
"""Smallest and largest side that is chosen by itself, in pixels."""


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
    """Sorted indices into `images` of `train`, `validation`, `test` or `all`; an absent split has no key."""
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
        """How the images were decoded, and how others must be for a network that was trained on them."""
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
    Images without a declared split are of the training split where others have one. To evaluate, nothing is held
    out: where no image has a declared split they are the split `all`, and one class and any share of bad images
    will do.

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
        splits = training_splits(source, good, bad, config, notes)
        if config.depth == "format" and (faint := len(faint_images(source.blocks, images, good))):
            notes.append(faint_text(faint))
    else:
        splits = {name: np.flatnonzero(good & (source.declared == code)) for code, name in enumerate(SPLITS)}
        rest = np.flatnonzero(good & (source.declared == UNDECLARED))
        if any(map(len, splits.values())):
            splits["train"] = np.sort(np.concatenate([splits["train"], rest]))
        else:
            splits["all"] = rest
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


@dataclass(frozen=True)
class KnownData:
    """By what work that has begun knows its data set, and which images it trains and tests on."""

    fingerprint: str
    splits: StoredSplits | None
    """None: an earlier version of Foveate kept none; they are drawn again."""
    owner: object
    """Names the work in a message."""
    gone: str | None = None
    """What to do where its data set is not in the place that the work kept; None: another place was given."""


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
    if known.gone is not None and Path(data).is_absolute() and not Path(data).exists():
        raise DataError(f"the data of {known.owner} is not at {data} any more: {known.gone}")
    source = open_source(data, data_dir, track, recorded=True)
    if _fingerprint(source) != known.fingerprint:
        raise CheckpointError(
            f"{data} is not the data set of {known.owner}, or has changed since: restore the images that it had"
        )
    return dataset_of(source, config, stored=known.splits, track=track)


def align_classes(dataset: Dataset, class_names: Sequence[str]) -> Dataset:
    """The data set with its labels as positions in `class_names`, matched by name.

    Names may be encoded in two ways, as a Mac does it and as others do: `ä` is one character, or two.

    Raises:
        DataError: when it has images of a class that is not in `class_names`.
    """
    position = _positions(dataset.class_names, class_names)
    present = [dataset.class_names[label] for label in np.unique(dataset.labels)]
    if unknown := [name for name in present if name not in position]:
        raise DataError(
            f"{dataset.location} has images of {listed(unknown)}, unknown to the model, whose classes are "
            f"{listed(class_names)}: rename or remove them"
        )
    notes = [
        f"the class {name} of {dataset.name} is taken for that of the model which looks the same: its letters are "
        "encoded in another way"
        for name in present
        if name not in class_names
    ]
    found = {position[name] for name in present}
    notes += [
        f"{dataset.name} has no image of class {name}" for at, name in enumerate(class_names) if at not in found
    ]
    table = np.array([position.get(name, -1) for name in dataset.class_names], np.int64)
    return replace(
        dataset,
        class_names=tuple(class_names),
        labels=table[dataset.labels],
        notes=tuple(dict.fromkeys([*dataset.notes, *notes])),
    )


def _positions(names: Sequence[str], class_names: Sequence[str]) -> dict[str, int]:
    """The place in `class_names` of each of the `names` that is there, or that alone looks like one alone."""
    exact = {name: place for place, name in enumerate(class_names)}
    ours, theirs = ([unicodedata.normalize("NFC", name) for name in each] for each in (names, class_names))
    times, known = Counter(ours), Counter(theirs)
    alike = {look: place for place, look in enumerate(theirs) if times[look] == known[look] == 1}
    places = {name: exact.get(name, alike.get(look)) for name, look in zip(names, ours, strict=True)}
    return {name: place for name, place in places.items() if place is not None}


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


def _fingerprint(source: Source) -> str:
    digest = hashlib.sha256(source.content.digest.encode())
    digest.update(source.labels.astype("<i8").tobytes())
    digest.update(source.declared.tobytes())
    digest.update("\0".join(source.class_names).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
