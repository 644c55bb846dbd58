"""Which image files a person means: by paths, folders, patterns, or a list."""

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from foveate.data.folder import IMAGE_SUFFIXES
from foveate.data.tree import read_trees
from foveate.errors import DataError


def list_images(words: Sequence[str | Path], listed: Iterable[str] = ()) -> tuple[list[str], list[str]]:
    """The paths of images, in the order in which they were named, and notes on what was passed over.

    Args:
        words: files, folders with images at any depth, patterns such as `photos/*.jpg`, and `-` for what is
            `listed`.
        listed: paths, one a line.

    Raises:
        DataError: for a word that names nothing, a folder without images, or no word at all.
    """
    check_images(words)
    paths: list[str] = []
    notes: list[str] = []
    for word in map(str, words):
        if word == "-":
            # Whether they are there is found when they are read: of a million, one that is gone stops nothing.
            # Windows begins a text with a mark of its encoding.
            lines = (line.removeprefix("\ufeff").rstrip("\r\n") for line in listed)
            paths += [line for line in lines if line.strip()]
        elif os.path.isdir(word):  # noqa: PTH112 (a path with a NUL character is no error for it)
            found, told = _in_folder(Path(word))
            paths += found
            notes += told
        elif os.path.lexists(word):
            paths.append(word)
        else:
            paths += sorted(_matches(word))
    if not paths:
        raise DataError("there are no images: give image files, folders, patterns, or - for a list of paths")
    return paths, notes


def check_images(words: Sequence[str | Path]) -> None:
    """Refuse a word that names nothing, before anything slow is done.

    Raises:
        DataError: for that.
    """
    for word in map(str, words):
        if word != "-" and not os.path.lexists(word) and next(_matches(word), None) is None:
            what = "no file matches" if glob.has_magic(word) else "there is no file or folder"
            raise DataError(f"{what} {word!r}: give images, folders, patterns, or - for a list of paths")


def _matches(pattern: str) -> Iterator[str]:
    return (path for path in glob.iglob(pattern, recursive=True) if not os.path.isdir(path))  # noqa: PTH112, PTH207


def _in_folder(folder: Path) -> tuple[list[str], list[str]]:
    try:
        (tree,), told = read_trees(folder, [folder])
    except OSError as error:
        raise DataError(f"cannot read {folder} ({error.strerror}): choose another folder") from error
    images = [path for path in tree.files if Path(path).suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise DataError(f"{folder} holds no image files: choose another folder")
    notes = list(told)
    if others := len(tree.files) - len(images):
        they = "1 file is" if others == 1 else f"{others:,} files are"
        notes.append(f"{folder}: {they} left out, because the name does not end like that of an image")
    return images, notes
