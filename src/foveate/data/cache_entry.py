"""What an entry of the cache of decoded images is on the disk: its files, its record, and how it is cleared."""

import hashlib
import json
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from foveate.errors import FoveateError, OutputError
from foveate.files import cache_folder
from foveate.records import Digest, Record, read_record

IMAGES, RECORD, VERIFIED = "images.bin", "entry.json", "verified.json"
"""Pixels; an `EntryRecord`; which file's pixels are known to be those of the record."""
JOURNAL = "finished.jsonl"
"""Of an entry that is being made: which shards of it are finished."""
_OURS = {IMAGES, RECORD, VERIFIED, JOURNAL, "images.npy", "bad.json"}
"""Names of the files in an entry; the last two are of format 1."""
_KEY = re.compile(r"[0-9a-f]{32}")
_UNFINISHED = re.compile(r"\.([0-9a-f]{32})\.(?:part|[0-9a-f]{12}\.tmp)")
"""The second is how versions before shards named it."""
_TEMPORARY = re.compile(r"\..{1,60}\.[0-9a-f]{12}\.tmp")


class EntryRecord(Record):
    """What an entry says of itself."""

    kind: Literal["decoded images of Foveate"] = "decoded images of Foveate"
    key: Digest
    name: str
    location: str
    """Of the data set that was decoded; another of the same content uses it as well."""
    images: int
    size: int
    bad: dict[str, list[int]]
    """By the reason, the indices of bad images."""
    timeout_s: float
    """Within which each image was decoded."""
    shards: list[Digest]
    """sha256 of every shard of the pixels."""
    seal: Digest = "0" * 64
    """sha256 of all other fields."""

    def sealed(self) -> "EntryRecord":
        """The same with the seal that belongs to it."""
        text = json.dumps(self.model_dump(mode="json", exclude={"seal"}), sort_keys=True)
        return self.model_copy(update={"seal": hashlib.sha256(text.encode()).hexdigest()})

    @property
    def reasons(self) -> dict[int, str]:
        """Of each bad image, by its index, in order."""
        return dict(sorted((index, reason) for reason, indices in self.bad.items() for index in indices))


def read_entry(folder: Path) -> EntryRecord:
    """The record of an entry.

    Raises:
        OutputError: when there is none, or it is damaged.
    """
    return read_record(folder / RECORD, EntryRecord, fix="the images are decoded again", error=OutputError)


@dataclass(frozen=True)
class Entry:
    """Something that lies in the cache."""

    path: Path
    kind: Literal["images", "download", "weights", "features", "unfinished", "damaged", "foreign"]
    """`images`: decoded ones; `download`: an archive, or a part of one; `weights`: those that training may start
    from; `features`: what a backbone with them makes of images; `unfinished`: left by a process that was killed;
    `damaged`: or made by an older version; `foreign`: not Foveate's, which is never removed."""
    bytes_on_disk: int
    used: float
    """When it was used last, in seconds of the epoch."""
    name: str = ""
    """Of the data set."""
    location: str = ""
    images: int = 0
    size: int = 0
    """Side of the images, in pixels."""


def entries() -> list[Entry]:
    """What lies in the cache of decoded images, locks aside.

    Raises:
        OutputError: when it cannot be read.
    """
    found = (_entry(path) for path in listing(cache_folder() / "decoded") if path.suffix != ".lock")
    return [entry for entry in found if entry is not None]


def listing(root: Path) -> list[Path]:
    """What lies in a folder of the cache, in order; nothing where there is no such folder.

    Raises:
        OutputError: when it cannot be read.
    """
    try:
        return sorted(root.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise OutputError(f"cannot read the cache {root} ({error.strerror}): look what is there") from error


def _entry(path: Path) -> Entry | None:
    """What lies at `path`; None where it is gone by now."""
    try:
        status = path.lstat()
        if not _is_ours(path):
            return Entry(path, "foreign", 0, status.st_mtime)
        files = [each.lstat() for each in path.iterdir()]
    except OSError:
        return None
    # Windows does not count blocks.
    taken = sum(512 * each.st_blocks if hasattr(each, "st_blocks") else each.st_size for each in files)
    used = max((each.st_mtime for each in files), default=status.st_mtime)
    if _UNFINISHED.fullmatch(path.name):
        return Entry(path, "unfinished", taken, used)
    try:
        kept = read_entry(path)
    except FoveateError:
        return Entry(path, "damaged", taken, used)
    if kept != kept.sealed():
        return Entry(path, "damaged", taken, used)
    return Entry(path, "images", taken, used, kept.name, kept.location, kept.images, kept.size)


def _is_ours(path: Path) -> bool:
    """Whether it is a folder with such a name as Foveate gives, no link, and with such files alone in it."""
    if not (_KEY.fullmatch(path.name) or _UNFINISHED.fullmatch(path.name)):
        return False
    if not stat.S_ISDIR(path.lstat().st_mode):
        return False
    return all(
        (each.name in _OURS or _TEMPORARY.fullmatch(each.name)) and not stat.S_ISDIR(each.lstat().st_mode)
        for each in path.iterdir()
    )


def remove_entry(path: Path) -> bool:
    """Remove an entry, or what is left of one; whether it was there and is gone.

    No link is followed, and nothing is removed but files of the names that Foveate gives them.

    Raises:
        OSError: when it may not be removed.
    """
    try:
        if not _is_ours(path):
            return False
        for each in list(path.iterdir()):
            each.unlink(missing_ok=True)
        path.rmdir()
    except FileNotFoundError:
        return False
    return True


def clear_entry(path: Path) -> bool:
    """As `remove_entry`, unless a process is making it; whether it is gone.

    Raises:
        OSError: when it may not be removed.
    """
    unfinished = _UNFINISHED.fullmatch(path.name)
    key = unfinished[1] if unfinished else path.name
    lock = FileLock(path.with_name(f"{key}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    try:
        remove_entry(path)
    finally:
        lock.release()
    return True
