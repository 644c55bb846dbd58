"""What lies in the cache, and how it is cleared."""

import contextlib
import re
import stat
import time
from dataclasses import dataclass
from typing import Any

from filelock import FileLock, Timeout

from foveate.data.cache_entry import Entry, clear_entry, entries, listing
from foveate.data.cifar10 import CIFAR10
from foveate.errors import ConfigError
from foveate.files import cache_folder
from foveate.records import printable

_DAY_S = 86_400
_WRITING_S = 600
"""Seconds within which a file that is not whole may still be written."""
_FOLDERS_OF_TENSORS = ("weights", "features")
_OF_TENSORS = re.compile(r"[\w-]{1,80}\.safetensors|\..{1,100}\.[0-9a-f]{12}\.tmp")
_KINDS = {
    "images": "decoded images",
    "download": "download",
    "weights": "pretrained weights",
    "features": "features of a backbone",
    "unfinished": "left by a process that was killed",
    "damaged": "damaged, or of an older version",
    "foreign": "not Foveate's",
}
TITLES = ("data set", "what", "images", "side", "on disk", "last used", "from")
"""Of `Cached.cells`."""


@dataclass(frozen=True)
class Cached(Entry):
    """Something that lies in the cache."""

    @property
    def cells(self) -> list[str]:
        """It as a row of a table."""
        return [
            printable(self.name or self.path.name),
            _KINDS[self.kind],
            f"{self.images:,}" if self.images else "–",
            f"{self.size}" if self.size else "–",
            bytes_words(self.bytes_on_disk),
            _ago(time.time() - self.used),
            printable(self.location),
        ]


@dataclass(frozen=True)
class Cleared:
    """The result of clearing the cache."""

    removed: tuple[Cached, ...]
    left: tuple[tuple[Cached, str], ...]
    """What could not be removed, and why."""

    @property
    def lines(self) -> list[str]:
        """What was removed, and what was not."""
        freed = bytes_words(sum(each.bytes_on_disk for each in self.removed))
        left = [f"left: {printable(str(each.path))} ({reason})" for each, reason in self.left]
        return [f"{len(self.removed)} removed, {freed} freed, in {cache_folder()}", *left]


def list_cache() -> list[Cached]:
    """What lies in the cache: decoded images, weights and features of backbones, and the archive of CIFAR-10.

    Raises:
        OutputError: when the cache cannot be read.
    """
    return [*(Cached(**vars(entry)) for entry in entries()), *_tensors(), *_downloads()]


def clear_cache(*, older_than_days: float = 0.0) -> Cleared:
    """Remove what lies in the cache and is Foveate's; what a process is making stays.

    No link is followed. A process that uses images keeps them until it ends.

    Args:
        older_than_days: remove only what was not used for this many days.

    Raises:
        ConfigError: when the folder to be cleared is a link, or `older_than_days` is negative.
        OutputError: when the cache cannot be read.
    """
    if not older_than_days >= 0:
        raise ConfigError(f"older_than={older_than_days:g}: give days, 0 or more")
    for folder in (cache_folder() / name for name in ("decoded", "cifar10", *_FOLDERS_OF_TENSORS)):
        if folder.is_symlink():
            raise ConfigError(
                f"{folder} is a link, which clearing does not follow: remove the link, or clear what it points to"
            )
    removed, left = [], []
    until = time.time() - older_than_days * _DAY_S
    for cached in list_cache():
        if older_than_days and cached.used > until:
            continue
        reason = _remove(cached)
        if reason is None:
            removed.append(cached)
        else:
            left.append((cached, reason))
    return Cleared(tuple(removed), tuple(left))


def _tensors() -> list[Cached]:
    """Files of tensors, and what a process that was killed while it wrote one has left."""
    found = []
    for kind in _FOLDERS_OF_TENSORS:
        root = cache_folder() / kind
        for path in listing(root) if not root.is_symlink() else ():
            with contextlib.suppress(OSError):
                status = path.lstat()
                ours = stat.S_ISREG(status.st_mode) and _OF_TENSORS.fullmatch(path.name)
                unfinished = ours and path.name.startswith(".")
                what: Any = "foreign" if not ours else "unfinished" if unfinished else kind
                found.append(Cached(path, what, status.st_size, status.st_mtime))
    return found


def _downloads() -> list[Cached]:
    found = []
    for name in (CIFAR10.name, f"{CIFAR10.name}.part"):
        path = cache_folder() / "cifar10" / name
        with contextlib.suppress(OSError):
            status = path.stat(follow_symlinks=False)
            found.append(Cached(path, "download", status.st_size, status.st_mtime, "cifar10", CIFAR10.url))
    return found


def _remove(cached: Cached) -> str | None:
    """Remove it; why it is still there, or None."""
    if cached.kind == "foreign":
        return "it is not Foveate's"
    try:
        if cached.path.parent.name in _FOLDERS_OF_TENSORS:
            writing = cached.kind == "unfinished" and time.time() - cached.used < _WRITING_S
            if not writing:
                cached.path.unlink(missing_ok=True)
            return "a process may be writing it" if writing else None
        if cached.kind != "download":
            return None if clear_entry(cached.path) else "a process is making it"
        with FileLock(cached.path.with_name(f"{CIFAR10.name}.lock"), timeout=0):
            cached.path.unlink(missing_ok=True)
    except Timeout:
        return "a process is making it"
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return None


def bytes_words(count: float) -> str:
    """A number of bytes with its unit."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _ago(seconds: float) -> str:
    """A time that has passed, in its largest unit; a clock that was set back makes none of it."""
    for unit, length in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if (count := int(seconds // length)) > 0:
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return "just now"
