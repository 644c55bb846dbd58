"""What every kind of data set is read into before its images are decoded: labels, declared splits, and blocks."""

import contextlib
import hashlib
import itertools
import math
import os
import threading
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from foveate.data.decode import BadImageError, open_image, shorter_side
from foveate.errors import DataError, one_line
from foveate.progress import Track

_PIECE_BYTES = 8 << 20
"""Of a file that is read, between two signs that it goes on."""
_AT_ONCE = 1024
"""Files that are handed out to be hashed, so that a million of them take no memory."""
_TOGETHER = 16
"""Of these, how many a thread takes at a time where there are thousands, as handing out costs time."""
_MISSING = ("nan", "none", "null", "n/a", "na", "<na>", "nat")
_LARGEST_IMAGE = 4 << 30
"""Bytes of an image file that are hashed at most: /proc/kcore and sparse files can claim terabytes."""

Image = Path | bytes | NDArray[np.uint8]
"""An image not yet decoded: a file, a file's bytes, or pixels [H, W], [H, W, 1] or [H, W, 3]."""


@dataclass(frozen=True)
class Block(ABC):
    """Consecutive images of a data set that are read together."""

    start: int
    """Index of its first image in the data set."""
    count: int
    encoded: ClassVar[bool] = True
    """Whether decoding costs enough to be spread over processes, which are given `fields`."""

    @property
    def files(self) -> Sequence[str]:
        """The files it reads, where they are encoded."""
        return ()

    def fields(self) -> dict[str, Any]:
        """What an encoded block is made of, as JSON values."""
        return vars(self)

    def part(self, begin: int, end: int) -> "Block":
        """Of an encoded block, its images from `begin` on, before `end`."""
        raise NotImplementedError

    @abstractmethod
    def images(self) -> Iterator[Image]:
        """Yield its `count` images in order; DataError when the file that holds them is damaged."""


@dataclass(frozen=True)
class FileBlock(Block):
    """Image files, one image each."""

    paths: Sequence[str]

    @property
    def files(self) -> Sequence[str]:
        """They themselves."""
        return self.paths

    def fields(self) -> dict[str, Any]:
        """With the paths as a list."""
        return {**vars(self), "paths": list(self.paths)}

    def part(self, begin: int, end: int) -> Block:
        """Some of the files."""
        return FileBlock(self.start + begin, end - begin, self.paths[begin:end])

    def images(self) -> Iterator[Image]:
        """Yield their paths."""
        yield from map(Path, self.paths)


@dataclass(frozen=True)
class Content:
    """What the files of a data set hold."""

    digest: str
    """sha256 of the files' contents, in order."""
    kind: str = field(default="", compare=False)
    files: Sequence[str] = field(default=(), compare=False)
    """The files themselves; none where the images come from memory."""

    def is_unchanged(self, track: Track) -> bool:
        """Whether the files still hold that; they are read again."""
        return not self.files or hash_files(self.kind, self.files, track).digest == self.digest


@dataclass(frozen=True, eq=False)
class Source:
    """A data set as it lies on disk, its images not decoded yet."""

    name: str
    location: str
    class_names: tuple[str, ...]
    labels: NDArray[np.int64]
    """[N], index into `class_names`."""
    declared: NDArray[np.int8]
    """[N], index into `SPLITS`, or `UNDECLARED`."""
    ids: Sequence[str]
    blocks: Sequence[Block]
    content: Content
    groups: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    fault: str | None = None
    """Why it must not be trained on, though it can be read."""
    side: int | None = None
    """Shorter side of the images, where every one is known to have the same."""
    mirror_safe: bool = True


def file_blocks(paths: Sequence[str], size: int = 64) -> list[Block]:
    """Blocks of `size` files."""
    return [
        FileBlock(start, len(part), part)
        for start, part in ((at, paths[at : at + size]) for at in range(0, len(paths), size))
    ]


