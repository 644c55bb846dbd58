"""What `train` needs before it begins: which preset, which settings, which data."""

import sys
from pathlib import Path

import pytest

from foveate.config import resolve_config
from foveate.errors import DataError
from foveate.keywords import Settings
from foveate.terminal import PlainDisplay
from foveate.workflows.prepare import Prepared, prepare
from foveate.workflows.request import NullDisplay


def prepared(data: str, **given: object) -> Prepared:
    usual = {
        "preset": None,
        "file": None,
        "settings": {},
        "place": None,
        "final": False,
        "on_all": given.get("final", False),
        "time": None,
        "known": None,
    }
    return prepare(data, **{**usual, "display": NullDisplay(), **given})  # type: ignore[arg-type]


def test_without_a_preset_the_data_choose_it_and_no_setting_is_added_where_it_ends_in_time() -> None:
    found = prepared("digits")
    assert found.preset == found.config.preset == "minute"
    assert found.settings == {}
    assert found.config.train.images_seen == 88_000
    assert found.config.augment.flip == 0.0  # decided by the data: no setting is left open


def test_float32_that_is_chosen_for_even_images_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("foveate.training.settings.has_bf16", lambda _: True)  # as on a GPU
    shown = PlainDisplay(sys.stdout)
    settings: Settings = {"epochs": 1}
    assert prepared("cue:images=100", preset="small", settings=settings, display=shown).settings == settings
    assert capsys.readouterr().out.count("precision=auto is fp32 here") == 1
    prepared("digits", preset="small", settings=settings, display=shown)
    assert "precision" not in capsys.readouterr().out


def test_settings_that_are_given_come_back_as_they_were() -> None:
    settings: Settings = {"epochs": 2, "size": 24}
    found = prepared("digits", preset="small", settings=settings)
    assert (found.preset, found.settings) == ("small", settings)
    assert found.config.train.epochs == 2
    assert found.loaded.own.dataset.size == 24


def test_a_file_is_as_good_as_a_preset(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("preset: small\nepochs: 3\n")
    found = prepared("digits", file=tmp_path / "mine.yaml")
    assert found.preset is None
    assert found.config == prepared("digits", preset="small", settings={"epochs": 3}).config


def test_for_a_final_run_validation_is_trained_on_and_the_test_split_is_measured() -> None:
    found = prepared("digits", preset="small", final=True)
    splits = found.loaded.own.dataset.splits
    counts = found.loaded.counts
    assert counts.train == len(splits["train"]) + len(splits["validation"])
    assert (counts.validation, counts.measured) == (0, len(splits["test"]))
    assert found.config.train.keep == "last"


def test_a_final_run_without_a_test_split_is_refused(tmp_path: Path) -> None:
    from PIL import Image

    for split in ("train", "val"):
        for label in ("a", "b"):
            (tmp_path / split / label).mkdir(parents=True)
            for number in range(3):
                Image.new("RGB", (20, 20), (number, 80, 90)).save(tmp_path / split / label / f"{number}.png")
    with pytest.raises(DataError, match="has no test images"):
        prepared(str(tmp_path), final=True)
    assert prepared(str(tmp_path)).preset == resolve_config().preset
