"""Data sets in Parquet as the Hugging Face hub lays them out: shards of encoded images and their labels."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from foveate.data.source import Block, Image, Source, hash_files, index_classes, reading
from foveate.data.splits import UNDECLARED, split_code, split_codes
from foveate.errors import DataError
from foveate.progress import Track
from foveate.records import printable

__all__ = ["ParquetBlock", "open_parquet"]


@dataclass(frozen=True)
class ParquetBlock(Block):
    """`count` rows of a row group, from its row `first` on."""

    path: str
    row_group: int
    first: int
    column: str
    """The column of bytes, `img.bytes` where it is in a struct."""

    @property
    def files(self) -> Sequence[str]:
        """The shard."""
        return (self.path,)

    def images(self) -> Iterator[Image]:
        """Yield each row's bytes; none where the row has none."""
        with reading(self.path, (pa.ArrowException,)):
            # buffer_size: read the row group as it is decoded, however large it is.
            file = pq.ParquetFile(self.path, buffer_size=1 << 20)
            row, end = 0, self.first + self.count
            batches = file.iter_batches(256, row_groups=[self.row_group], columns=[self.column], use_threads=False)
            for batch in batches:
                wanted = batch.column(0)[max(self.first - row, 0) : max(end - row, 0)]
                row += len(batch)
                values = wanted.field("bytes") if pa.types.is_struct(wanted.type) else wanted
                for index, value in enumerate(values):
                    # A struct that is null as a whole leaves anything in its fields.
                    yield (value.as_py() if wanted[index].is_valid else None) or b""
                if row >= end:
                    return


@dataclass(frozen=True, eq=False)
class _Shard:
    """The columns of one file but the images."""

    column: str
    group_rows: list[int]
    class_names: list[str] | None
    labels: list[str] | NDArray[np.int64]
    declared: NDArray[np.int8]
    groups: list[str] | None


