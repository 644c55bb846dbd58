"""The images of Parquet files: a column of encoded bytes, or of files that are named; some rows at a time."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from foveate.data.source import Block, Image, reading
from foveate.data.table import image_path
from foveate.errors import DataError
from foveate.files import open_regular
from foveate.records import printable

_DAMAGED = (pa.ArrowException, ValueError, OverflowError, NotImplementedError, MemoryError)
"""What pyarrow raises for a damaged file."""
_footers: dict[tuple[int, ...], Any] = {}
"""The footer that was read last, by the identity of its file: of many row groups, reading it anew for each takes
longer than decoding them."""
_BATCH_BYTES = 32 << 20
"""Of images that are decoded from Parquet at a time."""


@dataclass(frozen=True)
class ParquetBlock(Block):
    """`count` rows of a row group, from its row `first` on."""

    path: str
    row_group: int
    first: int
    column: str
    """The column of images: encoded bytes, or a struct of these and of a path."""

    @property
    def files(self) -> Sequence[str]:
        """The shard."""
        return (self.path,)

    def part(self, begin: int, end: int) -> Block:
        """Some of the rows."""
        return replace(self, start=self.start + begin, count=end - begin, first=self.first + begin)

    def images(self) -> Iterator[Image]:
        """Yield each row's bytes, or the file that it names in place of them; none where the row has neither."""
        path, row, end = Path(self.path), 0, self.first + self.count
        with opened_parquet(path, [self.column], again=True) as file:
            for batch in _batches(path, file, self.row_group, self.column):
                wanted = batch[max(self.first - row, 0) : max(end - row, 0)]
                yield from _images_in(path, wanted, max(row, self.first))
                row += len(batch)
                if row >= end:
                    return
        raise DataError(f"cannot read {path}: its images are fewer than its rows: copy or download it again")


@contextlib.contextmanager
def opened_parquet(path: Path, text: Sequence[str] = (), *, again: bool = False) -> Iterator[Any]:
    """The Parquet file at `path`, of whose columns `text` equal strings or bytes stay one value in memory.

    Args:
        again: it was checked when it was opened first, so that a footer that is known will do. A file that changed
            since is found when contents are hashed for the second time.
    """
    with reading(path, _DAMAGED), open_regular(path) as opened:
        status = os.fstat(opened.fileno())
        # Every element that the footer lists takes a byte at least, whatever it says of their number.
        limit = max(1, min(status.st_size, 1 << 20))
        limits = {"thrift_string_size_limit": limit, "thrift_container_size_limit": limit}
        identity = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        metadata = _footers.get(identity) if again else None
        if metadata is None:
            metadata = pq.ParquetFile(opened, **limits).metadata
            _footers.clear()
            _footers[identity] = metadata
        leaves = {metadata.schema.column(place).path for place in range(metadata.num_columns)}
        with pq.ParquetFile(
            opened,
            metadata=metadata,
            read_dictionary=[leaf for leaf in _leaves(text) if leaf in leaves],
            buffer_size=1 << 20,  # reads a row group as it is decoded, however large it is
            **limits,
        ) as file:
            yield file


def _leaves(columns: Sequence[str]) -> list[str]:
    """As Parquet names the columns, and their fields where they are structs of images."""
    return [leaf for name in columns for leaf in (name, f"{name}.bytes", f"{name}.path")]


def chunks_of(file: Any, row_group: int, columns: Sequence[str]) -> list[Any]:
    """What the footer says of columns in a row group."""
    group, wanted = file.metadata.row_group(row_group), set(_leaves(columns))
    chunks = (group.column(place) for place in range(group.num_columns))
    return [chunk for chunk in chunks if chunk.path_in_schema in wanted]


def _batches(path: Path, file: Any, row_group: int, column: str) -> Iterator[Any]:
    """The values of a column of images, some rows at a time."""
    chunks = chunks_of(file, row_group, [column])
    for chunk in chunks:
        held, size = chunk.total_uncompressed_size, chunk.total_compressed_size
        if held > (32 << 20) + 16 * size:
            raise DataError(
                f"{path}: its column {column} claims {held:,} bytes in {size:,}, which no real images come to: "
                "write it again"
            )
    held, count = (
        sum(chunk.total_uncompressed_size for chunk in chunks),
        file.metadata.row_group(row_group).num_rows,
    )
    rows = max(1, min(256, _BATCH_BYTES * count // max(1, held)))
    leaves = [chunk.path_in_schema for chunk in chunks]
    for batch in file.iter_batches(rows, row_groups=[row_group], columns=leaves, use_threads=False):
        yield batch.column(0)


def _images_in(shard: Path, values: Any, first: int) -> Iterator[Image]:
    """The images in some rows, the first of which is row `first` of its row group."""
    is_struct = pa.types.is_struct(values.type)
    fields = [field.name for field in values.type] if is_struct else []
    data = values.field("bytes") if is_struct else values
    paths = values.field("path") if "path" in fields else None
    # One object for rows of one value: a file of a few bytes can repeat a large image many thousand times.
    repeated: dict[int, bytes] | None = None
    if pa.types.is_dictionary(data.type) and 2 * len(data.dictionary) <= len(data):
        repeated = dict(enumerate(data.dictionary.to_pylist()))
    absent, empty = _nulls(values), _nulls(data)
    for index in range(len(values)):
        # A struct that is null as a whole leaves anything in its fields.
        if absent[index]:
            yield b""
        elif not empty[index]:
            yield data[index].as_py() if repeated is None else repeated[data.indices[index].as_py()]
        else:
            name = text_of(shard, paths[index].as_py()) if paths is not None and paths[index].is_valid else ""
            yield _named_file(shard, name, first + index) if name else b""


def _nulls(values: Any) -> list[bool]:
    """Which values are null: of all at once, as asking each of them takes longer than reading it."""
    found: list[bool] = values.is_null().to_numpy(zero_copy_only=False).tolist()
    return found


def _named_file(shard: Path, name: str, row: int) -> Path:
    """The image file that a row names, below the shard's folder: a stranger's table must not reach elsewhere."""
    where = f"{shard}#{row}"
    found = image_path(shard.parent, name, where)
    windows = PureWindowsPath(name)  # a slash is a separator to it as well
    if windows.drive or windows.root or ".." in windows.parts:
        raise DataError(
            f"{where}: the path {printable(name)[:100]} is not below the shard's folder: write the image's bytes "
            "into the shard, or name a file in that folder"
        )
    return found


def find_images(path: Path, column: str) -> tuple[bool, list[str]]:
    """Whether any row has an image, and the files that rows name in place of bytes."""
    has_images, named = False, []
    with opened_parquet(path, [column]) as file:
        for row_group in range(file.metadata.num_row_groups):
            data = chunks_of(file, row_group, [column])[0]
            counts = data.statistics
            if counts is not None and counts.has_null_count and counts.null_count == 0:
                has_images |= file.metadata.row_group(row_group).num_rows > 0
                continue
            row = 0
            for batch in _batches(path, file, row_group, column):
                for image in _images_in(path, batch, row):
                    has_images |= bool(image)
                    named += [os.fspath(image)] if isinstance(image, Path) else []
                row += len(batch)
    return has_images, named


def text_of(path: Path, text: bytes | str) -> str:
    """A text in the file at `path`; DataError where it is not UTF-8."""
    try:
        return text if isinstance(text, str) else text.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: it holds text that is not UTF-8: write it again") from error
