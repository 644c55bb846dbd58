"""What a run is: its folder, its network, the data set it was trained on, and the command that resumes it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from foveate.checkpoint import Checkpoint
from foveate.config import Config
from foveate.data.dataset import Dataset, align_classes, load_dataset, load_known
from foveate.data.splits import SPLITS
from foveate.errors import CheckpointError
from foveate.inference.engine import About
from foveate.inference.network import pick_device
from foveate.settings import DataConfig
from foveate.training.record import RunRecord
from foveate.training.runs import RunFolder
from foveate.workflows.next_step import counts_evenly, next_step, resuming
from foveate.workflows.request import Display, command_line, print_data_warnings

IN_USE = "being trained or measured"


@dataclass(frozen=True)
class Run:
    """A run folder and what lies in it."""

    folder: RunFolder
    moved: str | None = None
    """Where its data lies now, if that was said and its record has another place."""
    data_dir: str | None = None
    """The same of the folder in which `cifar10` lies."""

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.folder.path

    @property
    def config(self) -> Config:
        """The settings, as resolved."""
        return self.folder.read_config()

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """The measurements by split, as in `metrics.json`."""
        return self.folder.read_metrics()

    @property
    def report(self) -> Path:
        """The page that shows all of it."""
        return self.folder.report

    @property
    def counts_evenly(self) -> bool:
        """Whether training counted all classes the same, however many images they have."""
        return counts_evenly(self.config)

    @property
    def on_other_data(self) -> bool:
        """Whether it is a measurement of another run's network, on data that is not that run's."""
        return self.folder.read_record().command.startswith("foveate evaluate ")

    @property
    def next_step(self) -> str:
        """What to try next, in a line."""
        report = next(reversed(self.metrics.values()), None)  # of the split that was measured last
        return next_step(self.folder.read_record(), self.path, self.config, report, self.moved)

    def resuming(self, **flags: Any) -> str:
        """The command line that resumes it, with these flags."""
        return resuming(self.path, self.moved, data_dir=self.data_dir, **flags)

    def checkpoint(self, device: str = "cpu") -> Checkpoint:
        """The trained network with its classes and preprocessing.

        Raises:
            CheckpointError: when it is missing or damaged.
            ConfigError: for a device that is not there.
        """
        return self.folder.load_network(self.config, pick_device(device))


def open_run(path: Path | str) -> Run:
    """A run that lies in a folder.

    Raises:
        CheckpointError: when it is not one.
    """
    return Run(RunFolder.open(Path(path)))


def unfinished_told(model: Path | str, moved: str | None = None) -> str | None:
    """A line on a run whose training has not come to its end; None of one that has, and of a file.

    Args:
        moved: where its data lies now, if not where its record has it.

    Raises:
        CheckpointError: when its record is damaged.
    """
    if not Path(model, "run.json").is_file():
        return None
    folder = RunFolder.open(Path(model))
    if folder.read_record().finished:
        return None
    return f"training of {folder.path} is not finished; to continue: {resuming(folder.path, moved)}"


def folder_of(run: Run | Path | str) -> RunFolder:
    """The folder of a run that is given as such or by its path; CheckpointError where it is not a run."""
    return run.folder if isinstance(run, Run) else RunFolder.open(Path(run))


def dataset_of_run(
    folder: RunFolder,
    config: Config,
    record: RunRecord,
    data: str | Path | None,
    data_dir: Path | str | None,
    display: Display,
    *,
    fix: str | None = None,
) -> Dataset:
    """The data set that the run was trained on, from `data` or where its record says, and proof that it is it.

    Args:
        fix: how the new place of data that has moved is given; None: after the run, as to `evaluate`.
    """
    known, place = folder.known_data(record), data_dir or record.data_dir
    if data is None:
        command = command_line("evaluate", folder.path, "NEW/PLACE")
        known = replace(known, gone=fix or f"give its new place after the run, as in `{command}`")
    dataset = load_known(str(data or record.dataset), config.data, known, data_dir=place, track=display.track)
    if known.splits is None:
        # An earlier version kept none: those drawn again must be what the run was measured on.
        for split, ids in folder.predictions.ids().items():
            if split in SPLITS and ids != [dataset.ids[index] for index in dataset.splits.get(split, ())]:
                raise CheckpointError(
                    f"{folder.path} was made by an earlier version of Foveate, which did not keep its splits, and "
                    "now others are drawn, as other images can be read: train again"
                )
    print_data_warnings(dataset, display)
    return dataset


def dataset_to_measure(
    folder: RunFolder,
    config: Config,
    record: RunRecord,
    data: str | Path | None,
    data_dir: Path | str | None,
    display: Display,
    *,
    fix: str | None = None,
) -> tuple[Dataset, bool]:
    """The images to measure a run's network on, and whether they are the run's own.

    Args:
        data: None: the run's own; of other data the classes are matched by name.
        fix: as `dataset_of_run` takes it.
    """
    if data is not None:
        other = load_dataset(str(data), config.data, data_dir=data_dir, for_training=False, track=display.track)
        # By another path it may be the run's own data: then its splits hold, and the record of its test split.
        if other.fingerprint != record.fingerprint:
            dataset = align_classes(other, record.class_names)
            print_data_warnings(dataset, display)
            return dataset, False
    return dataset_of_run(folder, config, record, data, data_dir, display, fix=fix), True


def dataset_of_model(about: About, data: str | Path, data_dir: Path | str | None, display: Display) -> Dataset:
    """Images with labels for a model file of which no run is known: as it takes them, their classes as its own."""
    settings = DataConfig.of(about.preprocessing)
    found = load_dataset(str(data), settings, data_dir=data_dir, for_training=False, track=display.track)
    dataset = align_classes(found, about.class_names)
    print_data_warnings(dataset, display)
    return dataset
