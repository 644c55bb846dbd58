"""Predictions into a file: a call goes on with what an earlier one left, wherever the work is done."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.exported import save

from foveate.execution.pool import Event, Message
from foveate.inference import shards
from foveate.workflows import predict
from foveate.workflows.predict import predict_rows


class StoppedError(Exception):
    """What stops the work in a test."""


def stopping(items: Iterator[Any], **_: Any) -> Iterator[Any]:
    yield from items
    raise StoppedError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(tmp_path / "model.safetensors")


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Five images, two in a part, named from the folder where the work begins."""
    monkeypatch.setattr(shards, "SHARD", 2)
    monkeypatch.chdir(tmp_path)
    for number in range(5):
        Image.new("RGB", (16, 16), (50 * number, 9, 9)).save(f"{number}.png")
    return [f"{number}.png" for number in range(5)]


def test_images_that_were_away_are_predicted_when_they_are_back(model: Path, images: list[str]) -> None:
    for path in images[1:4]:
        Path(path).rename(f"{path}.away")
    with pytest.raises(StoppedError):
        list(predict_rows(model, images, table="out.csv", track=stopping)[1])
    for path in images[1:4]:
        Path(f"{path}.away").rename(path)
    said: list[str] = []
    asked: list[int] = []

    def counting(items: Iterator[Any], *, total: int, **_: Any) -> Iterator[Any]:
        asked.append(total)
        yield from items

    rows = list(predict_rows(model, images, table="out.csv", track=counting, say=said.append)[1])
    assert [row["reason"] for row in rows] == [None] * 5
    assert [row["id"] for row in rows] == images
    assert (asked, said[-1]) == ([3], "going on: 2 of 5 images are done")
    assert Path("out.csv").read_text().splitlines()[0] == "id,label,probability,unlike,reason"
    said.clear()
    list(predict_rows(model, images, table="again.csv", say=said.append)[1])
    assert not [line for line in said if "going on" in line]


class PoolElsewhere:
    """Does its jobs in this process, in another folder, as workers of a cluster do."""

    workers, queues = 1, True

    def __init__(self, folder: Path) -> None:
        self._folder, self._ended = folder, list[Event]()

    def submit(self, job: int, message: Message) -> None:
        with contextlib.chdir(self._folder):
            self._ended.append(Event(job, "done", shards.predict_shard(message, lambda _: None)))

    def event(self, timeout_s: float) -> Event | None:
        return self._ended.pop()

    def stop(self, job: int) -> None:
        pass

    def waited_s(self, job: int) -> dict[int, float]:
        return {}

    def close(self) -> None:
        pass


def test_workers_in_another_folder_find_images_that_are_named_from_this_one(
    model: Path, images: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(predict, "_open_pool", lambda *_: PoolElsewhere(tmp_path / "elsewhere"))
    rows = list(predict_rows(model.name, images, table="out.csv", ray="head:6379")[1])
    assert [(row["id"], row["reason"]) for row in rows] == [(path, None) for path in images]
