"""A run whose files were changed by hand, or mixed with another's, does not go on as if it were one."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foveate.tensors import load_tensors, save_tensors
from foveate.training.runs import RunFolder

Foveate = Callable[..., Any]
Photographs = Callable[..., Path]


class StoppedError(Exception):
    """Where a kill comes."""


@pytest.fixture
def unfinished(
    foveate: Foveate, photographs: Photographs, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """Makes a run of three epochs that was stopped after the first."""

    def make(name: str, **settings: object) -> Path:
        flags = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        with monkeypatch.context() as patch:
            patch.setattr(RunFolder, "write_history", stop_after_saving)
            with pytest.raises(StoppedError):
                foveate("train", photographs(name), "--epochs", 3, "--name", name, *tiny, *flags)
        return tmp_path / "runs" / "train" / name

    def stop_after_saving(*_: object) -> None:
        raise StoppedError

    return make


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [("train", "lr", 0.5), ("train", "seed", 7), ("train", "epochs", 1), ("augment", "rotation", 0.3)],
)
def test_settings_that_were_changed_are_not_gone_on_with(
    foveate: Foveate, unfinished: Callable[..., Path], section: str, name: str, value: object
) -> None:
    run = unfinished("one")
    settings = run / "args.yaml"
    before = settings.read_text()
    settings.write_text(re.sub(rf"(?m)^  {name}: .*$", f"  {name}: {value}", before))
    assert settings.read_text() != before
    done = foveate("train", "--resume", run)
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "saved with other settings or data than args.yaml and run.json say now" in done.err
    settings.write_text(
        re.sub(r"(?m)^  (threads|device): .*$", r"  \1: 1", before).replace("device: 1", "device: cpu")
    )
    assert foveate("train", "--resume", run).status == 0


def test_the_state_of_another_run_is_refused(foveate: Foveate, unfinished: Callable[..., Path]) -> None:
    one, other = unfinished("one"), unfinished("other", seed=5)
    shutil.copy(RunFolder(other).last, RunFolder(one).last)
    done = foveate("train", "--resume", one)
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "does not belong to its run" in done.err


def test_a_state_of_an_earlier_version_goes_on(foveate: Foveate, unfinished: Callable[..., Path]) -> None:
    """It does not say which settings it was saved with."""
    run = unfinished("one")
    for path in (RunFolder(run).last, RunFolder(run).best):
        tensors, meta = load_tensors(path)
        del meta["settings"], meta["format"]
        save_tensors(path, tensors, meta)
    assert foveate("train", "--resume", run).status == 0


@pytest.mark.parametrize(("name", "value"), [("accuracy", 7.5), ("macro_f1", -0.1)])
def test_a_measurement_that_cannot_be_is_damage(
    foveate: Foveate, photographs: Photographs, tiny: list[str], tmp_path: Path, name: str, value: float
) -> None:
    foveate("train", photographs(), "--epochs", 1, "--name", "m", *tiny)
    path = tmp_path / "runs" / "train" / "m" / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["validation"][name] = value
    path.write_text(json.dumps(metrics))
    done = foveate("train", "--resume", path.parent)
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert f"{name}={value:g} is not between 0 and 1" in done.err


def test_data_that_was_moved_is_asked_for(
    foveate: Foveate, photographs: Photographs, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = photographs()
    foveate("train", folder, "--epochs", 1, "--name", "m", *tiny)
    folder.rename(tmp_path / "moved")
    done = foveate("evaluate", "runs/train/m")
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert (
        "any more: give its new place after the run, as in `foveate evaluate runs/train/m NEW/PLACE`" in done.err
    )
    for words, fix in (
        (("export", "runs/train/m", "--to", "out"), "give its new place or other images by --data, or"),
        (("explain", "runs/train/m"), "put it back, as maps are measured on its validation images, or give"),
    ):
        done = foveate(*words)
        assert (done.status, f"any more: {fix}" in done.err, "evaluate" in done.err) == (2, True, False)
    run = RunFolder.open(Path("runs/train/m"))
    run.write_record(run.read_record().model_copy(update={"finished": False}))
    fix = "any more: give its new place, as in `foveate train NEW/PLACE --resume runs/train/m`"
    assert fix in foveate("train", "--resume", "runs/train/m").err
    assert foveate("evaluate", "runs/train/m", tmp_path / "moved").status == 0
    monkeypatch.chdir(tmp_path / "moved")  # nothing is written to its `runs`
    done = foveate("evaluate", tmp_path / "runs/train/m", ".")
    assert done.status == 0, done.err
