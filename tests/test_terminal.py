"""What only the terminal shows; whole commands are in integration/."""

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.studies import SimulatedPool

from foveate.cli.results import print_results
from foveate.evaluation import score
from foveate.execution.campaign import run_campaign
from foveate.terminal import PlainDisplay, RichDisplay, display
from foveate.training.state import EpochResult
from foveate.tuning.search import Search

EPOCH = EpochResult(3, 0.5, 0.8125, 0.25, 0.9, 0.9, 1e-3, 60.0, 1234.5)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], PlainDisplay]:
    """Makes the display of a terminal; to be called in the test, where stdout is the captured one."""

    def make() -> PlainDisplay:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "100")
        return display()

    return make


def test_a_terminal_gets_a_bar_with_rate_and_time_left(
    terminal: Callable[[], PlainDisplay], capsys: pytest.CaptureFixture[str]
) -> None:
    bars = terminal()
    assert isinstance(bars, RichDisplay)
    assert list(bars.track(iter(range(30)), total=30, label="epoch 1/2", images_each=8)) == list(range(30))
    shown = capsys.readouterr().out
    assert "epoch 1/2" in shown
    assert "100%" in shown
    assert " images/s" in shown
    assert "\x1b[2K" in shown  # the bar is taken away when it is done
    list(bars.track(iter(range(3)), total=3, label="reading files", images_each=0))
    assert "images/s" not in capsys.readouterr().out


def test_a_long_path_is_one_line_and_markup_is_left_alone(
    terminal: Callable[[], PlainDisplay], capsys: pytest.CaptureFixture[str]
) -> None:
    line = "left out: " + "[red]/" * 60 + "x.jpg"
    terminal().say(line)
    assert line + "\n" in capsys.readouterr().out


def test_a_pipe_gets_plain_lines_and_the_time_left_of_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    lines = display()
    assert type(lines) is PlainDisplay
    assert list(lines.track([1, 2], total=2, label="x")) == [1, 2]
    lines.epoch(EPOCH, epochs=10, best=True)
    assert capsys.readouterr().out == (
        "epoch  3/10  loss 0.5000  accuracy 81.25%  val loss 0.2500  val accuracy 90.00%  "
        "1,234 images/s  0:07:00 left  best\n"
    )
    lines.epoch(replace(EPOCH, features_kept=True), epochs=10, best=False)
    assert "1,234 images/s (features kept from before)  0:07:00 left" in capsys.readouterr().out


def test_a_study_says_its_cost_first_and_a_line_a_job(
    open_search: Callable[..., Search], capsys: pytest.CaptureFixture[str]
) -> None:
    left = iter([True])

    def fate(message: Any) -> Any:
        folder = Path(message["folder"])
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "state.safetensors").open("wb") as file:
            file.truncate({"0000": 5, "0005": 50}.get(folder.name[-4:], 10) * 1_000_000)
        if message["folder"].endswith("0002"):
            return {"kind": "failed", "value": {"kind": "TrainingError", "message": "no", "where": "loop.py:1"}}
        if message["folder"].endswith("0003") and next(left, False):
            return {"kind": "lost", "value": {"message": "killed"}}
        return None

    search = open_search()
    for _ in PlainDisplay(sys.stdout).follow(run_campaign(search, SimulatedPool(1, fate=fate)), search, 1):
        pass
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "hyperband, li2018: 17 trials, 22 jobs, 69 epochs on 1 worker"
    told = "checkpoints: {} MB at most, if none becomes larger than the largest so far"
    # 17 of the first's size are too few to be told; then 17 of the second's and of the fifth's.
    assert [line for line in lines if "MB" in line] == [told.format(170), told.format(850)]
    assert lines[3] == told.format(170)
    assert "trial   2  bracket 0  rung 0  to epoch   1  failed: TrainingError: no (loop.py:1)" in lines
    assert any(line.endswith("begins again: killed") for line in lines)
    assert lines[-1].startswith("trial")
    assert "best" in lines[-1]


def test_a_study_with_a_time_tells_of_the_checkpoints_of_brackets_that_have_begun(
    open_search: Callable[..., Search], capsys: pytest.CaptureFixture[str]
) -> None:
    def fate(message: Any) -> None:
        Path(message["folder"]).mkdir(parents=True, exist_ok=True)
        with Path(message["folder"], "state.safetensors").open("wb") as file:
            file.truncate(50_000_000)

    search = open_search(time_s=1e6, iterations=1000)
    events = PlainDisplay(sys.stdout).follow(run_campaign(search, SimulatedPool(1, fate=fate)), search, 1)
    for _ in zip(range(400), events, strict=False):
        pass
    lines = capsys.readouterr().out.splitlines()
    assert len(search.trials) > 40  # of 17,000
    told = [int(line.split()[1].replace(",", "")) for line in lines if "MB" in line]
    assert told
    assert max(told) <= 50 * 2 * 9  # nine trials are in a bracket at most


