"""Decoding in processes that hang, die and run out of memory: it costs the image that did it, and no other."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.data.jobs import deadly_job, no_job
from tests.data.test_cache import children

from foveate.data.decode import decode_file
from foveate.data.decoding import decode_in_workers
from foveate.data.source import file_blocks
from foveate.errors import DataError
from foveate.execution.pool import Work
from foveate.preprocessing import Preprocessing

Encode = Callable[..., bytes]


@pytest.fixture
def write(tmp_path: Path, encode: Encode) -> Callable[..., list[str]]:
    """Image files of the names that are given, in this order."""

    def write(*names: str) -> list[str]:
        for number, name in enumerate(names):
            tmp_path.joinpath(name).write_bytes(encode(number))
        return [str(tmp_path / name) for name in names]

    return write


def decode_all(
    paths: list[str],
    tmp_path: Path,
    *,
    work: Work = deadly_job,
    timeout_s: float = 20,
    workers: int = 1,
    each: int = 64,
) -> dict[int, str]:
    """Decode, check that every image but the bad ones came out right, and give those."""
    output = tmp_path / "images.bin"
    output.write_bytes(bytes(len(paths) * 16 * 16 * 3))
    bad: dict[int, str] = {}
    count = 0
    blocks = file_blocks(paths, each)
    for _, read, unreadable in decode_in_workers(
        blocks, Preprocessing(16), output, workers=workers, timeout_s=timeout_s, work=work
    ):
        count += read
        bad.update(unreadable)
    assert count == len(paths)
    assert children() == []
    images = np.fromfile(output, np.uint8).reshape(-1, 16, 16, 3)
    for index, path in enumerate(paths):
        if index not in bad:
            assert (images[index] == decode_file(Path(path), Preprocessing(16))).all()
    return bad


@pytest.mark.parametrize("how", ["hang", "spin"])
def test_an_image_that_takes_too_long_is_bad_and_the_rest_goes_on(
    how: str, write: Callable[..., list[str]], tmp_path: Path
) -> None:
    paths = write("a.png", f"{how}-1.png", "b.png", f"{how}-2.png", "c.png")
    bad = decode_all(paths, tmp_path, timeout_s=0.5)
    reason = "decoding it takes longer than 0.5 s"
    assert bad == {1: reason, 3: reason}


def test_many_slow_images_are_none_that_takes_too_long(write: Callable[..., list[str]], tmp_path: Path) -> None:
    paths = write(*(f"slow-{number}.png" for number in range(6)))
    assert decode_all(paths, tmp_path, timeout_s=2.0) == {}  # 2.4 s together


@pytest.mark.parametrize(("how", "code"), [("kill", -9), ("segfault", -11)])
def test_an_image_that_kills_its_process_is_bad_and_the_rest_goes_on(
    how: str, code: int, write: Callable[..., list[str]], tmp_path: Path
) -> None:
    paths = write("a.png", "b.png", f"{how}-1.png", f"{how}-2.png", "c.png", "d.png")
    bad = decode_all(paths, tmp_path, workers=2, each=3)
    assert bad.keys() == {2, 3}
    assert all(
        reason.startswith(f"decoding it failed: its process ended with exit code {code}")
        for reason in bad.values()
    )


def test_a_process_that_is_killed_once_costs_no_image(write: Callable[..., list[str]], tmp_path: Path) -> None:
    paths = write("a.png", "once-1.png", "b.png", "once-2.png")
    assert decode_all(paths, tmp_path) == {}


def test_a_process_that_is_killed_from_outside_costs_no_image(
    write: Callable[..., list[str]], tmp_path: Path
) -> None:
    paths = write("a.png", "b.png") * 1000
    output = tmp_path / "images.bin"
    output.write_bytes(bytes(len(paths) * 16 * 16 * 3))
    killed = False
    for _, _, bad in decode_in_workers(file_blocks(paths), Preprocessing(16), output, workers=2, timeout_s=20):
        assert bad == []
        if not killed:
            os.kill(children()[0], signal.SIGKILL)
            killed = True
    images = np.fromfile(output, np.uint8).reshape(-1, 16, 16, 3)
    for index in range(2):
        assert (images[index::2] == decode_file(Path(paths[index]), Preprocessing(16))).all()


def test_a_stopped_process_is_found(write: Callable[..., list[str]], tmp_path: Path) -> None:
    paths = write("a.png", "b.png") * 1000
    output = tmp_path / "images.bin"
    output.write_bytes(bytes(len(paths) * 16 * 16 * 3))
    stopped, count = False, 0
    for _, read, bad in decode_in_workers(
        file_blocks(paths, 2000), Preprocessing(16), output, workers=1, timeout_s=0.5
    ):
        assert bad == []
        count += read
        if not stopped:
            os.kill(children()[0], signal.SIGSTOP)
            stopped = True
    assert count == 2000


def test_where_nothing_can_be_decoded_it_is_said(write: Callable[..., list[str]], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^decoding: its process ended with exit code 7: run again$"):
        decode_all(write("a.png", "b.png"), tmp_path, work=no_job)
    assert children() == []


def test_a_real_image_that_takes_too_long(tmp_path: Path, encode: Encode) -> None:
    large, small = tmp_path / "large.png", tmp_path / "small.png"
    Image.new("RGB", (9000, 9000), (1, 2, 3)).save(large, compress_level=1)
    small.write_bytes(encode())
    output = tmp_path / "images.bin"
    output.write_bytes(bytes(2 * 16 * 16 * 3))
    blocks = file_blocks([str(large), str(small)])
    progress = list(decode_in_workers(blocks, Preprocessing(16), output, workers=1, timeout_s=0.3))
    assert [bad for _, _, bad in progress if bad] == [[(0, "decoding it takes longer than 0.3 s")]]
    progress = list(decode_in_workers(blocks, Preprocessing(16), output, workers=1, timeout_s=60))
    assert [bad for _, _, bad in progress if bad] == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds memory")
def test_the_largest_legitimate_photograph_is_decoded(tmp_path: Path) -> None:
    path, output = tmp_path / "large.png", tmp_path / "images.bin"
    # 89.5 million pixels, as many as are allowed, and the mode that takes the most memory.
    Image.new("RGBA", (9459, 9459), (10, 20, 30, 255)).save(path, compress_level=1)
    output.write_bytes(bytes(16 * 16 * 3))
    progress = decode_in_workers(file_blocks([str(path)]), Preprocessing(16), output, workers=1, timeout_s=20)
    assert list(progress) == [(0, 1, [])]