def index_classes(
    values: Sequence[str] | NDArray[np.int64],
    class_names: Sequence[str] | None,
    where: Callable[[int], str],
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Class names, and the index into them of each of the [N] `values`, which are class names or integers.

    Integers are positions in `class_names` where these are given, else names themselves, in numeric order. Names
    are made `printable`.

    Args:
        values: [N] strings, or an array of integers.
        class_names: the names in order; None: the sorted distinct values.
        where: names the place of the i-th value for a message.

    Raises:
        DataError: for a value that is no class, and for a class named twice.
    """
    if class_names is not None:
        names = [str(name) for name in class_names]
    else:
        from foveate.records import MAX_CLASSES  # pydantic, which workers that decode do not need

        distinct = np.unique(values) if isinstance(values, np.ndarray) else sorted(set(values))
        names = [str(value) for value in distinct[: MAX_CLASSES + 1]]
    told = _told_names(names)
    if not isinstance(values, np.ndarray):
        position = {name: index for index, name in enumerate(names)}
        labels, known = np.fromiter((position.get(value, -1) for value in values), np.int64, len(values)), names
    elif class_names is None:
        labels, known = np.searchsorted(distinct, values).astype(np.int64), names
    else:
        within = (values >= 0) & (values < len(names))
        labels, known = np.where(within, values, -1), [f"0…{len(names) - 1}"]
    wrong = np.flatnonzero(labels < 0)
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"{where(row)}: label {_short(str(values[row]))} is not in {listed(known)}: correct it or leave it out"
        )
    return told, labels


def whole_numbers(values: NDArray[np.integer[Any]], where: Callable[[int], str]) -> NDArray[np.int64]:
    """Labels [N] of any integer type as int64; DataError for one that is larger."""
    largest = np.iinfo(np.int64).max
    if values.dtype == np.uint64 and (values > largest).any():
        row = int((values > largest).argmax())
        raise DataError(f"{where(row)}: label {values[row]} is larger than any label can be: correct it")
    return values.astype(np.int64)


def _told_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names of classes as they are shown and saved; DataError for what a checkpoint could not hold."""
    from foveate.records import MAX_CLASSES, MAX_NAME, printable

    if len(names) > MAX_CLASSES:
        raise DataError(
            f"the labels name more than {MAX_CLASSES:,} classes: give each image the name of its class"
        )
    told = tuple(printable(name[: MAX_NAME + 1]) for name in names)
    for name in told:
        if not name.strip():
            raise DataError("the name of a class is empty: give every image a label")
        if len(name) > MAX_NAME:
            raise DataError(
                f"the name of a class has {len(name):,} characters, more than {MAX_NAME}: {_short(name)}"
            )
    if len(set(told)) < len(told):
        twice = next(name for name, times in Counter(told).items() if times > 1)
        raise DataError(f"a class is named twice in {listed(told)}: rename one {_short(twice)}")
    return told


def name_warnings(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What may be wrong with names of classes: the kind, and a line.

    `alike_names`: some differ only in case, in how Unicode writes the same letters, or in how a number is written;
    `missing_names`: some are what programs write where a label is missing.
    """
    alike: dict[str | float, list[str]] = {}
    for name in names:
        key: str | float = unicodedata.normalize("NFKC", name).casefold()
        with contextlib.suppress(ValueError):
            key = float(name) if math.isfinite(float(name)) else key
        alike.setdefault(key, []).append(name)
    if groups := [" and ".join(map(repr, group)) for group in alike.values() if len(group) > 1]:
        told = ", ".join(groups[:5])
        yield "alike_names", f"classes whose names look the same: {told}: if they are one class, give it one name"
    if missing := [name for name in names if name.strip().casefold() in _MISSING]:
        yield (
            "missing_names",
            f"a class is named {listed(missing)}: if that means that the label is missing, remove these images",
        )


def listed(names: Sequence[str], limit: int = 10) -> str:
    """The first `limit` of some names as a message lists them, each short and printable."""
    rest = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(_short(name) for name in names[:limit]) + rest


def _short(text: str) -> str:
    from foveate.records import printable

    return printable(text if len(text) <= 100 else f"{text[:100]}…")


def refuse_claim(path: Path, size: int, *, images: int = 0, once: int = 0, what: str = "") -> None:
    """Refuse a file of `size` bytes that says it holds more than it can, before memory is taken for that.

    A few bytes of compressed data can stand for gigabytes. Real images take about a hundred bytes each at least.

    Args:
        images: how many images it says that it holds.
        once: bytes that must be in memory at one time to read `what`.

    Raises:
        DataError: for such a file.
    """
    if images > 100_000 + size // 64:
        raise DataError(
            f"{path} has {size:,} bytes and claims to hold {images:,} images, more than fit: write it again, with "
            "the images in it"
        )
    if once > (32 << 20) + 2 * size:
        raise DataError(
            f"{path} has {size:,} bytes and claims {once:,} bytes for {what}, which no real images come to: write "
            "it again"
        )


def hash_files(kind: str, paths: Sequence[str], track: Track) -> Content:
    """sha256 over `kind` and the contents of files, in order; the reason stands in for one that cannot be read."""
    digest = hashlib.sha256(kind.encode())
    limit = _LARGEST_IMAGE if kind == "files" else None
    total = len(paths) + sum(_file_bytes(path) // _PIECE_BYTES for path in paths)
    with contextlib.closing(_hashing(paths, limit, digest)) as pieces:  # what stops this stops the threads at once
        for _ in track(pieces, total=total, label="reading files", images_each=0):
            pass
    return Content(digest.hexdigest(), kind, paths)


def _hashing(paths: Sequence[str], limit: int | None, digest: "hashlib._Hash") -> Generator[None]:
    """Add the contents of files to `digest`; yield when a file was read, and within it after each piece."""
    moved: SimpleQueue[int] = SimpleQueue()
    """Files that were read to their ends; 0 where a piece of one was."""
    together = max(1, min(_TOGETHER, len(paths) // 256))
    stopped = threading.Event()
    with ThreadPoolExecutor(4) as pool:  # hashlib lets go of the GIL
        try:
            for start in range(0, len(paths), _AT_ONCE):
                some = paths[start : start + _AT_ONCE]
                hashing = [
                    pool.submit(_hash_some, some[at : at + together], limit, moved, stopped)
                    for at in range(0, len(some), together)
                ]
                left = len(some)
                while left > 0:
                    left -= moved.get()
                    yield
                for each in hashing:
                    for found in each.result():
                        digest.update(found.encode() + b"\n")
        finally:
            stopped.set()
            pool.shutdown(cancel_futures=True)


def typical_side(blocks: Sequence[Block]) -> int | None:
    """Median shorter side, in pixels, of up to 256 images from 16 blocks; None: no image can be read."""
    chosen = [blocks[i] for i in sorted({int(i) for i in np.linspace(0, len(blocks) - 1, 16)})]
    each = 256 // len(chosen)
    sides = [
        side
        for block in chosen
        # Blocks may be long and are read from their start: 2,048 images of one are enough.
        for image in itertools.islice(
            block.images(), 0, min(block.count, 2048), -(-min(block.count, 2048) // each)
        )
        if (side := shorter_side(image)) is not None
    ]
    return int(np.median(sides)) if sides else None


@contextlib.contextmanager
def reading(path: Path | str, damaged: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn an OSError, and the errors that mean `damaged`, into a DataError that names `path` and the fix.

    Raises:
        DataError: for these.
    """
    errors: tuple[type[Exception], ...] = (OSError, *damaged)
    try:
        yield
    except PermissionError as error:
        raise DataError(f"no permission to read {error.filename or path}: change its permissions") from error
    except errors as error:
        reason = (isinstance(error, OSError) and error.strerror) or one_line(error)
        raise DataError(f"cannot read {path}: {reason}: copy or download it again") from error


def _hash_some(
    paths: Sequence[str], limit: int | None, moved: SimpleQueue[int], stopped: threading.Event
) -> list[str]:
    buffer, found = memoryview(bytearray(1 << 18)), list[str]()
    try:
        for path in paths:
            found.append(_hash_file(path, limit, buffer, moved, stopped))
            moved.put(1)
    except BaseException:
        moved.put(len(paths))  # nobody waits for the rest
        raise
    return found


def _hash_file(
    path: str, limit: int | None, buffer: memoryview, moved: SimpleQueue[int], stopped: threading.Event
) -> str:
    digest, unsaid = hashlib.sha256(), 0
    try:
        with open_image(Path(path)) as file:
            status = os.fstat(file.fileno())
            if limit is not None and status.st_size > limit:
                return f"{status.st_size} bytes of {status.st_mtime_ns}"
            # Not beyond the size: some files of the kernel, as in /proc, have the size 0 and no end.
            left = status.st_size
            while (count := file.readinto(buffer[: min(left, len(buffer))])) and not stopped.is_set():
                digest.update(buffer[:count])
                left -= count
                unsaid += count
                if unsaid >= _PIECE_BYTES:
                    moved.put(0)
                    unsaid = 0
    except (BadImageError, OSError) as error:
        return str(error)
    return digest.hexdigest()


def _file_bytes(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except (OSError, ValueError):  # a missing file will be a bad image
        return 0
