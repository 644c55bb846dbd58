"""Decoded images, kept as one memory-mapped array per content and size in the user's cache.

Nothing that lies there is believed. An entry is used where its record has the right form and holds the digests of
the pixels. The pixels are hashed for that once for each identity of their file, which is kept too. What does not
fit is made again.
"""

import contextlib
import errno
import hashlib
import itertools
import json
import math
import mmap
import os
import platform
import secrets
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from foveate.data.cache_entry import (
    IMAGES,
    JOURNAL,
    RECORD,
    VERIFIED,
    EntryRecord,
    read_entry,
    remove_entry,
)
from foveate.data.cache_shards import Shards, begin_again, digests, shard_images
from foveate.data.decode import DECODERS
from foveate.data.decoding import TOO_SLOW, decode_in_workers, is_of_the_machine
from foveate.data.source import Source
from foveate.data.worker import Progress, decode_blocks
from foveate.errors import ConfigError, DataError, FoveateError, OutputError
from foveate.files import cache_folder, open_regular, put_in_place, write_json, writing_to
from foveate.preprocessing import Preprocessing
from foveate.processors import usable_processors
from foveate.progress import Track
from foveate.records import Digest, Record, printable, read_record

_AGAIN_AFTER_S = 60.0
"""Age of an entry from which images are decoded again that were not because of the machine. The processes of one
piece of work, as the trials of a study, do not each try again at once."""
_FORMAT = 4
"""Raised when the preprocessing changes, or what can be read, so that arrays of an earlier one are not used."""

_NO_RESERVE = 0x4000 if sys.platform == "linux" and platform.machine() in {"x86_64", "aarch64"} else 0
"""The flag MAP_NORESERVE, which Python's mmap does not name before 3.13. Without it Linux counts pages that could
be written to as memory that is taken, and refuses to map a file that is larger than the memory."""

Decoded = tuple[NDArray[np.uint8], dict[int, str]]


class _Verified(Record):
    """Of which file it is known that its pixels are those of the record."""

    seal: Digest
    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    """It changes with the content as well, and cannot be set back as the time before it can."""


@dataclass(frozen=True)
class _Wanted:
    """What is looked for in the cache."""

    key: str
    shape: tuple[int, int, int, int]
    timeout_s: float

    def is_met_by(self, kept: EntryRecord, age_s: float = 0.0) -> bool:
        """Whether an entry of that record, made `age_s` seconds ago, is it, so far as the record can say."""
        count, size = self.shape[:2]
        if kept != kept.sealed() or (kept.key, kept.images, kept.size) != (self.key, count, size):
            return False
        # Images that took too long may be good if they are given more time.
        late = kept.timeout_s < self.timeout_s and any(reason.startswith(TOO_SLOW) for reason in kept.bad)
        if late or not all(0 <= index < count for index in kept.reasons):
            return False
        return age_s < _AGAIN_AFTER_S or not any(map(is_of_the_machine, kept.bad))

    def shards_again(self, kept: EntryRecord) -> set[int]:
        """Shards of an entry which has images that another try may decode; all others are as they should be."""
        each = shard_images(math.prod(self.shape[1:]))
        if not self.is_met_by(kept):
            return set()
        return {index // each for index, reason in kept.reasons.items() if is_of_the_machine(reason)}


def decoded_images(
    source: Source,
    preprocessing: Preprocessing,
    *,
    timeout_s: float,
    track: Track,
    workers: int | None = None,
) -> Decoded:
    """The images of `source`, decoded by all cores, or found in the cache by their content.

    Returns:
        [N, size, size, 3] uint8, memory-mapped copy-on-write, and the reason of each bad image by its index; a bad
        image's row means nothing.

    Raises:
        ConfigError: when the cache lies within the data.
        DataError: when a file that holds images is damaged, or has changed since its content was hashed.
        OutputError: when the cache cannot be written.
    """
    _refuse_cache_within(source.location)
    count = sum(block.count for block in source.blocks)
    key = _key(source, preprocessing)
    folder = cache_folder() / "decoded" / key[:32]
    size = preprocessing.size
    wanted = _Wanted(key, (count, size, size, 3), timeout_s)
    if found := _open(folder, wanted, track):
        return found
    try:
        with writing_to(folder.parent):
            folder.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder.with_suffix(".lock"))
            _acquire(lock, track)
        try:
            if found := _open(folder, wanted, track):  # another process was faster
                return found
            with writing_to(folder):
                _keep_good_shards(folder, wanted)
                if not remove_entry(folder) and os.path.lexists(folder):  # what is not Foveate's is kept
                    folder.rename(folder.with_name(f"{folder.name}-{secrets.token_hex(6)}"))
            _make(folder, source, wanted, preprocessing, track, workers or usable_processors())
        finally:
            lock.release()
    except OutputError as error:
        raise OutputError(f"{error}; $FOVEATE_CACHE names another folder for the cache") from error
    if found := _open(folder, wanted, track, made=True):
        return found
    raise OutputError(
        f"{folder} was removed while it was in use: run again, or name another cache by $FOVEATE_CACHE"
    )


