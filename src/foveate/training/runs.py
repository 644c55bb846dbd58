"""The folder of a run: what lies in it, written whole and read back with suspicion."""

import contextlib
import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError

from foveate.checkpoint import BEST, LAST, Checkpoint, checkpoint_metadata, load_model
from foveate.config import Config, read_yaml, resolve_config
from foveate.data.dataset import Dataset, KnownData
from foveate.data.splits import StoredSplits
from foveate.errors import CheckpointError, ConfigError, one_line
from foveate.files import locked, read_regular, write_atomically, write_csv, write_json, writing_to
from foveate.inference.engine import similar_model
from foveate.inference.network import weights_of
from foveate.parsing import yaml_text
from foveate.preprocessing import Preprocessing
from foveate.records import first_problem, printable, read_record, validate_record
from foveate.training.device import EVAL_BATCH_SIZE
from foveate.training.environment import environment
from foveate.training.measured import Environment, MeasuredSplits, Timing, for_file, from_file
from foveate.training.predictions import Predictions
from foveate.training.record import RunRecord, TestOpening
from foveate.training.state import EpochResult

_TABLE_BYTES = 64 << 20
_NO_MATTER = ("device", "threads", "save_every_s")
"""Settings of the training that may be others when a run goes on."""
_HISTORY = TypeAdapter(list[EpochResult])
_FIX = "restore it from a copy or train again"
_FIX_MEASURED = "remove it, and measure again by `foveate evaluate RUN`"
"""The fix for files that `evaluate` writes: training again would cost too much."""
TIMING_COLUMNS = ("seconds", "images_per_s", "features_kept", "strength_chosen")
"""Kept out of results.csv: a run that was killed and resumed has the same results.csv as one that was not."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run, as `train` and `evaluate` make it. Each file in it is written whole or not at all."""

    path: Path

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """An existing run folder.

        Raises:
            CheckpointError: when it is not one.
        """
        if not path.exists():
            near = similar_model(path, "run")
            raise CheckpointError(f"no run folder at {path}: give one made by `foveate train`{near}")
        if not (path / "run.json").is_file() or not (path / "args.yaml").is_file():
            raise CheckpointError(
                f"{path} is not a run folder (no run.json and args.yaml): give one made by `foveate train`"
            )
        for name in ("weights", "weights/last", "events"):
            if (path / name).is_symlink():  # what is written into a run must not lie elsewhere
                raise CheckpointError(f"{path / name} is a link: put the folder that it leads to in its place")
        return cls(path)

    def locked(self, doing: str) -> contextlib.AbstractContextManager[None]:
        """Keep other processes from writing into the run, which is `doing` something: "being trained".

        Raises:
            ConfigError: when another process has it.
            OutputError: when nothing can be written there.
        """
        return locked(self.path, f"{self.path} is {doing}")

    @property
    def best(self) -> Path:
        """The weights of the best epoch; with `keep=last` those of the last epoch, once it has ended."""
        return self.path / BEST

    @property
    def last(self) -> Path:
        """The last saved training state, which is a checkpoint of the network as well."""
        return self.path / LAST

    @property
    def report(self) -> Path:
        """The page that tells everything about the run."""
        return self.path / "report.html"

    @property
    def predictions(self) -> Predictions:
        """The label, the prediction and the probabilities of every image that was measured."""
        return Predictions(self.path / "predictions.parquet")

    @property
    def kept_weights(self) -> Path:
        """The file of the weights that the run is measured by.

        Raises:
            CheckpointError: as `weights_of`.
        """
        return weights_of(self.path)[0]

    def load_network(self, config: Config, device: torch.device, *, images: int = 1) -> Checkpoint:
        """The network that the run is measured by.

        Args:
            images: how many images it must be able to see; more than a batch of them are not seen at once.

        Raises:
            CheckpointError: when it is missing, damaged, or not the network that the run describes.
        """
        if config.data.size is None:
            raise CheckpointError(f"{self.path / 'args.yaml'} is damaged (it has no size): restore it from a copy")
        record = self.read_record()
        preprocessing = Preprocessing(config.data.size, config.data.fit)
        expect = checkpoint_metadata(config.model, record.class_names, preprocessing)
        expect["settings"] = self.identity(record)
        at_once = min(EVAL_BATCH_SIZE, images)
        return load_model(self.kept_weights, device=device, expect=expect, images_at_once=at_once)

    def known_data(self, record: RunRecord) -> KnownData:
        """How the run recognises its data set, and the splits that it keeps."""
        return KnownData(record.fingerprint, self.stored_splits(record), self.path)

    def write_identity(self, config: Config, device: torch.device, record: RunRecord, devices: int = 1) -> None:
        """Write what makes the folder a run: its settings, where it runs and on how many devices, its record."""
        self.write_config(config, record.command)
        write_json(self.path / "env.json", environment(device, devices))
        self.write_record(record)

    def write_config(self, config: Config, command: str) -> None:
        """Write `args.yaml`: every setting as resolved, in the form `--config` reads."""
        text = yaml_text(config.model_dump(mode="json"))
        write_atomically(self.path / "args.yaml", f"# {printable(command)}\n{text}")

    def read_config(self) -> Config:
        """The settings in `args.yaml`.

        Raises:
            CheckpointError: when they are damaged.
        """
        path = self.path / "args.yaml"
        try:
            given, config = read_yaml(path), resolve_config(file=path)
        except ConfigError as error:
            raise CheckpointError(f"{path} is damaged ({error}): {_FIX}") from error
        # A run's settings are all there: in place of a part that is missing, a preset's would be taken.
        if missing := set(Config.model_fields) - given.keys():
            raise CheckpointError(f"{path} is damaged (it has no {min(missing)}): {_FIX}")
        return config

    def identity(self, record: RunRecord) -> str:
        """sha256 of what the run's weights depend on: its settings and its data.

        Where it runs, and with how many threads, may change. It is of what the file says, and not of settings that
        a newer version adds to it. The splits have a digest of their own.

        Raises:
            CheckpointError: when the settings are damaged.
        """
        try:
            given = read_yaml(self.path / "args.yaml")
        except ConfigError as error:
            raise CheckpointError(f"{self.path / 'args.yaml'} is damaged ({error}): {_FIX}") from error
        train = {name: value for name, value in given.get("train", {}).items() if name not in _NO_MATTER}
        values = [{**given, "train": train}, record.fingerprint, record.final]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def write_splits(self, dataset: Dataset) -> str:
        """Keep which images are in which split; returns the digest for the record."""
        return StoredSplits.write(self.path, dataset.splits, len(dataset.labels)).sha256

    def stored_splits(self, record: RunRecord) -> StoredSplits | None:
        """The splits that the run keeps; None for one of an earlier version, which kept none."""
        return StoredSplits.kept(self.path, record.splits)

    def write_record(self, record: RunRecord) -> None:
        """Write `run.json`."""
        write_json(self.path / "run.json", record.model_dump(mode="json"))

    def read_record(self) -> RunRecord:
        """What `run.json` says.

        Raises:
            CheckpointError: when it is damaged.
        """
        return read_record(self.path / "run.json", RunRecord, fix=_FIX)

    def record_test_opening(self, command: str, *, own: bool = True) -> None:
        """Record that the test split is about to be opened: before it is, so that a kill hides nothing.

        The caller has the run `locked`, so that no opening of another process is lost.

        Args:
            own: whether it is the test split of the run's own data.
        """
        record = self.read_record()
        self.change_record(test_openings=(*record.test_openings, TestOpening.now(command, own=own)))

    def change_record(self, **values: Any) -> None:
        """Write `run.json` with other values of some fields."""
        self.write_record(self.read_record().model_copy(update=values))

    def write_history(self, history: Sequence[EpochResult]) -> None:
        """Write `results.csv`, a row an epoch, and before it the epochs' times to `timing.json`."""
        epochs = [
            {"epoch": row.epoch, **{column: getattr(row, column) for column in TIMING_COLUMNS}} for row in history
        ]
        write_json(
            self.path / "timing.json",
            {
                "train_s": sum(row.seconds for row in history),
                "images_per_s": float(np.median([row.images_per_s for row in history])),
                "epochs": epochs,
            },
        )
        columns = [column.name for column in fields(EpochResult) if column.name not in TIMING_COLUMNS]
        rows = [[getattr(row, column) for column in columns] for row in history]
        write_csv(self.path / "results.csv", [columns, *rows])

    def read_history(self) -> list[EpochResult]:
        """The epochs in `results.csv` and `timing.json`; none for a folder that was not trained in.

        Of a run that is not finished they are those that both have: a kill may have come between the two.
        """
        path = self.path / "results.csv"
        if not path.exists():
            return []
        times = read_record(self.path / "timing.json", Timing, fix=_FIX).epochs
        try:
            text = read_regular(path, _TABLE_BYTES).decode()
            rows = [
                {key: float(text) if text else None for key, text in row.items()}
                for row in csv.DictReader(io.StringIO(text, newline=""), strict=True)
            ]
            both = [{**row, **time.model_dump()} for row, time in zip(rows, times, strict=False)]
            history = _HISTORY.validate_python(both)
        except ValidationError as error:
            raise CheckpointError(f"{path} is damaged ({first_problem(error)}): {_FIX}") from error
        except (OSError, csv.Error, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{path} is damaged ({one_line(error)}): {_FIX}") from error
        if abs(len(rows) - len(times)) > (0 if self.read_record().finished else 1):
            raise CheckpointError(
                f"{path} is damaged (it has {len(rows)} epochs, and timing.json has {len(times)}): {_FIX}"
            )
        if [row.epoch for row in history] != list(range(1, len(history) + 1)):
            raise CheckpointError(f"{path} is damaged (its epochs are not 1, 2, …): {_FIX}")
        return history

    def forget_measurements(self) -> None:
        """Remove what was measured of the network as it was, before training goes on.

        Raises:
            OutputError: when the files cannot be removed.
        """
        for path in (self.path / "metrics.json", self.predictions.path):
            with writing_to(path):
                path.unlink(missing_ok=True)

    def write_metrics(self, split: str, report: Mapping[str, Any]) -> None:
        """Put one split's measurements into `metrics.json`, beside those of the others."""
        path = self.path / "metrics.json"
        known = self.read_metrics() if path.exists() else {}
        write_json(path, {name: for_file(each) for name, each in {**known, split: report}.items()})

    def read_metrics(self) -> dict[str, dict[str, Any]]:
        """The measurements by split; empty before the first.

        Raises:
            CheckpointError: when they are damaged.
        """
        path = self.path / "metrics.json"
        if not path.exists():
            return {}
        kept = read_record(path, dict[str, Any], fix=_FIX_MEASURED)
        try:
            values: dict[str, dict[str, Any]] = {name: from_file(each) for name, each in kept.items()}
        except ValueError as error:
            raise CheckpointError(f"{path} is damaged ({error}): {_FIX_MEASURED}") from error
        validate_record(values, MeasuredSplits, source=str(path), fix=_FIX_MEASURED)
        return values

    def read_environment(self) -> dict[str, Any]:
        """What `env.json` says of the machine and the versions; nobody but a reader of the report needs it.

        Raises:
            CheckpointError: when it is damaged.
        """
        values: dict[str, Any] = read_record(self.path / "env.json", Environment, fix=_FIX)
        return values

    def read_timing(self) -> dict[str, float]:
        """How long training took, how fast it was, and whether features of a backbone had been kept before.

        Raises:
            CheckpointError: when `timing.json` is damaged.
        """
        timing = read_record(self.path / "timing.json", Timing, fix=_FIX)
        return {
            "train_s": timing.train_s,
            "images_per_s": timing.images_per_s,
            "epochs": len(timing.epochs),
            "features_kept": any(each.features_kept for each in timing.epochs),
        }
