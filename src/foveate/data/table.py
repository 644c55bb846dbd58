"""Data sets that a CSV table lists: paths of image files, with their labels, splits and groups."""

import csv
import io
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from foveate.data.hashing import hash_files
from foveate.data.source import Source, file_blocks, index_classes, listed, reading
from foveate.data.splits import hints_at_split, split_code, split_codes
from foveate.data.texts import Texts
from foveate.errors import DataError
from foveate.files import read_regular
from foveate.progress import Track
from foveate.records import printable

_MAX_BYTES = 1 << 30
_SEPARATORS = ",;\t|"
_COLUMNS = ("image", "label", "split", "group")
_MARKS = (
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
    (b"PK\x03\x04", "a ZIP archive, such as an Excel workbook"),
    (b"PAR1", "Parquet"),
    (b"\x1f\x8b", "compressed by gzip"),
)
"""How files begin that are not UTF-8 text, and what they are."""
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:[/:]?/|data:")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")

SPLIT_COLUMNS = ("splits", "subset", "set", "partition", "fold", "phase", "usage", "dataset", "stage")
"""Names that others give to the column `split`."""
_FLAGS = {"0", "1", "0.0", "1.0", "true", "false", "yes", "no", "t", "f", "y", "n"}
"""Values of a column such as `is_test`, in lower case."""


def open_csv(file: Path, track: Track) -> Source:
    """Read a table `image,label[,split][,group]`, separated by commas, semicolons, tabs or vertical bars.

    The paths in it are relative to its folder.

    Raises:
        DataError: with the line number, for a row that cannot be read.
    """
    rows = _rows(file)
    header = next(rows)[1]
    at = {name: header.index(name) for name in _COLUMNS if name in header}
    others = [(place, name) for place, name in enumerate(header) if name and name not in at]
    lines: list[int] = []
    columns: dict[str, list[str]] = {name: [] for name in at}
    found = Texts()
    seen: dict[str, set[str]] = {name: set() for _, name in others}
    for line, row in rows:
        for name in ("image", "label"):
            if not row[at[name]]:
                raise DataError(f"{file}, line {line}: the {name} is empty: fill it in or remove the line")
        lines.append(line)
        for name, place in at.items():
            columns[name].append(sys.intern(row[place]) if name != "image" else row[place])
        for place, name in others:
            if len(seen[name]) <= len(_FLAGS):
                seen[name].add(row[place].lower())
        found.append(os.fspath(image_path(file.parent, row[at["image"]], f"{file}, line {line}")))
    if not lines:
        raise DataError(f"{file} lists no images: add lines below its header, as image,label")
    refuse_other_columns(file, seen, has_split="split" in at)
    class_names, labels = index_classes(columns["label"], None, str)
    return Source(
        name=file.stem,
        location=str(file.parent.resolve() / file.name),  # images lie beside a link, not where it leads
        class_names=class_names,
        labels=labels,
        declared=split_codes(columns.get("split", [None] * len(lines)), lambda i: f"{file}, line {lines[i]}"),
        ids=_row_ids(columns["image"], lines),
        blocks=file_blocks(found),
        content=hash_files("files", found, track),
        groups=tuple(columns["group"]) if "group" in at else None,
        fault=_repeat(file, found, lines, columns),
        notes=(f"columns of {file.name} that are not read: {listed(list(map(printable, seen)))}",) if seen else (),
    )


def _repeat(file: Path, paths: Sequence[str], lines: Sequence[int], columns: dict[str, list[str]]) -> str | None:
    """What is wrong with one image in two splits: a network would be tested on what it was trained on."""
    splits = columns.get("split", [])
    first: dict[str, int] = {}
    for place, (path, split) in enumerate(zip(map(os.path.normpath, paths), splits, strict=False)):
        other = first.setdefault(path, place)
        if other != place and split_code(split) != split_code(splits[other]):
            return (
                f"{file}, line {lines[place]}: {printable(columns['image'][place])[:100]} is in the split "
                f"{split or 'none'}, and in line {lines[other]} in {splits[other] or 'none'}: remove one of them"
            )
    return None


def image_path(folder: Path, name: str, where: str) -> Path:
    """The file that a table in `folder` names: relative to that or absolute, with slashes or as Windows writes it.

    Args:
        where: the place of the name, for a message.

    Raises:
        DataError: for a URL, as nothing is downloaded, and for a path on a drive of Windows elsewhere.
    """
    if _URL.match(name) and not _DRIVE.match(name):
        raise DataError(
            f"{where}: {printable(name)[:100]} is a URL, and nothing is downloaded: download the images and name "
            "the files"
        )
    path = folder / name
    if os.name == "nt" or "\\" not in name:
        return path
    if _DRIVE.match(name):
        raise DataError(
            f"{where}: {printable(name)[:100]} lies on a drive of Windows: write the path relative to the table's "
            "folder"
        )
    return path if os.path.lexists(path) else folder / name.replace("\\", "/")


