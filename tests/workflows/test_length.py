"""What a length in minutes, or none, comes to as plain settings. The clock is injected; nothing is timed."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import foveate as fv
from foveate.config import resolve_config
from foveate.data.dataset import load_dataset
from foveate.errors import ConfigError
from foveate.settings import DataConfig
from foveate.training.device import DeviceData
from foveate.training.length import Rates
from foveate.workflows.length import Budget, Loaded, length_in_time, photos_in_time
from foveate.workflows.prepare import prepare
from foveate.workflows.request import NullDisplay

Photographs = Callable[..., Path]
SLOW = Rates(size=16, step_s=0.2, small_step_s=0.1, measure_s=0.001)


class Said(NullDisplay):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def rated(monkeypatch: pytest.MonkeyPatch) -> Callable[[Rates], None]:
    """Let this machine take so long for an image."""

    def set_rates(rates: Rates) -> None:
        monkeypatch.setattr("foveate.workflows.length.measure_rates", lambda *_, **__: rates)

    return set_rates


@pytest.fixture
def no_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foveate.workflows.prepare.Budget", partial(Budget, clock=lambda: 0.0))


@pytest.fixture(scope="module")
def loaded_digits() -> Loaded:
    data = DeviceData.load(load_dataset("digits", DataConfig(size=64)), torch.device("cpu"))
    return Loaded(data, data, final=False)


TINY: dict[str, Any] = {
    "stages": [{"filters": 4, "kernels": [3, 3]}],
    "attention_stage": 1,
    "batch": 50,
}


class TestBudget:
    def test_what_is_paused_is_not_counted_and_told(self) -> None:
        now = [0.0]
        budget, said = Budget("1m", clock=lambda: now[0]), Said()
        now[0] = 10
        with budget.paused(said):
            now[0] = 130
        now[0] = 131
        assert budget.left == 49
        assert said.lines == ["the images were read and decoded in 2 min, which --time does not count"]

    def test_what_took_no_time_is_not_told(self) -> None:
        said = Said()
        with Budget("1m", clock=lambda: 0.0).paused(said):
            pass
        assert said.lines == []


def test_what_was_chosen_is_recorded_as_plain_settings_and_repeated(
    rated: Callable[[Rates], None], no_time_passes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foveate.workflows.train._train", lambda run, *_: run)
    rated(SLOW)
    said = Said()
    run = fv.train("digits", preset="minute", time="30s", runs=tmp_path, display=said, threads=1, **TINY)
    assert run.config.train.images_seen == 150
    assert said.lines[0] == (
        "150 images of 16 px are shown, and all ends in about 27 s: the preset's 88,000 would take about 3.7 h"
    )
    command = (run.path / "args.yaml").read_text().splitlines()[0]
    assert "--set images_seen=150" in command
    assert "--time" not in command
    file = run.path / "args.yaml"
    again = prepare(
        "digits",
        preset=None,
        file=file,
        settings={},
        place=None,
        final=False,
        on_all=False,
        time=None,
        known=None,
        display=said,
    )
    assert again.config == run.config


def test_smaller_images_are_decoded_where_that_is_chosen(
    rated: Callable[[Rates], None], no_time_passes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(15):
            pixels = rng.integers(0, 256, (48, 48, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    rated(Rates(size=48, step_s=0.01, small_step_s=0.006, measure_s=0.001))
    begun: list[Any] = []
    monkeypatch.setattr("foveate.workflows.train.Fit", lambda *given, **_: begun.append(given) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fv.train(tmp_path / "data", preset="minute", time="15s", runs=tmp_path / "runs", **TINY)
    ((config, data),) = begun
    assert config.data.size == data.dataset.size == 32
    assert config.train.images_seen < 22_000


def test_two_lengths_are_refused(tmp_path: Path) -> None:
    for given in ({"epochs": 3}, {"images_seen": 300}):
        with pytest.raises(
            ConfigError, match=r"--time 5m says how long to train, and so does (epochs|images_seen)"
        ):
            fv.train("digits", time="5m", runs=tmp_path, **given)
    with pytest.raises(ConfigError, match="give a time such as"):
        fv.train("digits", time="soon", runs=tmp_path)
    assert not list(tmp_path.glob("train/*"))


def test_the_default_is_cut_to_five_minutes_and_a_preset_by_name_is_not(
    photographs: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Any] = []
    monkeypatch.setattr("foveate.workflows.train.Fit", lambda config, _, **__: begun.append(config) or 1 / 0)
    said, folder = Said(), photographs(each=20)

    def started(**given: Any) -> Any:
        with pytest.raises(ZeroDivisionError):
            fv.train(folder, runs=tmp_path, display=said, **given)
        return begun[-1].train

    short = started(size=64).images_seen
    assert 30_000 < short < 40_000
    assert any(line.startswith(f"{short:,} images of 64 px are shown, which take about") for line in said.lines)
    assert any("--preset minute shows 88,000, in about 11 min" in line for line in said.lines)
    assert started(size=32).images_seen == 88_000
    assert started(size=64, preset="minute").images_seen == 88_000
    assert started(size=64, images_seen=99_000).images_seen == 99_000
    assert started(size=64, epochs=3).epochs == 3


class TestPhotosInTime:
    @pytest.mark.parametrize(("time", "preset"), [("10m", "photos-tuned"), ("1m", "photos")])
    def test_part_of_the_backbone_is_trained_where_the_time_allows(
        self, loaded_digits: Loaded, rated: Callable[[Rates], None], time: str, preset: str
    ) -> None:
        rated(Rates(size=64, step_s=0.05, small_step_s=0.05, measure_s=0.02))
        said = Said()
        assert photos_in_time(loaded_digits, Budget(time, clock=lambda: 0.0), {}, said) == preset
        (line,) = said.lines
        assert ("about 6 min here" in line) == (preset == "photos-tuned")
        assert ("would fit into --time 6m" in line) == (preset == "photos")

    def test_with_few_images_nothing_is_measured(
        self, loaded_digits: Loaded, rated: Callable[[Rates], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("foveate.workflows.length.measure_rates", lambda *_: 1 / 0)
        few = loaded_digits.own.with_splits(
            {**loaded_digits.own.dataset.splits, "train": loaded_digits.own.dataset.splits["train"][:499]}
        )
        said = Said()
        assert photos_in_time(Loaded(few, few, final=False), Budget("1h"), {}, said) == "photos"
        assert said.lines == ["preset photos looks at each image once: --time does not change how long that takes"]


def test_the_length_of_a_run_that_sees_each_image_once_does_not_change(loaded_digits: Loaded) -> None:
    said, asked = Said(), resolve_config("photos")
    chosen, loaded = length_in_time(asked, loaded_digits, Budget("1h"), lambda _: 1 / 0, said)
    assert (chosen, loaded) == ({}, loaded_digits)
    assert said.lines == ["preset photos looks at each image once: --time does not change how long that takes"]
