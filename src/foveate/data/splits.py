"""Names of the splits, the seeded, stratified ways to hold images out, and the file that keeps what was drawn."""

import hashlib
import io
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foveate.errors import CheckpointError, DataError
from foveate.files import read_regular, write_atomically

SPLITS = ("train", "validation", "test")
SPLITS_FILE = "splits.npy"
UNDECLARED = -1
"""Code of an image for which the data names no split; the codes of others index `SPLITS`."""

_MOST_IMAGES = 10**10
"""That a file of splits is read for, where it is not known how many there are."""

_SPELLINGS = {
    "train": 0,
    "training": 0,
    "trn": 0,
    "val": 1,
    "valid": 1,
    "validation": 1,
    "dev": 1,
    "test": 2,
    "testing": 2,
    "tst": 2,
    "eval": 2,
    "evaluation": 2,
}
_FILLERS = {"dataset", "data", "image", "img", "set", "split", "label", "list", "file"}
_FILLERS |= {f"{word}s" for word in _FILLERS}
"""Words that a split's name may hold beside its own, as in `train_images`, `testset` and `val_list`."""
_HELD_OUT = re.compile(r"\b(hold ?out|held ?out|unseen|un ?labell?ed)\b")
"""Names of images that must not be trained on; whether they are for validation or the test only the user knows."""

_OWN = "|".join(sorted(_SPELLINGS, key=len, reverse=True))
_PIECES = re.compile(f"{_OWN}|{'|'.join(sorted(_FILLERS, key=len, reverse=True))}")
_GLUED = re.compile(f"(?:{_PIECES.pattern})+")


def split_code(name: str) -> int | None:
    """Index into `SPLITS` of the split that `name` means; None when it is not the name of a split.

    The one rule for folders, Parquet shards, arrays and columns: case, digits, punctuation, single letters and
    words such as `set` or `images` do not matter. `Testing`, `val2017`, `01_train` and `test-set` are splits,
    `test tube` and `trainval` are not.
    """
    words = [word for word in _words(name) if len(word) > 1 and word not in _FILLERS]
    return _SPELLINGS.get(words[0]) if len(words) == 1 else None


def split_words(name: str) -> set[int]:
    """Indices into `SPLITS` of the splits that words of `name` mean, whatever other words it has."""
    return {_SPELLINGS[word] for word in _words(name) if word in _SPELLINGS}


def other_words(name: str) -> tuple[str, ...]:
    """The words of `name` that mean no split: what `asl_train` and `asl_test` have in common."""
    return tuple(word for word in _words(name) if word not in _SPELLINGS)


def hints_at_split(name: str) -> bool:
    """Whether a person would take `name` for a split's, though `split_code` may not: `test_public`, `holdout`."""
    return bool(split_words(name)) or is_held_out(name)


def is_held_out(name: str) -> bool:
    """Whether `name` says that its images are held out, but not for what: `holdout`, `unseen`."""
    return _HELD_OUT.search(" ".join(_words(name))) is not None


def _words(name: str) -> list[str]:
    """The words of a name in lower case, `trainset` as `train` and `set`."""
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFKC", name)).casefold()
    words = re.findall(r"[^\W\d_]+", text)
    return [piece for word in words for piece in (_PIECES.findall(word) if _GLUED.fullmatch(word) else [word])]


def split_codes(names: Sequence[str | None], where: Callable[[int], str]) -> NDArray[np.int8]:
    """Index into `SPLITS` of each of the [N] names; `UNDECLARED` where it is empty.

    Raises:
        DataError: for a name that means no split; `where` names the place of the i-th for the message.
    """
    codes = {name: split_code(name) if name else UNDECLARED for name in set(names)}
    for name, code in codes.items():
        if name and code is None:
            raise DataError(
                f"{where(names.index(name))}: split {name[:100]!r} is not one of train, val, test: correct it"
            )
    return np.array([codes[name] for name in names], np.int8)


@dataclass(frozen=True)
class StoredSplits:
    """The splits of a data set in a file: a byte for each image, its place in `SPLITS`, or `UNDECLARED` for none.

    Work that has begun keeps its splits, instead of drawing them again: a draw depends on which images can be
    read, and an image that was trained on must never be tested on.
    """

    path: Path
    sha256: str
    """Of the file."""

    @classmethod
    def write(cls, folder: Path, splits: Mapping[str, NDArray[np.int64]], count: int) -> "StoredSplits":
        """Keep in `folder` which of `count` images are in which of the `splits`.

        Raises:
            OutputError: when the file cannot be written.
        """
        codes = np.full(count, UNDECLARED, np.int8)
        for name, indices in splits.items():
            codes[indices] = SPLITS.index(name)
        return cls(folder / SPLITS_FILE, write_codes(folder / SPLITS_FILE, codes))

    @classmethod
    def kept(cls, folder: Path, sha256: str | None) -> "StoredSplits | None":
        """Those that a run, study or comparison keeps in its `folder`; None for one that keeps none."""
        return cls(folder / SPLITS_FILE, sha256) if sha256 else None

    def read(self, count: int) -> dict[str, NDArray[np.int64]]:
        """The indices of each split that has images, of a data set of `count` images.

        Raises:
            CheckpointError: when the file is missing, changed, or of another number of images.
        """
        codes = self._codes(count)
        found = {name: np.flatnonzero(codes == code) for code, name in enumerate(SPLITS)}
        return {name: indices for name, indices in found.items() if len(indices)}

    def has(self, split: str) -> bool:
        """Whether there are images in a split.

        Raises:
            CheckpointError: when the file is missing or changed.
        """
        return bool((self._codes(None) == SPLITS.index(split)).any())

    def _codes(self, count: int | None) -> NDArray[np.int8]:
        return read_codes(self.path, self.sha256, count, most=len(SPLITS) - 1)


