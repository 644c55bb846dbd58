"""Decodes blocks of images into an open .npy file: in this process, or as work for others."""

import itertools
import os
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.data.decode import BadImageError, decode_file, decode_image, resize_array
from foveate.data.source import Block, FileBlock, Image
from foveate.execution.pool import Message

__all__ = ["Progress", "decode_blocks", "decode_job", "decoding_job"]

Progress = tuple[int, list[tuple[int, str]]]
"""How many images were read since the last one, and the indices and reasons of the bad ones among them."""

_BATCH_BYTES = 4 << 20


def decode_blocks(blocks: Sequence[Block], size: int, path: Path) -> Generator[Progress]:
    """Decode into rows of the [N, size, size, 3] uint8 array in the .npy file `path`; a bad image's row is zeros.

    Rows are written, not memory-mapped: a full disk is then an OSError and no SIGBUS, and no page stays mapped.

    Raises:
        DataError: when the file that holds a block's images is damaged.
        OSError: when `path` cannot be written.
    """
    stride = size * size * 3
    limit = max(1, min(256, _BATCH_BYTES // stride))
    offset = np.load(path, mmap_mode="r").offset
    with path.open("r+b", buffering=0) as file:
        for block in blocks:
            images = block.images()
            index = block.start
            while batch := list(itertools.islice(images, limit)):
                pixels = np.zeros((len(batch), size, size, 3), np.uint8)
                bad = []
                for row, image in enumerate(batch):
                    try:
                        pixels[row] = _decode(image, size)
                    except BadImageError as error:
                        bad.append((index + row, str(error)))
                file.seek(offset + index * stride)
                _write_all(file.fileno(), pixels)
                index += len(batch)
                yield len(batch), bad


def decoding_job(block: Block, size: int, path: Path) -> Message:
    """What `decode_job` is given."""
    described = [type(block).__name__, vars(block)]
    return {"block": described, "size": size, "path": os.fspath(path.resolve())}


def decode_job(message: Message, report: Callable[[Message], None]) -> Message:
    """`decode_blocks` of one block, as work of a pool: reports `read` and `bad`; gives a failed write's `errno`.

    Raises:
        DataError: when the file that holds the block's images is damaged.
    """
    kind, fields = message["block"]
    try:
        for read, bad in decode_blocks([_block(kind, fields)], message["size"], Path(message["path"])):
            report({"read": read, "bad": bad})
    except OSError as error:
        return {"errno": error.errno}
    return {}


def _block(kind: str, fields: dict[str, Any]) -> Block:
    if kind == FileBlock.__name__:
        return FileBlock(**fields)
    from foveate.data.parquet import ParquetBlock  # pyarrow, which a folder of images does not need

    return ParquetBlock(**fields)


def _decode(image: Image, size: int) -> NDArray[np.uint8]:
    if isinstance(image, Path):
        return decode_file(image, size)
    return decode_image(image, size) if isinstance(image, bytes) else resize_array(image, size)


def _write_all(descriptor: int, pixels: NDArray[np.uint8]) -> None:
    left = memoryview(pixels.data).cast("B")
    while left:  # a nearly full disk takes a part of it, and says so only on the next call
        left = left[os.write(descriptor, left) :]