def test_no_time_is_told_where_none_is_left(
    open_search: Callable[..., Search], capsys: pytest.CaptureFixture[str]
) -> None:
    search = open_search(time_s=1e-9)
    for _ in PlainDisplay(sys.stdout).follow(run_campaign(search, SimulatedPool(1)), search, 1):
        pass
    PlainDisplay(sys.stdout).epoch(EPOCH, epochs=EPOCH.epoch, best=True)
    told = capsys.readouterr().out
    assert " left" not in told
    assert "epochs  best" in told
    assert told.endswith("images/s  best\n")


def test_a_terminal_gets_a_table_of_what_runs(
    open_search: Callable[..., Search], terminal: Callable[[], PlainDisplay], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = terminal()
    assert isinstance(shown, RichDisplay)
    search = open_search()
    running: dict[int, tuple[str, ...]] = {}
    for event in filter(None, shown.follow(run_campaign(search, SimulatedPool(2)), search, 2)):
        if event.kind == "progress":
            running[event.job] = search.row(event.job, event.value["epoch"])
            shown.console.print(shown.draw(search, list(running.values())))
        elif event.kind != "begun":
            running.pop(event.job, None)
    told = capsys.readouterr().out
    assert "bracket" in told
    assert "lr 0." in told
    assert re.search(r"^ +16 +2 +0 +\d/9  lr", told, flags=re.MULTILINE)  # nothing is squeezed out
    rows = [line for line in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", told).splitlines() if "  lr " in line]
    assert rows
    assert max(map(len, rows)) <= 100


def test_what_is_stopped_leaves_no_table_behind(
    open_search: Callable[..., Search], terminal: Callable[[], PlainDisplay], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = terminal()
    search = open_search()
    events = shown.follow(run_campaign(search, SimulatedPool(1)), search, 1)
    next(events)
    assert "\x1b[?25l" in capsys.readouterr().out  # the cursor is hidden while the table is drawn
    events.close()
    assert "\x1b[?25h" in capsys.readouterr().out


def test_of_uneven_classes_the_recall_of_each_is_printed_first(capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.repeat([0, 1, 2], [300, 60, 5])
    logits = 9 * np.eye(3)[np.where(np.arange(365) % 3 == 0, 0, labels)]
    metrics = {"test": score(logits, labels, ("cat", "dog", "fox"), resamples=50).to_dict()}
    print_results(SimpleNamespace(metrics=metrics, report=Path("report.html")))  # type: ignore[arg-type]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("cat has 300 of these images, and fox has 5: look at the recall of each class")
    assert lines[0].endswith("--set class_weights=balanced counts all classes the same in training")
    assert [line.split(":")[0] for line in lines[1:4]] == [f"  recall of {name}" for name in ("fox", "dog", "cat")]
    recalls = [each["recall"] for each in metrics["test"]["per_class"].values()]
    assert lines[4].startswith(f"test balanced accuracy (mean recall): {np.mean(recalls):.1%} (")
    assert lines[5].startswith("test accuracy: ")
    balanced = SimpleNamespace(metrics=metrics, report=Path("report.html"), counts_evenly=True)
    print_results(balanced)  # type: ignore[arg-type]
    assert "class_weights" not in capsys.readouterr().out


def test_a_metric_that_an_earlier_version_did_not_measure_is_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.repeat([0, 1], [300, 5])
    new, old = (score(9 * np.eye(2)[labels], labels, ("cat", "dog"), resamples=5).to_dict() for _ in range(2))
    del old["balanced_accuracy"], old["intervals"]["balanced_accuracy"]
    for metrics in ({"validation": old, "test": new}, {"validation": new, "test": old}):
        print_results(SimpleNamespace(metrics=metrics, report=Path("report.html")), verbose=True)  # type: ignore[arg-type]
        printed = capsys.readouterr().out
        assert printed.count("balanced accuracy (mean recall)") == 1
        assert re.search(r"balanced accuracy .*–.*not measured", printed)


@pytest.mark.parametrize("other", [False, True])
def test_what_more_images_would_give_is_not_said_of_other_peoples(
    capsys: pytest.CaptureFixture[str], *, other: bool
) -> None:
    labels = np.repeat([0, 1], 10)
    metrics = {"validation": score(9 * np.eye(2)[labels], labels, ("cat", "dog"), resamples=50).to_dict()}
    metrics["validation"] |= {} if other else {"most_folds": 4}
    print_results(  # type: ignore[arg-type]
        SimpleNamespace(metrics=metrics, report=Path("report.html"), on_other_data=other)
    )
    told = capsys.readouterr().out
    assert "20 validation images tell only that the accuracy is between" in told
    assert ("train with --folds 4" in told) is not other
    assert ("20 held-out images are too few to fit confidence on" in told) is not other
