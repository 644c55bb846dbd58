"""How long `train` trains where no length is given, and where it is given in minutes."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from foveate.config import Config, resolve_config
from foveate.durations import seconds, told, written
from foveate.errors import ConfigError
from foveate.training.device import DeviceData
from foveate.training.features import sees_features
from foveate.training.length import (
    MINUTE_ON_TWO_CORES,
    Counts,
    Plan,
    default_images,
    forecast,
    full_length,
    measure_rates,
    plan,
)
from foveate.training.settings import resolve_settings
from foveate.workflows.next_step import TUNED_FROM
from foveate.workflows.request import Display

_LENGTHS = ("epochs", "images_seen")
_TUNED = "photos-tuned"
_NO_LENGTH = "preset {} looks at each image once: --time does not change how long that takes"


@dataclass
class Budget:
    """The seconds that a person gives, of which decoding takes none."""

    asked: str
    clock: Callable[[], float] = time.monotonic
    began: float = field(init=False)
    seconds: float = field(init=False)

    def __post_init__(self) -> None:
        self.began, self.seconds = self.clock(), seconds(self.asked)

    @property
    def spent(self) -> float:
        """Seconds that have passed."""
        return self.clock() - self.began

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.seconds - self.spent

    @contextlib.contextmanager
    def paused(self, display: Display) -> Iterator[None]:
        """What goes on inside is not counted; it is said where it took long."""
        began = self.clock()
        yield
        took = self.clock() - began
        self.began += took
        if took >= 1:
            display.say(f"the images were read and decoded in {told(took)}, which --time does not count")


@dataclass(frozen=True)
class Loaded:
    """A data set on a device: in its own splits, and as a run trains on it."""

    own: DeviceData
    training: DeviceData
    final: bool

    @property
    def counts(self) -> Counts:
        """Its images."""
        return Counts.of(self.training, self.own, final=self.final)


def check_time(budget: Budget | None, given: Iterable[str]) -> None:
    """Refuse a length in images or epochs beside one in minutes.

    Args:
        given: names of the settings that are given.

    Raises:
        ConfigError: for that.
    """
    if budget is None:
        return
    for name in given:
        if name.rpartition(".")[2] in _LENGTHS:
            raise ConfigError(
                f"--time {budget.asked} says how long to train, and so does {name}: give one of them"
            )


def default_length(config: Config, given: Iterable[str], loaded: Loaded, display: Display) -> dict[str, Any]:
    """The settings that let the usual preset end in five minutes on two cores; none where it does so by itself.

    Args:
        given: names of the settings that are given.
    """
    if any(name.rpartition(".")[2] in _LENGTHS for name in given):
        return {}
    size, counts = loaded.own.dataset.size, loaded.counts
    full, images = full_length(config, counts), default_images(config, counts, size)
    if images >= full:
        return {}
    takes, whole = (forecast(config, MINUTE_ON_TWO_CORES, counts, each, size) for each in (images, full))
    display.say(
        f"{images:,} images of {size} px are shown, which take about {told(takes)} on two cores: "
        f"--preset {config.preset} shows {full:,}, in about {told(whole)} "
        "(on 5,000 photographs of 64 px that gave 77.4 % in place of 74.9)"
    )
    return {"images_seen": images}


def photos_in_time(loaded: Loaded, budget: Budget, settings: dict[str, Any], display: Display) -> str:
    """Which preset for photographs the time allows: `photos-tuned` from 500 training images on, where it fits."""
    if loaded.counts.train < TUNED_FROM:
        display.say(_NO_LENGTH.format("photos"))
        return "photos"
    tuned = resolve_config(_TUNED, settings=settings)
    rates = measure_rates(resolve_settings(tuned, loaded.training.dataset), loaded.training, clock=budget.clock)
    full = full_length(tuned, loaded.counts)
    takes = forecast(tuned, rates, loaded.counts, full, loaded.own.dataset.size)
    if takes <= budget.left:
        display.say(f"preset {_TUNED}, about {told(takes)} here, trains a part of that network too")
        return _TUNED
    more = written(takes + budget.spent)
    display.say(f"--preset {_TUNED}, which trains a part of that network too, would fit into --time {more}")
    return "photos"


def length_in_time(
    asked: Config, loaded: Loaded, budget: Budget, load: Callable[[Config], Loaded], display: Display
) -> tuple[dict[str, Any], Loaded]:
    """The settings that let a run end in time, by what this machine takes for a few steps; and the data for them.

    Args:
        asked: the settings, as given.
        load: the data set at the size of other settings.

    Raises:
        ConfigError: when the time does not suffice for one step.
    """
    if sees_features(resolve_settings(asked, loaded.training.dataset)):
        display.say(_NO_LENGTH.format(asked.preset))
        return {}, loaded
    wanted, chosen = loaded.own.dataset.size, {}
    while True:
        size = loaded.own.dataset.size
        rates = measure_rates(
            resolve_settings(asked, loaded.training.dataset), loaded.training, clock=budget.clock
        )
        fixed = asked.data.size is not None
        found = plan(asked, rates, loaded.counts, budget.left, size=size, size_given=fixed, spent=budget.spent)
        if found.size == size:
            break
        chosen = {"size": found.size}
        asked = asked.replacing(size=found.size)
        with budget.paused(display):
            loaded = load(asked)
    display.say(_words(found, wanted, budget))
    return {**chosen, "images_seen": found.images_seen}, loaded


def _words(found: Plan, wanted: int, budget: Budget) -> str:
    smaller = f", not {wanted}" if found.size < wanted else ""
    line = (
        f"{found.images_seen:,} images of {found.size} px{smaller} are shown, and all ends in about "
        f"{told(budget.spent + found.seconds)}"
    )
    if found.images_seen >= found.full:
        return line
    whole = told(found.full_s + budget.spent)
    return f"{line}: the preset's {found.full:,} would take about {whole}"
