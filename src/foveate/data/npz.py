"""Data sets in numpy's .npz: arrays of pixels and labels, streamed from the archive and never unpickled."""

import contextlib
import io
import math
import os
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from foveate.data.decode import MAX_PIXELS
from foveate.data.hashing import hash_files
from foveate.data.source import Block, Image, Source, index_classes, listed, reading, refuse_claim, whole_numbers
from foveate.data.splits import SPLITS, UNDECLARED, hints_at_split, split_code, split_codes
from foveate.data.table import refuse_other_columns
from foveate.data.texts import row_names
from foveate.errors import DataError
from foveate.files import open_regular
from foveate.progress import Track

# What zipfile, zlib and numpy raise for a damaged archive.
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, NotImplementedError, RuntimeError)

_ROLES = {
    "x": "images",
    "image": "images",
    "images": "images",
    "y": "labels",
    "label": "labels",
    "labels": "labels",
}
"""What an array holds by a word of its name, as in `x_train`, `train_images` and `labels`."""
_EXTRA = ("class_names", "split", "group")
_HEADER_BYTES = 10_000
"""Of an array's header at most, as numpy itself has it."""
_RATIO = 200
"""Bytes that one compressed byte of an array may stand for, beyond the first few megabytes."""


@dataclass(frozen=True)
class _Header:
    """What an array says of itself, and where its elements begin."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int

    @property
    def squeezed(self) -> tuple[int, ...]:
        """The shape, but [N] for the [N, 1] that Keras has for labels."""
        return self.shape[:1] if self.shape[1:] == (1,) else self.shape


@dataclass(frozen=True)
class _NpzBlock(Block):
    """One array of images."""

    path: str
    member: str
    encoded: ClassVar[bool] = False

    def images(self) -> Iterator[Image]:
        with _opened(Path(self.path)) as archive:
            header = _read_header(archive, Path(self.path), self.member)
            stride = math.prod(header.shape[1:])
            with archive.open(f"{self.member}.npy") as file:
                file.read(header.offset)
                for _ in range(self.count):
                    if len(data := file.read(stride)) < stride:
                        raise EOFError(f"{self.member} is cut off")
                    yield np.frombuffer(data, np.uint8).reshape(header.shape[1:])


def open_npz(path: Path, track: Track) -> Source:
    """Read `images` and `labels` (and `class_names`, `split`, `group` where they are there), or arrays of splits:
    Keras' `x_train`, `y_train`, `x_test`, `y_test`, or `train_images`, `train_labels`, …

    Images are [N, H, W] or [N, H, W, 1 or 3] uint8; labels are strings, or integers that index `class_names`.

    Raises:
        DataError: for a damaged archive, arrays of another shape, type or length, a label that is not a class,
            images without labels or the reverse, and an array that looks like a split but cannot be taken as one.
    """
    with _opened(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        if len(set(names)) < len(names):
            raise DataError(f"{path} holds an array twice, of {listed(sorted(set(names)))}: save it again")
        parts, notes = _find_parts(archive, path, names)
        blocks: list[Block] = []
        labels, declared = [], []
        rows: list[tuple[str, int]] = []
        total = 0
        for images, label, split in parts:
            count = _check_images(archive, path, images, total)
            if not count:
                continue
            labels.append(_read_labels(archive, path, label, images, count))
            blocks.append(_NpzBlock(total, count, str(path), images))
            rows.append((f"{path.name}#{images}[", count))
            total += count
            declared.append(np.full(count, split, np.int8))
        extra = {name: _read_texts(archive, path, name) for name in _EXTRA if name in names}
    for name in ("split", "group"):
        if name in extra and len(extra[name]) != total:
            raise DataError(f"{path}: {name} has {len(extra[name])} values for {total} images: give one for each")
    if not total:
        raise DataError(f"{path} has no images: its arrays are empty")
    if len({isinstance(values, np.ndarray) for values in labels}) > 1:
        raise DataError(f"{path}: some of its arrays of labels are integers, others are strings: save them alike")
    class_names, indices = index_classes(
        np.concatenate(labels)
        if isinstance(labels[0], np.ndarray)
        else [name for part in labels for name in part],
        extra.get("class_names"),
        lambda row: f"{path}, image {row}",
    )
    return Source(
        name=path.stem,
        location=str(path.resolve()),
        class_names=class_names,
        labels=indices,
        declared=(
            split_codes(extra["split"], lambda row: f"{path}, image {row}")
            if "split" in extra
            else np.concatenate(declared)
        ),
        ids=row_names(rows, "]"),
        blocks=blocks,
        content=hash_files("npz", [str(path)], track),
        groups=tuple(extra["group"]) if "group" in extra else None,
        notes=notes,
    )


def _find_parts(
    archive: zipfile.ZipFile, path: Path, names: list[str]
) -> tuple[list[tuple[str, str, int]], tuple[str, ...]]:
    """The arrays of images, each with its labels and its split, in the order of `SPLITS`; and notes."""
    fix = "save it with images and labels, or with x_train, y_train, x_test and y_test (and x_val, y_val)"
    images, labels, others = _by_role(archive, path, names)
    keys = sorted(images.keys() | labels.keys()) or [""]
    codes = {key: split_code(key) if key else UNDECLARED for key in keys}
    odd = [name for part in (images, labels) for key, name in part.items() if codes[key] is None]
    if odd := odd or [name for name in others if hints_at_split(name)]:
        raise DataError(
            f"{path}: {odd[0]} looks like a split and cannot be read as one: {fix}; it holds {listed(names)}"
        )
    missing = [f"x_{key}" if key else "images" for key in keys if key not in images]
    missing += [f"y_{key}" if key else "labels" for key in keys if key not in labels]
    if missing:
        raise DataError(f"{path} has no array {' and '.join(sorted(missing))}: {fix}; it holds {listed(names)}")
    if keys != [""] and ("" in keys or "split" in names):
        raise DataError(
            f"{path} names splits in two ways or for some arrays alone: {fix}; it holds {listed(names)}"
        )
    if keys == [""] and "split" not in names:
        _refuse_other_splits(archive, path, others)
    notes = [f"{path.name}: passed over the arrays {listed(others)}"] if others else []
    for code, split in enumerate(SPLITS):
        if len(alike := [images[key] for key in keys if codes[key] == code]) > 1:
            notes.append(f"{listed(alike)} are all taken for the {split} split")
    parts = [(images[key], labels[key], code) for key, code in codes.items() if code is not None]
    return sorted(parts, key=lambda part: part[2]), tuple(notes)


def _by_role(
    archive: zipfile.ZipFile, path: Path, names: list[str]
) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """The arrays of images and those of labels, by what else is in their names; and those that are not read."""
    of_role: dict[str, dict[str, str]] = {"images": {}, "labels": {}}
    others = []
    for name in names:
        words = re.findall(r"[^\W_]+", name.casefold())
        roles = [_ROLES[word] for word in words if word in _ROLES]
        rest = "_".join(word for word in words if word not in _ROLES)
        # `image_ids` and `label_names` are no images and labels of a split.
        is_part = len(roles) == 1 and (
            not rest or hints_at_split(rest) or len(_read_header(archive, path, name).shape) > 2
        )
        if is_part and (other := of_role[roles[0]].setdefault(rest, name)) != name:
            raise DataError(f"{path}: the names of {name} and {other} mean the same: rename one")
        if not is_part and name not in _EXTRA:
            others.append(name)
    return of_role["images"], of_role["labels"], others


def _refuse_other_splits(archive: zipfile.ZipFile, path: Path, names: list[str]) -> None:
    """Refuse an array that is not read but says which image is of which split."""
    of_one_row = {}
    for name in names:
        header = _read_header(archive, path, name)
        if len(header.shape) == 1 and header.dtype.kind in "iubUS":
            of_one_row[name] = {text.lower() for text in _read_texts(archive, path, name)}
    refuse_other_columns(path, of_one_row, has_split=False)


def _check_images(archive: zipfile.ZipFile, path: Path, member: str, before: int) -> int:
    """The number of images in an array; `before` are those in others."""
    header = _read_header(archive, path, member)
    shape, dtype = header.shape, header.dtype
    if dtype != np.uint8 or len(shape) not in (3, 4) or shape[3:] not in ((), (1,), (3,)) or 0 in shape[1:]:
        raise DataError(
            f"{path}: {member} is {dtype} {shape}: save it as uint8 of 0…255, shaped (images, height, width) or "
            "(images, height, width, 1 or 3)"
        )
    if shape[1] * shape[2] > MAX_PIXELS:
        raise DataError(f"{path}: {member} has images of {shape[1]} × {shape[2]} pixels, more than {MAX_PIXELS:,}")
    size = _size(archive)
    refuse_claim(path, size, images=before + shape[0], once=math.prod(shape[1:]), what=f"an image of {member}")
    return shape[0]


def _read_labels(
    archive: zipfile.ZipFile, path: Path, member: str, images: str, count: int
) -> NDArray[np.int64] | list[str]:
    header = _read_header(archive, path, member)
    if header.dtype.kind not in "iuUS" or header.squeezed != (count,):
        raise DataError(
            f"{path}: {member} is {header.dtype} {header.shape}: it must hold one integer or string for each of "
            f"the {count} {images}"
        )
    if header.dtype.kind in "US":
        return _read_texts(archive, path, member)
    return whole_numbers(_read_array(archive, path, member), lambda row: f"{path}, {member}[{row}]")


def _read_texts(archive: zipfile.ZipFile, path: Path, member: str) -> list[str]:
    values = _read_array(archive, path, member)
    if values.dtype.kind not in "iufbUS" or values.ndim > 1:
        raise DataError(f"{path}: {member} is {values.dtype} {values.shape}: it must hold a list of strings")
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values.reshape(-1).tolist()]


def _read_array(archive: zipfile.ZipFile, path: Path, member: str) -> NDArray[Any]:
    """A whole array but images, in one dimension where it has one column."""
    header = _read_header(archive, path, member)
    count = math.prod(header.shape)
    refuse_claim(path, _size(archive), images=count, once=count * header.dtype.itemsize, what=member)
    with archive.open(f"{member}.npy") as file:
        file.read(header.offset)
        data = file.read(count * header.dtype.itemsize)
    values = np.frombuffer(data, header.dtype, count) if data else np.zeros(count, header.dtype)
    return values.reshape(header.squeezed).astype(header.dtype.newbyteorder("="))


def _read_header(archive: zipfile.ZipFile, path: Path, member: str) -> _Header:
    """What the array `member` says of itself, held against what the archive says of it.

    Raises:
        DataError: for a header that does not fit, Python objects, and an array that is compressed beyond belief.
    """
    entry = archive.getinfo(f"{member}.npy")
    with archive.open(entry) as file:
        start = io.BytesIO(file.read(_HEADER_BYTES + 12))  # a header that says it is longer is cut off here
    version = npy.read_magic(start)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in readers:
        raise DataError(f"{path}: {member} is of .npy version {version}: save it again with numpy.savez")
    try:
        with warnings.catch_warnings(action="ignore"):  # of files that Python 2 wrote
            shape, is_fortran, dtype = readers[version](start)
    except Exception as error:  # numpy parses it as Python's literals, and lets through nearly anything
        raise ValueError(f"{member} has a damaged header") from error
    if dtype.hasobject:
        raise DataError(
            f"{path}: {member} holds pickled objects, which are never opened: save plain numbers or strings"
        )
    if is_fortran and len(shape) > 1:
        raise DataError(f"{path}: {member} is in Fortran order: save numpy.ascontiguousarray of it")
    if any(isinstance(length, bool) or length < 0 for length in shape):
        raise ValueError(f"{member} has the shape {shape}")
    claimed = math.prod(shape) * dtype.itemsize
    if claimed > entry.file_size - start.tell():
        raise EOFError(
            f"{member} is cut off: {claimed:,} bytes by its header, {entry.file_size - start.tell():,} here"
        )
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{path}: {member} is compressed as numpy does not: save it again with numpy.savez")
    if entry.file_size > (64 << 20) + _RATIO * min(entry.compress_size, _size(archive)):
        raise DataError(
            f"{path}: {member} claims {entry.file_size:,} bytes in {entry.compress_size:,}, which no real images "
            "come to: save it again with numpy.savez"
        )
    return _Header(tuple(shape), dtype, start.tell())


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    with reading(path, _DAMAGED), open_regular(path) as file, zipfile.ZipFile(file) as archive:
        yield archive


def _size(archive: zipfile.ZipFile) -> int:
    """Bytes of the whole file."""
    assert archive.fp is not None
    return os.fstat(archive.fp.fileno()).st_size
