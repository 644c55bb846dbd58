"""Another network of Foveate that a training starts from: found by its name, and what a person must know of it."""

from pathlib import Path
from typing import cast

from foveate.arguments import at_home
from foveate.config import DEFAULT_PRESET, Config, preset_names
from foveate.data.dataset import Dataset
from foveate.errors import CheckpointError
from foveate.keywords import Settings
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


def start_told(config: Config, dataset: Dataset, *, on_all: bool) -> str | None:
    """A line where the network that is started from was trained on images that this run measures, or not to
    its end.

    Args:
        on_all: whether this run trains on its validation images too, so that others are measured.
    """
    if config.train.start is None:
        return None
    folder = next((each for each in Path(config.train.start).parents if (each / "run.json").is_file()), None)
    try:
        record = None if folder is None else RunFolder.open(folder).read_record()
    except CheckpointError:
        return None
    if folder is None or record is None:
        return None
    if record.fingerprint == dataset.fingerprint and (record.final or on_all):
        return (
            "the network that training starts from has seen images of this data set that are measured here: the "
            "figures are too good; start from a run on other images"
        )
    return unfinished_told(folder)
