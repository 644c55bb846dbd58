import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from foveate.data import cache, cache_shards
from foveate.data.cache_entry import read_entry
from foveate.data.decode import DECODERS, decode_file
from foveate.data.hashing import Content, hash_files
from foveate.data.source import Block, FileBlock, Source, file_blocks
from foveate.errors import ConfigError, DataError, OutputError
from foveate.preprocessing import Fit, Preprocessing
from foveate.progress import Track, untracked

WriteFolder = Callable[..., Path]


@pytest.fixture
def paths(write_folder: WriteFolder) -> list[str]:
    return sorted(str(path) for path in write_folder({"cat": 40}).rglob("*.png"))


def source_of(blocks: list[Block] | list[FileBlock], content: str | Content = "content") -> Source:
    count = sum(block.count for block in blocks)
    return Source(
        name="pets",
        location="/data/pets",
        class_names=("cat",),
        labels=np.zeros(count, np.int64),
        declared=np.zeros(count, np.int8),
        ids=[str(row) for row in range(count)],
        blocks=blocks,
        content=content if isinstance(content, Content) else Content(content),
    )


def decoded_images(
    blocks: list[Block] | list[FileBlock],
    content: str | Content,
    size: int,
    fit: Fit = "crop",
    *,
    track: Track = untracked,
    workers: int = 2,
    timeout_s: float = 20.0,
) -> cache.Decoded:
    """`cache.decoded_images` of these blocks."""
    return cache.decoded_images(
        source_of(blocks, content), Preprocessing(size, fit), track=track, timeout_s=timeout_s, workers=workers
    )


def in_process(paths: list[str]) -> list[FileBlock]:
    """Blocks that this process decodes itself."""

    class Plain(FileBlock):
        encoded = False

    return [Plain(0, len(paths), paths)]


def entries(own_cache: Path) -> list[str]:
    """What the cache holds, locks aside."""
    return sorted(path.name for path in (own_cache / "decoded").iterdir() if path.suffix != ".lock")


