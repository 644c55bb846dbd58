"""A training in one of several processes: `python shared_training.py MODE FOLDER` writes what it came to there."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from foveate.config import resolve_config
from foveate.data.augment import as_they_are, build_augment
from foveate.data.loader import Loader
from foveate.model.build import build_model
from foveate.training.distributed import World
from foveate.training.loop import train_epochs
from foveate.training.optim import build_optimizer
from foveate.training.state import TrainingState

CPU = torch.device("cpu")
PLAIN = {
    "optimizer": "sgd", "schedule": "linear", "gradient_clip": 1.0, "batch_norm": False, "dropout": False,
    "attention": "luong", "batch": 9, "micro_batch": 3, "epochs": 10,
}  # fmt: skip
"""50 steps over 44 images: batches of 8 and 9 images, whose halves differ, in one or two parts."""
EVERYTHING = {
    "optimizer": "muon", "lr": 0.05, "attention": "luong", "batch": 9, "epochs": 4, "dropout": True,
    "augmentations": ["colour", "cutmix"],
}  # fmt: skip
STAGES = [{"filters": 4, "kernels": [3], "pool": 2}, {"filters": 6, "kernels": [3], "pool": 3, "dropout": 0.25}]


class InDoubles(nn.Module):
    """Pixels to 0…1, in double precision."""

    def forward(self, images: Tensor) -> Tensor:
        return images.double() / 255


def loader(batch: int) -> Loader:
    """Three classes told apart by their brightest channel."""
    rng = np.random.default_rng(0)
    labels = np.arange(44) % 3
    images = rng.integers(0, 128, (44, 16, 16, 3), dtype=np.uint8)
    images[np.arange(44), :, :, labels] += 60
    return Loader(torch.from_numpy(images), torch.from_numpy(labels), np.arange(44), batch, seed=0)


def trained(mode: str, world: World) -> TrainingState:
    """The state at the end."""
    given: dict[str, Any] = {"stages": STAGES, "hidden": 8, "flip": 0.5}
    config = resolve_config("small", settings={**given, **(PLAIN if mode == "plain" else EVERYTHING)})
    torch.manual_seed(0)
    model = build_model(config.model, num_classes=3, size=16, generator=torch.Generator().manual_seed(world.rank))
    if mode == "plain":
        model.normalize = InDoubles()
        model.double()
    draws = (torch.Generator().manual_seed(seed) for seed in (2, 3))
    state = TrainingState(model, build_optimizer(model, config.train), *draws)
    augment = as_they_are if mode == "plain" else build_augment(config.augment, 3)
    images = loader(config.train.batch)
    list(train_epochs(state, images, images, config.train, augment=augment, device=CPU, world=world))
    return state


def main() -> None:
    _, mode, folder = sys.argv
    world = World.here()
    with world.connected(CPU):
        state = trained(mode, world)
        rows = [[row.train_loss, row.train_accuracy, row.val_loss] for row in state.history]
        draws = {"augment": state.generator.get_state(), "extras": state.extras.get_state()}
        found = {**state.model.state_dict(), "history": torch.tensor(rows, dtype=torch.float64), **draws}
        save_file(
            {name: each.contiguous() for name, each in found.items()}, Path(folder) / f"{world.rank}.safetensors"
        )
        assert world.tell({"from": world.rank}) == {"from": 0}
        world.wait()


if __name__ == "__main__":
    main()
