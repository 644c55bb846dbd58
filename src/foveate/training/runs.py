"""The run folder: where everything a run makes lies, and the record of what the run is."""

import csv
import errno
import io
import itertools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from filelock import FileLock
from numpy.typing import NDArray

from foveate.config import Config, resolve_config
from foveate.errors import CheckpointError, ConfigError
from foveate.files import new_folder, replacing, write_atomically, write_json, writing_to
from foveate.training.loop import EpochResult

__all__ = ["RunFolder", "RunRecord"]

TIMING_COLUMNS = ("seconds", "images_per_s")
"""Kept out of results.csv: a run that was killed and resumed has the same results.csv as one that was not."""


@dataclass(frozen=True)
class RunRecord:
    """What a run is, beside its settings: the data it belongs to, and how often its test split was opened."""

    command: str
    dataset: str
    """A known name or an absolute path."""
    data_dir: str | None
    fingerprint: str
    class_names: tuple[str, ...]
    final: bool
    """Trained on train + validation: there is no validation split to speak of."""
    test_openings: tuple[dict[str, str], ...] = ()
    finished: bool = False
    """Trained to its end, measured and reported."""


@dataclass(frozen=True)
class RunFolder:
    """`runs/<verb>/<name>/`. Every file in it is written whole or not at all."""

    path: Path

    @classmethod
    def create(
        cls, root: Path, verb: str, name: str | None, *, fallback: str, fill: Callable[["RunFolder"], None]
    ) -> "RunFolder":
        """Make a new run: `name`, which must be free, or `fallback`, numbered until it is free.

        Args:
            fill: writes into the folder what makes it a run, before it appears under its name: a kill leaves
                a whole run or none.

        Raises:
            ConfigError: when `name` is taken or is not a plain name.
            OutputError: when it cannot be made.
        """
        cls.refuse_name(root, verb, name)
        parent = root / verb
        with writing_to(parent):
            parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(parent / ".lock")  # two runs that start at once take two numbers
            lock.acquire()
        try:
            numbers = itertools.count(2)
            path = parent / (name or fallback)
            while path.exists():
                cls.refuse_name(root, verb, name)
                path = parent / f"{fallback}-{next(numbers)}"
            with new_folder(path) as temporary:
                fill(cls(temporary))
        finally:
            lock.release()
        return cls(path)

    @staticmethod
    def refuse_name(root: Path, verb: str, name: str | None) -> None:
        """Refuse a name or a place that `create` would: before work that comes first.

        Raises:
            ConfigError: when it is taken or is not a plain name.
            OutputError: when nothing can be made there.
        """
        parent = (root / verb).absolute()
        with writing_to(root / verb):
            nearest = next(each for each in (parent, *parent.parents) if each.exists())
            if not nearest.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            if not os.access(nearest, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if name is None:
            return
        if Path(name).name != name or name in ("", ".."):
            raise ConfigError(f"name={name!r}: give a plain name; choose the place with --runs")
        path = root / verb / name
        if path.exists():
            going_on = f", or continue it with --resume {path}" if verb != "check" else ""
            raise ConfigError(f"{path} exists: choose another --name{going_on}")

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """An existing run folder.

        Raises:
            CheckpointError: when it is not one.
        """
        if not path.exists():
            raise CheckpointError(f"no run folder at {path}: give one made by `foveate train`")
        if not (path / "run.json").is_file() or not (path / "args.yaml").is_file():
            raise CheckpointError(
                f"{path} is not a run folder (no run.json and args.yaml): give one made by `foveate train`"
            )
        return cls(path)

    @property
    def best(self) -> Path:
        """The best epoch's weights."""
        return self.path / "weights" / "best.safetensors"

    @property
    def last(self) -> Path:
        """The last saved training state, which is a checkpoint of the network as well."""
        return self.path / "weights" / "last" / "state.safetensors"

    @property
    def report(self) -> Path:
        """The page that tells everything about the run."""
        return self.path / "report.html"

    def write_config(self, config: Config, command: str) -> None:
        """Write `args.yaml`: every setting as resolved, in the form `--config` reads."""
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        write_atomically(self.path / "args.yaml", f"# {command}\n{text}")

    def read_config(self) -> Config:
        """The settings in `args.yaml`."""
        return resolve_config(file=self.path / "args.yaml")

    def write_record(self, record: RunRecord) -> None:
        """Write `run.json`."""
        write_json(self.path / "run.json", asdict(record))

    def read_record(self) -> RunRecord:
        """What `run.json` says.

        Raises:
            CheckpointError: when it is damaged.
        """
        values = self.read_json("run.json")
        try:
            values["class_names"], values["test_openings"] = (
                tuple(values["class_names"]),
                tuple(values["test_openings"]),
            )
            return RunRecord(**values)
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"{self.path / 'run.json'} is damaged: restore it from a copy or train again"
            ) from error

    def record_test_opening(self, command: str) -> None:
        """Record that the test split is about to be opened: before it is, so that a kill hides nothing."""
        record = self.read_record()
        opening = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "command": command}
        self.write_record(replace(record, test_openings=(*record.test_openings, opening)))

    def record_finished(self) -> None:
        """Record that there is nothing left to do: the last thing that a training does."""
        self.write_record(replace(self.read_record(), finished=True))

    def write_history(self, history: Sequence[EpochResult]) -> None:
        """Write `results.csv`, a row an epoch, and the epochs' times to `timing.json`."""
        columns = [column.name for column in fields(EpochResult) if column.name not in TIMING_COLUMNS]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([getattr(row, column) for column in columns] for row in history)
        write_atomically(self.path / "results.csv", text.getvalue())
        epochs = [
            {"epoch": row.epoch, "seconds": row.seconds, "images_per_s": row.images_per_s} for row in history
        ]
        write_json(
            self.path / "timing.json",
            {
                "train_s": sum(row.seconds for row in history),
                "images_per_s": float(np.median([row.images_per_s for row in history])),
                "epochs": epochs,
            },
        )

    def read_history(self) -> list[EpochResult]:
        """The epochs in `results.csv` and `timing.json`; none for a folder that was not trained in."""
        path = self.path / "results.csv"
        if not path.exists():
            return []
        try:
            with path.open(encoding="utf-8") as file:
                rows = [
                    {key: float(text) if text else None for key, text in row.items()}
                    for row in csv.DictReader(file)
                ]
            times = self.read_json("timing.json")["epochs"]
            return [EpochResult(**{**row, **time}) for row, time in zip(rows, times, strict=True)]
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} is damaged: restore it from a copy or train again") from error

    def write_metrics(self, split: str, report: Mapping[str, Any]) -> None:
        """Put one split's measurements into `metrics.json`, beside those of the others."""
        path = self.path / "metrics.json"
        known = self.read_metrics() if path.exists() else {}
        write_json(path, {**known, split: report})

    def read_metrics(self) -> dict[str, dict[str, Any]]:
        """The measurements by split; empty before the first."""
        return self.read_json("metrics.json") if (self.path / "metrics.json").exists() else {}

    def write_predictions(
        self,
        split: str,
        *,
        ids: Sequence[str],
        labels: NDArray[np.int64],
        probabilities: NDArray[np.float32],
        class_names: Sequence[str],
        groups: Sequence[str] | None,
    ) -> None:
        """Put every image of a split into `predictions.parquet`: its label, prediction and p_<class> columns."""
        names = np.asarray(class_names, dtype=object)
        columns: dict[str, Any] = {
            "image": pa.array(ids, pa.string()),
            "split": pa.array([split] * len(ids), pa.string()),
            "label": pa.array(names[labels], pa.string()),
            "predicted": pa.array(names[probabilities.argmax(1)], pa.string()),
            "group": pa.array(groups if groups is not None else [None] * len(ids), pa.string()),
        }
        columns |= {f"p_{name}": pa.array(probabilities[:, k], pa.float32()) for k, name in enumerate(class_names)}
        table = pa.table(columns)
        path = self.path / "predictions.parquet"
        if path.exists():
            known = pq.read_table(path)
            table = pa.concat_tables([known.filter(pa.compute.not_equal(known["split"], split)), table])
        with replacing(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")

    def read_probabilities(self, split: str, class_names: Sequence[str]) -> NDArray[np.float32]:
        """What `write_predictions` wrote of a split: [N, K], in its order."""
        table = pq.read_table(self.path / "predictions.parquet", filters=[("split", "=", split)])
        return np.stack([table[f"p_{name}"].to_numpy() for name in class_names], axis=1)

    def read_json(self, name: str) -> dict[str, Any]:
        """A JSON file of the run.

        Raises:
            CheckpointError: when it is missing or damaged.
        """
        try:
            value = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{self.path / name} is damaged: restore it from a copy or train again"
            ) from error
        if not isinstance(value, dict):
            raise CheckpointError(f"{self.path / name} is damaged: restore it from a copy or train again")
        return value
