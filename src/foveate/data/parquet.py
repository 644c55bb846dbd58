"""Data sets in Parquet as the Hugging Face hub lays them out: shards of encoded images and their labels."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from foveate.data.hashing import hash_files
from foveate.data.parquet_beside import passed_over
from foveate.data.parquet_images import ParquetBlock, chunks_of, find_images, opened_parquet, text_of
from foveate.data.source import Block, Source, index_classes, listed, reading, refuse_claim, whole_numbers
from foveate.data.splits import (
    SPLITS,
    UNDECLARED,
    hints_at_split,
    is_held_out,
    split_code,
    split_codes,
    split_words,
)
from foveate.data.table import SPLIT_COLUMNS, refuse_other_columns
from foveate.data.texts import Texts, row_names
from foveate.errors import DataError
from foveate.parsing import MalformedError, parse_json
from foveate.processors import usable_processors
from foveate.progress import Track
from foveate.records import printable


@dataclass(frozen=True, eq=False)
class _Shard:
    """The columns of one file but the images."""

    path: Path
    column: str
    group_rows: list[int]
    named_files: list[str]
    """Image files that stand in rows in place of bytes."""
    has_images: bool
    class_names: list[str] | None
    labels: list[str] | NDArray[np.int64]
    declared: NDArray[np.int8]
    groups: list[str] | None


def open_parquet(
    root: Path, shards: Sequence[Path], track: Track, *, beside: Iterable[Path] = (), workers: int | None = None
) -> Source:
    """Read the data set in `shards`, files below `root` or `root` itself; `beside` are the other files there.

    The images are the column `img` or `image`: a struct with `bytes`, and with `path` where these are null, or
    plain binary. The classes are the column `label`: strings, or integers that the hub's ClassLabel in the schema
    may name. The split is in a column `split`, the shard's name (`train-00000-of-00003.parquet`) or its folder's;
    a column `group` is optional.

    Raises:
        DataError: for a damaged file, a missing column, a label that is not a class, or shards of which only some
            name their split.
    """
    base = root if root.is_dir() else root.parent
    folders = {_set_folder(shard, base) for shard in shards}
    if len(folders) > 1:
        names = ", ".join(sorted(str(folder) for folder in folders))
        raise DataError(f"{root} holds more than one data set: name one of {names}")
    parts: list[tuple[str, int]] = []
    count = 0
    blocks: list[Block] = []
    read = []
    size = 0
    for path in shards:
        with reading(path):
            size += path.stat().st_size
        shard = _read_shard(path, base, size, count)
        read.append(shard)
        parts.append((f"{printable(path.relative_to(base).as_posix())}#", len(shard.labels)))
        for row_group, rows in enumerate(shard.group_rows):
            # A row group of pandas' default size would keep one worker busy and the others idle.
            part = rows if rows <= 2048 else -(-rows // (workers or usable_processors()))
            blocks += [
                ParquetBlock(count + first, min(part, rows - first), str(path), row_group, first, shard.column)
                for first in range(0, rows, part or 1)
            ]
            count += rows
    ids = row_names(parts)
    if not ids:
        raise DataError(f"{root} has no images: its Parquet files have no rows")
    if not any(shard.has_images for shard in read):
        raise DataError(
            f"{root}: the column {read[0].column} holds no image in any row, its bytes are null: write the files' "
            "bytes into it, or their paths into the field path"
        )
    declared = np.concatenate([shard.declared for shard in read])
    named = {file for shard in read for file in shard.named_files}
    notes = (*_check_shards(root, read), *passed_over(shards, beside, named))
    class_names, labels = _name_classes(root, read, ids)
    return Source(
        name=root.resolve().stem or "data",
        # Images that rows name lie beside a link, not where it leads.
        location=str(root.resolve() if root.is_dir() else root.parent.resolve() / root.name),
        class_names=class_names,
        labels=labels,
        declared=declared,
        ids=ids,
        blocks=blocks,
        content=hash_files(
            "parquet", Texts([*map(str, shards), *(file for shard in read for file in shard.named_files)]), track
        ),
        groups=tuple(group for shard in read for group in shard.groups or [""] * len(shard.labels))
        if any(shard.groups is not None for shard in read)
        else None,
        notes=notes,
    )


def _set_folder(shard: Path, base: Path) -> Path:
    """The folder of the data set that a shard belongs to: that above the folders of its splits."""
    folder = shard.parent
    while folder != base and split_words(folder.name):
        folder = folder.parent
    return folder


def _split_of(path: Path, base: Path) -> int:
    """The split that a shard's name, or a folder's below `base`, declares; DataError where that is unclear."""
    stem = re.sub(r"-\d+-of-\d+.*$", "", path.name.rpartition(".")[0])
    for name in (stem, *reversed(path.relative_to(base).parts[:-1])):
        code = split_code(name)
        codes = {code} if code is not None else split_words(name)
        if len(codes) > 1 or is_held_out(name):
            raise DataError(
                f"{path}: {printable(name)} could belong to several splits or to none: rename it to train, val "
                "or test, or add a column split"
            )
        if codes:
            return codes.pop()
    return UNDECLARED


def _check_shards(root: Path, shards: Sequence[_Shard]) -> tuple[str, ...]:
    """Notes on shards of which some declare their split; DataError where a whole shard declares none."""
    without = [shard.path for shard in shards if len(shard.labels) and (shard.declared == UNDECLARED).all()]
    if without and len(without) < sum(len(shard.labels) > 0 for shard in shards):
        raise DataError(
            f"{root}: {without[0].name} names no split, but others do: rename it to begin with train-, val- or "
            "test-, or move it elsewhere"
        )
    spelled: dict[int, set[str]] = {}
    for shard in shards:
        for code in np.unique(shard.declared):
            spelled.setdefault(int(code), set()).add(re.split(r"[-_.\d]", shard.path.name)[0].casefold())
    return tuple(
        f"{listed(sorted(names))} are all taken for the {SPLITS[code]} split"
        for code, names in sorted(spelled.items())
        if code != UNDECLARED and len({name for name in names if split_code(name) is not None}) > 1
    )


def _read_shard(path: Path, base: Path, size: int, before: int) -> _Shard:
    """The columns of `path` but the images.

    Args:
        base: the folder below which the names of folders may declare a split.
        size: bytes of the shards so far, this one included; `before` are the images of those before it.
    """
    with opened_parquet(path) as file:
        schema = file.schema_arrow
        column_of = _columns(path, schema)
        group_rows = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        rows = sum(group_rows)
        if min(group_rows, default=0) < 0 or rows != file.metadata.num_rows:
            raise DataError(f"cannot read {path}: its numbers of rows disagree: copy or download it again")
        refuse_claim(path, size, images=before + rows)
        others = _like_splits(schema, column_of)
        wanted = [column for name, column in column_of.items() if name != "image"] + others
        chunks = [chunk for i in range(len(group_rows)) for chunk in chunks_of(file, i, wanted)]
        refuse_claim(path, size, once=sum(chunk.total_uncompressed_size for chunk in chunks), what=listed(wanted))
    with opened_parquet(path, wanted) as file:
        table = file.read(columns=wanted, use_threads=False)
        if len(table) != rows:
            raise DataError(f"cannot read {path}: its numbers of rows disagree: copy or download it again")
        values = {name: table[column] for name, column in column_of.items() if name != "image"}
        refuse_other_columns(
            path,
            {name: {(value or "").lower() for value in _texts(path, name, table[name])} for name in others},
            has_split="split" in column_of,
        )
        splits = _texts(path, "split", values["split"]) if "split" in values else None
        groups = _texts(path, "group", values["group"]) if "group" in values else None
        labels = _label_values(path, values["label"])
        class_names = _hub_class_names(path, schema, column_of["label"])
    has_images, named_files = find_images(path, column_of["image"])
    return _Shard(
        path=path,
        column=column_of["image"],
        group_rows=group_rows,
        has_images=has_images,
        named_files=named_files,
        class_names=class_names,
        labels=labels,
        declared=(
            np.full(rows, _split_of(path, base), np.int8)
            if splits is None
            else split_codes(splits, lambda row: f"{path}#{row}")
        ),
        groups=None if groups is None else [one or "" for one in groups],
    )


def _columns(path: Path, schema: Any) -> dict[str, str]:
    """The columns that are read, by what they are for; case does not matter."""
    named: dict[str, list[str]] = {}
    for name in schema.names:
        named.setdefault({"img": "image"}.get(name.lower(), name.lower()), []).append(name)
    found: dict[str, str] = {}
    for what in ("image", "label", "split", "group"):
        names = named.get(what, [])
        if what == "image":
            names = [name for name in names if schema.names.count(name) > 1 or _is_image(schema.field(name).type)]
        if len(names) > 1:
            raise DataError(f"{path} has more than one column {what} ({listed(names)}): remove or rename one")
        if names:
            found[what] = names[0]
    for what, told in (("image", "img or image column with the bytes of images"), ("label", "label")):
        if what not in found:
            kinds = "".join(f"; {name} is {str(schema.field(name).type)[:60]}" for name in named.get(what, [])[:1])
            columns = listed(schema.names)
            raise DataError(f"{path} has no {told}: its columns are {columns}{kinds}; rename one")
    return found


def _is_image(kind: Any) -> bool:
    if pa.types.is_struct(kind):
        return "bytes" in [field.name for field in kind] and _is_bytes(kind.field("bytes").type)
    return _is_bytes(kind)


def _is_bytes(kind: Any) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _is_text(kind: Any) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _like_splits(schema: Any, column_of: dict[str, str]) -> list[str]:
    """Columns that are not read, but may be what `split` is."""
    return [
        field.name
        for field in schema
        if field.name not in column_of.values()
        and schema.names.count(field.name) == 1
        and (field.name.lower() in SPLIT_COLUMNS or hints_at_split(field.name))
        and (_is_text(field.type) or pa.types.is_integer(field.type) or pa.types.is_boolean(field.type))
    ]


def _hub_class_names(path: Path, schema: Any, label: str) -> list[str] | None:
    """Names of the hub's ClassLabel `label`; None where the schema has none."""
    described = (schema.metadata or {}).get(b"huggingface")
    if described is None:
        return None
    try:
        feature = parse_json(described)["info"]["features"][label]
        if feature["_type"] != "ClassLabel":
            return None
        names = feature["names"]
    except (MalformedError, KeyError, TypeError) as error:
        raise DataError(f"{path}: its huggingface metadata do not describe label: write it again") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path}: its huggingface metadata do not list the names of label: write it again")
    return names


