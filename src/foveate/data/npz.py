"""Data sets in numpy's .npz: arrays of pixels and labels, streamed from the archive and never unpickled."""

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from foveate.data.source import Block, Image, Source, hash_files, index_classes, reading
from foveate.data.splits import UNDECLARED, split_code, split_codes
from foveate.errors import DataError
from foveate.progress import Track

__all__ = ["open_npz"]

# What zipfile, zlib and numpy raise for a damaged archive.
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class _NpzBlock(Block):
    """One array of images."""

    path: str
    member: str
    encoded: ClassVar[bool] = False

    def images(self) -> Iterator[Image]:
        with (
            reading(self.path, _DAMAGED),
            zipfile.ZipFile(self.path) as archive,
            archive.open(f"{self.member}.npy") as file,
        ):
            shape, _ = _read_header(file, self.path, self.member)
            stride = int(np.prod(shape[1:]))
            for _ in range(self.count):
                if len(data := file.read(stride)) < stride:
                    raise EOFError(f"{self.member} is cut off")
                yield np.frombuffer(data, np.uint8).reshape(shape[1:])


def open_npz(path: Path, track: Track) -> Source:
    """Read `images` and `labels` (and `class_names`, `split`, `group` where they are there), or Keras' `x_train`,
    `y_train`, `x_test`, `y_test` (and `x_val`, `y_val`).

    Images are [N, H, W] or [N, H, W, 1 or 3] uint8; labels are strings, or integers that index `class_names`.

    Raises:
        DataError: for a damaged archive, arrays of another shape, type or length, or a label that is no class.
    """
    with reading(path, _DAMAGED), zipfile.ZipFile(path) as archive:
        names = {name.removesuffix(".npy") for name in archive.namelist()}
        keras = [(f"x_{name}", f"y_{name}", split_code(name)) for name in ("train", "val", "test")]
        parts = [part for part in keras if part[0] in names] or [("images", "labels", UNDECLARED)]
        if missing := {name for part in parts for name in part[:2]} - names:
            raise DataError(
                f"{path} has no array {' and '.join(sorted(missing))}: save it with images and labels, or with "
                "x_train, y_train, x_test and y_test"
            )
        blocks: list[Block] = []
        labels, declared = [], []
        ids: list[str] = []
        for images, label, split in parts:
            shape = _image_shape(archive, path, images)
            if not shape[0]:
                continue
            values = _read_array(archive, path, label)
            values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values  # as Keras has them
            if values.dtype.kind not in "iuU" or values.shape != shape[:1]:
                raise DataError(
                    f"{path}: {label} is {values.dtype} {values.shape}: it must hold one integer or string for "
                    f"each of the {shape[0]} {images}"
                )
            blocks.append(_NpzBlock(len(ids), shape[0], str(path), images))
            ids += [f"{path.name}#{images}[{row}]" for row in range(shape[0])]
            labels.append(values)
            declared.append(np.full(shape[0], split, np.int8))
        extra = {
            name: [str(value) for value in _read_array(archive, path, name).reshape(-1)]
            for name in ("class_names", "split", "group")
            if name in names
        }
    for name in ("split", "group"):
        if name in extra and len(extra[name]) != len(ids):
            raise DataError(
                f"{path}: {name} has {len(extra[name])} values for {len(ids)} images: give one for each"
            )
    if not ids:
        raise DataError(f"{path} has no images: its arrays are empty")
    joined = np.concatenate(labels)
    class_names, indices = index_classes(
        joined if joined.dtype.kind in "iu" else joined.tolist(),
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
        ids=ids,
        blocks=blocks,
        content=hash_files("npz", [str(path)], track),
        groups=tuple(extra["group"]) if "group" in extra else None,
    )


def _image_shape(archive: zipfile.ZipFile, path: Path, member: str) -> tuple[int, ...]:
    with archive.open(f"{member}.npy") as file:
        shape, dtype = _read_header(file, path, member)
    if dtype != np.uint8 or len(shape) not in (3, 4) or shape[3:] not in ((), (1,), (3,)) or 0 in shape[1:]:
        raise DataError(
            f"{path}: {member} is {dtype} {shape}: save it as uint8 of 0…255, shaped (images, height, width) or "
            "(images, height, width, 1 or 3)"
        )
    return shape


def _read_array(archive: zipfile.ZipFile, path: Path, member: str) -> NDArray[Any]:
    with archive.open(f"{member}.npy") as file:
        _read_header(file, path, member)
    with archive.open(f"{member}.npy") as file:
        return np.asarray(npy.read_array(file, allow_pickle=False))


def _read_header(file: IO[bytes], path: Path | str, member: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of the .npy in `file`, which is left at its first element."""
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    version = npy.read_magic(file)
    if version not in readers:
        raise DataError(f"{path}: {member} is of .npy version {version}: save it again with numpy.savez")
    shape, is_fortran, dtype = readers[version](file)
    if dtype.hasobject:
        raise DataError(
            f"{path}: {member} holds pickled objects, which are never opened: save plain numbers or strings"
        )
    if is_fortran and len(shape) > 1:
        raise DataError(f"{path}: {member} is in Fortran order: save numpy.ascontiguousarray of it")
    return shape, dtype
