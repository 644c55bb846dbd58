"""Images that arrive one by one: each gets its own pixels or its own reason, whatever the others do."""

import contextlib
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tests.data.jobs import deadly_job, no_job
from tests.data.test_cache import children

from foveate.data import arriving
from foveate.data.arriving import ArrivingImages
from foveate.data.decode import BadImageError, decode_image
from foveate.errors import DataError
from foveate.preprocessing import Preprocessing

Encode = Callable[..., bytes]
Start = Callable[..., ArrivingImages]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts processes that decode to 16 x 16; after the test none of them and none of their files is left."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with contextlib.ExitStack() as started:

        def start(*, workers: int = 1, timeout_s: float = 20, **settings: object) -> ArrivingImages:
            images = ArrivingImages(Preprocessing(16), workers=workers, timeout_s=timeout_s, **settings)  # type: ignore[arg-type]
            images.start()
            started.callback(images.close)
            return images

        yield start
    assert children() == []
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_each_image_gets_its_own_pixels(start: Start, encode: Encode, workers: int) -> None:
    images = start(workers=workers)
    files = [encode(seed) for seed in range(100)]
    decoding = [images.decode(file) for file in files]
    for file, each in zip(files, decoding, strict=True):
        np.testing.assert_array_equal(each.result(60), decode_image(file, Preprocessing(16)))


def test_bad_images_among_good_ones_cost_themselves(start: Start, encode: Encode) -> None:
    images = start()
    files = [b"no image" if number % 3 == 1 else encode(number) for number in range(30)]
    decoding = [images.decode(file) for file in files]
    for number, each in enumerate(decoding):
        if number % 3 == 1:
            with pytest.raises(BadImageError, match="a text, not an image"):
                each.result(60)
        else:
            np.testing.assert_array_equal(each.result(60), decode_image(files[number], Preprocessing(16)))


def test_a_shorter_image_is_not_what_was_left_of_a_longer_one(start: Start, encode: Encode) -> None:
    images = start()
    images.decode(encode(1, size=(90, 90))).result(60)
    small = encode(2, size=(3, 3))
    np.testing.assert_array_equal(images.decode(small).result(60), decode_image(small, Preprocessing(16)))
    with pytest.raises(BadImageError):
        images.decode(small[:20]).result(60)


@pytest.mark.parametrize(
    ("how", "reason"),
    [("hang", "decoding it takes longer than 0.3 s"), ("kill", "decoding it failed: its process ended")],
)
def test_an_image_that_hangs_or_kills_its_process_costs_itself(
    start: Start, encode: Encode, how: str, reason: str
) -> None:
    images = start(work=deadly_job, timeout_s=0.3 if how == "hang" else 20)
    files = [how.encode() + b"-it" if number == 5 else encode(number) for number in range(12)]
    decoding = [images.decode(file) for file in files]
    for number, each in enumerate(decoding):
        if number == 5:
            with pytest.raises(BadImageError, match=reason):
                each.result(60)
        else:
            np.testing.assert_array_equal(each.result(60), decode_image(files[number], Preprocessing(16)))


def test_a_process_that_is_killed_from_outside_costs_no_image(start: Start, encode: Encode) -> None:
    images = start()
    os.kill(children()[0], signal.SIGKILL)
    file = encode()
    np.testing.assert_array_equal(images.decode(file).result(60), decode_image(file, Preprocessing(16)))


def test_closing_tells_those_whose_images_wait(start: Start, encode: Encode) -> None:
    images = start(work=deadly_job)
    waiting = [images.decode(each) for each in (b"hang-it", *(encode(seed) for seed in range(40)))]
    until = time.monotonic() + 20
    while not images._taken and time.monotonic() < until:
        time.sleep(0.01)
    images.close()
    for each in waiting:
        with pytest.raises(DataError, match="the server is stopping"):
            each.result(0)


