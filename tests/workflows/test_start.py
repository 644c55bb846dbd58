"""What is told of a run that starts from another one, which saw some of its images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from foveate.config import Config, resolve_config
from foveate.data.dataset import Dataset, load_dataset
from foveate.settings import DataConfig
from foveate.training.record import RunRecord
from foveate.training.runs import RunFolder
from foveate.workflows.start import start_saw, start_told


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
    assert start_told(config, digits, ("validation", "test")) is None
    assert start_told(config, digits, ("test",)) is None
    train, validation = digits.splits["train"], digits.splits["validation"]
    told = start_told(config, digits, ("train", "validation")) or ""
    assert f"has seen {len(train):,} of the images of this data set that are measured here" in told
    drawn = {**digits.splits, "train": np.append(train[3:], validation), "validation": train[:3]}
    assert "has seen 3 of the images" in (start_told(config, replace(digits, splits=drawn), ("validation",)) or "")
    config = run_on(digits, tmp_path / "final", final=True)
    told = start_told(config, digits, ("validation", "test")) or ""
    assert f"has seen {len(validation)} of the images" in told
    assert start_told(config, digits, ("test",)) is None
    assert start_saw(config, digits, ("validation",)) is True
    assert start_saw(config, digits, ("test",)) is False
    assert start_saw(resolve_config("small"), digits, ("validation",)) is False


def test_data_that_has_changed_since_is_told(tmp_path: Path, digits: Dataset) -> None:
    config = run_on(digits, tmp_path / "run")
    grown = replace(digits, fingerprint="0" * 64)
    told = start_told(config, grown, ("validation", "test")) or ""
    assert "was trained on digits as it was before: unless the data itself says" in told
    assert start_told(config, replace(grown, location="/elsewhere"), ("validation", "test")) is None
    assert start_saw(config, grown, ("validation",)) is None
    assert start_saw(config, replace(grown, location="/elsewhere"), ("validation",)) is False
    assert start_saw(config.replacing(start=str(tmp_path / "a.safetensors")), digits, ("validation",)) is None
