import os
from pathlib import Path

import pytest

from foveate import processors
from foveate.processors import usable_processors


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        ("max 100000\n", 6),
        ("200000 100000\n", 2),
        ("250000 100000\n", 3),
        ("900000 100000\n", 6),
        ("10000 100000\n", 1),
        ("1 0\n", 6),
        ("", 6),
    ],
)
def test_they_are_those_of_the_scheduler_within_the_share_of_the_container(
    share: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text(share)
    monkeypatch.setattr(processors, "_CONTAINER", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    assert usable_processors() == expected


def test_where_the_system_tells_neither_they_are_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors, "_CONTAINER", tmp_path / "none")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_processors() == 1
