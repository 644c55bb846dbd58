"""What `train` needs before it begins: the data set on a device, and every setting that was given or chosen."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from foveate.config import DEFAULT_PRESET, Config, resolve_config
from foveate.data.dataset import Dataset, KnownData, dataset_of, load_known
from foveate.data.opening import open_source
from foveate.errors import DataError
from foveate.keywords import Settings
from foveate.training.device import DeviceData, prepare_process
from foveate.training.distributed import ALONE, World
from foveate.training.settings import precision_told, resolve_settings
from foveate.workflows.defaults import PHOTOGRAPHS, default_preset, preset_of
from foveate.workflows.length import Budget, Loaded, check_time, default_length, length_in_time, photos_in_time
from foveate.workflows.request import Display, find_device, print_data_warnings, tell
from foveate.workflows.start import preset_of_start


@dataclass(frozen=True)
class Prepared:
    """A training that can begin."""

    config: Config
    """As `resolve_settings` gives it."""
    preset: str | None
    """That was asked for, or chosen by the data."""
    settings: Settings
    """Those that were given, with those that were chosen: with them the same run is made on any machine."""
    loaded: Loaded


def prepare(
    data: str,
    *,
    preset: str | None,
    file: Path | None,
    settings: Settings,
    place: Path | str | None,
    final: bool,
    on_all: bool,
    time: str | None,
    known: KnownData | None,
    display: Display,
    world: World = ALONE,
) -> Prepared:
    """Arguments and errors are those of `train`; `file` is its `config`, and `place` its `data_dir`.

    Args:
        on_all: whether validation images are trained on too.
        world: the processes that will share the training.
    """
    budget = Budget(time) if time is not None else None
    check_time(budget, settings)
    preset = preset_of(settings, display) if preset is None and file is None and known is None else preset
    resolved = resolve_config(preset, file, settings)
    device = world.place(find_device(display, resolved.train.device))
    prepare_process(resolved)
    source, by_default = None, preset is None and file is None and known is None

    def load(config: Config) -> Loaded:
        if source is not None:
            dataset = dataset_of(source, config.data, track=display.track)
        else:
            dataset = load_known(data, config.data, cast("KnownData", known), data_dir=place, track=display.track)
        if final:
            require_split(dataset, "test", "add a test split to it, or train without --final")
        own = DeviceData.load(dataset, device)
        return Loaded(own, own.with_splits(dataset.for_final().splits) if on_all else own, on_all)

    with budget.paused(display) if budget else contextlib.nullcontext():
        if known is None:
            source = open_source(data, place, display.track)
        if source is not None and by_default:
            start = resolved.train.start
            preset, line = (preset_of_start(start), None) if start else default_preset(source, settings)
            resolved = resolve_config(preset, settings=settings)
            if line:
                display.say(line)
        loaded = load(resolved)
    print_data_warnings(loaded.own.dataset, display)
    chosen: dict[str, Any] = {}
    if budget is not None and by_default and preset == PHOTOGRAPHS:
        preset = photos_in_time(loaded, budget, dict(settings), display)
    elif budget is not None:
        chosen, loaded = length_in_time(resolved, loaded, budget, load, display)
    elif by_default and preset == DEFAULT_PRESET:
        chosen = default_length(resolved, settings, loaded, display)
    given = cast("Settings", {**settings, **chosen})
    asked = resolve_config(preset, file, given)
    config = resolve_settings(asked, loaded.training.dataset, world.size)
    tell(display, *precision_told([asked], [config], device))
    return Prepared(config, preset, given, loaded)


def require_split(dataset: Dataset, split: str, fix: str) -> None:
    """Raises DataError, with the fix, where the data set does not have the split."""
    if split not in dataset.splits:
        there = ", ".join(dataset.splits)
        raise DataError(f"{dataset.name} has no {split} images (it has: {there}): {fix}")
