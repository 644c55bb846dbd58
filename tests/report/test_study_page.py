"""The page of a study: it tells all, loads nothing, and takes any study there can be."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from foveate.report import study_plots
from foveate.report.html import render, write_page
from foveate.report.sections import Page
from foveate.report.study_page import study_page
from foveate.report.study_plots import parallel_coordinates, rung_curves, value_text
from foveate.tuning.hyperparameters import Choice, FloatRange, Hyperparameter
from foveate.tuning.trials import Trial

MakePage = Callable[..., Page]


def trial(number: int, *, epochs: int, state: Any, score: float | None, **settings: Any) -> Trial:
    rows = [{"epoch": epoch, "rank_accuracy": 0.5 + epoch / 20 + number / 100} for epoch in range(1, epochs + 1)]
    job = {
        "rung": 0,
        "slot": number % 2,
        "began": float(number),
        "ended": number + 1.0,
        "failed": state == "failed",
    }
    reason = "TrainingError: <b>no</b>" if state == "failed" else None
    return Trial(number, settings, 0, state=state, score=score, rows=rows, jobs=[job], reason=reason)


def choice(*values: Any) -> Hyperparameter:
    return Choice(type="choice", values=values)


TRIALS = [
    trial(0, epochs=3, state="finished", score=0.9, lr=0.1, kind="none"),
    trial(1, epochs=0, state="failed", score=None, lr=0.5, kind="none"),
    trial(2, epochs=1, state="pruned", score=0.7, lr=0.01, kind="luong", stage=2),
]


@pytest.fixture
def make() -> MakePage:
    def make(**changes: Any) -> Page:
        values: dict[str, Any] = {
            "title": "study",
            "subtitle": "digits",
            "trials": TRIALS,
            "brackets": [[(3, 1), (1, 3)], [(1, 3)]],
            "hyperparameters": {
                "lr": FloatRange(type="float", low=0.01, high=1.0, log=True),
                "kind": choice("none", "luong"),
                "stage": choice(1, 2),
            },
            "importance": [("lr", 0.75), ("kind", 0.25), ("stage", 0.0)],
            "best": TRIALS[0],
            "ranking": 200,
            "too_high": "0.43 points too high on average, as the best of 7 on these images",
            "halved": False,
            "seconds": 12.0,
            "worked": 0.8,
            "epochs": 4,
            "settings": {"factor": 3},
            "environment": {"python": "3"},
            "train": "foveate train --from runs/tune/study",
        }  # fmt: skip
        return study_page(**{**values, **changes})

    return make


def test_it_tells_the_winner_the_trials_and_the_command(make: MakePage, tmp_path: Path) -> None:
    html = write_page(make(), tmp_path / "study.html").read_text()
    assert "90.0\N{NO-BREAK SPACE}%" in html
    assert "foveate train --from runs/tune/study" in html
    assert (
        "95\N{NO-BREAK SPACE}%: 85.1–93.4, without the choice; of all 200 validation images; trial 0; 0.43" in html
    )
    assert "Bracket 0: 3 to epoch 1, 1 to epoch 3" in html
    assert re.findall(r'<tr><th class="n" scope="row">(\d)', html) == ["0", "2", "1"]  # the furthest first
    assert "&lt;b&gt;no&lt;/b&gt;" in html
    assert "<td>pruned</td>" in html
    assert "<b>no" not in html
    pngs = {"rung_curves.png", "parallel_coordinates.png", "worker_timeline.png", "knob_importance.png"}
    assert {path.name for path in tmp_path.iterdir()} == {"study.html", *pngs}


def test_a_long_plot_keeps_its_size_and_scrolls_where_others_shrink(make: MakePage, tmp_path: Path) -> None:
    many = {f"lr{number}": FloatRange(type="float", low=0.01, high=1.0, log=True) for number in range(9)}
    assert 'class="scroll long"' not in render(make())
    assert render(make(hyperparameters=many)).count('class="scroll long"') == 1


def test_a_score_that_is_no_share_of_images_has_no_interval(make: MakePage, tmp_path: Path) -> None:
    html = write_page(make(metric="balanced accuracy", halved=True), tmp_path / "study.html").read_text()
    assert "of 200 images that rank trials and stop none; trial 0" in html
    assert "without the choice" not in html


def test_a_score_has_its_name_everywhere(make: MakePage, monkeypatch: pytest.MonkeyPatch) -> None:
    named: list[str] = []

    def noting(draw: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given: named.append(given[-1]) or draw(*given)

    for draw in (rung_curves, parallel_coordinates):
        monkeypatch.setattr(study_plots, draw.__name__, noting(draw))
    html = render(make(metric="balanced accuracy"))
    assert named == ["balanced accuracy"] * 2
    assert ">Balanced accuracy<" in html
    assert not re.findall("(?<!alanced )accuracy", html, re.IGNORECASE)
    axes = rung_curves(TRIALS, [1, 3], 0, "balanced accuracy").axes[0]
    assert axes.get_ylabel() == "Balanced accuracy on the ranking images"
    names = parallel_coordinates(TRIALS, {"kind": choice("none", "luong")}, 0, "balanced accuracy").axes[0]
    assert [each.get_text() for each in names.get_xticklabels()] == ["kind", "balanced accuracy"]


def test_where_trials_go_on_one_by_one_their_numbers_are_about(make: MakePage) -> None:
    html = render(make(brackets=[[(7, 1), (2, 3)]], about=True))
    assert "Bracket 0: 7 to epoch 1, about 2 to epoch 3." in html


def test_it_loads_nothing(make: MakePage, tmp_path: Path) -> None:
    html = write_page(make(), tmp_path / "study.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!#|data:)', html)
    assert "<script" not in html


@pytest.mark.parametrize(
    "changes",
    [
        {"trials": [], "best": None, "importance": [], "seconds": 0.0, "worked": 0.0},
        {"best": None, "importance": []},
        {
            "hyperparameters": {
                "lr": FloatRange(type="float", low=0.1, high=0.1),
                "kind": choice("none"),
                "stage": choice(*range(20)),
            }
        },
        {"hyperparameters": {"kind": choice("none", "luong", "$x_1$")}},
    ],
)  # fmt: skip
def test_any_study_has_a_page(make: MakePage, tmp_path: Path, changes: dict[str, Any]) -> None:
    if "hyperparameters" in changes:
        settings = {"lr": 0.1, "kind": "none", "stage": 3}
        chosen = {name: settings[name] for name in changes["hyperparameters"]}
        changes = {**changes, "trials": [replace(each, settings=chosen) for each in TRIALS], "best": None}
    assert "</html>" in write_page(make(**changes), tmp_path / "study.html").read_text()


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_a_browser_shows_it_without_overflow_network_or_faint_text(
    make: MakePage, tmp_path: Path, look: Callable[[Path, int, str], None], width: int, scheme: str
) -> None:
    look(write_page(make(), tmp_path / "study.html"), width, scheme)


def test_null_is_a_value_on_its_axis_and_an_absent_hyperparameter_lies_below(make: MakePage) -> None:
    settings = [{"patience": None}, {"patience": 5}, {}]
    shown = [replace(each, settings=one, score=0.5) for each, one in zip(TRIALS, settings, strict=True)]
    figure = parallel_coordinates(shown, {"patience": choice(5, None)}, None, "accuracy")
    assert [float(line.get_ydata()[0]) for line in figure.axes[0].lines if len(line.get_xdata()) == 2][-3:] == [
        1.0,
        0.0,
        -0.1,
    ]
    assert [value_text(value) for value in (None, 5)] == ["null", "5"]
