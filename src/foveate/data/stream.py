"""Image files to batches of pixels, decoded in other processes, in memory that does not grow with their number."""

import contextlib
import itertools
import tempfile
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foveate.data.decoding import decode_in_workers
from foveate.data.source import Block, FileBlock
from foveate.data.worker import decode_blocks
from foveate.errors import OutputError
from foveate.files import temporary_told
from foveate.preprocessing import Preprocessing
from foveate.processors import usable_processors


@dataclass(frozen=True)
class Decoded:
    """Consecutive files of a stream."""

    start: int
    """Place of the first in the stream."""
    paths: list[str]
    pixels: NDArray[np.uint8]
    """[n, size, size, 3], which hold until the next batch is asked for; a bad image's row means nothing."""
    bad: dict[int, str]
    """Of images that cannot be read, by their place among `paths`: why."""


def stream_files(
    paths: Iterable[str],
    preprocessing: Preprocessing,
    *,
    at_once: int,
    workers: int | None = None,
    timeout_s: float = 20.0,
) -> Generator[Decoded]:
    """Decode files, `at_once` together; batches come in any order, and each as soon as it is decoded.

    Args:
        workers: processes that decode; 0: this one, where no image can be given up; None: one a processor.
        timeout_s: in which an image must be decoded.

    Raises:
        DataError: when no process can decode.
        OutputError: when there is no room for the pixels of a few batches among the temporary files.
    """
    try:
        yield from _streamed(paths, preprocessing, at_once, workers, timeout_s)
    except OSError as error:
        raise OutputError(temporary_told(error)) from error


def _streamed(
    paths: Iterable[str], preprocessing: Preprocessing, at_once: int, workers: int | None, timeout_s: float
) -> Generator[Decoded]:
    workers = usable_processors() if workers is None else workers
    slots = list(range(max(1, workers)))
    held: dict[int, tuple[int, list[str]]] = {}

    def blocks() -> Iterator[Block]:
        start = 0
        for some in _batched(paths, at_once):
            slot = slots.pop()
            held[slot] = (start, some)
            start += len(some)
            yield FileBlock(slot * at_once, len(some), some)

    size = preprocessing.size
    stride = size * size * 3
    with tempfile.TemporaryDirectory(prefix="foveate-") as folder:
        file = Path(folder) / "pixels"
        with file.open("xb") as made:
            made.truncate(len(slots) * at_once * stride)
        if workers:
            progress = decode_in_workers(blocks(), preprocessing, file, workers=workers, timeout_s=timeout_s)
        else:
            progress = decode_blocks(blocks(), preprocessing, file)
        pixels = np.memmap(file, np.uint8, mode="r", shape=(len(slots) * at_once, size, size, 3))
        left: dict[int, int] = {}
        bad: dict[int, dict[int, str]] = {}
        with contextlib.closing(progress):
            for first, read, reasons in progress:
                slot = first // at_once
                start, some = held[slot]
                left[slot] = left.get(slot, len(some)) - read
                bad.setdefault(slot, {}).update({index % at_once: reason for index, reason in reasons})
                if not left[slot]:
                    row = slot * at_once
                    yield Decoded(start, some, pixels[row : row + len(some)], bad.pop(slot))
                    del held[slot], left[slot]
                    slots.append(slot)


def _batched(items: Iterable[str], count: int) -> Iterator[list[str]]:
    """`itertools.batched`, which Python 3.11 has not."""
    iterator = iter(items)
    while some := list(itertools.islice(iterator, count)):
        yield some
