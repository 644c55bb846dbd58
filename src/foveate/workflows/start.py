"""Another network of Foveate that a training starts from: found by its name, and what a person must know of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from foveate.arguments import at_home
from foveate.config import DEFAULT_PRESET, Config, preset_names
from foveate.data.dataset import Dataset
from foveate.errors import CheckpointError
from foveate.keywords import Settings
from foveate.progress import Track, untracked
from foveate.training.record import RunRecord
from foveate.training.runs import RunFolder
from foveate.workflows.leaks import copies_of_run_told
from foveate.workflows.run import unfinished_told

_NAMES = ("start", "train.start")
_NETWORK = "the network that training starts from"


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
        found[name] = str(_model_at(at_home(start), runs))
    return cast("Settings", found)


def _model_at(start: Path | str, runs: Path) -> Path:
    """A run or a file of that path, else the run of that name; else what is there, which is neither."""
    path, named = Path(start), runs / "train" / start
    places = [each for each in (path, named) if each.is_file() or (each / "run.json").is_file()]
    places += [each for each in (path, named) if each.exists()]
    if not places:
        raise CheckpointError(f"--start {start}: there is no such file or folder, and no run {named}")
    return places[0]


def preset_of_start(start: str) -> str:
    """The preset of the run that is started from, whose layers fit; of a file of weights alone, the usual one."""
    folder = Path(start)
    preset = RunFolder.open(folder).read_config().preset if folder.is_dir() else DEFAULT_PRESET
    return preset if preset in preset_names() else DEFAULT_PRESET


def with_start(config: Config, runs: Path) -> Config:
    """The same of settings that are resolved already: those of an arm, or of a study's trials.

    Raises:
        CheckpointError: as `starting_from`.
    """
    if config.train.start is None:
        return config
    return config.replacing(**starting_from({"start": config.train.start}, runs))


def start_told(config: Config, dataset: Dataset, measured: Sequence[str], track: Track = untracked) -> list[str]:
    """Lines where the network that is started from was trained on images that this run measures, where that is not
    known, or where it was not trained to its end.

    Args:
        dataset: in the splits of this run.
        measured: the splits of it that this run measures, now or later.
        track: follows the reading of the other images, where that network was trained on other data.
    """
    folder = _run_of(config)
    if folder is None:
        return []
    try:
        told = _images_told(folder, folder.read_record(), dataset, measured, track)
        unfinished = unfinished_told(folder.path)
    except CheckpointError as error:
        return [f"whether {_NETWORK} was trained on images of {dataset.name} is not known: {error}"]
    return told or ([] if unfinished is None else [unfinished])


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


def _images_told(
    folder: RunFolder, record: RunRecord, dataset: Dataset, measured: Sequence[str], track: Track
) -> list[str]:
    """Lines on the `measured` images that the run in `folder` was trained on."""
    seen = _seen(folder, record, dataset, measured)
    if seen:
        return [
            f"{_NETWORK} has seen {seen:,} of the images of this data set that are measured here: the figures "
            "are too good; start from a run on other images"
        ]
    if seen == 0:
        return []
    if record.dataset == dataset.location:
        return [
            f"{_NETWORK} was trained on {dataset.location} as it was before: unless the data itself says which "
            "images are for validation and test, it has seen some that are measured here, and the figures are too "
            "good; start from a run on other images"
        ]
    return copies_of_run_told(dataset, measured, folder, _trained(record), _NETWORK, "was trained on", track)


def _seen(folder: RunFolder, record: RunRecord, dataset: Dataset, measured: Sequence[str]) -> int | None:
    """How many of the `measured` images the run in `folder` was trained on; None: of another data set, or of a run
    of an earlier version, that is not known.
    """
    stored = folder.stored_splits(record)
    if record.fingerprint != dataset.fingerprint or stored is None:
        return None
    seen = _among(stored.read(len(dataset.labels)), _trained(record))
    return len(np.intersect1d(seen, _among(dataset.splits, measured)))


def _trained(record: RunRecord) -> tuple[str, ...]:
    """The splits that a run was trained on."""
    return ("train", "validation") if record.final else ("train",)


def _among(splits: Mapping[str, NDArray[np.int64]], names: Sequence[str]) -> NDArray[np.int64]:
    """The images that are in one of the splits with these names."""
    return np.concatenate([np.zeros(0, np.int64), *(splits[name] for name in names if name in splits)])