def write_codes(path: Path, codes: NDArray[np.signedinteger]) -> str:
    """Keep a number for each image; returns the sha256 of the file.

    Raises:
        OutputError: when the file cannot be written.
    """
    content = io.BytesIO()
    np.save(content, codes, allow_pickle=False)
    write_atomically(path, content.getvalue())
    return hashlib.sha256(content.getvalue()).hexdigest()


def read_codes(path: Path, sha256: str | None, count: int | None, *, most: int) -> NDArray[np.int8]:
    """What `write_codes` wrote: [count] values of `UNDECLARED` to `most`.

    Args:
        count: of the images; None: as many as there are.

    Raises:
        CheckpointError: when the file is missing, changed, or of another number of images.
    """
    try:
        content = read_regular(path, (_MOST_IMAGES if count is None else count) + 1024)
    except OSError as error:
        raise CheckpointError(
            f"cannot read {path} ({error.strerror or error}), which says which images were trained on: "
            "restore it from a copy"
        ) from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise CheckpointError(f"{path} is damaged (its checksum differs): restore it from a copy")
    try:
        codes = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): restore it from a copy") from error
    known = range(UNDECLARED, most + 1)
    count = codes.size if count is None else count
    if codes.shape != (count,) or codes.dtype != np.int8 or not np.isin(codes, known).all():
        raise CheckpointError(f"{path} does not fit the data set of {count:,} images: restore it from a copy")
    found: NDArray[np.int8] = codes
    return found


def group_numbers(groups: Sequence[str]) -> NDArray[np.int64]:
    """The number [N] of each image's group; an image without one is alone in a group of its own."""
    known: dict[str | int, int] = {}
    return np.array([known.setdefault(name or index, len(known)) for index, name in enumerate(groups)], np.int64)


def stratified_split(
    labels: NDArray[np.int64], fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw the same share of every class: round(n · fraction) of its n images, at least one and never all.

    Args:
        labels: [N] class of each image.
        fraction: within 0…1, both excluded.
        seed: of numpy's default generator.

    Returns:
        Sorted positions in `labels` of those kept and of those held out; a class of one image is kept.
    """
    generator = np.random.default_rng(seed)
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        held[members[: min(max(round(len(members) * fraction), 1), len(members) - 1)]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def grouped_split(
    labels: NDArray[np.int64], groups: NDArray[np.int64], fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """As `stratified_split`, but images of one group are all kept or all held out.

    Groups are drawn one after the other; each is held out where that brings the classes nearer to the share that
    is wanted. A class of which nothing is held out then gets its smallest group. No class is held out as a whole.

    Args:
        labels: [N] class of each image.
        groups: [N] number of each image's group.
        fraction: within 0…1, both excluded.
        seed: of numpy's default generator.

    Returns:
        Sorted positions in `labels` of those kept and of those held out; none held out where no group can be.
    """
    _, groups = np.unique(groups, return_inverse=True)
    _, labels = np.unique(labels, return_inverse=True)
    sizes = np.bincount(labels)
    wanted = np.maximum(1, fraction * sizes)
    counts = np.zeros(len(sizes), np.int64)
    order = np.argsort(groups, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    held = np.zeros(len(labels), bool)

    def hold(group: int, *, nearer: bool) -> bool:
        """Hold a group out, where a part of each of its classes stays; `nearer`: and where that is an advance."""
        present, of_group = np.unique(labels[members[group]], return_counts=True)
        before, after = counts[present], counts[present] + of_group
        distance = ((after - wanted[present]) ** 2 - (before - wanted[present]) ** 2) / sizes[present]
        if (after >= sizes[present]).any() or (nearer and distance.sum() >= 0):
            return False
        counts[present] = after
        held[members[group]] = True
        return True

    for group in np.random.default_rng(seed).permutation(len(members)):
        hold(group, nearer=True)
    for label in np.flatnonzero(counts == 0):
        if counts[label]:  # by now, as a group for another class has images of it too
            continue
        having = sorted(np.unique(groups[labels == label]), key=lambda group: len(members[group]))
        any(hold(group, nearer=False) for group in having)
    return np.flatnonzero(~held), np.flatnonzero(held)


def stratified_subset(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Draw `count` images, the same share of every class, by the largest remainders; one of each where possible.

    Fewer, by the same seed, are some of these but for rounding.

    Args:
        labels: [N] class of each image.
        count: 0…N.
        seed: of numpy's default generator.

    Returns:
        Sorted positions in `labels`, `count` of them.
    """
    generator = np.random.default_rng(seed)
    classes, sizes = np.unique(labels, return_counts=True)
    exact = count * sizes / len(labels)
    least = int(count >= len(classes))
    quotas = np.maximum(np.floor(exact).astype(np.int64), least)
    while (short := count - quotas.sum()) != 0:  # by one at a time, where it is furthest from exact
        room = quotas < sizes if short > 0 else quotas > least
        place = np.where(room, np.sign(short) * (exact - quotas), -np.inf).argmax()
        quotas[place] += np.sign(short)
    drawn = [
        generator.permutation(np.flatnonzero(labels == label))[:quota]
        for label, quota in zip(classes, quotas, strict=True)
    ]
    return np.sort(np.concatenate(drawn))
