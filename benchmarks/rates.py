"""The product's own loop, ended after some seconds or steps, and the matrix product that it is compared with."""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import foveate
from foveate.config import Config
from foveate.data.augment import Augment
from foveate.data.loader import Loader
from foveate.inference.network import collect_logits
from foveate.model.build import build_model
from foveate.training.loop import train_epochs
from foveate.training.optim import build_optimizer
from foveate.training.state import TrainingState
from foveate.workflows.request import NullDisplay
from harness import anonymous

T = TypeVar("T")

CLASSES = 10
WARM_UP = 3
"""Steps that are not counted: memory is allocated and kernels are chosen in them."""
GPU_WARM_UP, GPU_STEPS_TIMED_AT_ONCE = 20, 20
"""A GPU captures its graphs in the first, and is waited for only after this many steps."""
LEAST_PRODUCT_S = 0.1
"""Smaller products are enough where nobody has time for large ones, as in a test: their rate is no figure."""
MAX_IMAGES = 4_000_000
"""In one epoch: more than a measurement has time for."""


class Stopwatch:
    """A `Track` that times steps and ends the epoch after `seconds` of counted ones."""

    def __init__(self, seconds: float, device: torch.device) -> None:
        self.seconds = seconds
        self.device = device
        self.step_seconds: list[float] = []

    def __call__(self, items: Iterable[T], *, total: int, label: str, images_each: int = 1) -> Iterator[T]:  # noqa: ARG002
        """Yield `items`; each step's time includes making its item."""
        on_gpu = self.device.type == "cuda"
        warm_up, at_once = (GPU_WARM_UP, GPU_STEPS_TIMED_AT_ONCE) if on_gpu else (WARM_UP, 1)
        began = time.perf_counter()
        for number, item in enumerate(items, start=1):
            yield item
            if number <= warm_up:
                began = clock(self.device)
            elif (number - warm_up) % at_once == 0:
                now = clock(self.device)
                self.step_seconds.append((now - began) / at_once)
                began = now
                if sum(self.step_seconds) * at_once >= self.seconds:
                    return


class _EnoughError(Exception):
    """Ends training after the last step that was asked for."""


def train_steps(
    data: str | Path, steps: int, after_step: Callable[[int], None] = lambda _: None, **arguments: Any
) -> None:
    """Call `foveate.train` on `data`, as the command line does, and stop it after `steps` steps.

    Args:
        after_step: is given the number of steps done so far.
        arguments: given to `foveate.train`; the run folder is thrown away.
    """
    done = 0

    def track(items: Iterable[T], *, total: int, label: str, images_each: int = 1) -> Iterator[T]:  # noqa: ARG001
        nonlocal done
        for item in items:
            yield item
            if label.startswith("epoch "):
                done += 1
                after_step(done)
                if done >= steps:
                    raise _EnoughError

    display = NullDisplay()
    display.track = track
    with tempfile.TemporaryDirectory() as runs, contextlib.suppress(_EnoughError):
        foveate.train(data, runs=runs, display=display, **arguments)


