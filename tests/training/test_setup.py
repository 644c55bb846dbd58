from pathlib import Path

import pytest
import torch

from foveate.config import DataConfig, resolve_config
from foveate.data.augment import build_augment
from foveate.data.dataset import Dataset, load_dataset
from foveate.data.loader import fold_in_seed
from foveate.errors import ConfigError
from foveate.memory import device_memory
from foveate.model import attention
from foveate.model.build import build_model
from foveate.training import setup
from foveate.training.setup import DRAWS, device_for, new_state, settle, with_place

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", DataConfig(size=16))


def test_settling_finds_what_was_left_open(digits: Dataset) -> None:
    config = settle(resolve_config("minute"), digits, final=False)
    assert config.data.size == 16
    assert config.augment.flip == 0  # a mirrored 2 is none
    per_pass = len(digits.splits["train"])
    assert config.train.passes is not None
    assert (config.train.passes - 1) * 20 * per_pass < 88_000 <= config.train.passes * 20 * per_pass


def test_device_and_threads_stay_as_they_were_asked_for_but_where_many_processes_share_the_work(
    digits: Dataset,
) -> None:
    config = settle(resolve_config("minute"), digits, final=False)
    assert (config.train.device, config.train.threads) == ("auto", None)
    shared = with_place(config, CPU).train
    assert (shared.device, shared.threads) == ("cpu", torch.get_num_threads())


@pytest.mark.parametrize("kind", ["none", "luong"])
def test_weights_that_no_memory_holds_are_refused_before_they_are_made(digits: Dataset, kind: str) -> None:
    stages = [{"filters": 4096, "kernels": [15] * 8}]
    config = resolve_config("small", settings={"stages": stages, "attention_stage": 1, "attention": kind})
    with pytest.raises(ConfigError, match=r"takes [\d,]+ GiB for its weights alone, .*: give fewer filters"):
        settle(config, digits, final=False)


class TestDevice:
    def test_what_a_run_asked_for_elsewhere_falls_back_to_auto_with_a_line(self) -> None:
        device, lines = device_for(None, "cuda:0")
        assert device == CPU
        assert lines == ["device='cuda:0' of the run is not there on this machine: cpu is used"]
        assert device_for(None, "cpu") == device_for("cpu", "cuda:0") == (CPU, [])

    @pytest.mark.parametrize("name", ["cuda:0", "mps", "cuda:7"])
    def test_what_is_asked_for_now_must_be_there(self, name: str) -> None:
        with pytest.raises(ConfigError, match=f"device='{name}' is not there on this machine: use cpu or auto"):
            device_for(name, "cpu")
        with pytest.raises(ConfigError, match="'gpu' is not a device"):
            device_for("gpu")

    def test_an_apple_gpu_is_only_taken_by_its_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
        device, lines = device_for("auto")
        assert device == CPU
        assert len(lines) == 1
        assert "--device mps turns it on" in lines[0]
        assert device_for("mps") == (torch.device("mps"), [])
        assert device_for("cpu") == (CPU, [])


class TestDraws:
    def test_every_purpose_draws_from_a_seed_of_its_own(self, digits: Dataset) -> None:
        config = settle(resolve_config("small", settings={"seed": 3}), digits, final=False)
        state = new_state(config, digits, CPU, final=False)
        order = [fold_in_seed(3, number) for number in range(1000)]  # of the loader's passes
        seeds = [*setup._seeds(3, DRAWS).values(), *order, 3]
        assert len(set(seeds)) == len(seeds)
        used = {state.generator.initial_seed(), state.extras.initial_seed(), torch.initial_seed()}
        assert used < set(setup._seeds(3, DRAWS).values())
        assert len(used) == 3

    def test_unfinished_work_of_before_keeps_its_draws(self, digits: Dataset) -> None:
        """By 1 weights, dropout and augmentation all draw from the seed itself."""
        config = settle(resolve_config("small", settings={"seed": 3}), digits, final=False)
        old, new = (new_state(config, digits, CPU, final=False, draws=draws) for draws in (1, 2))
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
        seeds = setup._seeds(0, DRAWS)
        assert len({seeds[name] for name in ("weights", "custom weights", "dropout")}) == 3


def test_a_final_run_has_nothing_to_stop_it_or_to_choose_an_epoch_by(digits: Dataset) -> None:
    config = settle(resolve_config("small", settings={"patience": 3}), digits, final=True)
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
    config = settle(resolve_config("minute", settings={"attention": "custom:Pointwise"}), digits, final=False)
    one, other = (new_state(config, digits, CPU, final=False).model.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("preset", ["paper", "minute"])
def test_without_augmentation_images_stay_as_they_are(digits: Dataset, preset: str) -> None:
    loud = {"flip": 0.5, "shift": 0.2, "extra": ["colour", "mixup"], "augmentation": False}
    config = settle(resolve_config(preset, settings=loud), digits, final=False)
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
        settle(resolve_config("small", settings=lonely), digits, final=False)
    settle(resolve_config("small", settings={**lonely, "batch_norm": False}), digits, final=False)
    halved = {**lonely, "stages": [{"filters": 4, "pool": 4}, {"filters": 4, "pool": 2}], "attention_stage": 2}
    settle(resolve_config("small", settings=halved), digits, final=False)
    with pytest.raises(ConfigError, match="batch normalisation needs two images at least"):
        settle(resolve_config("small", settings={**halved, "attention": "residual_mask"}), digits, final=False)


def test_what_no_memory_holds_is_refused(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settle(resolve_config("minute", settings={"batch": 500}), digits, final=False)
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
