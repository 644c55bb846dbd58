"""Files that earlier versions made, in tests/frozen: they load, and what was stopped goes on."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from foveate.data.dataset import load_dataset
from foveate.settings import DataConfig

Foveate = Callable[..., Any]
Frozen = Callable[[str], Path]

RUNS = ("run", "run-2bc38f2")


@pytest.fixture
def frozen(tmp_path: Path) -> Frozen:
    """Copies frozen files."""

    def copy(name: str) -> Path:
        kept = Path(__file__).parents[1] / "frozen" / name
        place = tmp_path / name
        return Path((shutil.copytree if kept.is_dir() else shutil.copy)(kept, place))

    return copy


@pytest.fixture
def digits(tmp_path: Path) -> list[Path]:
    """Files of a few test images."""
    data = load_dataset("digits", DataConfig(size=16))
    files = [tmp_path / "digits" / f"{index}.png" for index in data.splits["test"][:40]]
    files[0].parent.mkdir()
    for file in files:
        Image.fromarray(data.images[int(file.stem)]).save(file)
    return files


def measured(run: Path) -> Any:
    return json.loads((run / "metrics.json").read_text())


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_measured_as_it_was_and_its_page_is_drawn(foveate: Foveate, frozen: Frozen, name: str) -> None:
    run = frozen(name)
    before = measured(run)["validation"]
    done = foveate("evaluate", run)
    assert done.status == 0, done.err
    after = measured(run)["validation"]
    assert after["confusion_matrix"] == before["confusion_matrix"]
    assert after["intervals"]["accuracy"] == before["intervals"]["accuracy"]
    assert after["loss"] == pytest.approx(before["loss"], abs=1e-5)
    assert "confusion" in (run / "report.html").read_text().lower()


@pytest.mark.parametrize("name", RUNS)
def test_the_test_split_of_a_run_is_opened(foveate: Foveate, frozen: Frozen, name: str) -> None:
    run = frozen(name)
    done = foveate("evaluate", run, "--final")
    assert done.status == 0, done.err
    assert measured(run)["test"]["n"] == 359
    assert len(json.loads((run / "run.json").read_text())["test_openings"]) == 1


@pytest.mark.parametrize("name", [*RUNS, "model.onnx"])
def test_a_model_predicts_and_says_how_sure_it_is(
    foveate: Foveate, frozen: Frozen, digits: list[Path], tmp_path: Path, name: str
) -> None:
    done = foveate("predict", frozen(name), *digits, "--json", "-")
    assert done.status == 0, done.err
    told = json.loads(done.out)
    assert [each["id"] for each in told] == list(map(str, digits))
    assert all(0.1 <= each["probability"] <= 1 for each in told)


def test_an_exported_file_gives_the_answers_of_the_run_that_it_was_made_of(
    foveate: Foveate, frozen: Frozen, digits: list[Path]
) -> None:
    by_run, by_file = (
        json.loads(foveate("predict", frozen(name), *digits, "--json", "-").out) for name in ("run", "model.onnx")
    )
    assert [each["label"] for each in by_file] == [each["label"] for each in by_run]
    probabilities = [[each["probability"] for each in told] for told in (by_file, by_run)]
    np.testing.assert_allclose(*probabilities, atol=1e-4)


def test_a_run_that_was_stopped_comes_to_where_the_other_came(foveate: Foveate, frozen: Frozen) -> None:
    stopped, whole = frozen("stopped-run"), frozen("run")
    before = rows(stopped / "results.csv")
    assert 0 < len(before) < len(rows(whole / "results.csv"))
    done = foveate("train", "--resume", stopped)
    assert done.status == 0, done.err
    after = rows(stopped / "results.csv")[: len(before)]  # with the columns that came later, empty
    assert [{name: row[name] for name in before[0]} for row in after] == before
    # The last bits are those of the processor.
    for ours, theirs in zip(rows(stopped / "results.csv"), rows(whole / "results.csv"), strict=True):
        assert float(ours["train_loss"]) == pytest.approx(float(theirs["train_loss"]), abs=1e-3)
    assert (stopped / "report.html").exists()


@pytest.mark.slow
def test_a_study_that_was_stopped_goes_on_and_its_winner_is_trained(foveate: Foveate, frozen: Frozen) -> None:
    study = frozen("stopped-study")
    before = (study / "journal.jsonl").read_bytes()
    done = foveate("tune", "--resume", study)
    assert done.status == 0, done.err
    assert (study / "journal.jsonl").read_bytes().startswith(before)
    states = [row["state"] for row in rows(study / "tune_results.csv")]
    assert len(states) == 10
    assert {*states} == {"finished", "pruned"}
    assert (study / "study.html").exists()
    assert foveate("train", "--from", study).status == 0


def test_a_comparison_that_was_stopped_goes_on_and_comes_to_a_verdict(foveate: Foveate, frozen: Frozen) -> None:
    comparison = frozen("stopped-comparison")
    kept = {path: path.read_bytes() for path in comparison.rglob("validation.json")}
    assert kept
    done = foveate("compare", "--resume", comparison, "--workers", 0)
    assert done.status == 0, done.err
    assert all(path.read_bytes() == content for path, content in kept.items())
    assert len(rows(comparison / "results-validation.csv")) == 4
    assert "the rule of that version judges it" in (comparison / "compare.html").read_text()