def open_parquet(root: Path, shards: Sequence[Path], track: Track, workers: int = os.cpu_count() or 1) -> Source:
    """Read the data set in `shards`, files below `root` or `root` itself.

    The images are the column `img` or `image` (a struct with `bytes`, or plain binary), the classes the column
    `label` (strings, or integers that the hub's ClassLabel in the schema may name); the split is in a column
    `split`, the shard's name (`train-00000-of-00003.parquet`) or its folder's; a column `group` is optional.

    Raises:
        DataError: for a damaged file, a missing column, or a label that is no class.
    """
    base = root if root.is_dir() else root.parent
    folders = {shard.parent for shard in shards if split_code(shard.parent.name) is None}
    if len(folders) > 1:
        names = ", ".join(sorted(str(folder) for folder in folders))
        raise DataError(f"{root} holds more than one data set: name one of {names}")
    ids: list[str] = []
    blocks: list[Block] = []
    read = []
    for path in shards:
        shard = _read_shard(path)
        read.append(shard)
        name = path.relative_to(base).as_posix()
        for row_group, rows in enumerate(shard.group_rows):
            # A row group of pandas' default size would keep one worker busy and the others idle.
            part = rows if rows <= 2048 else -(-rows // workers)
            blocks += [
                ParquetBlock(
                    sum(shard.group_rows[:row_group]) + first + len(ids),
                    min(part, rows - first),
                    str(path),
                    row_group,
                    first,
                    shard.column,
                )
                for first in range(0, rows, part or 1)
            ]
        ids += [f"{printable(name)}#{row}" for row in range(len(shard.labels))]
    if not ids:
        raise DataError(f"{root} has no images: its Parquet files have no rows")
    class_names, labels = _name_classes(root, read, ids)
    return Source(
        name=root.resolve().stem or "data",
        location=str(root.resolve()),
        class_names=class_names,
        labels=labels,
        declared=np.concatenate([shard.declared for shard in read]),
        ids=ids,
        blocks=blocks,
        content=hash_files("parquet", [str(path) for path in shards], track),
        groups=_join_groups(read),
    )


def _read_shard(path: Path) -> _Shard:
    with reading(path, (pa.ArrowException,)), pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        found = [name for name in ("img", "image") if name in schema.names and _is_bytes(schema.field(name).type)]
        for what, present in (
            ("img or image column with the bytes of images", found),
            ("label", "label" in schema.names),
        ):
            if not present:
                raise DataError(f"{path} has no {what}: its columns are {', '.join(schema.names)}; rename one")
        kind = schema.field(found[0]).type
        extra = [name for name in ("split", "group") if name in schema.names]
        table = file.read(columns=["label", *extra])
        group_rows = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
    return _Shard(
        column=f"{found[0]}.bytes" if pa.types.is_struct(kind) else found[0],
        group_rows=group_rows,
        class_names=_hub_class_names(path, schema),
        labels=_label_values(path, table["label"]),
        declared=_declared_splits(path, table),
        groups=["" if one is None else str(one) for one in table["group"].to_pylist()]
        if "group" in extra
        else None,
    )


def _is_bytes(kind: Any) -> bool:
    if pa.types.is_struct(kind):
        return "bytes" in [field.name for field in kind] and _is_bytes(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _hub_class_names(path: Path, schema: Any) -> list[str] | None:
    """Names of the hub's ClassLabel `label`; None where the schema has none."""
    described = (schema.metadata or {}).get(b"huggingface")
    if described is None:
        return None
    try:
        feature = json.loads(described)["info"]["features"]["label"]
        return [str(name) for name in feature["names"]] if feature["_type"] == "ClassLabel" else None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: its huggingface metadata do not describe label: write it again") from error


def _label_values(path: Path, column: Any) -> list[str] | NDArray[np.int64]:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not is_text and not pa.types.is_integer(kind):
        raise DataError(f"{path}: label is {kind}: it must hold integers or strings")
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise DataError(f"{path}#{row}: the label is missing: fill it in or leave the row out")
    values = column.cast(kind).to_pylist()
    return values if is_text else np.array(values, np.int64)


def _declared_splits(path: Path, table: Any) -> NDArray[np.int8]:
    if "split" not in table.column_names:
        first, parent = split_code(re.split(r"[-_.]", path.name)[0]), split_code(path.parent.name)
        code = next((code for code in (first, parent) if code is not None), UNDECLARED)
        return np.full(len(table), code, np.int8)
    return split_codes(table["split"].cast(pa.string()).to_pylist(), lambda row: f"{path}#{row}")


def _name_classes(root: Path, shards: list[_Shard], ids: list[str]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Classes by name over all shards: each has names of its own, which may stand in another order."""
    kinds = {(shard.class_names is None, isinstance(shard.labels, list)) for shard in shards if len(shard.labels)}
    if len(kinds) > 1:
        raise DataError(
            f"{root}: its shards do not name their classes alike: write them again alike, or remove some"
        )
    if kinds == {(True, True)}:
        return index_classes([name for shard in shards for name in shard.labels], None, str)
    if kinds == {(True, False)}:
        return index_classes(np.concatenate([shard.labels for shard in shards]), None, str)
    merged = tuple(dict.fromkeys(name for shard in shards for name in shard.class_names or ()))
    position = {name: index for index, name in enumerate(merged)}
    parts: list[NDArray[np.int64]] = []
    for shard in shards:
        places = ids[sum(map(len, parts)) :]
        names, labels = index_classes(shard.labels, shard.class_names, places.__getitem__)
        parts.append(np.array([position[name] for name in names], np.int64)[labels])
    return merged, np.concatenate(parts)


def _join_groups(shards: list[_Shard]) -> tuple[str, ...] | None:
    if all(shard.groups is None for shard in shards):
        return None
    return tuple(group for shard in shards for group in shard.groups or [""] * len(shard.labels))
