from pathlib import Path

import pytest
import torch

from foveate.config import DataConfig, resolve_config
from foveate.data.augment import build_augment
from foveate.data.dataset import Dataset, load_dataset
from foveate.errors import ConfigError
from foveate.memory import device_memory
from foveate.model import attention
from foveate.training import setup
from foveate.training.setup import new_state, settle

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", DataConfig(size=16))


def test_settling_finds_what_was_left_open(digits: Dataset) -> None:
    config = settle(resolve_config("minute"), digits, CPU, final=False)
    assert (config.data.size, config.train.device, config.train.threads) == (16, "cpu", torch.get_num_threads())
    assert config.augment.flip == 0  # a mirrored 2 is none
    per_pass = len(digits.splits["train"])
    assert config.train.passes is not None
    assert (config.train.passes - 1) * 20 * per_pass < 88_000 <= config.train.passes * 20 * per_pass


def test_a_final_run_has_nothing_to_stop_it_or_to_choose_an_epoch_by(digits: Dataset) -> None:
    config = settle(resolve_config("small", settings={"patience": 3}), digits, CPU, final=True)
    assert (config.train.keep, config.train.patience) == ("last", None)


def test_an_attention_that_draws_for_itself_draws_the_same(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Pointwise(torch.nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(channels, channels, 1)  # by torch's global generator

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return torch.as_tensor(self.conv(features))

    monkeypatch.setattr(attention, "_REGISTERED", {"custom:Pointwise": Pointwise})
    config = settle(resolve_config("minute", settings={"attention": "custom:Pointwise"}), digits, CPU, final=False)
    one, other = (new_state(config, digits, CPU, final=False).model.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("preset", ["paper", "minute"])
def test_without_augmentation_images_stay_as_they_are(digits: Dataset, preset: str) -> None:
    loud = {"flip": 0.5, "shift": 0.2, "extra": ["colour", "mixup"], "augmentation": False}
    config = settle(resolve_config(preset, settings=loud), digits, CPU, final=False)
    images = torch.from_numpy(digits.images[:16]).permute(0, 3, 1, 2)
    labels = torch.from_numpy(digits.labels[:16])
    augment = build_augment(config.augment, 10)
    turn = torch.ones(16, dtype=torch.bool)
    draws = torch.Generator().manual_seed(0)
    changed, targets = augment(images, labels, turn, draws, draws)
    assert torch.equal(changed, images.float())
    assert torch.equal(targets, labels)


def test_one_value_a_channel_is_refused_where_it_would_be_normalised(digits: Dataset) -> None:
    lonely = {"micro_batch": 1, "stages": [{"filters": 4, "pool": 8}, {"filters": 4}]}
    with pytest.raises(ConfigError, match="batch normalisation needs two images at least"):
        settle(resolve_config("small", settings=lonely), digits, CPU, final=False)
    settle(resolve_config("small", settings={**lonely, "batch_norm": False}), digits, CPU, final=False)
    halved = {**lonely, "stages": [{"filters": 4, "pool": 4}, {"filters": 4, "pool": 2}], "attention_stage": 2}
    settle(resolve_config("small", settings=halved), digits, CPU, final=False)
    with pytest.raises(ConfigError, match="batch normalisation needs two images at least"):
        settle(
            resolve_config("small", settings={**halved, "attention": "residual_mask"}), digits, CPU, final=False
        )


def test_what_no_memory_holds_is_refused(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settle(resolve_config("minute", settings={"batch": 500}), digits, CPU, final=False)
    state = new_state(config, digits, CPU, final=False)
    monkeypatch.setattr(setup, "device_memory", lambda _: 20 * 2**20)
    with pytest.raises(ConfigError, match=r"maps of 500 images .* micro_batch=") as error:
        new_state(config, digits, CPU, final=False)
    parts = int(str(error.value).partition("micro_batch=")[2].partition(",")[0])
    again = new_state(config.replacing(micro_batch=parts), digits, CPU, final=False)
    for name, weight in state.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name])
    monkeypatch.setattr(setup, "device_memory", lambda _: 2**10)
    with pytest.raises(ConfigError, match=r"give a smaller size$"):
        new_state(config, digits, CPU, final=False)


def test_the_memory_there_is_is_that_of_the_system() -> None:
    told = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 0 < device_memory(CPU) <= told
