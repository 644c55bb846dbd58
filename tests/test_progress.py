"""Signs of life: from work that moves, and for a while from work that cannot give any itself."""

import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest

from foveate import progress
from foveate.progress import heartbeat, untracked


def test_items_come_unchanged() -> None:
    said: list[Mapping[str, Any]] = []
    for track in (untracked, heartbeat(said.append), heartbeat(said.append, 60)):
        assert list(track(iter("abc"), total=3, label="letters")) == ["a", "b", "c"]
    assert said == []  # not so soon
    assert not any(thread.daemon and thread.name.endswith("(beat)") for thread in threading.enumerate())


def test_it_beats_between_items_and_not_within(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_BEAT_EVERY_S", 0.05)
    said: list[float] = []
    for _ in heartbeat(lambda _: said.append(time.monotonic()))(range(4), total=4, label="steps"):
        before = len(said)
        time.sleep(0.2)
        assert len(said) == before
    assert len(said) == 4


def test_for_a_while_it_beats_within_an_item(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_BEAT_EVERY_S", 0.05)
    said: list[float] = []
    began = time.monotonic()
    track = heartbeat(lambda _: said.append(time.monotonic() - began), step_s=0.5)
    for _ in track(range(1), total=1, label="a step in which much is compiled"):
        time.sleep(1.2)
    within = [at for at in said if at < 1.15]
    assert len(within) >= 3
    assert max(within) < 0.9  # a hang is found after that


def test_no_thread_is_left_by_work_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_BEAT_EVERY_S", 0.05)
    said: list[float] = []

    def fail() -> None:
        for _ in heartbeat(lambda _: said.append(0.0), step_s=60)(range(2), total=2, label="steps"):
            raise ValueError("no good")

    threads = threading.active_count()
    with pytest.raises(ValueError, match="no good"):
        fail()
    deadline = time.monotonic() + 5
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.02)
    assert threading.active_count() == threads
