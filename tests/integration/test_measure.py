"""Model files measured on images with labels: as their run is, and what cannot be measured."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import foveate as fv

Foveate = Callable[..., Any]
Photographs = Callable[..., Path]


@pytest.fixture
def run(foveate: Foveate, photographs: Photographs, tiny: list[str], tmp_path: Path) -> Path:
    foveate("train", photographs(each=30), "--epochs", 2, "--name", "m", *tiny)
    return tmp_path / "runs" / "train" / "m"


def test_weights_and_an_exported_file_measure_what_the_run_measures(
    foveate: Foveate, photographs: Photographs, run: Path, tmp_path: Path
) -> None:
    other = photographs("other", each=8)
    by_run = fv.evaluate(run, other, runs=tmp_path / "by-run").metrics["all"]
    fv.export(run, tmp_path / "out")
    for model in (run / "weights" / "best.safetensors", tmp_path / "out" / "model.onnx"):
        done = foveate("evaluate", model, other)
        assert done.status == 0, done.err
        (folder,) = (tmp_path / "runs" / "evaluate").glob(f"{model.stem}-on-*")
        measured = json.loads((folder / "metrics.json").read_text())["all"]
        assert measured["confusion_matrix"] == by_run["confusion_matrix"]
        for name in ("loss", "expected_calibration_error"):
            assert measured[name] == pytest.approx(by_run[name], abs=1e-5)
        assert measured["calibration"] == pytest.approx(by_run["calibration"], abs=1e-5)
        page = (folder / "report.html").read_text()
        assert "If it may abstain" in page
        assert "Prediction sets" in page


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("MODEL",), "does not know its data: give some, as in"),
        (("MODEL", "DATA", "--corruptions"), "are for runs: give a run folder"),
        (("MODEL", "DATA", "--final"), "has no test images (it has: all)"),
        (("MODEL", "digits"), "unknown to the model"),
        (("MODEL", "missing"), "there is no data set missing"),
        (("missing.onnx", "DATA"), "missing.onnx"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    foveate: Foveate, photographs: Photographs, run: Path, tmp_path: Path, words: tuple[str, ...], line: str
) -> None:
    places = {"MODEL": run / "weights" / "best.safetensors", "DATA": photographs("other", each=4)}
    done = foveate("evaluate", *(places.get(word, word) for word in words))
    assert (done.status, done.err.count("\n")) == (2, 1), done.err
    assert line in done.err
    assert not (tmp_path / "runs" / "evaluate").exists()
