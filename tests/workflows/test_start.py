"""What is told of a run that starts from another one, which saw some of its images."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import foveate as package
from foveate.config import Config, resolve_config
from foveate.data.dataset import Dataset, load_dataset
from foveate.errors import CheckpointError
from foveate.settings import DataConfig
from foveate.training.record import RunRecord
from foveate.training.runs import RunFolder
from foveate.workflows import comparison, study
from foveate.workflows.comparison_arms import requested_arms, starts_told
from foveate.workflows.request import NullDisplay
from foveate.workflows.start import start_saw, start_told, starting_from


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", DataConfig(size=16))


def run_on(dataset: Dataset, path: Path, *, final: bool = False) -> Config:
    """Settings that start from a run, which has ended."""
    path.mkdir()
    folder = RunFolder(path)
    record = RunRecord.of(dataset, None, "foveate train x", final=final)
    record = record.model_copy(update={"splits": folder.write_splits(dataset), "finished": True})
    config = resolve_config("small")
    folder.write_identity(config, torch.device("cpu"), record)
    return config.replacing(start=str(path / "weights" / "best.safetensors"))


def test_images_that_it_saw_are_counted(tmp_path: Path, digits: Dataset) -> None:
    config = run_on(digits, tmp_path / "run")
    assert start_told(config, digits, ("validation", "test")) == []
    assert start_told(config, digits, ("test",)) == []
    train, validation = digits.splits["train"], digits.splits["validation"]
    (told,) = start_told(config, digits, ("train", "validation"))
    assert f"has seen {len(train):,} of the images of this data set that are measured here" in told
    drawn = {**digits.splits, "train": np.append(train[3:], validation), "validation": train[:3]}
    (told,) = start_told(config, replace(digits, splits=drawn), ("validation",))
    assert "has seen 3 of the images" in told
    config = run_on(digits, tmp_path / "final", final=True)
    (told,) = start_told(config, digits, ("validation", "test"))
    assert f"has seen {len(validation)} of the images" in told
    assert start_told(config, digits, ("test",)) == []
    assert start_saw(config, digits, ("validation",)) is True
    assert start_saw(config, digits, ("test",)) is False
    assert start_saw(resolve_config("small"), digits, ("validation",)) is False


def test_data_that_has_changed_since_is_told(tmp_path: Path, digits: Dataset) -> None:
    config = run_on(digits, tmp_path / "run")
    grown = replace(digits, fingerprint="0" * 64)
    (told,) = start_told(config, grown, ("validation", "test"))
    assert "was trained on digits as it was before: unless the data itself says" in told
    assert start_saw(config, grown, ("validation",)) is None
    assert start_saw(config, replace(grown, location="/elsewhere"), ("validation",)) is False
    assert start_saw(config.replacing(start=str(tmp_path / "a.safetensors")), digits, ("validation",)) is None


def test_the_same_images_in_another_place_are_counted(tmp_path: Path, digits: Dataset) -> None:
    train, validation = digits.splits["train"], digits.splits["validation"]
    kept = np.concatenate([train[:30][::-1], validation])
    np.savez(tmp_path / "big.npz", x=digits.images[kept], y=digits.labels[kept])
    big = load_dataset(str(tmp_path / "big.npz"), DataConfig(size=16))
    big = replace(
        big, splits={"train": np.arange(30, len(kept)), "validation": np.arange(20), "test": np.arange(9)}
    )
    config = run_on(digits, tmp_path / "run")
    network = "the network that training starts from"
    ends = f"are copies of images that {network} was trained on: on others it will do worse"
    assert start_told(config, big, ("validation", "test")) == [
        f"20 of 20 validation images {ends}",
        f"9 of 9 test images {ends}",
    ]
    assert start_told(config, big, ("train",)) == []
    RunFolder(tmp_path / "run").change_record(fingerprint="0" * 64)
    (told,) = start_told(config, big, ("validation", "test"))
    assert told.startswith(
        f"whether {network} was trained on images of big is not known, as its own cannot be read: digits is not "
    )


def test_arms_that_start_from_a_run_by_its_name_are_told_what_it_saw(tmp_path: Path, digits: Dataset) -> None:
    (tmp_path / "train").mkdir()
    run_on(digits, tmp_path / "train" / "seen", final=True)
    asked = ["minute,attention=none", "minute,attention=none,start=seen"]
    plain, started = requested_arms(asked, {}, 0, 2, pilot=False, runs=tmp_path)
    assert started.config.train.start == str(tmp_path / "train" / "seen")
    weights = str(tmp_path / "train" / "seen" / "weights" / "best.safetensors")
    started = started.model_copy(update={"config": started.config.replacing(start=weights)})
    (told,) = starts_told([plain, started], digits, NullDisplay())
    assert told.startswith("arm minute,attention=none,start=seen: the network that training starts from has seen ")
    with pytest.raises(CheckpointError, match="nobody: there is no such file or folder, and no run"):
        requested_arms(["minute", "minute,start=nobody"], {}, 0, 2, pilot=False, runs=tmp_path)


def test_a_folder_that_is_no_run_does_not_hide_the_run_of_its_name(
    tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs" / "train").mkdir(parents=True)
    run_on(digits, tmp_path / "runs" / "train" / "base")
    monkeypatch.chdir(tmp_path)
    runs = Path("runs")
    for folder in ("base", "other"):
        Path(folder).mkdir()
    assert starting_from({"start": "base"}, runs) == {"start": "runs/train/base"}
    assert starting_from({"start": "other"}, runs) == {"start": "other"}  # which is then said to be no run
    run_on(digits, tmp_path / "mine")
    assert starting_from({"start": "mine"}, runs) == {"start": "mine"}
    Path("base.safetensors").touch()
    assert starting_from({"start": "base.safetensors"}, runs) == {"start": "base.safetensors"}


class NotMadeError(Exception):
    """Instead of a folder for a comparison or a study."""


def not_made(*_: Any, **__: Any) -> None:
    raise NotMadeError


class Told(NullDisplay):
    """Keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_a_comparison_and_a_study_say_it_before_they_begin(
    tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train").mkdir()
    run_on(digits, tmp_path / "train" / "seen", final=True)
    monkeypatch.setattr(comparison, "create_folder", not_made)
    monkeypatch.setattr(study, "create_folder", not_made)
    said = f"the network that training starts from has seen {len(digits.splits['validation'])} of the images"
    of_all: dict[str, Any] = {"runs": tmp_path, "workers": 0, "settings": {"size": 16, "start": "seen"}}
    told = Told()
    with pytest.raises(NotMadeError):
        package.compare("digits", ["small"], controls=False, display=told, **of_all)
    assert [line for line in told.lines if said in line] == [
        line for line in told.lines if line.startswith("arm small")
    ]
    assert len([line for line in told.lines if said in line]) == 2
    told = Told()
    with pytest.raises(NotMadeError):
        package.tune("digits", max_epochs=1, display=told, **of_all)
    assert len([line for line in told.lines if line.startswith(said)]) == 1
