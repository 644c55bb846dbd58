import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from foveate.data import cache
from foveate.data.cache import decoded_images
from foveate.data.decode import decode_file
from foveate.data.source import Block, FileBlock, file_blocks
from foveate.errors import DataError, OutputError
from foveate.progress import untracked

WriteFolder = Callable[..., Path]


@pytest.fixture
def paths(write_folder: WriteFolder) -> list[str]:
    return sorted(str(path) for path in write_folder({"cat": 40}).rglob("*.png"))


def entries(own_cache: Path) -> list[str]:
    """What the cache holds, locks aside."""
    return sorted(path.name for path in (own_cache / "decoded").iterdir() if path.suffix != ".lock")


@pytest.mark.parametrize("few", [0, 10_000])
def test_in_workers_and_in_process_alike(few: int, paths: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_FEW_IMAGES", few)
    many = [path for path in paths for _ in range(10)]
    many[123], many[300] = "missing.png", __file__
    followed = []

    def track(items: Iterable[object], *, total: int, label: str, images_each: int = 1) -> Iterator[object]:
        for item in items:
            followed.append((total, label))
            yield item

    images, bad = decoded_images(file_blocks(many), "content", 16, track=track, workers=2)
    assert bad == {123: "missing file", 300: "not a JPEG, PNG, WebP, BMP, GIF or TIFF image"}
    assert list(bad) == sorted(bad)
    assert followed == [(400, "decoding images")] * 400
    for index in set(range(400)) - set(bad):
        assert np.array_equal(images[index], decode_file(Path(many[index]), 16))


def test_the_array_is_copy_on_write(paths: list[str]) -> None:
    blocks = file_blocks(paths)
    images, _ = decoded_images(blocks, "content", 16, track=untracked)
    before = images[0].copy()
    images[0] = 0
    assert np.array_equal(decoded_images(blocks, "content", 16, track=untracked)[0][0], before)


def test_the_second_time_decodes_nothing(paths: list[str], own_cache: Path) -> None:
    first = decoded_images(file_blocks(paths), "content", 16, track=untracked)
    for path in paths:
        Path(path).unlink()
    second = decoded_images(file_blocks(paths), "content", 16, track=untracked)
    assert np.array_equal(first[0], second[0])
    assert second[1] == {}
    decoded_images(file_blocks(paths), "content", 17, track=untracked)
    decoded_images(file_blocks(paths), "other", 16, track=untracked)
    assert len(entries(own_cache)) == 3


@pytest.mark.parametrize("damage", ["truncate", "empty", "shape", "json", "list", "gone"])
def test_a_damaged_entry_is_made_anew(damage: str, paths: list[str], own_cache: Path) -> None:
    expected = decoded_images(file_blocks(paths), "content", 16, track=untracked)[0].copy()
    folder = own_cache / "decoded" / entries(own_cache)[0]
    match damage:
        case "truncate":
            os.truncate(folder / "images.npy", 1000)
        case "empty":
            (folder / "images.npy").write_bytes(b"")
        case "shape":
            np.save(folder / "images.npy", np.zeros((1, 16, 16, 3), np.uint8))
        case "json":
            (folder / "bad.json").write_text("[[1, ")
        case "list":
            (folder / "bad.json").write_text("3")
        case "gone":
            (folder / "bad.json").unlink()
    images, bad = decoded_images(file_blocks(paths), "content", 16, track=untracked)
    assert np.array_equal(images, expected)
    assert bad == {}


def test_a_file_in_the_way_of_the_cache(paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        OutputError, match=r"^cannot write .*; \$FOVEATE_CACHE names another folder for the cache$"
    ):
        decoded_images(file_blocks(paths), "content", 16, track=untracked)


def test_a_cache_that_may_not_be_written(
    paths: list[str], own_cache: Path, monkeypatch: pytest.MonkeyPatch, unprivileged: None
) -> None:
    monkeypatch.setenv("FOVEATE_CACHE", "/foveate")
    with pytest.raises(OutputError, match=r"no permission: .*; \$FOVEATE_CACHE names another folder"):
        decoded_images(file_blocks(paths), "content", 16, track=untracked)


@pytest.mark.parametrize("few", [0, 10_000])
def test_a_full_disk_leaves_nothing_behind(
    few: int, paths: list[str], small_disk: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = small_disk("256k")
    monkeypatch.setenv("FOVEATE_CACHE", str(disk))
    monkeypatch.setattr(cache, "_FEW_IMAGES", few)
    with pytest.raises(OutputError, match=r"the disk is full: free some space .*\$FOVEATE_CACHE"):
        decoded_images(file_blocks(paths, 8), "content", 64, track=untracked, workers=2)  # 480 KiB
    assert entries(disk) == []
    images, _ = decoded_images(file_blocks(paths, 8), "content", 16, track=untracked, workers=2)
    assert len(images) == 40


def test_a_worker_that_is_killed(paths: list[str], own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_FEW_IMAGES", 0)
    many = paths * 2000

    def track(items: Iterable[object], *, total: int, label: str, images_each: int = 1) -> Iterator[object]:
        for number, item in enumerate(items):
            if number == 200:
                os.kill(children()[0], signal.SIGKILL)
            yield item

    with pytest.raises(DataError, match=r"decoding: its process ended with exit code -9: killed, .*: run again$"):
        decoded_images(file_blocks(many), "content", 16, track=track, workers=2)
    assert children() == []
    assert entries(own_cache) == []


def test_stopping_half_way_leaves_no_process_and_nothing_half_written(
    paths: list[str], own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_FEW_IMAGES", 0)

    def track(items: Iterable[object], *, total: int, label: str, images_each: int = 1) -> Iterator[object]:
        for item in items:
            assert len(children()) == 2
            yield item
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decoded_images(file_blocks(paths * 2000), "content", 16, track=track, workers=2)
    assert children() == []
    assert entries(own_cache) == []


def test_ctrl_c_on_a_script_without_a_main_guard(paths: list[str], own_cache: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        # A shell starts its background jobs with SIGINT ignored, and so their children.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from foveate.data import cache\n"
        "from foveate.data.source import file_blocks\n"
        "print('started', flush=True)\n"
        "def track(items, **_):\n"
        "    for number, item in enumerate(items):\n"
        "        if number == 0: print('decoding', flush=True)\n"
        "        yield item\n"
        f"cache.decoded_images(file_blocks({paths!r} * 5000), 'content', 16, track=track, workers=2)\n"
    )
    (tmp_path / "numpy.py").write_text("raise ImportError('a file of the user that must not shadow numpy')")
    process = subprocess.Popen(
        [sys.executable, "-P", str(script)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert [process.stdout.readline(), process.stdout.readline()] == ["started\n", "decoding\n"]
    workers = children(process.pid)
    assert len(workers) == 2
    os.killpg(process.pid, signal.SIGINT)
    out, error = process.communicate(timeout=10)
    assert out == ""
    assert error.count("KeyboardInterrupt") == 1  # the workers say nothing
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert entries(own_cache) == []


def children(parent: int | None = None) -> list[int]:
    """Processes that run `foveate.data.worker` for this process, or for `parent`."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, its_parent = stat.read_text().rpartition(")")[2].split()[:2]
            command = stat.with_name("cmdline").read_bytes()
        except OSError:
            continue
        if int(its_parent) == (parent or os.getpid()) and state != "Z" and b"foveate.data.worker" in command:
            found.append(int(stat.parent.name))
    return found


def test_damage_that_a_worker_finds(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from foveate.data.parquet import ParquetBlock

    monkeypatch.setattr(cache, "_FEW_IMAGES", 0)
    blocks = [ParquetBlock(row, 1, "gone.parquet", 0, row, "img.bytes") for row in range(2)]
    with pytest.raises(DataError, match=r"^cannot read gone\.parquet: "):
        decoded_images(blocks, "content", 16, track=untracked, workers=2)
    assert entries(own_cache) == []


def test_few_but_large_files_are_decoded_in_workers(paths: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_FEW_BYTES", 1000)
    used = []
    in_workers = cache._in_workers
    monkeypatch.setattr(cache, "_in_workers", lambda *job: used.append(job) or in_workers(*job))
    decoded_images(file_blocks([*paths, "missing"], 8), "content", 16, track=untracked, workers=2)
    assert len(used) == 1


def test_two_that_want_the_same_decode_once(paths: list[str]) -> None:
    reads: list[int] = []

    class Counting(FileBlock):
        def images(self) -> Iterator[Path]:
            reads.append(1)
            time.sleep(0.2)
            yield from map(Path, self.paths)

    blocks: list[Block] = [Counting(0, len(paths), paths)]
    threads = [
        threading.Thread(target=decoded_images, args=(blocks, "content", 16), kwargs={"track": untracked})
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reads) == 1


def test_other_errors_of_writing_are_named(paths: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(np.lib.format, "open_memmap", fail)
    with pytest.raises(OutputError, match="read-only"):
        decoded_images(file_blocks(paths), "content", 16, track=untracked)
