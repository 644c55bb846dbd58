"""Every preset, at any size and number of classes that data may have."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import foveate
from foveate.config import preset_names, resolve_config
from foveate.data.augment import build_augment
from foveate.data.loader import Loader
from foveate.model.build import build_model
from foveate.training.loop import TrainingState, train_epochs
from foveate.training.optim import build_optimizer


@pytest.mark.slow
@pytest.mark.parametrize(("size", "classes"), [(16, 200), (32, 2), (64, 200), (96, 2)])
@pytest.mark.parametrize("name", preset_names())
def test_every_preset_trains_two_steps(name: str, size: int, classes: int) -> None:
    config = resolve_config(name, settings={"batch": 2, "epochs": 1, "flip": 0.5})
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, size, size, 3), generator=generator).to(torch.uint8)
    labels = torch.tensor([0, classes - 1, 1, 0])
    model = build_model(config.model, (0.5,) * 3, (0.25,) * 3, num_classes=classes, size=size, generator=generator)
    model.init_whitening(images.permute(0, 3, 1, 2))
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    state = TrainingState(model, build_optimizer(model, config.train), generator, generator)
    (row,) = train_epochs(
        state,
        Loader(images, labels, np.arange(4), config.train.batch, seed=0),
        None,
        config.train,
        augment=build_augment(config.augment, classes),
        device=torch.device("cpu"),
    )
    assert math.isfinite(row.train_loss)
    assert model.eval()(images.permute(0, 3, 1, 2)).shape == (4, classes)
    still = {key for key, value in model.named_parameters() if torch.equal(value, before[key])}
    fixed = {key for key, value in model.named_parameters() if not value.requires_grad}
    assert still == fixed
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "muon"])
@pytest.mark.parametrize("name", ["small", "minute"])
def test_every_optimizer_learns_with_its_own_rates(name: str, optimizer: str, tmp_path: Path) -> None:
    length = {"epochs": 3} if name == "small" else {"images_seen": 5000}
    run = foveate.train("digits", preset=name, runs=tmp_path, size=16, optimizer=optimizer, **length)
    assert run.metrics["validation"]["accuracy"] > 0.5
