"""The digest of the files of a data set: read by four threads, with progress within large files."""

import contextlib
import hashlib
import os
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

from foveate.data.container import BadImageError
from foveate.data.decode import open_image
from foveate.progress import Track

_PIECE_BYTES = 8 << 20
"""Of a file that is read, between two signs that it goes on."""
_AT_ONCE = 1024
"""Files that are handed out to be hashed, so that a million of them take no memory."""
_TOGETHER = 16
"""Of these, how many a thread takes at a time where there are thousands, as handing out costs time."""
_LARGEST_IMAGE = 4 << 30
"""Bytes of an image file that are hashed at most: /proc/kcore and sparse files can claim terabytes."""


@dataclass(frozen=True)
class Content:
    """What the files of a data set hold."""

    digest: str
    """sha256 of the files' contents, in order."""
    kind: str = field(default="", compare=False)
    files: Sequence[str] = field(default=(), compare=False)
    """The files themselves; none where the images come from memory."""

    def is_unchanged(self, track: Track) -> bool:
        """Whether the files still hold that; they are read again."""
        return not self.files or hash_files(self.kind, self.files, track).digest == self.digest


def hash_files(kind: str, paths: Sequence[str], track: Track) -> Content:
    """sha256 over `kind` and the contents of files, in order; the reason stands in for one that cannot be read."""
    digest = hashlib.sha256(kind.encode())
    limit = _LARGEST_IMAGE if kind == "files" else None
    total = len(paths) + sum(_file_bytes(path) // _PIECE_BYTES for path in paths)
    with contextlib.closing(_hashing(paths, limit, digest)) as pieces:  # what stops this stops the threads at once
        for _ in track(pieces, total=total, label="reading files", images_each=0):
            pass
    return Content(digest.hexdigest(), kind, paths)


def _hashing(paths: Sequence[str], limit: int | None, digest: "hashlib._Hash") -> Generator[None]:
    """Add the contents of files to `digest`; yield when a file was read, and within it after each piece."""
    moved: SimpleQueue[int] = SimpleQueue()
    """Files that were read to their ends; 0 where a piece of one was."""
    together = max(1, min(_TOGETHER, len(paths) // 256))
    stopped = threading.Event()
    with ThreadPoolExecutor(4) as pool:  # hashlib lets go of the GIL
        try:
            for start in range(0, len(paths), _AT_ONCE):
                some = paths[start : start + _AT_ONCE]
                hashing = [
                    pool.submit(_hash_some, some[at : at + together], limit, moved, stopped)
                    for at in range(0, len(some), together)
                ]
                left = len(some)
                while left > 0:
                    left -= moved.get()
                    yield
                for each in hashing:
                    for found in each.result():
                        digest.update(found.encode() + b"\n")
        finally:
            stopped.set()
            pool.shutdown(cancel_futures=True)


def _hash_some(
    paths: Sequence[str], limit: int | None, moved: SimpleQueue[int], stopped: threading.Event
) -> list[str]:
    buffer, found = memoryview(bytearray(1 << 18)), list[str]()
    try:
        for path in paths:
            found.append(_hash_file(path, limit, buffer, moved, stopped))
            moved.put(1)
    except BaseException:
        moved.put(len(paths))  # nobody waits for the rest
        raise
    return found


def _hash_file(
    path: str, limit: int | None, buffer: memoryview, moved: SimpleQueue[int], stopped: threading.Event
) -> str:
    digest, unsaid = hashlib.sha256(), 0
    try:
        with open_image(Path(path)) as file:
            status = os.fstat(file.fileno())
            if limit is not None and status.st_size > limit:
                return f"{status.st_size} bytes of {status.st_mtime_ns}"
            # Not beyond the size: some files of the kernel, as in /proc, have the size 0 and no end.
            left = status.st_size
            while (count := file.readinto(buffer[: min(left, len(buffer))])) and not stopped.is_set():
                digest.update(buffer[:count])
                left -= count
                unsaid += count
                if unsaid >= _PIECE_BYTES:
                    moved.put(0)
                    unsaid = 0
    except (BadImageError, OSError) as error:
        return str(error)
    return digest.hexdigest()


def _file_bytes(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except (OSError, ValueError):  # a missing file will be a bad image
        return 0
