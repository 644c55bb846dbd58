"""What a data set decides of the settings, and what is refused before anything is trained."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn

from foveate.config import resolve_config
from foveate.data.augment import build_augment
from foveate.data.dataset import Dataset, load_dataset
from foveate.errors import ConfigError
from foveate.model.attention_kinds import register_attention
from foveate.settings import DataConfig
from foveate.training.settings import balanced_weights, precision_told, resolve_settings, share_of_even_pixels


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", DataConfig(size=16))


def test_what_was_left_open_is_resolved(digits: Dataset) -> None:
    config = resolve_settings(resolve_config("minute"), digits)
    assert config.data.size == 16
    assert config.augment.flip == 0  # a mirrored 2 is none
    per_pass = len(digits.splits["train"])
    assert config.train.passes_per_epoch is not None
    assert (
        (config.train.passes_per_epoch - 1) * 20 * per_pass
        < 88_000
        <= config.train.passes_per_epoch * 20 * per_pass
    )


def test_balanced_weights_are_a_number_for_each_class(digits: Dataset) -> None:
    labels = digits.labels[digits.splits["train"]]
    theirs = compute_class_weight("balanced", classes=np.arange(10), y=labels)
    weights = balanced_weights(digits)
    assert weights == pytest.approx(tuple(theirs))
    assert np.mean([weights[label] for label in labels]) == pytest.approx(1)


def test_settings_of_a_run_leave_the_weights_of_classes_to_the_images_of_the_next(digits: Dataset) -> None:
    config = resolve_settings(resolve_config("small", settings={"class_weights": "balanced"}), digits)
    assert config.train.class_weights == "balanced"
    assert resolve_settings(config, digits) == config  # a run's own settings give the same run again
    given = config.replacing(class_weights=[2.0] * 10)  # as earlier versions kept it
    assert resolve_settings(given, digits).train.class_weights == (2.0,) * 10


def test_bf16_is_not_chosen_for_images_that_are_even_for_the_most_part(digits: Dataset) -> None:
    config = resolve_config("minute")
    assert resolve_settings(config, digits).train.precision == "auto"
    assert 0.1 < share_of_even_pixels(digits) < 0.25
    canvases = load_dataset("cue:images=100", DataConfig())
    assert share_of_even_pixels(canvases) > 0.8
    assert resolve_settings(config, canvases).train.precision == "fp32"
    asked = config.replacing(precision="bf16")
    assert resolve_settings(asked, canvases).train.precision == "bf16"


def test_float32_that_was_chosen_on_a_gpu_is_told(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    asked, canvases = resolve_config("minute"), load_dataset("cue:images=100", DataConfig())
    chosen = resolve_settings(asked, canvases)
    (told,) = precision_told([asked] * 2, [chosen] * 2, gpu)
    assert told.startswith("precision=auto is fp32 here: these images have large even areas")
    assert not precision_told([asked], [chosen], cpu)  # where it is fp32 for any images
    assert not precision_told([asked], [resolve_settings(asked, digits)], gpu)
    given = asked.replacing(precision="fp32")
    assert not precision_told([given], [resolve_settings(given, canvases)], gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    assert not precision_told([asked], [chosen], gpu)


def test_the_share_of_even_pixels_is_that_of_a_plain_loop(digits: Dataset) -> None:
    train = digits.splits["train"][:50]
    few = replace(digits, splits={"train": train})
    even = [
        bool(
            (image[row, column] == image[row, column + 1]).all()
            and (image[row, column] == image[row + 1, column]).all()
        )
        for image in digits.images[train]
        for row in range(len(image) - 1)
        for column in range(len(image) - 1)
    ]
    assert share_of_even_pixels(few) == pytest.approx(sum(even) / len(even))


def test_a_class_without_training_images_has_a_weight_all_the_same(digits: Dataset) -> None:
    train = digits.splits["train"]
    without = replace(digits, splits={"train": train[digits.labels[train] != 3]})
    weights = balanced_weights(without)
    assert weights[3] == 1
    assert np.mean([weights[label] for label in without.labels[without.splits["train"]]]) == pytest.approx(1)


def test_another_number_of_weights_than_classes_is_refused(digits: Dataset) -> None:
    given = resolve_config("small", settings={"class_weights": [1.0, 2.0]})
    with pytest.raises(
        ConfigError, match="class_weights has 2 numbers, and digits has 10 classes: give one for each"
    ):
        resolve_settings(given, digits)


def test_a_final_run_has_nothing_to_stop_it_or_to_choose_an_epoch_by(digits: Dataset) -> None:
    config = resolve_settings(resolve_config("small", settings={"patience": 3}), digits.for_final())
    assert (config.train.keep, config.train.patience) == ("last", None)


@pytest.mark.parametrize("preset", ["paper", "minute"])
def test_without_augmentation_images_stay_as_they_are(digits: Dataset, preset: str) -> None:
    loud = {"flip": 0.5, "shift": 0.2, "augmentations": ["colour", "mixup"], "augmentation": False}
    config = resolve_settings(resolve_config(preset, settings=loud), digits)
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
        resolve_settings(resolve_config("small", settings=lonely), digits)
    resolve_settings(resolve_config("small", settings={**lonely, "batch_norm": False}), digits)
    halved = {**lonely, "stages": [{"filters": 4, "pool": 4}, {"filters": 4, "pool": 2}], "attention_stage": 2}
    resolve_settings(resolve_config("small", settings=halved), digits)
    with pytest.raises(ConfigError, match="batch normalisation needs two images at least"):
        resolve_settings(resolve_config("small", settings={**halved, "attention": "residual_mask"}), digits)


def test_several_devices_share_steps_that_are_large_enough(digits: Dataset) -> None:
    config = resolve_config("small", settings={"batch": 6, "stages": [{"filters": 4, "pool": 8}, {"filters": 4}]})
    assert resolve_settings(config, digits, 2) == resolve_settings(config, digits)
    with pytest.raises(ConfigError, match="batch normalisation needs two images at least"):
        resolve_settings(config, digits, 3)
    with pytest.raises(
        ConfigError, match="6 devices share steps of 5 images: give a larger batch or fewer devices"
    ):
        resolve_settings(config, digits, 6)


@pytest.mark.parametrize("kind", ["none", "luong"])
def test_weights_that_no_memory_holds_are_refused_before_they_are_made(digits: Dataset, kind: str) -> None:
    stages = [{"filters": 4096, "kernels": [15] * 8}]
    config = resolve_config("small", settings={"stages": stages, "attention_stage": 1, "attention": kind})
    with pytest.raises(ConfigError, match=r"takes [\d,]+ GiB for its weights alone, .*: give fewer filters"):
        resolve_settings(config, digits)


class Positions(nn.Module):
    """Adds to each position of an 8×8 map what it has learned of it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.learned = nn.Parameter(torch.zeros(channels, 8, 8))

    def forward(self, maps: Tensor) -> Tensor:
        return maps + self.learned


def test_a_custom_attention_is_tried_at_each_size_that_is_trained_on(digits: Dataset) -> None:
    asked = {"attention": register_attention(Positions), "whiten": 0, "attention_stage": 1}
    config = resolve_config("minute", settings=asked)
    with pytest.raises(ConfigError, match="this is at 12 px, with which training begins: give resize_until=0"):
        resolve_settings(config, digits)
    resolve_settings(config.replacing(resize_until=0.0), digits)
