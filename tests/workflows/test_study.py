"""A study that cannot be is refused before its data is decoded, and its winner's record is how it is made."""

import builtins
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.commands import finish
from tests.studies import SPACE, SimulatedPool, open_search

import foveate as fv
from foveate.config import Config
from foveate.errors import CheckpointError, ConfigError, DataError
from foveate.execution.campaign import run_campaign
from foveate.tuning.space import Space
from foveate.workflows import study as studies
from foveate.workflows.study_files import check_winner, write_winner


@pytest.fixture
def undecoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "load_data", lambda *_: pytest.fail("the data was decoded first"))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"semantics": "foveat"}, "semantics='foveat'"),
        ({"formula": "li"}, "formula='li'"),
        ({"trials": 5}, "trials is asha's"),
        ({"subset": 3}, "subset=3"),
        ({"iterations": 0}, "iterations=0"),
        ({"no_such": 1}, "no_such"),
        ({"first_size": 16, "semantics": "continue"}, "first_size: under semantics=continue"),
        ({"name": "../x"}, "give a plain name"),
        ({"name": "taken"}, "choose another --name, or continue it with --resume"),
        ({"settings": {"device": "cuda:77"}}, "cuda:77"),
    ],
)
@pytest.mark.usefixtures("undecoded")
def test_a_bad_study_is_refused_before_anything_is_decoded(tmp_path: Path, given: Any, told: str) -> None:
    (tmp_path / "tune" / "taken").mkdir(parents=True)
    with pytest.raises(ConfigError) as refused:
        fv.tune("digits", runs=tmp_path, **given)
    assert told in str(refused.value)
    assert [each.name for each in (tmp_path / "tune").iterdir()] == ["taken"]


@pytest.mark.parametrize("scheme", ["", "file://"])
@pytest.mark.usefixtures("undecoded")
def test_checkpoints_within_the_data_are_refused_before_anything_is_made(tmp_path: Path, scheme: str) -> None:
    data = tmp_path / "images"
    data.mkdir()
    with pytest.raises(ConfigError, match=r"lies within the data, .*--storage FOLDER"):
        fv.tune(data, runs=tmp_path / "runs", storage=f"{scheme}{data}/checkpoints")
    assert not list(data.iterdir())


@pytest.mark.parametrize(("asked", "threads"), [({}, 1), ({"train.threads": 2}, 2)])
def test_threads_of_a_space_are_the_trials_unless_others_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], threads: int
) -> None:
    class NoDataError(Exception):
        """Instead of the data."""

    def load_data(_: Any, base: Config, *__: Any) -> None:
        assert base.train.threads == threads
        raise NoDataError

    monkeypatch.setattr(studies, "load_data", load_data)
    space = tmp_path / "space.yaml"
    space.write_text(json.dumps({**SPACE, "settings": {"threads": 1}}))
    with pytest.raises(NoDataError):
        fv.tune("digits", space=str(space), runs=tmp_path, workers=0, settings=asked)


@pytest.mark.usefixtures("undecoded")
def test_a_winner_so_far_of_smaller_images_is_told_as_one(tmp_path: Path) -> None:
    space = Space.model_validate(SPACE)
    search = open_search(tmp_path, semantics="anew", first_size=16, base=space.base(epochs=9, size=32))
    events = run_campaign(search, SimulatedPool(1))
    while search.best is None:
        next(events)
    write_winner(search, 100, share=1.0, ended=False)
    title, *settings = (tmp_path / "best.yaml").read_text().splitlines()
    assert re.fullmatch(
        r"# trial \d+ of .*: \d+\.\d% \(\d+\.\d% to \d+\.\d% of 100 images\) on the validation images at 16 px",
        title,
    )
    assert "  size: 32" in settings
    told = check_winner(tmp_path)
    assert told is not None
    assert told.startswith(f"{tmp_path} has not come to its end: this is its best trial so far; ")
    write_winner(search, 100, share=1.0, ended=True)
    assert check_winner(tmp_path) is None


def test_tpe_without_optuna_is_refused_before_anything_is_decoded_or_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = builtins.__import__

    def without(name: str, *args: Any, **named: Any) -> Any:
        if name == "optuna":
            raise ImportError(name)
        return found(name, *args, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match="needs Optuna: pip install"):
        fv.tune("digits", sampler="tpe", runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_the_record_of_a_winner_is_the_command_that_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(
        "preset: small\nsettings: {size: 16, stages: [{filters: 4, kernels: [3]}], attention: none, hidden: 4}\n"
        "hyperparameters: {lr: {type: float, low: 0.001, high: 0.01, log: true}}\n"
    )
    monkeypatch.chdir(tmp_path)
    study = fv.tune(
        "digits", space="space.yaml", max_epochs=1, subset=100, workers=0, name="study",
        settings={"threads": 1, "class_weights": "balanced"},
    )  # fmt: skip
    assert "class_weights: balanced" in study.best.read_text()  # worked out for the images of each training
    run = fv.train_best(study.path, name="winner", seed=0)
    assert run.folder.read_record().command == "foveate train --from runs/tune/study --name winner --seed 0"
    assert run.config.train.class_weights == "balanced"


def test_without_a_test_split_the_command_that_is_told_trains_the_winner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(
        "preset: small\nsettings: {size: 16, stages: [{filters: 4, kernels: [3]}], attention: none, hidden: 4}\n"
        "hyperparameters: {lr: {type: float, low: 0.001, high: 0.01, log: true}}\n"
    )
    pixels, labels = np.random.default_rng(0).integers(256, size=(40, 16, 16), dtype=np.uint8), np.arange(40) % 2
    np.savez(
        tmp_path / "noval.npz", train_images=pixels[:30], train_labels=labels[:30],
        val_images=pixels[30:], val_labels=labels[30:],
    )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    study = fv.tune("noval.npz", space="space.yaml", max_epochs=1, workers=0, name="s", settings={"threads": 1})
    command = f"foveate train {tmp_path}/noval.npz --config runs/tune/s/best.yaml"
    assert study.lines[-1] == f"train it: {command}"
    page = study.report.read_text()
    assert command in page
    assert "has no test split" in page
    assert "opens" not in page
    with pytest.raises(
        DataError,
        match=re.escape(f"no test images, which --from opens in the end: train the winner by `{command}`"),
    ):
        fv.train_best(study.path)
    assert finish(tmp_path, *shlex.split(command)[1:])


def test_a_command_that_is_told_can_be_pasted(tmp_path: Path) -> None:
    study = tmp_path / "my runs"
    study.mkdir()
    (study / "study.yaml").touch()
    with pytest.raises(CheckpointError, match=re.escape(f"`foveate tune --resume '{study}'`")):
        fv.train_best(study)
    with pytest.raises(CheckpointError, match=re.escape(f"`foveate tune --resume '{study}'`")):
        check_winner(study)
