"""What every kind of data set is read into before its images are decoded: labels, declared splits, and blocks."""

import contextlib
import itertools
import math
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from foveate.data.decode import shorter_side
from foveate.data.hashing import Content
from foveate.errors import DataError, one_line

_MISSING = ("nan", "none", "null", "n/a", "na", "<na>", "nat")
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
    values: Sequence[str] | NDArray[np.int64], class_names: Sequence[str] | None, where: Callable[[int], str]
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Class names, and the index into them of each of the [N] `values`, which are class names or integers.

    Integers are positions in `class_names` where these are given, else names themselves, in numeric order. Names
    are made `printable`.

    Args:
        values: [N] strings, or an array of integers.
        class_names: the names in order; None: the sorted distinct values.
        where: names the place of the i-th value for a message.

    Raises:
        DataError: for a value that is not a class, and for a class named twice.
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


_FEWEST_MEASURED, _MOSTLY = 10, 0.9
"""Classes from which their names may be measurements, and the share of them that are numbers then."""


def name_warnings(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What may be wrong with names of classes: the kind, and a line.

    `alike_names`: some differ only in case, in how Unicode writes the same letters, or in how a number is written;
    `missing_names`: some are what programs write where a label is missing; `measured_names`: they are numbers, as
    of a measurement.
    """
    if (line := measurements_told(names)) is not None:
        yield "measured_names", line
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


def measurements_told(names: Sequence[str]) -> str | None:
    """A line where nearly all names of classes are numbers, and most of those have fractions; None where not."""
    numbers = {name: value for name in names if math.isfinite(value := _number(name))}
    fractions = sum(value % 1 != 0 for value in numbers.values())
    if len(names) < _FEWEST_MEASURED or len(numbers) < _MOSTLY * len(names) or 2 * fractions < len(names):
        return None
    first, second, *_ = numbers
    of = "its" if len(numbers) == len(names) else f"{len(numbers):,} of its"
    return (
        f"{of} {len(names):,} classes are numbers, such as {listed([first])} and {listed([second])}: a network "
        "tells classes apart and predicts no quantity; if they are measurements, give all numbers in a range one "
        "label, such as low or high"
    )


def _number(name: str) -> float:
    """A name as a number, with a decimal point or comma; NaN where it is none."""
    try:
        return float(name.replace(",", "."))
    except ValueError:
        return math.nan


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
