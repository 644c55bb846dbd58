"""Our side of `train_step.py`: the product's own loop over one resident batch; prints a JSON object."""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch is imported

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from foveate.allocator import keep_freed_memory
from foveate.config import Config, resolve_config
from foveate.data.augment import geometric_batch
from foveate.data.loader import Loader
from foveate.model.build import build_model
from foveate.training.loop import TrainingState, train_epochs
from foveate.training.optim import build_optimizer

T = TypeVar("T")

CLASSES, SIZE = 10, 32
MOST_STEPS = 10_000
"""Of one epoch: more than a process has time for."""
WARM_UP = 3
"""Steps that are not counted: memory is allocated and kernels are chosen in them."""


class Stopwatch:
    """A `Track` that ends the epoch after `seconds` of counted steps; counts the first step's operations."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.step_seconds: list[float] = []
        self.flops = 0

    def __call__(self, items: Iterable[T], *, total: int, label: str, images_each: int = 1) -> Iterator[T]:  # noqa: ARG002
        """Yield `items`, timing what is done with each."""
        for number, item in enumerate(items):
            if number == 0:
                with FlopCounterMode(display=False) as counter:
                    yield item
                self.flops = counter.get_total_flops()
                continue
            began = time.perf_counter()
            yield item
            if number >= WARM_UP:
                self.step_seconds.append(time.perf_counter() - began)
            if self.step_seconds and sum(self.step_seconds) >= self.seconds:
                return


class Augmentation:
    """The paper's geometric family, timed."""

    def __init__(self, config: Config) -> None:
        flip = 0.5 if config.augment.flip is None else config.augment.flip
        self.settings = config.augment.model_dump() | {"flip": flip}
        self.seconds: list[float] = []

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augment a batch."""
        began = time.perf_counter()
        augmented = geometric_batch(images, generator, **self.settings)
        self.seconds.append(time.perf_counter() - began)
        return augmented


def identity(images: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG001
    """No augmentation."""
    return images


def matmul_gflop_per_s(seconds: float) -> dict[str, float]:
    """The best rates of fp32 matrix products of 2048² and 3072², each tried at least once.

    torch multiplies by MKL, which leaves half of some processors' vector width idle, and convolves by oneDNN, so
    oneDNN's own product is measured as well: a step beats the other without effort there.
    """
    best, until = {"torch.mm": 0.0, "oneDNN": 0.0}, time.perf_counter() + seconds
    while True:
        for side in (2048, 3072):
            left, right, out = torch.randn(3, side, side).unbind()
            products: dict[str, Callable[[], object]] = {"torch.mm": partial(torch.mm, left, right, out=out)}
            if torch.backends.mkldnn.is_available():
                products["oneDNN"] = partial(F.linear, left.to_mkldnn(), right.to_mkldnn())
            for name, product in products.items():
                product()
                began = time.perf_counter()
                product()
                best[name] = max(best[name], 2 * side**3 / (time.perf_counter() - began) / 1e9)
        if time.perf_counter() >= until:
            return best


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--augment", action="store_true")
    arguments = parser.parse_args()
    keep_freed_memory()  # as `foveate.train` does
    if arguments.threads:
        torch.set_num_threads(arguments.threads)

    config = resolve_config("paper", settings={"batch": arguments.batch, "epochs": 1, "device": "cpu"})
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (arguments.batch, SIZE, SIZE, 3), np.uint8)
    labels = random.integers(0, CLASSES, arguments.batch)
    # One epoch goes over the same batch until the stopwatch ends it.
    loader = Loader(
        images, labels, np.tile(np.arange(arguments.batch), 1_000_000 // arguments.batch), arguments.batch
    )
    model = build_model(config.model, num_classes=CLASSES, size=SIZE)
    state = TrainingState(model, build_optimizer(model, config.train), torch.Generator().manual_seed(0))
    stopwatch, augmentation = Stopwatch(arguments.seconds), Augmentation(config)

    before = matmul_gflop_per_s(arguments.seconds / 10)
    augment = augmentation if arguments.augment else identity
    for _ in train_epochs(
        state, loader, None, config.train, augment=augment, device=torch.device("cpu"), track=stopwatch
    ):
        pass
    after = matmul_gflop_per_s(arguments.seconds / 10)
    counted = len(stopwatch.step_seconds)
    result = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "images_per_s": [arguments.batch / seconds for seconds in stopwatch.step_seconds],
        "gflop_per_image": stopwatch.flops / arguments.batch / 1e9,
        "matmul_gflop_per_s": {name: [before[name], after[name]] for name in before},
        "augment_share": (
            sum(augmentation.seconds[-counted:]) / sum(stopwatch.step_seconds) if arguments.augment else None
        ),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