def test_an_image_that_is_no_longer_wanted_costs_no_other(start: Start, encode: Encode) -> None:
    images, file = start(), encode()
    decoding = [images.decode(file) for _ in range(40)]
    for each in decoding[::2]:
        each.cancel()
    for each in decoding[1::2]:
        np.testing.assert_array_equal(each.result(60), decode_image(file, Preprocessing(16)))
    waiting = [images.decode(file) for _ in range(40)]
    waiting[-1].cancel()
    images.close()
    assert all(each.done() for each in waiting)


def test_an_image_that_comes_after_the_end_is_refused(start: Start, encode: Encode) -> None:
    images = start()
    images.close()
    with pytest.raises(DataError, match="the server is stopping"):
        images.decode(encode()).result(0)


def test_closing_while_many_ask_leaves_nobody_waiting(start: Start, encode: Encode) -> None:
    images, file, closed = start(), encode(), threading.Event()

    def ask() -> int:
        answered = 0
        while not closed.is_set():
            with contextlib.suppress(DataError):
                images.decode(file).result(30)
                answered += 1
        return answered

    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(ask) for _ in range(8)]
        time.sleep(0.3)
        images.close()
        closed.set()
        assert sum(each.result(60) for each in asking) > 0


def test_many_threads_get_their_own_images(start: Start, encode: Encode) -> None:
    images = start(workers=2)
    files = [encode(seed) for seed in range(16)]

    def ask(thread: int) -> None:
        for number in range(25):
            file = files[(thread * 5 + number) % 16]
            np.testing.assert_array_equal(images.decode(file).result(60), decode_image(file, Preprocessing(16)))

    with ThreadPoolExecutor(16) as pool:
        for each in [pool.submit(ask, thread) for thread in range(16)]:
            each.result()


def test_an_image_that_comes_as_the_files_are_emptied_is_decoded(
    start: Start, encode: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arriving, "_KEPT_S", 0.01)
    images, file = start(), encode()
    for number in range(300):
        images.decode(file).result(10)
        time.sleep(0.009 + number % 30 / 15_000)


def test_where_no_process_decodes_it_is_said_and_none_is_left() -> None:
    images = ArrivingImages(Preprocessing(16), workers=1, timeout_s=20, work=no_job)
    with pytest.raises(DataError, match="its process ended with exit code 7"):
        images.start()
    assert children() == []


def test_without_a_folder_for_temporary_files_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    images = ArrivingImages(Preprocessing(16), workers=1, timeout_s=20)
    with pytest.raises(DataError, match=r"^no temporary files can be written \(No such file or directory\)"):
        images.start()


@pytest.mark.parametrize("deleted", ["", "pixels", "0"])
def test_files_that_were_cleaned_away_are_made_anew(
    start: Start, encode: Encode, tmp_path: Path, deleted: str
) -> None:
    images, file = start(), encode()
    images.decode(file).result(60)
    (folder,) = (tmp_path / "temporary").iterdir()
    if deleted:
        (folder / deleted).unlink()
    else:
        shutil.rmtree(folder)
    for _ in range(2):
        np.testing.assert_array_equal(images.decode(file).result(60), decode_image(file, Preprocessing(16)))


def test_where_they_cannot_be_made_anew_the_images_that_come_meanwhile_are_lost(
    start: Start, encode: Encode, tmp_path: Path
) -> None:
    images, file, temporary = start(), encode(), tmp_path / "temporary"
    shutil.rmtree(temporary)
    for _ in range(2):
        with pytest.raises(DataError, match=r"^no temporary files can be written \(No such file or directory\)"):
            images.decode(file).result(60)
    temporary.mkdir()
    np.testing.assert_array_equal(images.decode(file).result(60), decode_image(file, Preprocessing(16)))


def test_a_full_disk_costs_the_images_that_come_meanwhile(
    small_disk: Callable[[str], Path], encode: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk("96k")))
    images = ArrivingImages(Preprocessing(16), workers=1, timeout_s=20)
    images.start()
    try:
        with pytest.raises(DataError, match=r"^no temporary files can be written \(No space left on device\)"):
            images.decode(bytes(200_000)).result(60)
        file = encode()
        np.testing.assert_array_equal(images.decode(file).result(60), decode_image(file, Preprocessing(16)))
    finally:
        images.close()
