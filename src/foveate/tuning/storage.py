"""Where a trial's checkpoints lie: a folder that every worker sees, or any URL that fsspec knows."""

import contextlib
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec

from foveate.errors import ConfigError, OutputError
from foveate.files import writing_to

__all__ = ["is_url", "own_place", "remove", "working_folder"]


def is_url(location: str) -> bool:
    """Whether it is a URL, and no path."""
    return "://" in location


def own_place(location: str) -> str:
    """A new place for a study of its own, in a folder or at a URL; refused where nothing can be written.

    Raises:
        ConfigError: for an unknown protocol, a missing package, or a place that cannot be written.
    """
    root = location.rstrip("/") if is_url(location) else str(Path(location).resolve())
    place = f"{root}/{secrets.token_hex(6)}"
    try:
        system, path = fsspec.core.url_to_fs(f"{place}/.foveate")
        system.makedirs(system._parent(path), exist_ok=True)
        system.pipe_file(path, b"")
        system.rm_file(path)
    except Exception as error:
        told = " ".join(str(error).split())[:200] or type(error).__name__
        raise ConfigError(f"checkpoints cannot be kept at {location}: {told}") from error
    return place


@contextlib.contextmanager
def working_folder(location: str) -> Iterator[tuple[Path, Callable[[Path], None]]]:
    """A folder on this machine with what lies at `location`, and what brings a file of it there.

    Raises:
        OutputError: when the folder cannot be made, or what lies there not be fetched; and by that function, when
            the file cannot be written there.
    """
    if not is_url(location):
        folder = Path(location)
        with writing_to(folder):
            folder.mkdir(parents=True, exist_ok=True)
        yield folder, lambda _: None
        return
    system, path = fsspec.core.url_to_fs(location)

    def bring(file: Path) -> None:
        try:  # beside it and then in its place: nobody sees half a file
            system.makedirs(path, exist_ok=True)
            system.put_file(str(file), f"{path}/.{file.name}.tmp")
            system.mv(f"{path}/.{file.name}.tmp", f"{path}/{file.name}")
        except OSError as error:
            raise OutputError(f"cannot write {location}/{file.name}: {error}") from error

    with tempfile.TemporaryDirectory(prefix="foveate-") as temporary:
        try:
            for name in system.ls(path, detail=False) if system.exists(path) else ():
                file = Path(temporary) / Path(name).name
                if not file.name.startswith("."):
                    system.get_file(name, str(file))
        except OSError as error:
            raise OutputError(f"cannot fetch {location}: {error}") from error
        yield Path(temporary), bring


def remove(location: str) -> None:
    """Delete what lies there; what cannot be deleted stays."""
    if not is_url(location):
        shutil.rmtree(location, ignore_errors=True)
        return
    system, path = fsspec.core.url_to_fs(location)
    with contextlib.suppress(OSError):
        system.rm(path, recursive=True)
