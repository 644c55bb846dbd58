"""`runs/<verb>/<name>/`, where a verb writes: named, checked before the work, and there whole or not at all."""

import contextlib
import errno
import itertools
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from foveate.errors import ConfigError
from foveate.files import check_utf8, new_folder, writing_to
from foveate.records import printable

_NAME_BYTES = 150
"""Longest name of a folder, in bytes: file systems take 255, of which a number and a temporary name need some."""


class NewOutput(NamedTuple):
    """A folder that is being made."""

    path: Path
    """Where it will be."""
    draft: Path
    """Where its files are written until then."""


@contextlib.contextmanager
def new_output(root: Path, verb: str, name: str | None, *, fallback: str) -> Iterator[NewOutput]:
    """Make `root/verb/name`, or `fallback`, numbered until it is free. It appears when the block ends well.

    So a killed process leaves a whole folder or none.

    Raises:
        ConfigError: when `name` is taken or is not a plain name.
        OutputError: when the folder cannot be made.
    """
    check_output_name(root, verb, name)
    parent = root / verb
    with writing_to(parent):
        parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(parent / ".lock")  # two runs that start at once take two numbers
        lock.acquire()
    try:
        numbers = itertools.count(2)
        fallback = clipped(printable(fallback))
        path = parent / (name or fallback)
        while path.exists():
            check_output_name(root, verb, name)
            path = parent / f"{fallback}-{next(numbers)}"
        with new_folder(path) as draft:
            yield NewOutput(path, draft)
    finally:
        lock.release()


def refuse_within(path: Path | str, *data: Path | str, fix: str = "write elsewhere with --runs FOLDER") -> None:
    """Refuse to write into a folder of images: it is the user's, and what is written there would become data.

    Args:
        path: the file or folder that is to be written.
        data: what names the images; anything but a folder is passed over.

    Raises:
        ConfigError: which ends with the `fix`.
        OutputError: where the current folder was removed.
    """
    for each in data:
        # Not `Path.expanduser`, which raises RuntimeError for a file that is called ~img.jpg.
        place = Path(os.path.expanduser(each))  # noqa: PTH111
        with writing_to(Path(path)):  # from a folder that was removed no other can be found
            if str(each).strip() and place.is_dir() and Path(path).resolve().is_relative_to(place.resolve()):
                raise ConfigError(f"{path} lies within the data, {each}: {fix}")


def check_output_name(root: Path, verb: str, name: str | None) -> None:
    """Refuse a name or a place that `new_output` would refuse: before the work that comes first.

    Raises:
        ConfigError: when the name is taken or is not a plain name, or the place cannot be written down.
        OutputError: when nothing can be written there.
    """
    check_utf8(root)
    with writing_to(root / verb):
        parent = (root / verb).absolute()
        nearest = next(each for each in (parent, *parent.parents) if each.exists())
        if not nearest.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    if name is None:
        return
    if Path(name).name != name or name in ("", ".."):
        raise ConfigError(f"name={clipped(name)!r}: give a plain name; choose the place with --runs")
    if name[0] in "-~":  # a shell or a command line would take it for something else
        raise ConfigError(f"name={clipped(name)!r}: give a name that begins with a letter or a digit")
    if printable(name) != name or len(name.encode()) > _NAME_BYTES:
        raise ConfigError(
            f"name={clipped(name)!r}: give a name of at most {_NAME_BYTES} bytes that are all printable"
        )
    path = root / verb / name
    if path.exists():
        resumable = verb in ("train", "tune", "compare")
        or_resume = f", or continue it with --resume {shlex.quote(str(path))}" if resumable else ""
        raise ConfigError(f"{path} exists: choose another --name{or_resume}")


def check_new_folder(path: Path) -> None:
    """Refuse a folder that is there already, or cannot be made: before the work that comes first.

    Raises:
        ConfigError, OutputError: for that.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ConfigError(f"{path} exists already: name a new folder by --to")
    if path.exists() and path.samefile(Path.cwd()):  # it is made elsewhere, and then put in its place
        raise ConfigError(f"{path} is the folder that you are in: name a new folder by --to, such as --to model")
    check_output_name(path.parent, "", None)


def clipped(name: str) -> str:
    """The beginning of a name, in as many bytes as a folder's name can have beside a number."""
    return name.encode(errors="backslashreplace")[:_NAME_BYTES].decode(errors="ignore")