def refuse_other_columns(file: Path, values: dict[str, set[str]], *, has_split: bool) -> None:
    """Refuse columns that are not read but look like the column `split`: what they hold out would be trained on.

    Args:
        values: of each column that is not read, distinct values in lower case; of one with many, some are enough.
        has_split: whether there is a column `split`, which then decides.
    """
    if has_split:
        return
    for name, distinct in values.items():
        given = distinct - {""}
        by_values = bool(given) and all(split_code(value) is not None for value in given)
        by_both = name.lower() in SPLIT_COLUMNS and any(map(hints_at_split, given))
        by_name = name.lower() == "usage" and given <= {"public", "private", "ignored"} and bool(given)
        is_flag = hints_at_split(name) and bool(given) and given <= _FLAGS
        if split_code(name) is not None or by_values or by_both or by_name or is_flag:
            raise DataError(
                f"{file}: the column {printable(name)} looks like a split ({listed(sorted(given))}) and is not "
                "read: name it split, with the values train, val and test, or remove it"
            )


def _row_ids(images: Sequence[str], lines: Sequence[int]) -> Texts:
    """What a row names; with its line where others name it too."""
    times = Counter(images)
    return Texts(
        printable(image) if times[image] == 1 else f"{printable(image)}#{line}"
        for image, line in zip(images, lines, strict=True)
    )


def _rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """The line number and the stripped fields of the header, in lower case, and of each row that is not blank."""
    text = _text(file)
    first = 0
    separator = None
    if (declared := re.match(r'"?sep=(.)"?\r?\n', text)) is not None:  # Excel's own first line
        separator, first, text = declared[1], 1, text[declared.end() :]
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=separator or _separator(text), strict=True, skipinitialspace=True)
    try:
        header = [column.strip().lower() for column in next(reader, [])]
        _check_header(file, header)
        yield first + 1, header
        for fields in reader:
            if len(fields) != len(header) and fields:
                raise DataError(
                    f"{file}, line {first + reader.line_num}: {len(fields)} fields where the header has "
                    f"{len(header)}: correct the line (quote a field that holds a comma)"
                )
            if fields:
                yield first + reader.line_num, [field.strip() for field in fields]
    except csv.Error as error:
        raise DataError(f"{file}, line {first + reader.line_num}: {error}: correct the line") from error


def _text(file: Path) -> str:
    with reading(file):
        content = read_regular(file, _MAX_BYTES)
    for mark, what in _MARKS:
        if content.startswith(mark):
            raise DataError(f"{file} is {what}, not UTF-8 text: save the table as CSV in UTF-8")
    if b"\0" in content:
        line = content[: content.index(b"\0")].count(b"\n") + 1
        raise DataError(f"{file}, line {line}: not text, it holds a NUL byte: save the table as CSV in UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"{file}, line {line}: not UTF-8 text (the byte {content[error.start]:#04x} may be of a Windows or "
            "Latin encoding): save the table as UTF-8"
        ) from error


def _separator(text: str) -> str:
    """The separator by which the first line has the columns; a comma where none does."""
    line = re.split(r"[\r\n]", text[: 1 << 16], maxsplit=1)[0]
    for separator in _SEPARATORS:
        try:
            fields = next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
        except csv.Error:
            continue
        if {"image", "label"} <= {field.strip().lower() for field in fields}:
            return separator
    return ","


def _check_header(file: Path, header: Sequence[str]) -> None:
    named = [name for name in header if name]
    if twice := [name for name, times in Counter(named).items() if times > 1]:
        raise DataError(f"{file}, line 1: the column {listed(twice)} occurs twice: remove or rename one")
    if {"image", "label"} <= set(named):
        return
    first = header[0] if header else ""
    if len(header) > 1 and re.search(r"\.(jpe?g|png|webp|bmp|gif|tiff?)$", first):
        raise DataError(
            f"{file}, line 1: the header is missing, as {printable(first)[:100]} is an image: write image,label "
            "above it"
        )
    found = f"; it has {listed(named)}" if named else ""
    raise DataError(
        f"{file}, line 1: the header must name the columns image,label[,split][,group], separated by commas, "
        f"semicolons or tabs{found}"
    )