def test_a_cache_within_the_data_is_refused_and_not_made(
    paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Path(paths[0]).parents[1]
    monkeypatch.setenv("FOVEATE_CACHE", str(data / ".cache"))
    source = replace(source_of(file_blocks(paths)), location=str(data))
    with pytest.raises(ConfigError, match=r"lies within the data, .* \$FOVEATE_CACHE"):
        cache.decoded_images(source, Preprocessing(16), track=untracked, timeout_s=20.0)
    assert not (data / ".cache").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_images_bad_ones_and_progress(workers: int, paths: list[str]) -> None:
    many = [path for path in paths for _ in range(10)]
    many[123], many[300] = "missing.png", __file__
    followed = []

    def track(items: Iterable[object], *, total: int, label: str, images_each: int = 1) -> Iterator[object]:
        for item in items:
            followed.append((total, label))
            yield item

    images, bad = decoded_images(file_blocks(many), "content", 16, track=track, workers=workers)
    assert bad == {123: "missing file", 300: "a text, not an image: copy or download the image again"}
    assert list(bad) == sorted(bad)
    assert followed == [(400, "decoding images")] * 400
    for index in set(range(400)) - set(bad):
        assert np.array_equal(images[index], decode_file(Path(many[index]), Preprocessing(16)))


def test_the_array_is_copy_on_write(paths: list[str]) -> None:
    blocks = file_blocks(paths)
    images, _ = decoded_images(blocks, "content", 16, track=untracked)
    before = images[0].copy()
    images[0] = 0
    assert np.array_equal(decoded_images(blocks, "content", 16, track=untracked)[0][0], before)


@pytest.mark.skipif(not cache._NO_RESERVE, reason="elsewhere the system decides")
def test_pixels_may_be_more_than_the_memory(tmp_path: Path) -> None:
    size = 2 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # more than with what it swaps
    with (tmp_path / "images.bin").open("w+b") as file:
        file.truncate(size)
        images = cache._mapped(file, (size // 48, 4, 4, 3))
    images[-1] = 7
    assert images[-1].sum() == 48 * 7
    assert images[0].sum() == 0


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


@pytest.mark.parametrize("fit", ["squash", "pad"])
def test_images_that_are_fitted_otherwise_are_other_entries(own_cache: Path, tmp_path: Path, fit: Fit) -> None:
    paths = [str(tmp_path / f"{width}.png") for width in (24, 40)]
    for path in paths:
        pixels = np.random.default_rng(0).integers(0, 256, (30, int(Path(path).stem), 3), np.uint8)
        Image.fromarray(pixels).save(path)
    whole, _ = decoded_images(file_blocks(paths), "content", 16, fit)
    centre, _ = decoded_images(file_blocks(paths), "content", 16)
    assert len(entries(own_cache)) == 2
    for index, path in enumerate(paths):
        assert np.array_equal(whole[index], decode_file(Path(path), Preprocessing(16, fit)))
        assert np.array_equal(centre[index], decode_file(Path(path), Preprocessing(16)))
    assert not np.array_equal(whole, centre)


@pytest.mark.parametrize("white", [None, 4095])
def test_an_entry_of_before_there_was_a_choice_is_found(
    white: int | None, own_cache: Path, paths: list[str]
) -> None:
    named = json.dumps([cache._FORMAT, DECODERS, 16, white or "format", "content"])
    key = hashlib.sha256(named.encode()).hexdigest()
    source = source_of(file_blocks(paths), "content")
    cache.decoded_images(source, Preprocessing(16, white=white), timeout_s=20, track=untracked, workers=1)
    assert entries(own_cache) == [key[:32]]


class Checks:
    """Counts how often decoded pixels are hashed, and images are decoded."""

    def __init__(self) -> None:
        self.labels: list[str] = []

    def __call__(
        self, items: Iterable[object], *, total: int, label: str, images_each: int = 1
    ) -> Iterator[object]:
        self.labels.append(label)
        yield from items

    def taken(self) -> list[str]:
        """The labels since the last call."""
        labels, self.labels = self.labels, []
        return labels


def same_size_garbage(folder: Path) -> None:
    (folder / "images.bin").write_bytes(b"x" * (folder / "images.bin").stat().st_size)


def same_size_garbage_in_place(folder: Path) -> None:
    """The content changes; inode, size and the time of the change stay, as a program could set it back."""
    before = (folder / "images.bin").stat()
    with (folder / "images.bin").open("r+b") as file:
        file.write(b"garbage")
    os.utime(folder / "images.bin", ns=(before.st_atime_ns, before.st_mtime_ns))


def edited(**fields: Any) -> Callable[[Path], None]:
    """Changes the record as a person would, who knows nothing of the seal."""

    def edit(folder: Path) -> None:
        record = json.loads((folder / "entry.json").read_text())
        (folder / "entry.json").write_text(json.dumps({**record, **fields}))

    return edit


def sealed(**fields: Any) -> Callable[[Path], None]:
    """Changes the record and seals it again."""

    def edit(folder: Path) -> None:
        kept = read_entry(folder).model_copy(update=fields).sealed()
        (folder / "entry.json").write_text(kept.model_dump_json())

    return edit


def written(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def foreign_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    (folder / "thesis").mkdir(parents=True)
    (folder / "thesis" / "chapter.txt").write_text("keep me")


def link_to_a_folder(folder: Path) -> None:
    away = folder.parent.parent / "elsewhere"
    folder.rename(away)
    (away / "images.bin").write_bytes(b"x" * (away / "images.bin").stat().st_size)
    folder.symlink_to(away)


def link_loop(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to(folder)


def file_in_its_place(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("a file")


def pipe(folder: Path) -> None:
    (folder / "images.bin").unlink()
    os.mkfifo(folder / "images.bin")


def anothers(folder: Path) -> None:
    """The whole entry of another data set of as many images."""
    other = folder.with_name("other")
    images = np.fromfile(folder / "images.bin", np.uint8) // 2
    folder.rename(other)
    folder.mkdir()
    images.tofile(folder / "images.bin")
    digest = hashlib.sha256(images.tobytes()).hexdigest()
    kept = read_entry(other).model_copy(update={"key": "0" * 64, "shards": [digest]}).sealed()
    (folder / "entry.json").write_text(kept.model_dump_json())
    shutil.rmtree(other)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "garbage of the same size": same_size_garbage,
    "garbage, and the time set back": same_size_garbage_in_place,
    "cut off": lambda folder: os.truncate(folder / "images.bin", 1000),
    "longer": lambda folder: os.truncate(folder / "images.bin", 1_000_000),
    "empty": written("images.bin", b""),
    "no pixels": lambda folder: (folder / "images.bin").unlink(),
    "a pipe": pipe,
    "no record": lambda folder: (folder / "entry.json").unlink(),
    "half a record": written("entry.json", b'{"kind": "dec'),
    "another kind of record": written("entry.json", b'[[0, "damaged"]]'),
    "bytes": written("entry.json", b"\xff\xfe\x00"),
    "deep": written("entry.json", b"[" * 100_000),
    "bad images by hand": edited(bad={"damaged": [0, 1, 2]}),
    "bad images that are not there": sealed(bad={"damaged": [40]}),
    "bad images before the first": sealed(bad={"damaged": [-1]}),
    "other digests": sealed(shards=["0" * 64]),
    "no digests": sealed(shards=[]),
    "infinite": written("entry.json", b'{"timeout_s": Infinity}'),
    "an entry of another key": anothers,
    "somebody else's folder": foreign_folder,
    "a link to a folder": link_to_a_folder,
    "a link to itself": link_loop,
    "a file": file_in_its_place,
    "nothing": shutil.rmtree,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_or_foreign_entry_is_made_anew(
    damage: Callable[[Path], None], paths: list[str], own_cache: Path
) -> None:
    blocks = in_process(paths)
    expected = decoded_images(blocks, "content", 16)[0].copy()
    (folder,) = (path for path in (own_cache / "decoded").iterdir() if path.suffix != ".lock")
    damage(folder)
    track = Checks()
    images, bad = decoded_images(blocks, "content", 16, track=track)
    assert np.array_equal(images, expected)
    assert bad == {}
    assert "decoding images" in track.taken()
    assert np.array_equal(decoded_images(blocks, "content", 16, track=track)[0], expected)
    assert track.taken() == []  # and now it is good
    kept = [*own_cache.rglob("chapter.txt"), *own_cache.glob("elsewhere/images.bin")]
    assert len(kept) == (damage in (foreign_folder, link_to_a_folder))  # nothing of anybody else's is removed


def test_pixels_are_hashed_once_for_each_identity_of_their_file(paths: list[str], own_cache: Path) -> None:
    blocks, track = in_process(paths), Checks()
    decoded_images(blocks, "content", 16)
    for _ in range(2):
        decoded_images(blocks, "content", 16, track=track)
    assert track.taken() == []
    (folder,) = (path for path in (own_cache / "decoded").iterdir() if path.suffix != ".lock")
    shutil.copytree(folder, folder.with_name("copy"))
    shutil.rmtree(folder)
    folder.with_name("copy").rename(folder)
    decoded_images(blocks, "content", 16, track=track)
    assert track.taken() == ["checking decoded images"]
    decoded_images(blocks, "content", 16, track=track)
    assert track.taken() == []
    (folder / "verified.json").write_text("{}")
    decoded_images(blocks, "content", 16, track=track)
    assert track.taken() == ["checking decoded images"]


def test_a_large_array_is_hashed_in_shards(paths: list[str], own_cache: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(cache_shards, "SHARD_BYTES", 10_000)  # of 13 images, and a part of one
    images, _ = decoded_images(in_process(paths), "content", 16)
    kept = read_entry(own_cache / "decoded" / entries(own_cache)[0])
    pixels = images.tobytes()
    assert kept.shards == [
        hashlib.sha256(pixels[at : at + 9_984]).hexdigest() for at in range(0, len(pixels), 9_984)
    ]


def test_a_read_only_cache_is_used(paths: list[str], own_cache: Path, unprivileged: None) -> None:
    # The cache of the test is root's, where the test is.
    own = Path(tempfile.mkdtemp())
    os.environ["FOVEATE_CACHE"] = str(own)  # set back by own_cache
    expected = decoded_images(in_process(paths), "content", 16)[0].copy()
    (folder,) = (path for path in (own / "decoded").iterdir() if path.suffix != ".lock")
    (folder / "verified.json").unlink()
    places = [own, own / "decoded", folder]
    for path in places:
        path.chmod(0o500)
    track = Checks()
    for _ in range(2):
        assert np.array_equal(decoded_images(in_process(paths), "content", 16, track=track)[0], expected)
    for path in places:
        path.chmod(0o700)
    shutil.rmtree(own)
    assert track.taken() == ["checking decoded images"] * 2


def test_a_file_that_changes_between_its_hash_and_its_decoding_leaves_nothing(
    paths: list[str], own_cache: Path
) -> None:
    content = hash_files("files", paths, untracked)
    before = Path(paths[7]).stat()

    def track(items: Iterable[object], *, total: int, label: str, images_each: int = 1) -> Iterator[object]:
        if label == "decoding images":
            Path(paths[7]).write_bytes(Path(paths[8]).read_bytes()[: before.st_size].ljust(before.st_size, b"x"))
            os.utime(paths[7], ns=(before.st_atime_ns, before.st_mtime_ns))
        yield from items

    with pytest.raises(DataError, match=r"^/data/pets: its files changed while they were read: run again when"):
        decoded_images(in_process(paths), content, 16, track=track)
    assert entries(own_cache) == []


def test_more_time_decodes_again_what_took_too_long(paths: list[str], own_cache: Path) -> None:
    blocks, track = in_process(paths), Checks()
    decoded_images(blocks, "content", 16, timeout_s=1.0)
    decoded_images(blocks, "content", 16, timeout_s=5.0, track=track)
    assert track.taken() == []  # all of them were in time
    reason = "decoding it takes longer than 1 s"
    sealed(bad={reason: [3]})(own_cache / "decoded" / entries(own_cache)[0])
    assert decoded_images(blocks, "content", 16, timeout_s=1.0)[1] == {3: reason}
    assert decoded_images(blocks, "content", 16, timeout_s=0.5)[1] == {3: reason}
    assert decoded_images(blocks, "content", 16, timeout_s=5.0)[1] == {}


def failing(blocks: Iterable[Block], reason: str) -> Iterator[tuple[int, int, list[tuple[int, str]]]]:
    """Decodes nothing."""
    for block in blocks:
        yield block.start, block.count, [(block.start + place, reason) for place in range(block.count)]


@pytest.mark.parametrize(
    "reason",
    [
        "its process ended with exit code -9: killed, perhaps by the system because memory ran out",
        "too large for the memory",
        "input/output error",
    ],
)
def test_what_the_machine_could_not_decode_is_tried_again_by_a_later_run_and_nothing_else_is(
    reason: str, paths: list[str], own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foveate.data.cache_shards.SHARD_BYTES", 10 * 3 * 16**2)  # of ten images
    blocks, totals = [FileBlock(0, len(paths), paths)], {}

    def track(items: Any, *, total: int, label: str, images_each: int = 1) -> Any:
        totals[label] = total
        yield from items

    whole, _ = decoded_images(blocks, "content", 16)
    entry = own_cache / "decoded" / entries(own_cache)[0]
    sealed(bad={reason: [13], "truncated": [2]})(entry)
    assert decoded_images(blocks, "content", 16)[1] == {2: "truncated", 13: reason}  # not at once
    os.utime(entry / "images.bin", (0, 0))
    again, bad = decoded_images(blocks, "content", 16, track=track)
    assert bad == {2: "truncated"}
    assert totals["decoding images"] == 10
    # One that fails again, in a making that takes longer than a later run would wait, is still what was made.
    monkeypatch.setattr("foveate.data.cache._AGAIN_AFTER_S", 1e-9)
    sealed(bad={reason: [13]})(entry)
    monkeypatch.setattr("foveate.data.cache.decode_in_workers", lambda blocks, *_, **__: failing(blocks, reason))
    assert decoded_images(blocks, "content", 16)[1] == dict.fromkeys(range(10, 20), reason)
    assert np.array_equal(again, whole)
    assert len(entries(own_cache)) == 1


def test_whoever_waits_for_another_process_shows_that_it_waits(paths: list[str], own_cache: Path) -> None:
    decoded_images(in_process(paths), "content", 16)
    (name,) = entries(own_cache)
    shutil.rmtree(own_cache / "decoded" / name)
    waited = []

    def track(items: Iterable[object], *, total: int, label: str, images_each: int = 1) -> Iterator[object]:
        for item in items:
            if label.startswith("waiting"):
                waited.append(label)
                if len(waited) == 2:
                    lock.release()
            yield item

    lock = FileLock(own_cache / "decoded" / f"{name}.lock", is_singleton=False, thread_local=False)
    lock.acquire()
    decoded_images(in_process(paths), "content", 16, track=track)
    assert len(waited) == 3


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


def test_a_full_disk_leaves_nothing_behind(
    paths: list[str], small_disk: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = small_disk("256k")
    monkeypatch.setenv("FOVEATE_CACHE", str(disk))
    with pytest.raises(OutputError, match=r"the disk is full: free some space .*\$FOVEATE_CACHE"):
        decoded_images(file_blocks(paths, 8), "content", 64, track=untracked, workers=2)  # 480 KiB
    assert entries(disk) == []
    images, _ = decoded_images(file_blocks(paths, 8), "content", 16, track=untracked, workers=2)
    assert len(images) == 40


def test_stopping_half_way_leaves_no_process_and_no_entry(paths: list[str], own_cache: Path) -> None:

    def track(items: Iterable[object], *, total: int, label: str, images_each: int = 1) -> Iterator[object]:
        for item in items:
            assert len(children()) == 2
            yield item
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decoded_images(file_blocks(paths * 2000), "content", 16, track=track, workers=2)
    assert children() == []
    (unfinished,) = entries(own_cache)
    assert unfinished.endswith(".part")


def test_ctrl_c_on_a_script_without_a_main_guard(paths: list[str], own_cache: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        # A shell starts its background jobs with SIGINT ignored, and so their children.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from foveate.data.source import file_blocks\n"
        "from tests.data.test_cache import decoded_images\n"
        "print('started', flush=True)\n"
        "def track(items, **_):\n"
        "    for number, item in enumerate(items):\n"
        "        if number == 0: print('decoding', flush=True)\n"
        "        yield item\n"
        f"decoded_images(file_blocks({paths!r} * 5000), 'content', 16, track=track, workers=2)\n"
    )
    (tmp_path / "numpy.py").write_text("raise ImportError('a file of the user that must not shadow numpy')")
    process = subprocess.Popen(
        [sys.executable, "-P", str(script)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])},
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
    assert [name.endswith(".part") for name in entries(own_cache)] == [True]


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


def test_damage_that_a_worker_finds(own_cache: Path) -> None:
    from foveate.data.parquet_images import ParquetBlock

    blocks = [ParquetBlock(row, 1, "gone.parquet", 0, row, "img.bytes") for row in range(2)]
    with pytest.raises(DataError, match=r"^cannot read gone\.parquet: "):
        decoded_images(blocks, "content", 16, track=untracked, workers=2)
    assert entries(own_cache) == []


def test_two_that_want_the_same_decode_once(paths: list[str]) -> None:
    reads: list[int] = []

    class Counting(FileBlock):
        encoded = False  # decoded in this process

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

    monkeypatch.setattr(cache, "_fill", fail)
    with pytest.raises(OutputError, match="read-only"):
        decoded_images(file_blocks(paths), "content", 16, track=untracked)