def _label_values(path: Path, column: Any) -> list[str] | NDArray[np.int64]:
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise DataError(f"{path}#{row}: the label is missing: fill it in or leave the row out")
    if _is_text(column.type):
        return [value or "" for value in _texts(path, "label", column)]
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not pa.types.is_integer(kind):
        raise DataError(f"{path}: label is {str(kind)[:60]}: it must hold integers or strings")
    # Not by `to_numpy`, which imports pandas where that is installed: half a second.
    values = [np.zeros(0, np.int64), *(np.from_dlpack(chunk) for chunk in column.cast(kind).chunks)]
    return whole_numbers(np.concatenate(values[1:] or values), lambda row: f"{path}#{row}")


def _texts(path: Path, name: str, column: Any) -> list[str | None]:
    """The values of a column as text; equal ones are one object."""
    texts: list[str | None] = []
    for chunk in column.chunks:
        if not _is_text(chunk.type):
            kind = chunk.type.value_type if pa.types.is_dictionary(chunk.type) else chunk.type
            simple = (pa.types.is_integer, pa.types.is_boolean, pa.types.is_floating, pa.types.is_null)
            if not any(is_kind(kind) for is_kind in simple):
                raise DataError(f"{path}: {name} is {str(kind)[:60]}: it must hold strings")
            texts += [None if value is None else str(value) for value in chunk.to_pylist()]
            continue
        encoded = chunk if pa.types.is_dictionary(chunk.type) else chunk.dictionary_encode()
        bytes_of = encoded.dictionary.cast(pa.large_binary()).to_pylist()
        values = [None if value is None else text_of(path, value) for value in bytes_of]
        texts += [None if index is None else values[index] for index in encoded.indices.to_pylist()]
    return texts


def _name_classes(
    root: Path, shards: Sequence[_Shard], ids: Sequence[str]
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Classes by name over all shards: each has names of its own, which may stand in another order."""
    kinds = {(shard.class_names is None, isinstance(shard.labels, list)) for shard in shards if len(shard.labels)}
    if len(kinds) > 1:
        raise DataError(
            f"{root}: its shards do not name their classes alike: write them again alike, or remove some"
        )
    if kinds == {(True, True)}:
        return index_classes([name for shard in shards for name in shard.labels], None, ids.__getitem__)
    if kinds == {(True, False)}:
        return index_classes(np.concatenate([shard.labels for shard in shards]), None, ids.__getitem__)
    merged = tuple(dict.fromkeys(printable(name) for shard in shards for name in shard.class_names or ()))
    position = {name: index for index, name in enumerate(merged)}
    parts: list[NDArray[np.int64]] = []
    done = 0
    for shard in shards:
        first = done
        names, labels = index_classes(shard.labels, shard.class_names, lambda row: ids[first + row])  # noqa: B023
        parts.append(np.array([position[name] for name in names], np.int64)[labels])
        done += len(labels)
    return merged, np.concatenate(parts)
