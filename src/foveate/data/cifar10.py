"""CIFAR-10 (Krizhevsky, 2009): its Parquet shards, its binary version, or a download; never unpickled."""

import contextlib
import hashlib
import http.client
import os
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, ClassVar

import numpy as np
from filelock import FileLock

from foveate.arguments import at_home
from foveate.data.hashing import hash_files
from foveate.data.source import Block, Image, Source, reading
from foveate.data.splits import SPLITS
from foveate.data.texts import row_names
from foveate.errors import DataError
from foveate.files import cache_folder, writing_to
from foveate.progress import Track


@dataclass(frozen=True)
class Archive:
    """A file to download, and how to know that it is whole."""

    url: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]


CIFAR10 = Archive(
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    170_052_171,
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)

_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_SIDE = 32
_RECORD = 1 + 3 * _SIDE * _SIDE
"""Bytes of a record: the label, then the red, green and blue planes."""
_COUNTS = {"train": 50_000, "test": 10_000}
_MEGABYTE = 1 << 20
_TIMEOUT_S = 30


@dataclass(frozen=True)
class _BinaryBlock(Block):
    """Every record of the binary version at `path`, its folder or the archive of it."""

    path: str
    encoded: ClassVar[bool] = False

    def images(self) -> Iterator[Image]:
        for _, records in _binary_records(Path(self.path)):
            yield from records[:, 1:].reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)


def open_cifar10(data_dir: Path | None, track: Track, archive: Archive = CIFAR10) -> Source:
    """Find CIFAR-10 in `data_dir`, or else in `$FOVEATE_DATA` or the cache, or else download it into the cache.

    Each is looked through itself and in its subfolder `cifar10`.

    Raises:
        DataError: when `data_dir` does not hold it, it is damaged, or cannot be downloaded.
        OutputError: when the cache cannot be written.
    """
    cached = cache_folder() / "cifar10"
    named = os.environ.get("FOVEATE_DATA")
    places = [data_dir] if data_dir else [*([at_home(Path(named))] if named else []), cached]
    pickled = None
    for folder in (folder for place in places for folder in (place, place / "cifar10")):
        with reading(folder):
            if source := _open_parquet(folder, track) or _open_binary(folder, archive, track):
                return source
            python = [folder / "cifar-10-batches-py", folder / "cifar-10-python.tar.gz"]
            pickled = pickled or next((path for path in python if path.exists()), None)
    wanted = f"{archive.name} (the binary version, from {archive.url}) or its Parquet shards"
    if data_dir:
        found = (
            f"holds only the pickled {pickled.name}, which is never opened"
            if pickled
            else "does not hold CIFAR-10"
        )
        raise DataError(f"{data_dir} {found}: put {wanted} there")
    download(archive, cached / archive.name, track)
    source = _open_binary(cached, archive, track)
    assert source is not None
    return source


def download(archive: Archive, target: Path, track: Track) -> None:
    """Download `archive` to `target`, going on from `target`.part where an earlier try was cut off.

    Raises:
        DataError: when the network does not give the whole archive, or it is not the one meant.
        OutputError: when `target` cannot be written.
    """
    part = target.with_name(f"{target.name}.part")
    with writing_to(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f"{target.name}.lock")):
            if target.exists():  # another process was faster
                return
            have = part.stat().st_size if part.exists() else 0
            if have < archive.size:
                _fetch(archive, part, have, track)
            with part.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != archive.sha256:
                part.unlink()
                raise DataError(f"what {archive.url} gave has a wrong checksum and was removed: run again")
            part.replace(target)


