"""Which data set a person names, and what it says of itself; each layout is read by a module of its own."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from foveate.data.source import Source, reading
from foveate.errors import DataError
from foveate.files import check_utf8
from foveate.progress import Track, untracked
from foveate.suggestions import closest

_KNOWN = ("cifar10", "digits", "cue")
_GIVE = f"{', '.join(_KNOWN)}, a folder or a file"


def open_source(
    data: str, data_dir: Path | str | None, track: Track = untracked, *, recorded: bool = False
) -> Source:
    """Find a data set and read what it says of itself; no image is decoded.

    Args:
        recorded: `data` is the name that a record keeps; False: a person gave it, who may mean a folder of that
            name.

    Raises:
        ConfigError: for a `data_dir` that cannot be written down.
        DataError: when there is no such data set, or it is damaged.
    """
    if data_dir:
        check_utf8(data_dir)
    source = _open(data, data_dir, track)
    if recorded or data_dir or data not in _KNOWN or not Path(data).is_dir():
        return source
    note = f"{data} is a data set that is built in; there is a folder ./{data} too: give ./{data} to use it"
    return replace(source, notes=(*source.notes, note))


def _open(data: str, data_dir: Path | str | None, track: Track) -> Source:
    # Each kind is imported when it is wanted: pyarrow and scikit-learn are slow to import.
    if data == "digits":
        from foveate.data.digits import open_digits

        return open_digits()
    if data == "cue" or data.startswith("cue:"):
        from foveate.data.cue import open_cue

        return open_cue(data)
    if data == "cifar10":
        from foveate.data.cifar10 import open_cifar10

        return open_cifar10(Path(data_dir) if data_dir else None, track)
    path = _path(data)
    if path.is_dir():
        return _open_folder(path, track)
    return _open_file(path, track)


def check_data(data: str) -> None:
    """Refuse a name that names no data set, before anything slow is done.

    Raises:
        DataError: for that.
    """
    if data not in _KNOWN and not data.startswith("cue:"):
        _path(data)


def _path(data: str) -> Path:
    """The folder or the file that is meant.

    Raises:
        DataError: when there is none.
    """
    if not data.strip():
        raise DataError(f"the name of the data set is empty: give {_GIVE}")
    try:
        path = Path(data).expanduser()
        with reading(path):
            # Not `Path.resolve`, which raises RuntimeError for a loop of links.
            check_utf8(os.path.realpath(path), DataError)
    except (ValueError, RuntimeError) as error:  # a NUL character; a user without a home
        raise DataError(f"{data!a} is not a path ({error}): give {_GIVE}") from error
    with reading(path):
        if not path.exists():
            raise DataError(_not_found(data, path))
        if not path.is_dir() and not path.is_file():
            raise DataError(f"{path} is a device, pipe or socket: give a folder or a regular file")
    return path


def _open_folder(path: Path, track: Track) -> Source:
    from foveate.data.folder import open_folder, refuse_other_splits
    from foveate.data.tree import read_trees

    kinds: dict[str, set[str]] = {}
    with reading(path):
        trees, notes = read_trees(path, [path])
        files = trees[0].files
        for file in files:
            folder, name = os.path.split(file)
            kinds.setdefault(folder, set()).add(os.path.splitext(name)[1].lower())  # noqa: PTH122
    # A stray table among a class's images makes no Parquet data set.
    if any(
        ".parquet" in found and (folder == os.fspath(path) or found == {".parquet"})
        for folder, found in kinds.items()
    ):
        from foveate.data.parquet import open_parquet

        shards = [Path(file) for file in files if Path(file).suffix.lower() == ".parquet"]
        others = [Path(file) for file in files if Path(file).suffix.lower() != ".parquet"]
        source = open_parquet(path, shards, track, beside=others)
        refuse_other_splits(path, others, set(np.unique(source.declared).tolist()))
        return replace(source, notes=(*source.notes, *notes))
    del trees, files  # a million paths, which are read again
    return open_folder(path, track)


def _open_file(path: Path, track: Track) -> Source:
    match path.suffix.lower():
        case ".csv" | ".tsv":
            from foveate.data.table import open_csv

            return open_csv(path, track)
        case ".parquet":
            from foveate.data.parquet import open_parquet

            return open_parquet(path, [path], track)
        case ".npz":
            from foveate.data.npz import open_npz

            return open_npz(path, track)
    raise DataError(f"{path} is not a data set: give a folder of images, a .csv, .parquet or .npz file")


def _not_found(data: str, path: Path) -> str:
    if path.is_symlink():
        return f"{data} is a link that leads nowhere, or back to itself: repair it"
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    sibling = closest(path.name, siblings)
    near = closest(data, _KNOWN) if sibling is None else path.parent / sibling
    hint = f"give {_GIVE}" if near is None else f"did you mean {near}?"
    return f"there is no data set {data}: {hint}"
