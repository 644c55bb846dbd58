"""What lies in the cache: told as what it is, and removed only where it is Foveate's."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from tests.data.test_cache import decoded_images, in_process

from foveate.data.cache_entry import clear_entry, entries, remove_entry

WriteFolder = Callable[..., Path]


@pytest.fixture
def entry(write_folder: WriteFolder, own_cache: Path) -> Path:
    """An entry of four images."""
    paths = sorted(str(path) for path in write_folder({"cat": 4}).rglob("*.png"))
    decoded_images(in_process(paths), "content", 16)
    (found,) = (path for path in (own_cache / "decoded").iterdir() if path.suffix != ".lock")
    return found


def test_an_empty_cache() -> None:
    assert entries() == []


def test_an_entry_says_whose_it_is(entry: Path) -> None:
    (found,) = entries()
    assert (found.path, found.kind, found.name, found.location) == (entry, "images", "pets", "/data/pets")
    assert (found.images, found.size) == (4, 16)
    assert found.bytes_on_disk >= 4 * 16 * 16 * 3


def test_using_an_entry_is_seen(entry: Path, tmp_path: Path) -> None:
    for path in entry.iterdir():
        os.utime(path, (1e9, 1e9))
    assert entries()[0].used == 1e9
    decoded_images(in_process(sorted(str(path) for path in tmp_path.rglob("*.png"))), "content", 16)
    assert entries()[0].used > 1.5e9


def test_each_thing_is_told_as_what_it_is(entry: Path) -> None:
    root = entry.parent
    shutil.copytree(entry, root / ("b" * 32))
    (root / ("b" * 32) / "entry.json").write_text("{}")
    shutil.copytree(entry, root / f".{'c' * 32}.0123456789ab.tmp")
    old = root / ("d" * 32)  # of format 1
    old.mkdir()
    (old / "images.npy").write_bytes(b"x")
    (old / "bad.json").write_text("[]")
    (root / "thesis").mkdir()
    (root / "notes.txt").write_text("mine")
    more = root / ("e" * 32)
    more.mkdir()
    (more / "images.bin").write_bytes(b"")
    (more / "photograph.jpg").write_bytes(b"")
    (root / ("f" * 32)).symlink_to(entry)
    nested = root / ("9" * 32) / "images.bin"
    nested.mkdir(parents=True)
    assert {each.path.name: each.kind for each in entries()} == {
        entry.name: "images",
        "b" * 32: "damaged",
        f".{'c' * 32}.0123456789ab.tmp": "unfinished",
        "d" * 32: "damaged",
        "thesis": "foreign",
        "notes.txt": "foreign",
        "e" * 32: "foreign",
        "f" * 32: "foreign",
        "9" * 32: "foreign",
    }
    gone = {each.path.name for each in entries() if remove_entry(each.path)}
    assert gone == {entry.name, "b" * 32, f".{'c' * 32}.0123456789ab.tmp", "d" * 32}
    assert (more / "photograph.jpg").exists()
    assert {each.kind for each in entries()} == {"foreign"}


def test_a_link_in_an_entry_is_removed_and_not_followed(entry: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.bin"
    mine.write_bytes(b"mine")
    (entry / "images.bin").unlink()
    (entry / "images.bin").symlink_to(mine)
    assert clear_entry(entry)
    assert not entry.exists()
    assert mine.read_bytes() == b"mine"


def test_what_another_process_is_making_stays(entry: Path) -> None:
    lock = entry.with_name(f"{entry.name}.lock")
    code = (
        f"from filelock import FileLock\nlock = FileLock({str(lock)!r})\nlock.acquire()\n"
        "print(1, flush=True)\ninput()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert not clear_entry(entry)
        assert entry.exists()
        other.communicate("\n")
    assert clear_entry(entry)
    assert not FileLock(lock).is_locked


def test_images_in_use_outlive_their_entry(write_folder: WriteFolder, own_cache: Path) -> None:
    paths = sorted(str(path) for path in write_folder({"cat": 4}).rglob("*.png"))
    images, _ = decoded_images(in_process(paths), "content", 16)
    before = images.copy()
    (entry,) = entries()
    assert clear_entry(entry.path)
    assert (images == before).all()