def sample_steps(data: str | Path, steps: int, **arguments: Any) -> dict[str, Any]:
    """Train for `steps`: the time of one, and RssAnon at every eighth of them from a quarter on."""
    moments: list[float] = []
    anonymous_mb: list[float] = []
    sampled = {max(1, eighth * steps // 8) for eighth in range(2, 9)}

    def sample(step: int) -> None:
        moments.append(time.perf_counter())
        if step in sampled:
            anonymous_mb.append(anonymous() / 1e6)

    began = time.perf_counter()
    train_steps(data, steps, sample, **arguments)
    step_s = float(statistics.median(np.diff(moments)[WARM_UP:]))
    begin_s = moments[0] - began
    return {"begin_s": begin_s, "step_s": step_s, "steps": len(moments), "rss_anon_mb": anonymous_mb}


def clock(device: torch.device) -> float:
    """Seconds, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def noise(count: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images [N, H, W, C] of random pixels, and labels [N]."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, size, size, 3), np.uint8)
    return torch.from_numpy(images).to(device), torch.from_numpy(random.integers(0, CLASSES, count)).to(device)


def _over_and_over(count: int) -> NDArray[np.int64]:
    """Indices of `count` images, many times: one long epoch, which a stopwatch ends."""
    return np.tile(np.arange(count), max(1, MAX_IMAGES // count))


def _new_state(config: Config, images: Tensor) -> TrainingState:
    """The state before the first step, on the device of `images` [N, H, W, C], which fit a whitening stem."""
    model = build_model(config.model, num_classes=CLASSES, size=images.shape[1])
    model.init_whitening(images.cpu().permute(0, 3, 1, 2))
    model.to(images.device)
    generators = (torch.Generator(images.device).manual_seed(seed) for seed in (0, 1))
    return TrainingState(model, build_optimizer(model, config.train), *generators)


def training_rates(
    config: Config, images: Tensor, labels: Tensor, seconds: float, augment: Augment
) -> tuple[list[float], float]:
    """Images per second in each step of the product's loop, and the operations per image in GFLOP.

    Where a preset begins with smaller images, the steps at full size are measured.
    """
    batch, device = config.train.batch, images.device
    config = config.replacing(epochs=1, resize_until=0)
    loader = Loader(images, labels, _over_and_over(len(images)), batch, seed=0)
    state, stopwatch = _new_state(config, images), Stopwatch(seconds, device)
    gflop = _training_gflop(state.model, next(loader.epoch()).images)
    for _ in train_epochs(state, loader, None, config.train, augment=augment, device=device, track=stopwatch):
        pass
    return [batch / each for each in stopwatch.step_seconds], gflop


def _training_gflop(model: nn.Module, images: Tensor) -> float:
    """GFLOP per image [N, C, H, W] of convolutions and matrix products, forward and backward, no optimizer."""
    # The fused kernel of attention is not counted on a CPU; the plain one is, on any device.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(images).sum().backward()
    return counter.get_total_flops() / len(images) / 1e9


def run_gflop(config: Config, size: int) -> float:
    """The operations of a whole training on images of `size`, in GFLOP; `config` gives its length in images."""
    train, (images, _) = config.train, noise(2, size, torch.device("cpu"))
    model = _new_state(config, images).model
    whole, small = (
        _training_gflop(model, torch.zeros(2, 3, side, side)) for side in (size, round(size * train.resize_scale))
    )
    assert train.images_seen is not None
    return train.images_seen * (train.resize_until * small + (1 - train.resize_until) * whole)


def inference_rates(
    config: Config, images: Tensor, labels: Tensor, seconds: float, batch: int
) -> tuple[list[float], float]:
    """Images per second in each batch of the product's evaluation, and the operations per image in GFLOP."""
    device = images.device
    loader = Loader(images, labels, _over_and_over(len(images)), batch)
    model, stopwatch = _new_state(config, images).model.eval(), Stopwatch(seconds, device)
    first = next(loader.epoch())
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.inference_mode():
        model(first.images)
    collect_logits(model, loader, device=device, precision=config.train.precision, label="", track=stopwatch)
    return [batch / each for each in stopwatch.step_seconds], counter.get_total_flops() / len(first.labels) / 1e9


def matmul_gflop_per_s(seconds: float, device: torch.device | str = "cpu") -> dict[str, float]:
    """The best rates of matrix products of two sizes in `seconds`, in fp32 and on a GPU in bf16 too.

    On a CPU torch multiplies by MKL, which leaves half of some processors' vector width idle, and convolves by
    oneDNN, so oneDNN's own product is measured as well: a step beats the other without effort there.
    """
    device = torch.device(device)
    on_gpu, best = device.type == "cuda", dict[str, float]()
    sides = (8192, 12288) if on_gpu else (2048, 3072) if seconds >= LEAST_PRODUCT_S else (512,)
    until = time.perf_counter() + seconds
    while not best or time.perf_counter() < until:
        for side in sides:
            left, right, out = torch.randn(3, side, side, device=device).unbind()
            products: dict[str, Callable[[], object]] = {"torch.mm": partial(torch.mm, left, right, out=out)}
            if on_gpu:
                products["bf16"] = partial(torch.mm, left.bfloat16(), right.bfloat16())
            elif torch.backends.mkldnn.is_available():
                products["oneDNN"] = partial(F.linear, left.to_mkldnn(), right.to_mkldnn())
            for name, product in products.items():
                product()
                began = clock(device)
                product()
                best[name] = max(best.get(name, 0.0), 2 * side**3 / (clock(device) - began) / 1e9)
    return best