def _refuse_cache_within(location: str) -> None:
    """Nothing is written into a folder of images: what lies there is the user's, and would become data."""
    data, cache = Path(location), cache_folder()
    if data.is_dir() and cache.resolve().is_relative_to(data.resolve()):
        raise ConfigError(
            f"the cache, {cache}, lies within the data, {location}: name another folder for the cache by "
            "$FOVEATE_CACHE"
        )


def _keep_good_shards(folder: Path, wanted: _Wanted) -> None:
    """Where an entry is wanted, but for images that another try may decode, go on from its other shards."""
    with contextlib.suppress(FoveateError):
        kept = read_entry(folder)
        if shards := wanted.shards_again(kept):
            begin_again(folder, _begun(folder), kept, timeout_s=wanted.timeout_s, shards=shards)


def _begun(folder: Path) -> Path:
    """Where an entry is made."""
    return folder.with_name(f".{folder.name}.part")


def _key(source: Source, preprocessing: Preprocessing) -> str:
    """By what an entry is found: all that its pixels depend on."""
    pixels = [_FORMAT, DECODERS, preprocessing.size, preprocessing.white or "format", source.content.digest]
    if preprocessing.fit != "crop":  # of which there are entries from before others could be chosen
        pixels.append(preprocessing.fit)
    return hashlib.sha256(json.dumps(pixels).encode()).hexdigest()


def _acquire(lock: FileLock, track: Track) -> None:
    """Wait for a lock, and let it be seen that something is waited for: another process may decode for an hour."""

    def waiting() -> Iterator[None]:
        while not lock.is_locked:
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=1)
            yield

    with contextlib.suppress(Timeout):
        lock.acquire(timeout=0)
    if not lock.is_locked:
        for _ in track(waiting(), total=1, label="waiting for a process that decodes them", images_each=0):
            pass


def _open(folder: Path, wanted: _Wanted, track: Track, *, made: bool = False) -> Decoded | None:
    """What `folder` holds; None when there is nothing, it is damaged, or it is something else.

    Args:
        made: just now, however long that took: no image is to be tried again.
    """
    try:
        kept = read_entry(folder)
        with open_regular(folder / IMAGES) as file:
            status = os.fstat(file.fileno())
            if not wanted.is_met_by(kept, 0.0 if made else time.time() - status.st_mtime):
                return None
            if status.st_size != math.prod(wanted.shape):
                return None
            if not _is_verified(folder, kept, file, track):
                return None
            images = _mapped(file, wanted.shape)
    except OSError as error:
        if error.errno in (errno.ENOMEM, errno.EMFILE, errno.ENFILE):
            raise OutputError(
                f"{folder} cannot be mapped into memory ({error.strerror}): raise the limits of this process "
                "(`ulimit -v` for memory, `ulimit -n` for open files)"
            ) from error
        return None
    except (FoveateError, ValueError):
        return None
    with contextlib.suppress(OSError):  # when it was used last; a cache may be read-only
        os.utime(folder / RECORD)
    return images, kept.reasons


