"""An entry that was stopped half-way goes on with the shards that are finished, where their pixels are right."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveate.data import cache, cache_shards
from foveate.data.cache_shards import Shards
from foveate.data.decode import decode_file
from foveate.data.hashing import Content
from foveate.data.parquet_images import ParquetBlock
from foveate.data.source import Source, file_blocks
from foveate.data.worker import decode_blocks
from foveate.preprocessing import Preprocessing
from foveate.progress import untracked

KEY = "0" * 64
FOLDER = f".{KEY[:32]}.part"
IMAGES, SIDE = 40, 16
IMAGE_BYTES = 3 * SIDE * SIDE


@pytest.fixture
def paths(write_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(cache_shards, "SHARD_BYTES", 9 * IMAGE_BYTES)
    found = sorted(str(path) for path in write_folder({"cat": IMAGES}).rglob("*.png"))
    found[20] = "missing.png"
    return found


def shards_in(folder: Path, *, timeout_s: float = 20.0) -> Shards:
    return Shards(folder, IMAGES, IMAGE_BYTES, key=KEY, timeout_s=timeout_s, track=untracked)


def decode(
    folder: Path, paths: list[str], stop: int = IMAGES, *, timeout_s: float = 20.0
) -> list[tuple[int, int]]:
    """Decode what is left of the images before `stop`; which ones."""
    shards = shards_in(folder, timeout_s=timeout_s)
    done = []
    for block in shards.missing(file_blocks(paths[:stop], 7)):
        for progress in decode_blocks([block], Preprocessing(SIDE), shards.path):
            shards.written(progress)
        done.append((block.start, block.start + block.count))
    return done


def test_finished_shards_are_not_decoded_again(paths: list[str], tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    decode(whole, paths)
    folder = tmp_path / FOLDER
    assert decode(folder, paths, 30)[-1] == (28, 30)
    with (folder / "finished.jsonl").open("a") as journal:
        journal.write('{"shard": 3, "sha')  # it was killed while it wrote
    assert decode(folder, paths) == [(27, 28), (28, 35), (35, 40)]
    left = shards_in(folder)
    assert left.images_left == 0
    assert left.bad == {"missing file": [20]}
    assert left.digests == shards_in(whole).digests
    assert left.path.read_bytes() == (whole / "images.bin").read_bytes()


def other_pixels(folder: Path) -> None:
    with (folder / "images.bin").open("r+b") as file:
        file.write(b"?")


def a_link(folder: Path) -> None:
    (folder / "images.bin").rename(folder.parent / "mine")
    (folder / "images.bin").symlink_to(folder.parent / "mine")


def a_second_name(folder: Path) -> None:
    os.link(folder / "images.bin", folder.parent / "mine")


def cut_short(folder: Path) -> None:
    os.truncate(folder / "images.bin", 100)


def another_plan(folder: Path) -> None:
    lines = (folder / "finished.jsonl").read_text().splitlines()
    lines[0] = json.dumps({**json.loads(lines[0]), "key": "1" * 64})
    (folder / "finished.jsonl").write_text("\n".join(lines) + "\n")


def no_journal(folder: Path) -> None:
    (folder / "finished.jsonl").write_text("")


@pytest.mark.parametrize("damage", [a_link, a_second_name, cut_short, another_plan, no_journal])
def test_what_does_not_fit_begins_anew(paths: list[str], tmp_path: Path, damage: Callable[[Path], None]) -> None:
    folder = tmp_path / FOLDER
    decode(folder, paths)
    damage(folder)
    mine = (tmp_path / "mine").read_bytes() if (tmp_path / "mine").exists() else None
    assert shards_in(folder).images_left == IMAGES
    assert mine is None or (tmp_path / "mine").read_bytes() == mine


def test_a_damaged_shard_is_decoded_again(paths: list[str], tmp_path: Path) -> None:
    decode(tmp_path / FOLDER, paths)
    other_pixels(tmp_path / FOLDER)
    assert decode(tmp_path / FOLDER, paths) == [(0, 7), (7, 9)]


def test_more_time_begins_anew(paths: list[str], tmp_path: Path) -> None:
    decode(tmp_path / FOLDER, paths)
    assert shards_in(tmp_path / FOLDER, timeout_s=60.0).images_left == IMAGES


@given(st.sets(st.integers(0, 4)), st.integers(1, 50))
def test_missing_images_are_those_outside_of_finished_shards(finished: set[int], size: int) -> None:
    shards = Shards.__new__(Shards)
    shards._each, shards._finished = 9, dict.fromkeys(finished)  # type: ignore[arg-type]
    paths = [str(number) for number in range(IMAGES)]
    found = list(shards.missing(file_blocks(paths, size)))
    assert [name for block in found for name in block.files] == [
        name for index, name in enumerate(paths) if index // 9 not in finished
    ]
    assert all(block.files[0] == str(block.start) and len(block.files) == block.count for block in found)


def test_rows_of_parquet_are_parted() -> None:
    block = ParquetBlock(100, 50, "x.parquet", 2, 10, "image")
    assert block.part(5, 20) == ParquetBlock(105, 15, "x.parquet", 2, 15, "image")


def test_a_decode_that_is_stopped_goes_on(paths: list[str], own_cache: Path) -> None:
    source = Source(
        name="pets",
        location="/data/pets",
        class_names=("cat",),
        labels=np.zeros(IMAGES, np.int64),
        declared=np.zeros(IMAGES, np.int8),
        ids=paths,
        blocks=file_blocks(paths, 4),
        content=Content("content"),
    )
    totals = []

    def stopping(items: Iterable[object], *, total: int, label: str, images_each: int = 1) -> Iterator[object]:
        for number, item in enumerate(items):
            if number == 30:
                raise KeyboardInterrupt
            yield item

    def following(items: Iterable[object], *, total: int, label: str, images_each: int = 1) -> Iterator[object]:
        totals.append((label, total))
        yield from items

    with pytest.raises(KeyboardInterrupt):
        cache.decoded_images(source, Preprocessing(SIDE), timeout_s=20.0, track=stopping, workers=1)
    images, bad = cache.decoded_images(source, Preprocessing(SIDE), timeout_s=20.0, track=following, workers=1)
    assert totals == [("checking decoded images", 3), ("decoding images", IMAGES - 27)]
    assert bad == {20: "missing file"}
    assert [path.name for path in (own_cache / "decoded").iterdir() if path.name.endswith(".part")] == []
    for place in (0, 26, 27, 39):
        assert np.array_equal(images[place], decode_file(Path(paths[place]), Preprocessing(SIDE)))
