"""The page of a study: it tells all, loads nothing, and takes any study there can be."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foveate.report.study_page import StudyPage, write_study_report

MakePage = Callable[..., StudyPage]


@pytest.fixture
def make() -> MakePage:
    def trial(number: int, *, epochs: int, state: str, score: float | None, **settings: Any) -> dict[str, Any]:
        rows = [
            {"epoch": epoch, "rank_accuracy": 0.5 + epoch / 20 + number / 100} for epoch in range(1, epochs + 1)
        ]
        times = {"began": float(number), "ended": number + 1.0}
        job = {"rung": 0, "slot": number % 2, **times, "failed": state == "failed"}
        reason = "TrainingError: <b>no</b>" if state == "failed" else None
        return {
            "number": number, "settings": settings, "state": state, "score": score, "epochs": epochs, "bracket": 0,
            "rung": 0, "rows": rows, "jobs": [job], "reason": reason,
        }  # fmt: skip

    def make(**changes: Any) -> StudyPage:
        values: dict[str, Any] = {
            "title": "study",
            "subtitle": "digits",
            "trials": [
                trial(0, epochs=3, state="finished", score=0.9, lr=0.1, kind="none"),
                trial(1, epochs=0, state="failed", score=None, lr=0.5, kind="none"),
                trial(2, epochs=1, state="out", score=0.7, lr=0.01, kind="luong", stage=2),
            ],
            "brackets": [[(3, 1), (1, 3)], [(1, 3)]],
            "knobs": {"lr": (0.01, 1.0, True), "kind": ["none", "luong"], "stage": [1, 2]},
            "importance": [("lr", 0.75), ("kind", 0.25), ("stage", 0.0)],
            "best": 0,
            "seconds": 12.0,
            "worked": 0.8,
            "epochs": 4,
            "settings": {"factor": 3},
            "environment": {"python": "3"},
            "train": "foveate train --from runs/tune/study",
        }
        return StudyPage(**{**values, **changes})

    return make


def test_it_tells_the_winner_the_trials_and_the_command(make: MakePage, tmp_path: Path) -> None:
    html = write_study_report(make(), tmp_path).read_text()
    assert "90.0\N{NO-BREAK SPACE}%" in html
    assert "foveate train --from runs/tune/study" in html
    assert "Bracket 0: 3 to epoch 1, 1 to epoch 3" in html
    assert re.findall(r'<tr><th scope="row" class="n">(\d)', html) == ["0", "2", "1"]  # the furthest first
    assert "&lt;b&gt;no&lt;/b&gt;" in html
    assert "<b>no" not in html
    pngs = {"rung_curves.png", "parallel_coordinates.png", "worker_timeline.png", "knob_importance.png"}
    assert {path.name for path in tmp_path.iterdir()} == {"study.html", *pngs}


def test_it_loads_nothing(make: MakePage, tmp_path: Path) -> None:
    html = write_study_report(make(), tmp_path).read_text()
    assert not re.findall(r'(?:src|href)="(?!#|data:)', html)
    assert "<script" not in html


@pytest.mark.parametrize(
    "changes",
    [
        {"trials": [], "best": None, "importance": [], "seconds": 0.0, "worked": 0.0},
        {"best": None, "importance": []},
        {"knobs": {"lr": (0.1, 0.1, False), "kind": ["none"], "stage": list(range(20))}},
        {"knobs": {"kind": ["none", "luong", "$x_1$"]}},
    ],
)
def test_any_study_has_a_page(make: MakePage, tmp_path: Path, changes: dict[str, Any]) -> None:
    page = make(**changes)
    if "knobs" in changes:
        for trial in page.trials:
            settings = {"lr": 0.1, "kind": "none", "stage": 3}
            trial["settings"] = {name: settings[name] for name in page.knobs}  # type: ignore[index]
    assert "</html>" in write_study_report(page, tmp_path).read_text()


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_a_browser_shows_it_without_overflow_network_or_faint_text(
    make: MakePage, tmp_path: Path, look: Callable[[Path, int, str], None], width: int, scheme: str
) -> None:
    look(write_study_report(make(), tmp_path), width, scheme)
