"""Writing files so that a reader, or a kill at any moment, never sees half of one."""

import contextlib
import csv
import errno
import glob
import io
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from foveate.errors import CheckpointError, ConfigError, FoveateError, OutputError

_FIXES = {
    errno.ENOSPC: "the disk is full: free some space or write elsewhere",
    errno.EDQUOT: "the disk quota is used up: free some space or write elsewhere",
    errno.EACCES: "no permission: choose a folder you may write to",
    errno.EPERM: "no permission: choose a folder you may write to",
    errno.EROFS: "the file system is read-only: choose a folder you may write to",
    errno.ENOTDIR: "a part of the path is a file: choose another folder",
    errno.EISDIR: "it is a folder: remove it, or choose another place",
    errno.ELOOP: "a link is in its place: remove the link",
    errno.ENOENT: "a folder is gone, perhaps the one that you are in: change to another folder",
}


def temporary_told(error: OSError) -> str:
    """What to do where temporary files cannot be written."""
    return f"no temporary files can be written ({error.strerror}): make room, or name another folder in TMPDIR"


def cache_folder() -> Path:
    """Where derived data is kept: `$FOVEATE_CACHE`, else `$XDG_CACHE_HOME/foveate`, else `~/.cache/foveate`.

    Raises:
        OutputError: where the home folder is asked for, and this user has none.
    """
    try:
        if chosen := os.environ.get("FOVEATE_CACHE"):
            return Path(chosen).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "foveate"
    except RuntimeError as error:
        raise OutputError("there is no home folder to keep a cache in: set FOVEATE_CACHE to a folder") from error


def check_utf8(path: Path | str, error: type[FoveateError] = ConfigError) -> None:
    """Refuse a path that cannot be written down, as in the record of a run.

    Raises:
        FoveateError: of the type `error`, for a name that is not UTF-8.
    """
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError as problem:
        raise error(
            f"{os.fspath(path)!a}: its path has a name that is not UTF-8, to be written down: rename it"
        ) from problem


@contextlib.contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn an OSError raised while writing `path` into an OutputError that carries the fix.

    Raises:
        OutputError: for every OSError raised inside, and for a text that is not UTF-8.
    """
    try:
        yield
    except UnicodeEncodeError as error:
        named = error.object[max(0, error.start - 40) : error.end + 40]
        raise OutputError(f"cannot write {path}: a name is not UTF-8, in {named!a}: rename it") from error
    except OSError as error:
        fix = _FIXES.get(error.errno or 0, error.strerror or str(error))
        raise OutputError(f"cannot write {path}: {fix}") from error


@contextlib.contextmanager
def reading_from(path: Path, fix: str, error: type[FoveateError] = CheckpointError) -> Iterator[None]:
    """Turn an OSError raised while reading `path` into an `error` that carries the fix.

    Raises:
        FoveateError: of the type `error`, for every OSError raised inside.
    """
    try:
        yield
    except OSError as problem:
        raise error(f"cannot read {path} ({problem.strerror or problem}): {fix}") from problem


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

    Temporary files in it, at any depth, are then those of killed processes, and are removed.

    Raises:
        ConfigError: when another has it, which then is `doing` something: "X is being trained".
        OutputError: when nothing can be written there.
    """
    from filelock import FileLock, Timeout  # an exported bundle reads files without it

    with writing_to(folder):
        try:
            lock = FileLock(folder / ".lock", timeout=0).acquire()
        except Timeout:
            raise ConfigError(f"{doing} by another process: wait for it, or stop it") from None
    with lock:
        _remove_abandoned(list(folder.rglob(_temporary_name("*", "?" * 12))))
        yield


def refuse_links(path: Path, *, within: Path) -> None:
    """Refuse a path with a link below `within`: what is written or deleted there would lie elsewhere.

    Raises:
        CheckpointError: naming the link.
    """
    for part in (path, *path.parents):
        if part == within:
            break
        if part.is_symlink():
            raise CheckpointError(f"{part} is a link, which may lead out of {within}: put a folder in its place")


def open_regular(path: Path) -> io.BufferedReader:
    """Open a regular file to read. A pipe, a socket or a device is refused without waiting for it.

    Raises:
        OSError: when it is missing, not a regular file, or not readable; `strerror` says so.
        ValueError: for a name with a NUL character.
    """
    # Opening a device can have an effect of its own, so it is looked at first; what was opened is looked at again,
    # as the name may mean another file by then.
    _refuse_irregular(path.stat())
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        _refuse_irregular(os.fstat(descriptor))
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def _refuse_irregular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")


def read_regular(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes.

    Never more than its size is read: files of the kernel, as in /proc, have size 0, and some have no end.

    Raises:
        OSError: as `open_regular`, and for a larger file.
        ValueError: as `open_regular`.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise OSError(errno.EFBIG, f"it has {size:,} bytes, more than {limit:,}")
        return file.read(size)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a temporary file beside `path`; when the block ends well: fsync, rename to `path`, fsync the folder.

    The temporary file is new and its name is drawn at random: two writers of one file never share it, and nobody
    can place a link there beforehand. What a killed process leaves is removed when the folder is next `locked`.

    Raises:
        OutputError: when it cannot be written; `path` is then as it was.
    """
    temporary = _temporary(path)
    with writing_to(path):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
        os.close(os.open(temporary, flags, 0o666))
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


def _temporary(path: Path) -> Path:
    return path.with_name(_temporary_name(path.name, secrets.token_hex(6)))


def _temporary_name(name: str, token: str) -> str:
    return f".{name[:60]}.{token}.tmp"  # a long name leaves room for the rest: most file systems take 255 bytes


def _remove_abandoned(temporary: Iterable[Path]) -> None:
    for left in temporary:
        with contextlib.suppress(OSError):
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            else:
                left.unlink()


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


def write_csv(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Write `rows` as CSV, atomically; None is an empty cell.

    Raises:
        OutputError: when it cannot be written.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_atomically(path, text.getvalue())


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Fill a temporary folder and rename it to `path` when the block ends well; otherwise remove it.

    The caller holds a lock on `path`: a temporary folder for it is one that a killed process left, and is removed.

    Raises:
        OutputError: when it cannot be written.
    """
    temporary = _temporary(path)
    with writing_to(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(path.parent.glob(_temporary_name(glob.escape(path.name), "?" * 12)))
            temporary.mkdir()
            yield temporary
            put_in_place(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def put_in_place(temporary: Path, path: Path) -> None:
    """Rename a folder that is filled to `path`, in the same folder, once all of it is on the disk.

    Raises:
        OSError: when that fails.
    """
    for file in temporary.rglob("*"):
        if file.is_dir():
            sync_folder(file)
        else:
            with file.open("rb+") as opened:
                os.fsync(opened.fileno())
    sync_folder(temporary)
    temporary.rename(path)
    sync_folder(path.parent)
