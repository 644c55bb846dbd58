from collections.abc import Callable

import numpy as np
import pytest
import torch

from foveate.config import Config, resolve_config
from foveate.data.augment import Augment, build_augment
from foveate.data.dataset import Dataset
from foveate.data.loader import Loader
from foveate.model.build import build_model
from foveate.settings import AugmentConfig
from foveate.training.optim import build_optimizer
from foveate.training.state import TrainingState

TINY = {
    "stages": [
        {"filters": 4, "kernels": [3], "pool": 2},
        {"filters": 6, "kernels": [3], "pool": 3, "dropout": 0.25},
    ],
    "hidden": 8,
    "epochs": 3,
    "batch": 8,
    "flip": 0.5,
}

QUICK = {
    "stages": [{"filters": 6, "kernels": [3, 3]}, {"filters": 8, "kernels": [3, 3, 3], "dropout": 0.25}],
    "images_seen": 190,
    "passes_per_epoch": 2,
    "batch": 8,
    "flip": 0.5,
    "resize_scale": 0.75,
    "resize_until": 0.4,
}
"""Two epochs of two passes over 44 images, the second of them cut short."""


@pytest.fixture
def tiny() -> Callable[..., Config]:
    """Settings of a network that trains in milliseconds."""
    return lambda **settings: resolve_config("small", settings={**TINY, **settings})


@pytest.fixture
def quick() -> Callable[..., Config]:
    """The same with everything that makes `minute` fast: Muon, crops, alternating flips, small images first."""
    return lambda **settings: resolve_config("minute", settings={**QUICK, **settings})


@pytest.fixture
def loaders() -> tuple[Loader, Loader]:
    """Three classes told apart by their brightest channel: 44 images to train on, 12 to validate."""
    rng = np.random.default_rng(0)
    labels = np.arange(56) % 3
    images = rng.integers(0, 128, (56, 16, 16, 3), dtype=np.uint8)
    images[np.arange(56), :, :, labels] += 60
    pixels, targets = torch.from_numpy(images), torch.from_numpy(labels)
    return (
        Loader(pixels, targets, np.arange(44), 8, seed=0),
        Loader(pixels, targets, np.arange(44, 56), 8),
    )


@pytest.fixture
def fresh() -> Callable[[Config], TrainingState]:
    """A state before its first step, seeded as the workflow does it."""

    def make(config: Config) -> TrainingState:
        torch.manual_seed(config.train.seed)
        model = build_model(config.model, num_classes=3, size=16, generator=torch.Generator().manual_seed(1))
        draws = (torch.Generator().manual_seed(seed) for seed in (2, 3))
        return TrainingState(model, build_optimizer(model, config.train), *draws)

    return make


@pytest.fixture
def augment() -> Augment:
    """The paper's augmentation."""
    return build_augment(AugmentConfig(flip=0.5, shift=0.1, rotation=15.0, zoom=0.1), 3)


@pytest.fixture
def two_classes() -> Callable[..., Dataset]:
    """Makes a data set of the images `ids`, all in one split."""

    def make(
        ids: list[str],
        labels: list[int],
        class_names: tuple[str, str] = ("a", "b"),
        groups: tuple[str, ...] | None = None,
        split: str = "validation",
    ) -> Dataset:
        return Dataset(
            name="two",
            location="two",
            class_names=class_names,
            images=np.zeros((len(ids), 4, 4, 3), np.uint8),
            labels=np.array(labels),
            ids=ids,
            groups=groups,
            splits={split: np.arange(len(ids))},
            bad=(),
            notes=(),
            fingerprint="f" * 64,
            mirror_safe=True,
        )

    return make
