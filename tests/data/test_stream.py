"""Streams of files: every image once, with its own pixels, in memory for a few batches."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from foveate.data.decode import decode_file
from foveate.data.stream import stream_files
from foveate.errors import OutputError
from foveate.preprocessing import Preprocessing


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    """23 images, of which the sixth is damaged and the last is missing."""
    random = np.random.default_rng(0)
    names = [str(tmp_path / f"{number}.png") for number in range(23)]
    for name in names[:-1]:
        Image.fromarray(random.integers(0, 256, (9, 9, 3), np.uint8)).save(name)
    Path(names[5]).write_bytes(b"no image")
    return names


def collected(paths: Any, **settings: Any) -> tuple[dict[str, NDArray[np.uint8]], dict[str, str]]:
    """Pixels by path, and reasons by path."""
    pixels, bad = {}, {}
    for some in stream_files(paths, Preprocessing(8), **settings):
        assert len(some.pixels) == len(some.paths)
        for place, path in enumerate(some.paths):
            assert path not in pixels | bad
            if place in some.bad:
                bad[path] = some.bad[place]
            else:
                pixels[path] = some.pixels[place].copy()
    return pixels, bad


@pytest.mark.parametrize(("workers", "at_once"), [(0, 4), (0, 1), (0, 64), (2, 4), (1, 5)])
def test_every_file_comes_once_with_its_pixels_or_a_reason(paths: list[str], workers: int, at_once: int) -> None:
    pixels, bad = collected(iter(paths), workers=workers, at_once=at_once)
    assert sorted([*pixels, *bad]) == sorted(paths)
    assert bad.keys() == {paths[5], paths[-1]}
    assert bad[paths[-1]] == "missing file"
    for path, found in pixels.items():
        assert np.array_equal(found, decode_file(Path(path), Preprocessing(8)))


def test_no_more_files_are_asked_for_than_are_decoded_at_once(paths: list[str]) -> None:
    asked = []

    def asking() -> Iterator[str]:
        for path in paths:
            asked.append(path)
            yield path

    stream = stream_files(asking(), Preprocessing(8), workers=0, at_once=4)
    next(stream)
    assert len(asked) == 4
    stream.close()


def test_no_files_are_no_batches() -> None:
    assert list(stream_files([], Preprocessing(8), at_once=4)) == []


def test_the_white_of_a_model_is_that_of_its_images(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((8, 8), 2000, np.uint16)).save(path)
    for workers in (0, 1):
        (some,) = stream_files([str(path)], Preprocessing(8, white=4000), workers=workers, at_once=1)
        assert some.pixels[0].max() == 128


@pytest.mark.parametrize("workers", [0, 1])
def test_where_no_temporary_files_can_be_written_the_fix_is_told(
    workers: int, paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(
        OutputError, match=r"^no temporary files can be written \(.*\): .* another folder in TMPDIR"
    ):
        list(stream_files(paths, Preprocessing(8), workers=workers, at_once=4))
