"""One training: what it draws from which seed, what it saves, and what it refuses to begin."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foveate.config import Config, resolve_config
from foveate.data.dataset import Dataset, load_dataset
from foveate.data.loader import fold_in_seed
from foveate.errors import ConfigError
from foveate.model import attention_kinds
from foveate.model.build import build_model
from foveate.settings import DataConfig
from foveate.tensors import load_tensors
from foveate.training import fit
from foveate.training.device import DeviceData
from foveate.training.fit import DRAWS, Fit, new_state
from foveate.training.settings import balanced_weights, resolve_settings

CPU = torch.device("cpu")
TINY = {"stages": [{"filters": 4, "kernels": [3], "pool": 2, "dropout": 0.2}], "epochs": 3, "batch": 100}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", DataConfig(size=16))


@pytest.fixture
def tiny(digits: Dataset) -> Config:
    return resolve_settings(resolve_config("small", settings=TINY), digits)


class TestFit:
    def test_each_epoch_is_saved_when_it_is_yielded_and_gone_on_from(
        self, digits: Dataset, tiny: Config, tmp_path: Path
    ) -> None:
        data, path = DeviceData.load(digits, CPU), tmp_path / "state.safetensors"
        straight = Fit(tiny, data)
        whole = [result.val_loss for result in straight.epochs()]
        assert not path.exists()
        pieces = []
        for _ in range(3):
            part = Fit(tiny, data, path=path)
            if path.exists():
                part.resume(path)
            pieces.append(next(part.epochs()).val_loss)
            assert load_tensors(path)[1]["training"]["epoch"] == len(pieces) + 1
        assert pieces == whole
        assert len(whole) == straight.length == 3
        for name, weight in straight.state.model.state_dict().items():
            assert torch.equal(weight, part.state.model.state_dict()[name])

    @pytest.mark.parametrize("preset", ["small", "photos"])
    def test_weights_of_classes_follow_the_images_that_are_trained_on(self, digits: Dataset, preset: str) -> None:
        def with_many_of(label: int) -> Dataset:
            train, labels = digits.splits["train"], digits.labels
            kept = [train[labels[train] == each][: 30 if each == label else 2] for each in range(10)]
            return replace(digits, splits={"train": np.sort(np.concatenate(kept))})

        def weights_of(config: Config) -> torch.Tensor:
            trained = Fit(config, DeviceData.load(other, CPU))
            next(trained.epochs())
            return torch.cat([each.flatten() for each in trained.state.model.parameters()])

        first, other = with_many_of(0), with_many_of(3)
        network = {"backbone": "resnet18", "weights": None, "size": 16} if preset == "photos" else TINY
        asked = resolve_config(preset, settings={**network, "batch": 20, "class_weights": "balanced"})
        taken = resolve_settings(resolve_settings(asked, first), other)
        given = taken.replacing(class_weights=balanced_weights(other))
        assert torch.equal(weights_of(taken), weights_of(given))
        assert not torch.equal(weights_of(taken), weights_of(taken.replacing(class_weights=None)))

    @pytest.mark.parametrize("settings", [{"sampler": "balanced"}, {"class_weights": "balanced"}])
    def test_uneven_classes_are_gone_on_from_within_a_pass_to_the_same_bits(
        self, digits: Dataset, tmp_path: Path, settings: dict[str, str]
    ) -> None:
        train, labels = digits.splits["train"], digits.labels
        kept = np.sort(
            np.concatenate([train[labels[train] == each][: 40 if each < 3 else 7] for each in range(10)])
        )
        data = DeviceData.load(replace(digits, splits={**digits.splits, "train": kept}), CPU)
        asked = {**TINY, "batch": 20, "alternating_flip": True, "flip": 0.5, "label_smoothing": 0.1, **settings}
        config = resolve_settings(resolve_config("small", settings=asked), data.dataset)
        straight = Fit(config, data)
        list(straight.epochs())
        stopped, path = Fit(config, data), tmp_path / "state.safetensors"

        def until_the_fifth(items: Iterable[Any], **_: object) -> Iterator[Any]:
            for number, item in enumerate(items):
                if number == 5 and stopped.state.epoch == 2:
                    raise KeyboardInterrupt
                yield item

        with pytest.raises(KeyboardInterrupt):
            list(stopped.epochs(track=until_the_fifth))
        stopped.save(path)
        resumed = Fit(config, data)
        assert resumed.resume(path)
        assert (resumed.state.epoch, resumed.state.step) == (2, 5)
        list(resumed.epochs())
        assert [row.val_loss for row in resumed.state.history] == [row.val_loss for row in straight.state.history]
        for name, weight in straight.state.model.state_dict().items():
            assert torch.equal(weight, resumed.state.model.state_dict()[name])

    def test_without_validation_images_nothing_is_measured(self, digits: Dataset, tiny: Config) -> None:
        data = DeviceData.load(digits, CPU)
        alone = data.with_splits({"train": digits.splits["train"]})
        results = [next(Fit(tiny, each).epochs()) for each in (data, alone)]
        assert results[0].val_loss is not None
        assert results[1].val_loss is None
        assert results[0].train_loss == results[1].train_loss

    def test_what_is_said_beside_the_weights_is_saved(self, digits: Dataset, tiny: Config, tmp_path: Path) -> None:
        made = Fit(tiny, DeviceData.load(digits, CPU))
        made.save(tmp_path / "state", trial={"rows": [1]})
        made.save_weights(tmp_path / "weights", run={"train_s": 2})
        state, weights = (load_tensors(tmp_path / name)[1] for name in ("state", "weights"))
        assert state["trial"] == {"rows": [1]}
        assert weights["run"] == {"train_s": 2}
        assert state["preprocessing"]["size"] == 16
        assert "training" in state
        assert "training" not in weights


class TestDraws:
    def test_every_purpose_draws_from_a_seed_of_its_own(self, digits: Dataset) -> None:
        config = resolve_settings(resolve_config("small", settings={"seed": 3}), digits)
        state = new_state(config, digits, CPU)
        order = [fold_in_seed(3, number) for number in range(1000)]  # of the loader's passes
        seeds = [*fit._seeds(3, DRAWS).values(), *order, 3]
        assert len(set(seeds)) == len(seeds)
        used = {state.generator.initial_seed(), state.extras.initial_seed(), torch.initial_seed()}
        assert used < set(fit._seeds(3, DRAWS).values())
        assert len(used) == 3

    def test_unfinished_work_of_before_keeps_its_draws(self, digits: Dataset) -> None:
        """By 1 weights, dropout and augmentation all draw from the seed itself."""
        config = resolve_settings(resolve_config("small", settings={"seed": 3}), digits)
        old, new = (new_state(config, digits, CPU, draws=draws) for draws in (1, 2))
        assert old.generator.initial_seed() == 3
        assert old.extras.initial_seed() == fold_in_seed(3, 1)
        expected = build_model(
            config.model, num_classes=10, size=digits.images.shape[1], generator=torch.Generator().manual_seed(3)
        )
        weights = [state.model.state_dict() for state in (old, new)]
        name = "head.classifier.weight"
        assert torch.equal(weights[0][name], expected.state_dict()[name])
        assert not torch.equal(weights[1][name], expected.state_dict()[name])

    def test_a_custom_attention_draws_neither_what_dropout_draws_nor_what_the_weights_do(self) -> None:
        seeds = fit._seeds(0, DRAWS)
        assert len({seeds[name] for name in ("weights", "custom weights", "dropout")}) == 3


def test_an_attention_that_draws_for_itself_draws_the_same(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Pointwise(torch.nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(channels, channels, 1)  # by torch's global generator

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return torch.as_tensor(self.conv(features))

    monkeypatch.setattr(attention_kinds, "_REGISTERED", {"custom:Pointwise": Pointwise})
    config = resolve_settings(resolve_config("minute", settings={"attention": "custom:Pointwise"}), digits)
    one, other = (new_state(config, digits, CPU).model.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_no_memory_holds_is_refused(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    config = resolve_settings(resolve_config("minute", settings={"batch": 500}), digits)
    state = new_state(config, digits, CPU)
    monkeypatch.setattr(fit, "device_memory", lambda _: 20 * 2**20)
    with pytest.raises(ConfigError, match=r"maps of 500 images .* micro_batch=") as error:
        new_state(config, digits, CPU)
    parts = int(str(error.value).partition("micro_batch=")[2].partition(",")[0])
    again = new_state(config.replacing(micro_batch=parts), digits, CPU)
    for name, weight in state.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name])
    monkeypatch.setattr(fit, "device_memory", lambda _: 2**10)
    with pytest.raises(ConfigError, match=r"give a smaller size$"):
        new_state(config, digits, CPU)