def _fetch(archive: Archive, part: Path, have: int, track: Track) -> None:
    folder = part.parent
    opener = urllib.request.build_opener()
    opener.addheaders = [("User-Agent", "foveate"), *([("Range", f"bytes={have}-")] if have else [])]
    with _network(archive, folder):
        response: http.client.HTTPResponse = opener.open(archive.url, timeout=_TIMEOUT_S)
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:  # the server sends it all again
            have = 0
        pieces = track(
            _pieces(response, archive, folder),
            total=-(-(archive.size - have) // _MEGABYTE),
            label=f"downloading {archive.name} (MiB)",
            images_each=0,
        )
        with part.open("ab" if have else "wb") as file:
            for piece in pieces:
                file.write(piece)
    if (got := part.stat().st_size) < archive.size:
        raise DataError(
            f"the download of {archive.url} broke off after {got:,} bytes: run again to go on from there"
        )


def _pieces(response: http.client.HTTPResponse, archive: Archive, folder: Path) -> Iterator[bytes]:
    while True:
        with _network(archive, folder):
            piece = response.read(_MEGABYTE)
        if not piece:
            return
        yield piece


@contextlib.contextmanager
def _network(archive: Archive, folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(
            f"cannot download CIFAR-10 ({reason}): put {archive.name} from {archive.url} into {folder}, "
            "or name the folder that holds it by $FOVEATE_DATA"
        ) from error


def _open_parquet(folder: Path, track: Track) -> Source | None:
    for place in (folder, folder / "data", folder / "plain_text"):
        if shards := sorted(place.glob("*.parquet")):
            from foveate.data.parquet import open_parquet

            source = open_parquet(place, shards, track)
            if source.class_names == _CLASSES:
                return _named(source)
    return None


def _open_binary(folder: Path, archive: Archive, track: Track) -> Source | None:
    places = (folder, folder / "cifar-10-batches-bin")
    path = next((place for place in places if any(place.glob("data_batch_*.bin"))), folder / archive.name)
    if not path.exists():
        return None
    labels, splits = [], []
    for name, records in _binary_records(path):
        labels.append(records[:, 0].astype(np.int64))
        splits.append(np.full(len(records), SPLITS.index("test" if name.startswith("test") else "train"), np.int8))
        if labels[-1].max(initial=0) >= len(_CLASSES):
            raise DataError(f"{path}: {name} has a label above 9: download it again")
    if not labels:
        raise DataError(f"{path} has no data_batch_*.bin: download it again")
    all_labels = np.concatenate(labels)
    files = sorted(path.glob("*.bin")) if path.is_dir() else [path]
    return _named(
        Source(
            name="cifar10",
            location="cifar10",
            class_names=_CLASSES,
            labels=all_labels,
            declared=np.concatenate(splits),
            ids=row_names([("cifar10#", len(all_labels))]),
            blocks=[_BinaryBlock(0, len(all_labels), str(path))],
            content=hash_files("cifar10", [str(file) for file in files], track),
        )
    )


def _named(source: Source) -> Source:
    counts = {name: int((source.declared == SPLITS.index(name)).sum()) for name in _COUNTS}
    note = f"CIFAR-10 has 50,000 images to train on and 10,000 to test, but here are {counts}"
    return replace(
        source, name="cifar10", location="cifar10", side=_SIDE, notes=() if counts == _COUNTS else (note,)
    )


def _binary_records(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Name and [n, 3073] uint8 records of each .bin file in a folder or an archive."""
    if path.is_dir():
        for file in sorted(path.glob("*.bin")):
            with reading(file), file.open("rb") as opened:
                yield from _batches(file.name, opened)
        return
    with reading(path, (tarfile.TarError, zlib.error, EOFError)), tarfile.open(path, "r|gz") as archive:
        for member in archive:
            opened_member = archive.extractfile(member) if member.name.endswith(".bin") else None
            if opened_member:
                yield from _batches(member.name.rpartition("/")[2], opened_member)


def _batches(name: str, file: IO[bytes]) -> Iterator[tuple[str, np.ndarray]]:
    while data := file.read(1000 * _RECORD):
        if len(data) % _RECORD:
            raise DataError(f"{name} is cut off: download CIFAR-10 again")
        yield name, np.frombuffer(data, np.uint8).reshape(-1, _RECORD)
