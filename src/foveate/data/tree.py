"""The files below folders: links are followed, each real folder is read once, and clutter is passed over."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from foveate.data.source import listed
from foveate.data.texts import Texts
from foveate.errors import DataError

_CLUTTER = {
    "thumbs.db",
    "desktop.ini",
    "icon\r",
    "__macosx",
    "@eadir",
    "#recycle",
    "$recycle.bin",
    "system volume information",
    "lost+found",
}

Identity = tuple[int, int]
"""Device and inode: two paths to one folder have the same."""


@dataclass(frozen=True)
class Tree:
    """What lies below one folder."""

    files: Texts
    """Paths: those of a folder in sorted order, then those of its subfolders."""
    folders: list[Path]
    """Its subfolders at any depth, in the order in which they were read."""


def is_clutter(name: str) -> bool:
    """Whether a file or folder is hidden, or one that file managers and archives leave."""
    return name.startswith(".") or name.lower() in _CLUTTER


def subfolders(folder: Path) -> list[Path]:
    """The folders in `folder` and links to folders, without clutter, in sorted order.

    Raises:
        OSError: when `folder` cannot be read.
    """
    with os.scandir(folder) as entries:
        return sorted(Path(entry.path) for entry in entries if not is_clutter(entry.name) and _is_folder(entry))


def read_trees(root: Path, starts: Sequence[Path]) -> tuple[list[Tree], tuple[str, ...]]:
    """What lies below each of `starts`, folders below `root` or `root` itself, and notes on what was passed over.

    Raises:
        DataError: when two of `starts` are one folder, or one holds another, by a link.
        OSError: when a folder cannot be read.
    """
    around = [Path(os.path.realpath(root))]  # not `Path.resolve`, which raises RuntimeError for a loop of links
    around += around[0].parents
    read = {_identity(folder): folder for folder in (around[1:] if root in starts else around)}
    # Real folders come first: then a link to one of them is known for a link, whatever the order of the names.
    for start in starts:
        for folder in _real_folders(start):
            other = read.setdefault(_identity(folder), folder)
            if other is not folder:
                raise DataError(f"{folder} and {other} are the same folder, by a link: remove the link")
    clutter: Counter[str] = Counter()
    repeats: list[str] = []
    trees = [_read_tree(start, read, clutter, repeats) for start in starts]
    for holder in {root, *(start.parent for start in starts)} if root not in starts else ():
        clutter.update(path.name for path in holder.iterdir() if is_clutter(path.name))
    notes = []
    if clutter:
        found = listed([f"{name} ({count:,})" for name, count in sorted(_gathered(clutter).items())])
        notes.append(f"hidden files, and what operating systems and programs add, were left out: {found}")
    if repeats:
        names = listed([Path(path).relative_to(root).as_posix() for path in repeats])
        notes.append(f"links to folders that are read already, or that hold the data, were not followed: {names}")
    return trees, tuple(notes)


def _read_tree(start: Path, read: dict[Identity, Path], clutter: Counter[str], repeats: list[str]) -> Tree:
    tree = Tree(Texts(), [])
    waiting = [(os.fspath(start), False)]  # a stack, not recursion: folders may be nested deeper than Python calls
    while waiting:
        folder, linked = waiting.pop()
        if folder != os.fspath(start):
            tree.folders.append(Path(folder))
        with os.scandir(folder) as opened:
            entries = sorted(opened, key=lambda entry: entry.name)
        below = []
        for entry in entries:
            if is_clutter(entry.name):
                clutter[entry.name] += 1
            elif not _is_folder(entry):
                tree.files.append(entry.path)
            elif not linked and not entry.is_symlink():
                below.append((entry.path, False))
            elif read.setdefault(_identity(entry.path), path := Path(entry.path)) is path:
                below.append((entry.path, True))
            else:
                repeats.append(entry.path)
        waiting += reversed(below)
    return tree


def _real_folders(start: Path) -> Iterator[Path]:
    """`start` and the folders below it that are reached without a link."""
    waiting = [start]  # not `os.walk`, which is recursive before Python 3.12
    while waiting:
        folder = waiting.pop()
        yield folder
        with os.scandir(folder) as entries:
            waiting += [
                Path(entry.path)
                for entry in entries
                if not is_clutter(entry.name) and entry.is_dir(follow_symlinks=False)
            ]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False


def _identity(folder: str | Path) -> Identity:
    status = os.stat(folder)  # noqa: PTH116 (a string is as good)
    return status.st_dev, status.st_ino


def _gathered(clutter: Counter[str]) -> Counter[str]:
    """With the many `._name` files of macOS as one."""
    gathered: Counter[str] = Counter()
    for name, count in clutter.items():
        gathered["._*" if name.startswith("._") else name] += count
    return gathered
