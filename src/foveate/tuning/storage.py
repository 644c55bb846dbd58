"""Where the checkpoints of a study's trials lie: a folder that every worker sees, or any URL that fsspec knows.

A study writes and deletes in two kinds of places only: in `trials/` of its own folder, where that is not a link;
and in a place that `own_place` made for it, which carries a marker that names the study and its folder. Settings
can be copied, or written by anybody, so a storage that they name is not deleted on their word.
"""

import contextlib
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from foveate.arguments import at_home
from foveate.errors import CheckpointError, ConfigError, OutputError, one_line
from foveate.files import refuse_links, writing_to
from foveate.records import Digest, Line, Record, parse_record

MARKER = ".foveate-study.json"
_MOST_BYTES = 100_000
"""Of a marker."""


class _Marker(Record):
    study: Digest
    folder: Line
    """The study's, without links in its path."""


@dataclass(frozen=True)
class Storage:
    """The place of one study, as `open_storage` found it."""

    root: str
    """A folder or a URL."""
    marker: _Marker | None
    """None: the folder is within the study's own."""

    def of(self, trial: int) -> str:
        """Where a trial's checkpoints lie, before a worker writes there.

        Raises:
            CheckpointError: when that is a link.
        """
        place = self._place(trial)
        if not is_url(place):
            refuse_links(Path(place), within=Path(self.root).parent)
        return place

    def remove(self, trial: int) -> None:
        """Delete a trial's checkpoints; what cannot be deleted stays. Links are deleted and not followed."""
        if self.marker is not None and _read_marker(self.root) != self.marker:
            return
        system, path = fsspec.core.url_to_fs(self._place(trial))
        with contextlib.suppress(OSError):
            if not isinstance(system, LocalFileSystem):
                for file in system.find(path):  # `rm` would take a `*` in a name for a pattern
                    system.rm_file(file)
            elif Path(path).is_symlink():
                Path(path).unlink()
            else:
                shutil.rmtree(path)

    def largest_bytes(self) -> int:
        """Size of the largest checkpoint in the study's own folder; 0 where they lie elsewhere."""
        sizes = []
        for file in Path(self.root).rglob("*.safetensors") if self.marker is None else ():
            with contextlib.suppress(FileNotFoundError):  # workers delete what they no longer need
                sizes.append(file.stat().st_size)
        return max(sizes, default=0)

    def _place(self, trial: int) -> str:
        return f"{self.root}/{trial:04}"


def is_url(location: str) -> bool:
    """Whether it is a URL, and no path."""
    return "://" in location


def local_place(location: str) -> Path | None:
    """The folder of this machine that is meant; None for a URL of another kind of place."""
    if is_url(location) and location.partition("://")[0] not in LocalFileSystem.protocol:
        return None
    return Path(LocalFileSystem._strip_protocol(location))


def own_place(location: str) -> str:
    """A new place in a folder or at a URL, for one study alone; refused where nothing can be written.

    Raises:
        ConfigError: for an unknown protocol, a missing package, or a place that cannot be written.
    """
    root = location.rstrip("/") if is_url(location) else str(at_home(Path(location)).resolve())
    place = f"{root}/{secrets.token_hex(6)}"
    try:
        system, path = fsspec.core.url_to_fs(f"{place}/.foveate")
        system.makedirs(system._parent(path), exist_ok=True)
        system.pipe_file(path, b"")
        system.rm_file(path)
    except Exception as error:
        raise ConfigError(f"checkpoints cannot be kept at {location}: {one_line(error)}") from error
    return place


def mark_place(place: str, study: str, folder: Path) -> None:
    """Write into a new place of `own_place` whose it is.

    Args:
        study: the digest of the study's settings.
        folder: the study's.

    Raises:
        OutputError: when it cannot be written.
    """
    marker = _Marker(study=study, folder=str(folder.resolve()))
    system, path = fsspec.core.url_to_fs(f"{place}/{MARKER}")
    try:
        system.makedirs(system._parent(path), exist_ok=True)
        system.pipe_file(path, marker.model_dump_json().encode())
    except OSError as error:
        raise OutputError(f"cannot write {place}/{MARKER}: {error}") from error


def open_storage(storage: str | None, study: str, folder: Path) -> Storage:
    """The place of a study: `storage`, or `trials/` in its folder.

    Raises:
        CheckpointError: when it is another study's, or leads out of the study's folder.
    """
    folder = folder.resolve()
    if storage is None:
        refuse_links(folder / "trials", within=folder)
        return Storage(str(folder / "trials"), None)
    root, marker = storage.rstrip("/"), _Marker(study=study, folder=str(folder))
    _check_marker(root, marker)
    return Storage(root, marker)


def _check_marker(root: str, marker: _Marker) -> None:
    """Raises CheckpointError where the marker in a place is not this one."""
    found = _read_marker(root)
    if found == marker:
        return
    if found is not None and found.study == marker.study:
        raise CheckpointError(
            f"{root} is the storage of the study in {found.folder}, not of its copy in {marker.folder}: resume "
            f"that one, or copy the checkpoints to {marker.folder}/trials and remove `storage` from study.yaml"
        )
    raise CheckpointError(
        f"{root} has no {MARKER} that names the study in {marker.folder}: nothing is written or deleted there; "
        "begin a new study"
    )


def _read_marker(root: str) -> _Marker | None:
    """The marker in a place; None where no marker can be read."""
    try:
        system, path = fsspec.core.url_to_fs(f"{root}/{MARKER}")
        if not system.isfile(path) or system.size(path) > _MOST_BYTES:
            return None
        content: Any = system.cat_file(path)
        return parse_record(content, _Marker, source=MARKER, fix="begin a new study")
    except Exception:  # whatever a file system of any kind raises: the place is not shown to be the study's
        return None


@dataclass(frozen=True)
class WorkingFolder:
    """A folder on this machine that stands for a trial's, which may be elsewhere."""

    path: Path
    url: str | None = None
    """Where the trial's folder is; None: it is `path` itself."""

    def upload(self, file: Path) -> None:
        """Put a file of the folder where the trial's folder is.

        Raises:
            OutputError: when it cannot be written there.
        """
        if self.url is None:
            return
        system, path = fsspec.core.url_to_fs(self.url)
        try:  # beside it and then in its place: nobody sees half a file
            system.makedirs(path, exist_ok=True)
            system.put_file(str(file), f"{path}/.{file.name}.tmp")
            system.mv(f"{path}/.{file.name}.tmp", f"{path}/{file.name}")
        except OSError as error:
            raise OutputError(f"cannot write {self.url}/{file.name}: {error}") from error


@contextlib.contextmanager
def working_folder(location: str) -> Iterator[WorkingFolder]:
    """A folder on this machine with the files that are at `location`, a path or a URL.

    Raises:
        OutputError: when the folder cannot be made, or the files cannot be fetched.
    """
    if not is_url(location):
        folder = Path(location)
        with writing_to(folder):
            folder.mkdir(parents=True, exist_ok=True)
        yield WorkingFolder(folder)
        return
    system, path = fsspec.core.url_to_fs(location)
    with tempfile.TemporaryDirectory(prefix="foveate-") as temporary:
        try:
            for name in system.ls(path, detail=False) if system.exists(path) else ():
                file = Path(temporary) / Path(name).name
                if not file.name.startswith("."):
                    system.get_file(name, str(file))
        except OSError as error:
            raise OutputError(f"cannot fetch {location}: {error}") from error
        yield WorkingFolder(Path(temporary), location)
