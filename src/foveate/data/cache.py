"""Decoded images, kept as one memory-mapped array per content and size in the user's cache."""

import contextlib
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import numpy as np
import PIL
from filelock import FileLock
from numpy.typing import NDArray

from foveate.data.source import Block
from foveate.data.worker import Progress, decode_blocks, decode_job, decoding_job
from foveate.errors import DataError, OutputError
from foveate.execution.local import LocalPool
from foveate.files import cache_folder, new_folder, writing_to
from foveate.progress import Track

__all__ = ["decoded_images"]

_FORMAT = 1
"""Raised when the preprocessing changes, so that arrays of an earlier one are not used."""

# Starting a worker costs 0.3 s, in which one process decodes this much.
_FEW_IMAGES = 1500
_FEW_BYTES = 32 << 20

Decoded = tuple[NDArray[np.uint8], dict[int, str]]


def decoded_images(
    blocks: Sequence[Block], content: str, size: int, *, track: Track, workers: int = os.cpu_count() or 1
) -> Decoded:
    """The images of `blocks`, decoded at `size` by all cores, or found in the cache by their `content`.

    Returns:
        [N, size, size, 3] uint8, memory-mapped copy-on-write, and the reason of each bad image by its index; a bad
        image's row means nothing.

    Raises:
        DataError: when a file that holds images is damaged, or a worker dies.
        OutputError: when the cache cannot be written.
    """
    count = sum(block.count for block in blocks)
    key = hashlib.sha256(json.dumps([_FORMAT, PIL.__version__, size, content]).encode()).hexdigest()
    folder = cache_folder() / "decoded" / key[:32]
    shape = (count, size, size, 3)
    if found := _open(folder, shape):
        return found
    try:
        with writing_to(folder.parent):
            folder.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder.with_suffix(".lock"))
            lock.acquire()
        try:
            if found := _open(folder, shape):  # another process was faster
                return found
            shutil.rmtree(folder, ignore_errors=True)
            with new_folder(folder) as temporary:
                _decode(blocks, temporary, shape, track, workers)
        finally:
            lock.release()
    except OutputError as error:
        raise OutputError(f"{error}; $FOVEATE_CACHE names another folder for the cache") from error
    if found := _open(folder, shape):
        return found
    raise OutputError(
        f"{folder} was removed while it was in use: run again, or name another cache by $FOVEATE_CACHE"
    )


def _open(folder: Path, shape: tuple[int, ...]) -> Decoded | None:
    """What `folder` holds; None when there is nothing, or it is damaged."""
    try:
        images = np.load(folder / "images.npy", mmap_mode="c", allow_pickle=False)
        bad = {int(index): str(reason) for index, reason in json.loads((folder / "bad.json").read_text("utf-8"))}
    except (OSError, ValueError, TypeError, EOFError):
        return None
    return (images, bad) if images.shape == shape and images.dtype == np.uint8 else None


def _decode(blocks: Sequence[Block], folder: Path, shape: tuple[int, ...], track: Track, workers: int) -> None:
    count, size = shape[:2]
    path = folder / "images.npy"
    np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    is_little = count < _FEW_IMAGES and _file_bytes(blocks) < _FEW_BYTES
    if workers == 1 or is_little or not all(block.encoded for block in blocks):
        progress = decode_blocks(blocks, size, path)
    else:
        progress = _in_workers(blocks, size, path, min(workers, len(blocks)))
    bad: list[tuple[int, str]] = []
    with contextlib.closing(progress):  # what stops this stops the workers at once
        for _ in track(_one_by_one(progress, bad), total=count, label="decoding images"):
            pass
    (folder / "bad.json").write_text(json.dumps(sorted(bad)), "utf-8")


def _one_by_one(progress: Iterator[Progress], bad: list[tuple[int, str]]) -> Iterator[None]:
    for read, unreadable in progress:
        bad.extend(unreadable)
        yield from (None for _ in range(read))


def _file_bytes(blocks: Sequence[Block]) -> int:
    total = 0
    for path in {path for block in blocks for path in block.files}:
        with contextlib.suppress(OSError, ValueError):  # a missing file will be a bad image
            total += Path(path).stat().st_size
    return total


def _in_workers(blocks: Sequence[Block], size: int, path: Path, workers: int) -> Generator[Progress]:
    """Decode in processes, each of which takes the next block when it is free."""
    jobs, running = enumerate(blocks), 0
    with contextlib.closing(LocalPool(decode_job, workers)) as pool:
        while True:
            for number, block in itertools.islice(jobs, workers - running):
                pool.submit(number, decoding_job(block, size, path))
                running += 1
            if not running:
                return
            event = pool.event(timeout_s=60)
            if event is None:
                continue
            if event.kind == "progress":
                yield event.value["read"], [(index, reason) for index, reason in event.value["bad"]]
            elif event.kind == "lost":
                raise DataError(f"decoding: {event.value['message']}: run again")
            elif event.kind == "failed":
                raise DataError(event.value["message"])
            elif (code := event.value.get("errno")) is not None:
                raise OSError(code, os.strerror(code))
            else:
                running -= 1
