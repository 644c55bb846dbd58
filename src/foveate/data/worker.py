"""Decodes blocks of images into a file of pixels: in this process, or as work for others, within limits."""

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from foveate.data.container import NO_MEMORY, BadImageError
from foveate.data.decode import decode
from foveate.data.source import Block, FileBlock
from foveate.errors import DataError
from foveate.execution.pool import Message
from foveate.preprocessing import Preprocessing

Progress = tuple[int, int, list[tuple[int, str]]]
"""The index of the first image that was read since the last one, how many were, and the indices and reasons of the
bad ones among them."""

_BATCH_BYTES = 4 << 20
_BATCH_S = 1.0
"""Seconds after which a batch is written as it is, so that nobody waits for more than one slow image."""


def decode_blocks(blocks: Iterable[Block], preprocessing: Preprocessing, path: Path) -> Generator[Progress]:
    """Decode into rows of `path`, the bytes of a [N, size, size, 3] uint8 array; a bad image's row is zeros.

    Raises:
        DataError: when the file that holds a block's images is damaged.
        OSError: when `path` cannot be written.
    """
    for block in blocks:
        yield from decode_block(block, preprocessing, path)


def decode_block(
    block: Block,
    preprocessing: Preprocessing,
    path: Path,
    *,
    begin: int = 0,
    one_by_one: bool = False,
    skip: Mapping[int, str] | None = None,
    limit: AbstractContextManager[None] | None = None,
) -> Generator[Progress]:
    """As `decode_blocks`, of one block from its image `begin` on.

    Rows are written, not memory-mapped: a full disk is then an OSError and no SIGBUS, and no page stays mapped.

    Args:
        one_by_one: write and yield after each image.
        skip: by their index in the data set, images that are not decoded, and why they are bad.
        limit: within what each image is decoded.
    """
    skip, limit = skip or {}, limit or contextlib.nullcontext()
    size = preprocessing.size
    stride = size * size * 3
    at_once = 1 if one_by_one else max(1, min(256, _BATCH_BYTES // stride))
    pixels = np.zeros((at_once, size, size, 3), np.uint8)
    images = itertools.islice(block.images(), begin, block.count)
    index, end = block.start + begin, block.start + block.count
    with path.open("r+b", buffering=0) as file:
        file.seek(index * stride)
        while index < end:
            count, bad = 0, []
            until = time.monotonic() + _BATCH_S
            for image in itertools.islice(images, at_once):
                reason = skip.get(index + count)
                if reason is None:
                    try:
                        with limit:
                            pixels[count] = decode(image, preprocessing)
                    except BadImageError as error:
                        reason = str(error)
                if reason is not None:
                    pixels[count] = 0
                    bad.append((index + count, reason))
                count += 1
                if time.monotonic() >= until:
                    break
            if not count:
                held = ", ".join(block.files) or "the data"
                raise DataError(f"{held}: {end - index} images fewer than it says: copy or download it again")
            write_all(file.fileno(), pixels[:count].data)
            yield index, count, bad
            index += count


def decoding_job(
    block: Block,
    preprocessing: Preprocessing,
    path: Path,
    *,
    memory_bytes: int,
    begin: int = 0,
    one_by_one: bool = False,
    skip: Mapping[int, str] | None = None,
) -> Message:
    """What `decode_job` is given; decoding one image may take `memory_bytes`, where the system can bound it."""
    return {
        "block": [type(block).__name__, block.fields()],
        "preprocessing": vars(preprocessing),
        "path": os.fspath(path.resolve()),
        "memory_bytes": memory_bytes,
        "begin": begin,
        "one_by_one": one_by_one,
        "skip": list((skip or {}).items()),
    }


def decode_job(message: Message, report: Callable[[Message], None]) -> Message:
    """`decode_block` as work of a pool: reports that it has begun, then `read` and `bad`.

    Returns:
        `errno` of a write that failed.

    Raises:
        DataError: when the file that holds the block's images is damaged.
    """
    report({})
    kind, fields = message["block"]
    with _libraries_silent(), _memory_limit(message["memory_bytes"]) as limit:
        progress = decode_block(
            _block(kind, fields),
            Preprocessing(**message["preprocessing"]),
            Path(message["path"]),
            begin=message["begin"],
            one_by_one=message["one_by_one"],
            skip=dict(message["skip"]),
            limit=limit,
        )
        try:
            for first, read, bad in progress:
                report({"first": first, "read": read, "bad": bad})
        except OSError as error:
            return {"errno": error.errno}
    return {}


@contextlib.contextmanager
def _libraries_silent() -> Iterator[None]:
    """Send what C libraries print to nowhere: libtiff writes a line for each fault of a damaged file."""
    before, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)


def _block(kind: str, fields: dict[str, Any]) -> Block:
    if kind == FileBlock.__name__:
        return FileBlock(**fields)
    from foveate.data.parquet_images import ParquetBlock  # pyarrow, which a folder of images does not need

    return ParquetBlock(**fields)


class _MemoryLimit:
    """Within it this process takes no more than some bytes of memory beyond what it has.

    It is entered for each image, and not once for the process: a batch of Parquet rows may rightly be larger.
    """

    def __init__(self, extra_bytes: int, statm: int) -> None:
        import resource  # Windows has none

        self._extra_bytes, self._statm = extra_bytes, statm
        self._page, self._kind, self._set = resource.getpagesize(), resource.RLIMIT_DATA, resource.setrlimit
        self._soft, self._hard = resource.getrlimit(self._kind)

    def __enter__(self) -> None:
        taken = int(os.pread(self._statm, 200, 0).split()[5]) * self._page
        allowed = taken + self._extra_bytes
        self._set(self._kind, (allowed if self._hard < 0 else min(allowed, self._hard), self._hard))

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._set(self._kind, (self._soft, self._hard))
        if isinstance(error, MemoryError) or (error and isinstance(error.__cause__, MemoryError)):
            if self._hard >= 0:  # the limit of this process may have been less than that
                raise BadImageError(NO_MEMORY) from error
            mebibytes = self._extra_bytes >> 20
            raise BadImageError(f"decoding it takes more than {mebibytes:,} MiB of memory") from error


@contextlib.contextmanager
def _memory_limit(extra_bytes: int) -> Iterator[AbstractContextManager[None]]:
    """A `_MemoryLimit`, on Linux; elsewhere nothing."""
    try:
        statm = os.open("/proc/self/statm", os.O_RDONLY)
    except OSError:
        yield contextlib.nullcontext()
        return
    try:
        yield _MemoryLimit(extra_bytes, statm)
    finally:
        os.close(statm)


def write_all(descriptor: int, content: bytes | memoryview) -> None:
    """Write all of it to an open file."""
    left = memoryview(content).cast("B")
    while left:  # a nearly full disk takes a part of it, and says so only on the next call
        left = left[os.write(descriptor, left) :]
