"""Data sets of image files: folders named after their classes, and CSV tables of paths."""

import csv
import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from foveate.data.source import Source, file_blocks, hash_files, index_classes, reading
from foveate.data.splits import UNDECLARED, split_code, split_codes
from foveate.errors import DataError
from foveate.progress import Track
from foveate.records import printable

__all__ = ["list_files", "open_csv", "open_folder"]

_CLUTTER = {"thumbs.db", "desktop.ini"}


def open_folder(root: Path, track: Track) -> Source:
    """Read `root/{train,val,test}/<class>/…`, or a flat `root/<class>/…`; a class folder is read recursively.

    Every file in a class folder is taken for an image, so that one which is none is listed as bad; hidden
    files and those that file managers leave are passed over.

    Raises:
        DataError: without class folders, or when a folder cannot be read.
    """
    paths: list[str] = []
    names: list[str] = []
    splits: list[int] = []
    with reading(root):
        folders = _subfolders(root)
        parts = {folder: code for folder in folders if (code := _split_of(folder)) is not None}
        # A class may be called "train": the folder is split only where train/ itself has subfolders, or where
        # there are splits alone, as in a folder made to evaluate on.
        is_split = split_code("train") in parts.values() or len(parts) == len(folders)
        classes = [folder for part in parts for folder in _subfolders(part)] if is_split else folders
        if not classes:
            raise DataError(f"{root} has no class folders: put the images of each class into {root}/<class>/")
        for folder in classes:
            files = list(list_files(folder))
            paths += files
            names += [printable(folder.name)] * len(files)
            splits += [parts[folder.parent] if is_split else UNDECLARED] * len(files)
        beside = sum(path.is_file() and not _is_clutter(path.name) for path in root.iterdir())
    if not paths:
        raise DataError(f"{root} has no images: put the images of each class into {root}/<class>/")
    notes = [f"{beside} file(s) beside the class folders of {root} were passed over"] if beside else []
    if is_split:
        notes += [f"{folder} is no split and was passed over" for folder in folders if folder not in parts]
    class_names, labels = index_classes(names, sorted({printable(folder.name) for folder in classes}), str)
    return Source(
        name=root.resolve().name or "data",
        location=str(root.resolve()),
        class_names=class_names,
        labels=labels,
        declared=np.array(splits, np.int8),
        ids=[printable(Path(path).relative_to(root).as_posix()) for path in paths],
        blocks=file_blocks(paths),
        content=hash_files("files", paths, track),
        notes=tuple(notes),
    )


def open_csv(file: Path, track: Track) -> Source:
    """Read a table `image,label[,split][,group]`; the paths in it are relative to its folder.

    Raises:
        DataError: with the line number, for a row that cannot be read.
    """
    lines, rows = [], []
    for line, row in _rows(file):
        for column in ("image", "label"):
            if not row[column]:
                raise DataError(f"{file}, line {line}: the {column} is empty: fill it in or remove the line")
        lines.append(line)
        rows.append(row)
    if not rows:
        raise DataError(f"{file} lists no images: add lines below its header, as image,label")
    found = [os.fspath(file.parent / row["image"]) for row in rows]
    class_names, labels = index_classes([row["label"] for row in rows], None, str)
    return Source(
        name=file.stem,
        location=str(file.resolve()),
        class_names=class_names,
        labels=labels,
        declared=split_codes([row.get("split") for row in rows], lambda i: f"{file}, line {lines[i]}"),
        ids=_row_ids([row["image"] for row in rows], lines),
        blocks=file_blocks(found),
        content=hash_files("files", found, track),
        groups=tuple(row["group"] for row in rows) if "group" in rows[0] else None,
    )


def _row_ids(images: Sequence[str], lines: Sequence[int]) -> list[str]:
    """What a row names; with its line where others name it too."""
    times = Counter(images)
    return [
        printable(image) if times[image] == 1 else f"{printable(image)}#{line}"
        for image, line in zip(images, lines, strict=True)
    ]


def list_files(folder: Path) -> Iterator[str]:
    """Paths of the files below `folder`, in sorted order, without hidden ones and file managers' clutter.

    Raises:
        OSError: when a folder below cannot be read.
    """

    def stop(error: OSError) -> None:
        raise error

    for parent, folders, files in os.walk(folder, onerror=stop):
        folders[:] = sorted(name for name in folders if not _is_clutter(name))
        yield from (os.path.join(parent, name) for name in sorted(files) if not _is_clutter(name))  # noqa: PTH118 (5 × Path)


def _rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The line number and the stripped fields, by column, of each row that is not blank."""
    with reading(file):
        content = file.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(f"{file}, line {line}: not UTF-8 text: save the table as UTF-8") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [column.strip().lower() for column in next(reader, [])]
        if not {"image", "label"} <= set(header):
            raise DataError(f"{file}, line 1: the header must name the columns image,label[,split][,group]")
        for fields in reader:
            if len(fields) != len(header) and fields:
                raise DataError(
                    f"{file}, line {reader.line_num}: {len(fields)} fields where the header has {len(header)}: "
                    "correct the line (quote a field that holds a comma)"
                )
            if fields:
                yield reader.line_num, dict(zip(header, (field.strip() for field in fields), strict=True))
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num}: {error}: correct the line") from error


def _split_of(folder: Path) -> int | None:
    """The split that a folder of class folders is named after."""
    code = split_code(folder.name)
    return code if code is not None and _subfolders(folder) else None


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not _is_clutter(path.name))


def _is_clutter(name: str) -> bool:
    return name.startswith(".") or name.lower() in _CLUTTER
