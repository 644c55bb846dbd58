"""Writing files so that a reader, or a kill at any moment, never sees half of one."""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from foveate.errors import ConfigError, OutputError

__all__ = [
    "cache_folder",
    "locked",
    "new_folder",
    "replacing",
    "sync_folder",
    "write_atomically",
    "write_json",
    "writing_to",
]

_FIXES = {
    errno.ENOSPC: "the disk is full: free some space or write elsewhere",
    errno.EDQUOT: "the disk quota is used up: free some space or write elsewhere",
    errno.EACCES: "no permission: choose a folder you may write to",
    errno.EPERM: "no permission: choose a folder you may write to",
    errno.EROFS: "the file system is read-only: choose a folder you may write to",
    errno.ENOTDIR: "a part of the path is a file: choose another folder",
}


def cache_folder() -> Path:
    """Where derived data is kept: `$FOVEATE_CACHE`, else `$XDG_CACHE_HOME/foveate`, else `~/.cache/foveate`."""
    if chosen := os.environ.get("FOVEATE_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "foveate"


@contextlib.contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn an OSError raised while writing `path` into an OutputError that carries the fix.

    Raises:
        OutputError: for every OSError raised inside.
    """
    try:
        yield
    except OSError as error:
        fix = _FIXES.get(error.errno or 0, error.strerror or str(error))
        raise OutputError(f"cannot write {path}: {fix}") from error


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a power cut; a no-op where folders cannot be opened (Windows)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(folder: Path, doing: str) -> Iterator[None]:
    """Keep other processes out of `folder`; the system lifts the lock when this one dies.

    Raises:
        ConfigError: when another has it, which then is `doing` something: "X is being trained".
        OutputError: when nothing can be written there.
    """
    with writing_to(folder):
        try:
            lock = FileLock(folder / ".lock", timeout=0).acquire()
        except Timeout:
            raise ConfigError(f"{doing} by another process: wait for it, or stop it") from None
    with lock:
        yield


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a temporary file beside `path`; when the block ends well: fsync, rename to `path`, fsync the folder.

    The temporary name is fixed, so that what a killed process left is overwritten by the next write: a file
    has one writer at a time.

    Raises:
        OutputError: when it cannot be written; `path` is then as it was.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with writing_to(path):
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(path.parent)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write `content` to `path` whole or not at all.

    Raises:
        OutputError: when it cannot be written; `path` is then as it was.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN is refused: it is not JSON.

    Raises:
        OutputError: when it cannot be written.
    """
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Fill a temporary folder and rename it to `path` when the block ends well; otherwise remove it.

    The caller holds a lock on `path`: what lies at the temporary name is a killed process' and is removed.

    Raises:
        OutputError: when it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with writing_to(path):
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_dir():
                    sync_folder(file)
                else:
                    with file.open("rb+") as opened:
                        os.fsync(opened.fileno())
            sync_folder(temporary)
            temporary.rename(path)
            sync_folder(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
