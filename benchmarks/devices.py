"""Training steps by one process of two threads, and by two processes of one thread each.

`python benchmarks/devices.py` takes the two in turn, as what else runs on the machine bears on both alike.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from statistics import median
from typing import TypeVar

import torch

from foveate.config import resolve_config
from foveate.data.augment import build_augment
from foveate.data.loader import Loader
from foveate.execution.devices import end_with_parent, run_on_devices
from foveate.model.build import build_model
from foveate.training.distributed import World
from foveate.training.loop import train_epochs
from foveate.training.optim import build_optimizer
from foveate.training.state import TrainingState
from harness import begin, command_line, print_row, write_record
from rates import CLASSES, noise

T = TypeVar("T")
CPU = torch.device("cpu")
WARM_UP = 2
"""Steps that are not counted."""


def main() -> None:
    """Measure and print; in one of the processes that this starts, train."""
    parser = command_line(
        __doc__,
        preset="minute",
        steps=(8, "counted steps in a round"),
        rounds=3,
        file=(Path, "where one of the processes leaves its figures"),
    )
    if "--file" in sys.argv:
        arguments = parser.parse_args()
        end_with_parent()
        arguments.file.write_text(json.dumps(train(arguments.preset, arguments.steps)))
        return
    arguments = begin(parser)
    found: dict[int, list[list[float]]] = {1: [], 2: []}
    for _ in range(arguments.rounds):
        for devices, rounds in found.items():
            rounds.append(measured(devices, arguments.preset, arguments.steps))
    print_row("processes × threads", "ms an image", "processor")
    record = {}
    for devices, rounds in found.items():
        wall, processor = ([1000 * each for each in values] for values in zip(*rounds, strict=True))
        name = f"{devices} × {2 // devices}"
        print_row(name, f"{median(wall):.2f}", f"{median(processor):.2f}")
        record[name] = {"ms_an_image": wall, "processor_ms_an_image": processor}
    write_record(arguments.json, record)


def measured(devices: int, preset: str, steps: int) -> list[float]:
    """Seconds an image, by the clock and of processors, where so many processes share the steps."""
    os.environ["OMP_NUM_THREADS"] = str(2 // devices)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "seconds.json"
        command = [sys.executable, __file__, "--preset", preset, "--steps", str(steps), "--file", str(file)]
        ended = run_on_devices(command, devices)
        if ended.status:
            raise SystemExit(ended.errors)
        seconds: list[float] = json.loads(file.read_text())
        return seconds


def train(preset: str, steps: int) -> list[float]:
    """Seconds an image: by the clock, and of processors, all processes together."""
    world, config = World.here(), resolve_config(preset, settings={"flip": 0.5, "resize_until": 0})
    images, labels = noise((WARM_UP + steps) * config.train.batch, 32, CPU)
    model = build_model(config.model, num_classes=CLASSES, size=32)
    model.init_whitening(images[:1000].permute(0, 3, 1, 2))
    draws = (torch.Generator().manual_seed(seed) for seed in (0, 1))
    state = TrainingState(model, build_optimizer(model, config.train), *draws)
    loader = Loader(images, labels, torch.arange(len(images)).numpy(), config.train.batch, seed=0)
    taken: list[tuple[float, float]] = []

    def track(items: Iterable[T], *, total: int, label: str, images_each: int = 1) -> Iterator[T]:  # noqa: ARG001
        for item in islice(items, WARM_UP + steps):
            yield item
            taken.append((time.perf_counter(), time.process_time()))

    augment = build_augment(config.augment, CLASSES)
    with world.connected(CPU):
        next(
            train_epochs(state, loader, None, config.train, augment=augment, device=CPU, world=world, track=track)
        )
        wall, processor = (torch.tensor(taken[-1]) - torch.tensor(taken[WARM_UP - 1])).tolist()
        both = torch.tensor([wall / world.size, processor], dtype=torch.float64)
        world.add_up([both])
    return (both / (steps * config.train.batch)).tolist()  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
