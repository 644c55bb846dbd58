"""How many images a run shows, and of which size, so that it ends within the seconds that there are."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from statistics import median
from typing import TypeVar, cast

import torch

from foveate.config import Config
from foveate.data.loader import Batch
from foveate.durations import told, written
from foveate.errors import ConfigError
from foveate.training.device import DeviceData
from foveate.training.fit import Fit
from foveate.training.settings import passes_per_epoch

T = TypeVar("T")
_END_S, _EPOCH_S = 4.0, 0.1
"""Seconds for the report and all that follows training; and to save after an epoch. Measured on two AVX2 cores."""
_FEWEST, _MOST = 1 / 4, 4
"""Images shown at least, before the size is lowered, and at most, as shares of the preset's length."""
_SMALLEST_SIDE = 32
"""Pixels to which the size is lowered at most: smaller photographs have lost what tells them apart."""
_LONG_ENOUGH_S, _STEPS = 2.0, 12
"""How long and how many steps are measured at most, after the first, which is slower."""


@dataclass(frozen=True)
class Rates:
    """What an image costs at a size, in seconds; at other sizes, in proportion to the area."""

    size: int
    step_s: float
    """In a training step."""
    small_step_s: float
    """The same, at the side that training begins with (`resize_scale`)."""
    measure_s: float
    """When it is measured."""


MINUTE_ON_TWO_CORES = Rates(size=64, step_s=9.6e-3, small_step_s=5.4e-3, measure_s=3.1e-3)
"""Of the preset `minute` on two cores with AVX2 of 2023 (EPYC), November 2026: 88,000 images of 64 px took 676 s.
In one thread a step took 3.2 and 8.2 ms of processor time an image at 32 and 48 px, and measuring .32 of that:
about in proportion to the area."""
DEFAULT_S = 270.0
"""What the usual preset may take by these rates: with starting and the report, five minutes."""


@dataclass(frozen=True)
class Counts:
    """Images of a data set as a run uses them."""

    train: int
    validation: int
    """0: nothing is measured after an epoch."""
    measured: int
    """At the end."""

    @classmethod
    def of(cls, training: DeviceData, own: DeviceData, *, final: bool) -> "Counts":
        """Of the data as a run trains on it, and as its splits are."""
        sizes = {name: len(indices) for name, indices in training.dataset.splits.items()}
        measured = len(own.dataset.splits.get("test" if final else "validation", ()))
        return cls(sizes["train"], sizes.get("validation", 0), measured)


@dataclass(frozen=True)
class Plan:
    """How long a run is, and what is said of it."""

    images_seen: int
    size: int
    seconds: float
    """How long it will take, by the rates."""
    full: int
    """Images that the preset shows."""
    full_s: float
    """Seconds that `full` takes at the size that was asked for."""


def full_length(config: Config, counts: Counts) -> int:
    """Images that the settings show."""
    return config.train.images_seen or (config.train.epochs or 1) * counts.train


def forecast(config: Config, rates: Rates, counts: Counts, images: int, size: int) -> float:
    """Seconds from the first step to the report, of a run that shows `images` of that `size`."""
    train = config.train
    small = train.resize_until if train.resize_scale < 1 else 0.0
    each = small * rates.small_step_s + (1 - small) * rates.step_s
    passes = train.passes_per_epoch or passes_per_epoch(images, counts.train)
    epochs = math.ceil(images / (passes * counts.train))
    others = int(config.model.has_attention) + (train.tta_views if train.tta_views > 1 else 0)
    asked = epochs * counts.validation + (others + (not counts.validation)) * counts.measured
    trained: float = images
    if train.regression_first:
        trained, asked = max(0, images - counts.train), asked + counts.train
        if not counts.validation:  # before it the same on four fifths, measured on the fifth after each epoch
            trained, asked = 1.8 * trained, asked + math.ceil(counts.train * (1 + epochs / 5))
    area = (size / rates.size) ** 2
    return area * (trained * each + asked * rates.measure_s) + _END_S + _EPOCH_S * epochs


