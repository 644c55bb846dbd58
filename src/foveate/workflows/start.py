"""Another network of Foveate that a training starts from: found by its name, and what a person must know of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from foveate.arguments import at_home
from foveate.config import DEFAULT_PRESET, Config, preset_names
from foveate.data.dataset import Dataset
from foveate.errors import CheckpointError
from foveate.keywords import Settings
from foveate.training.record import RunRecord
from foveate.training.runs import RunFolder
from foveate.workflows.run import unfinished_told

_NAMES = ("start", "train.start")


def starting_from(settings: Settings, runs: Path) -> Settings:
    """The settings with the path of the model that they start from, which may be the name of a run in `runs`.

    Raises:
        CheckpointError: when there is no such run or file.
    """
    found = dict(settings)
    for name in _NAMES:
        start = found.get(name)
        if not isinstance(start, str | Path):
            continue
        start = at_home(start)
        named = runs / "train" / start
        path = next((each for each in (Path(start), named) if each.exists()), None)
        if path is None:
            raise CheckpointError(f"--start {start}: there is no such file or folder, and no run {named}")
        found[name] = str(path)
    return cast("Settings", found)


def preset_of_start(start: str) -> str:
    """The preset of the run that is started from, whose layers fit; of a file of weights alone, the usual one."""
    folder = Path(start)
    preset = RunFolder.open(folder).read_config().preset if folder.is_dir() else DEFAULT_PRESET
    return preset if preset in preset_names() else DEFAULT_PRESET


def start_told(config: Config, dataset: Dataset, measured: Sequence[str]) -> str | None:
    """A line where the network that is started from was trained on images that this run measures, or not to
    its end.

    Args:
        dataset: in the splits of this run.
        measured: the splits of it that this run measures, now or later.
    """
    folder = _run_of(config)
    if folder is None:
        return None
    try:
        record = folder.read_record()
        seen = _seen(folder, record, dataset, measured)
    except CheckpointError:
        return None
    if seen:
        return (
            f"the network that training starts from has seen {seen:,} of the images of this data set that are "
            "measured here: the figures are too good; start from a run on other images"
        )
    if seen is None and record.dataset == dataset.location:
        return (
            f"the network that training starts from was trained on {dataset.location} as it was before: unless "
            "the data itself says which images are for validation and test, it has seen some that are measured "
            "here, and the figures are too good; start from a run on other images"
        )
    return unfinished_told(folder.path)


def start_saw(config: Config, dataset: Dataset, measured: Sequence[str]) -> bool | None:
    """Whether the network that is started from was trained on images of `measured`, as `start_told` takes them.

    None where that is not known: it is no run's any more, or of a run on the same data as they were before.
    """
    if config.train.start is None:
        return False
    folder = _run_of(config)
    if folder is None:
        return None
    try:
        record = folder.read_record()
        seen = _seen(folder, record, dataset, measured)
    except CheckpointError:
        return None
    return bool(seen) if seen is not None or record.dataset != dataset.location else None


def _run_of(config: Config) -> RunFolder | None:
    """The run whose network is started from; None where there is none."""
    within = Path(config.train.start).parents if config.train.start else ()
    path = next((each for each in within if (each / "run.json").is_file()), None)
    return None if path is None else RunFolder(path)


def _seen(folder: RunFolder, record: RunRecord, dataset: Dataset, measured: Sequence[str]) -> int | None:
    """How many of the `measured` images the run in `folder` was trained on; None: of another data set, or of a run
    of an earlier version, that is not known.
    """
    stored = folder.stored_splits(record)
    if record.fingerprint != dataset.fingerprint or stored is None:
        return None
    theirs = stored.read(len(dataset.labels))
    trained = [theirs[name] for name in ("train", *(("validation",) if record.final else ())) if name in theirs]
    asked = [dataset.splits[name] for name in measured if name in dataset.splits]
    return len(np.intersect1d(np.concatenate(trained), np.concatenate(asked)))