def _is_verified(folder: Path, kept: EntryRecord, file: BinaryIO, track: Track) -> bool:
    """Whether the pixels are those of the record: they are read for it where that is not known of their file."""
    now = _verified(kept, file)
    with contextlib.suppress(FoveateError):
        if read_record(folder / VERIFIED, _Verified, fix="the pixels are read again", error=OutputError) == now:
            return True
    if digests(file, 3 * kept.size**2, track) != kept.shards:
        return False
    with contextlib.suppress(OutputError):  # in a read-only cache they are read each time
        write_json(folder / VERIFIED, now.model_dump())
    return True


def _verified(kept: EntryRecord, file: BinaryIO) -> _Verified:
    """That the pixels in `file`, as it is now, are those of the record."""
    status = os.fstat(file.fileno())
    return _Verified(
        seal=kept.seal,
        device=status.st_dev,
        inode=status.st_ino,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        ctime_ns=status.st_ctime_ns,
    )


def _make(
    folder: Path, source: Source, wanted: _Wanted, preprocessing: Preprocessing, track: Track, workers: int
) -> None:
    """Make an entry, or go on with one that a process left unfinished; DataError where the files have changed."""
    begun = _begun(folder)
    try:
        with writing_to(folder):
            _fill(begun, source, wanted, preprocessing, track, workers)
            put_in_place(begun, folder)
            (folder / JOURNAL).unlink()
    except FoveateError:  # a full disk is to be free again; what stops the process leaves what was done so far
        with contextlib.suppress(OSError):
            remove_entry(begun)
        raise


def _fill(
    folder: Path, source: Source, wanted: _Wanted, preprocessing: Preprocessing, track: Track, workers: int
) -> None:
    encoded = all(block.encoded for block in source.blocks)
    if not encoded:  # copying them is as fast as checking what is there
        remove_entry(folder)
    count, image_bytes = wanted.shape[0], math.prod(wanted.shape[1:])
    shards = Shards(folder, count, image_bytes, key=wanted.key, timeout_s=wanted.timeout_s, track=track)
    if encoded:
        missing = shards.missing(source.blocks)
        progress = decode_in_workers(
            missing, preprocessing, shards.path, workers=workers, timeout_s=wanted.timeout_s
        )
    else:
        progress = decode_blocks(source.blocks, preprocessing, shards.path)
    with contextlib.closing(progress):  # what stops this stops the workers at once
        for _ in track(_one_by_one(progress, shards), total=shards.images_left, label="decoding images"):
            pass
    if not source.content.is_unchanged(track):
        raise DataError(
            f"{source.location}: its files changed while they were read: run again when nothing writes to them"
        )
    kept = EntryRecord(
        key=wanted.key,
        name=printable(source.name),
        location=printable(source.location),
        images=count,
        size=preprocessing.size,
        bad=shards.bad,
        timeout_s=wanted.timeout_s,
        shards=shards.digests,
    ).sealed()
    with shards.path.open("rb") as file:
        write_json(folder / VERIFIED, _verified(kept, file).model_dump())
    write_json(folder / RECORD, kept.model_dump())


def _one_by_one(progress: Iterator[Progress], shards: Shards) -> Iterator[None]:
    for each in progress:
        shards.written(each)
        yield from itertools.repeat(None, each[1])


def _mapped(file: BinaryIO, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The pixels in `file`, memory-mapped copy-on-write, so that torch takes them as they are."""
    if not _NO_RESERVE:
        return np.memmap(file, np.uint8, mode="c", shape=shape)
    mapped = mmap.mmap(
        file.fileno(),
        math.prod(shape),
        flags=mmap.MAP_PRIVATE | _NO_RESERVE,
        prot=mmap.PROT_READ | mmap.PROT_WRITE,
    )
    return np.frombuffer(mapped, np.uint8).reshape(shape)