def plan(
    config: Config,
    rates: Rates,
    counts: Counts,
    seconds: float,
    *,
    size: int,
    size_given: bool = False,
    spent: float = 0.0,
) -> Plan:
    """The longest run that ends within `seconds`, its schedule whole.

    Fewer images are shown first, down to a quarter of what the settings show; then they become smaller, down to
    32 px, unless the size is given; and then fewer are shown again. No more than four times the settings' length.

    Args:
        spent: seconds of those that a person gave which have passed before.

    Raises:
        ConfigError: when not one step fits.
    """
    full = full_length(config, counts)
    fewest = math.ceil(full * _FEWEST)
    images, side = _most_images(config, rates, counts, seconds, size), size
    if images < fewest and not size_given:
        lower = range(size - 1, min(_SMALLEST_SIDE, size) - 1, -1)
        fitting = (each for each in lower if forecast(config, rates, counts, fewest, each) <= seconds)
        side = next(fitting, lower[-1] if lower else size)
        images = _most_images(config, rates, counts, seconds, side)
    if images < 1:
        enough = forecast(config, rates, counts, fewest, side)
        least = forecast(config, rates, counts, config.train.batch, side)
        raise ConfigError(
            f"there are {max(0, round(seconds))} s left to train in, and one step and its measurement take about "
            f"{told(least)}: give --time {written(enough + spent)}"
        )
    return Plan(
        images_seen=images,
        size=side,
        seconds=forecast(config, rates, counts, images, side),
        full=full,
        full_s=forecast(config, rates, counts, full, size),
    )


def default_images(config: Config, counts: Counts, size: int) -> int:
    """Images that the usual preset shows where no length is given: the same everywhere, whatever the machine."""
    full = full_length(config, counts)
    most = _most_images(config, MINUTE_ON_TWO_CORES, counts, DEFAULT_S, size)
    return min(full, max(most, math.ceil(full * _FEWEST)))


def _most_images(config: Config, rates: Rates, counts: Counts, seconds: float, size: int) -> int:
    """The most images, in whole steps, whose forecast is within `seconds`; 0 where no step is."""
    batch = config.train.batch
    low, high = 0, max(1, math.ceil(_MOST * full_length(config, counts) / batch))
    while low < high:
        middle = (low + high + 1) // 2
        if forecast(config, rates, counts, middle * batch, size) <= seconds:
            low = middle
        else:
            high = middle - 1
    return low * batch


def measure_rates(config: Config, data: DeviceData, *, clock: Callable[[], float] = time.monotonic) -> Rates:
    """What an image costs here, by a few steps of the real training and batches of validation; they are dropped.

    A run that is begun afterwards draws what it would have drawn without.

    Args:
        config: as `resolve_settings` gives it.
        clock: seconds.

    Raises:
        ConfigError, TrainingError: as `Fit` and its epochs.
    """
    whole = _Stopwatch(clock, data.device)
    _begin(config.replacing(resize_until=0.0), data, whole)
    step = whole.each(training=True)
    small = step
    if config.train.resize_until and config.train.resize_scale < 1:
        smaller = _Stopwatch(clock, data.device)
        training = {"train": data.dataset.splits["train"]}
        _begin(config.replacing(resize_until=1.0), data.with_splits(training), smaller)
        small = smaller.each(training=True)
    measured = whole.each(training=False) if "validation" in data.dataset.splits else step
    return Rates(data.dataset.size, step, small, measured)


def _begin(config: Config, data: DeviceData, watch: "_Stopwatch") -> None:
    next(Fit(config.replacing(regression_first=False), data, start=False).epochs(track=watch.track))


@dataclass
class _Stopwatch:
    """Times the first few items of what it tracks, and ends it."""

    clock: Callable[[], float]
    device: torch.device
    taken: dict[str, list[float]] = field(default_factory=dict)

    def track(self, items: Iterable[T], *, total: int, label: str, images_each: int = 1) -> Iterator[T]:  # noqa: ARG002
        times = self.taken.setdefault("training" if label.startswith("epoch") else label, [])
        began = self.clock()
        for item in islice(items, _STEPS + 1):
            before = self.clock()
            yield item
            torch.get_device_module(self.device).synchronize()  # a GPU has been asked to do it, and no more
            times.append((self.clock() - before) / len(cast("Batch", item).labels))
            if len(times) > 1 and self.clock() - began >= _LONG_ENOUGH_S:
                return

    def each(self, *, training: bool) -> float:
        """Seconds for an image. The first batch is slower, and counts only where it is the only one."""
        times = self.taken["training" if training else "validation"]
        return median(times[1:] or times)
