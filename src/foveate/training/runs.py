"""The run folder: where everything a run makes lies, and the record of what the run is."""

import contextlib
import csv
import errno
import hashlib
import io
import itertools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml
from filelock import FileLock
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError

from foveate.checkpoint import BEST, LAST
from foveate.config import Config, read_yaml, resolve_config
from foveate.data.dataset import Dataset
from foveate.data.splits import StoredSplits
from foveate.errors import CheckpointError, ConfigError
from foveate.files import (
    locked,
    new_folder,
    open_regular,
    read_regular,
    replacing,
    write_atomically,
    write_json,
    writing_to,
)
from foveate.records import ClassNames, Record, first_problem, printable, read_record, validate_record
from foveate.training.loop import EpochResult
from foveate.training.measured import Environment, MeasuredSplits, Timing

__all__ = ["RunFolder", "RunRecord", "TestOpening"]

_NAME_BYTES = 150
"""Of the name of a folder: file systems take 255, of which a number and a temporary name need some."""
_TABLE_BYTES = 64 << 20
_ROWS_PER_BYTE = 4
"""Of `predictions.parquet`, at most: a row has the id of its image and a number for each class."""
_NO_MATTER = ("device", "threads", "save_every_s")
"""Settings of the training that may be others when a run goes on."""
_HISTORY = TypeAdapter(list[EpochResult])
_FIX = "restore it from a copy or train again"
_FIX_MEASURED = "remove it, and measure again by `foveate evaluate RUN`"
"""For what `evaluate` writes; training again would be too dear."""
TIMING_COLUMNS = ("seconds", "images_per_s")
"""Kept out of results.csv: a run that was killed and resumed has the same results.csv as one that was not."""


class TestOpening(Record):
    """A look at the test split."""

    time: str
    command: str


class RunRecord(Record):
    """What a run is, beside its settings: the data it belongs to, and how often its test split was opened."""

    command: str
    dataset: str = Field(min_length=1)
    """A known name or an absolute path."""
    data_dir: str | None
    fingerprint: str
    class_names: ClassNames
    final: bool
    """Trained on train + validation: there is no validation split to speak of."""
    splits: str | None = None
    """sha256 of `splits.npy`, which says which images are in which split; None: a run of an earlier version."""
    test_openings: tuple[TestOpening, ...] = ()
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
            fallback = _clipped(printable(fallback))
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
            raise ConfigError(f"name={_clipped(name)!r}: give a plain name; choose the place with --runs")
        if name[0] in "-~":  # a shell or a command line would take it for something else
            raise ConfigError(f"name={_clipped(name)!r}: give a name that begins with a letter or a digit")
        if printable(name) != name or len(name.encode()) > _NAME_BYTES:
            raise ConfigError(
                f"name={_clipped(name)!r}: give a name of at most {_NAME_BYTES} bytes that are all printable"
            )
        path = root / verb / name
        if path.exists():
            resumed = verb in ("train", "tune", "compare")
            going_on = f", or continue it with --resume {path}" if resumed else ""
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
        """The weights that the run is measured by: of the best epoch or, where `keep` says so, of the last.

        Runs of earlier versions have those of the best epoch there, whatever `keep` says.
        """
        return self.path / BEST

    @property
    def last(self) -> Path:
        """The last saved training state, which is a checkpoint of the network as well."""
        return self.path / LAST

    @property
    def report(self) -> Path:
        """The page that tells everything about the run."""
        return self.path / "report.html"

    def write_config(self, config: Config, command: str) -> None:
        """Write `args.yaml`: every setting as resolved, in the form `--config` reads."""
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
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

    def record_test_opening(self, command: str) -> None:
        """Record that the test split is about to be opened: before it is, so that a kill hides nothing.

        The caller has the run `locked`, so that no opening of another process is lost.
        """
        record = self.read_record()
        opening = TestOpening(time=datetime.now(UTC).isoformat(timespec="seconds"), command=command)
        self._change_record(test_openings=(*record.test_openings, opening))

    def record_finished(self) -> None:
        """Record that there is nothing left to do: the last thing that a training does."""
        self._change_record(finished=True)

    def _change_record(self, **values: Any) -> None:
        self.write_record(self.read_record().model_copy(update=values))

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
            raise CheckpointError(f"{path} is damaged ({' '.join(str(error).split())[:200]}): {_FIX}") from error
        if len(rows) != len(times):
            raise CheckpointError(
                f"{path} is damaged (it has {len(rows)} epochs, and timing.json has {len(times)}): {_FIX}"
            )
        if [row.epoch for row in history] != list(range(1, len(history) + 1)):
            raise CheckpointError(f"{path} is damaged (its epochs are not 1, 2, …): {_FIX}")
        return history

    def write_metrics(self, split: str, report: Mapping[str, Any]) -> None:
        """Put one split's measurements into `metrics.json`, beside those of the others."""
        path = self.path / "metrics.json"
        known = self.read_metrics() if path.exists() else {}
        write_json(path, {**known, split: report})

    def read_metrics(self) -> dict[str, dict[str, Any]]:
        """The measurements by split; empty before the first.

        Raises:
            CheckpointError: when they are damaged.
        """
        path = self.path / "metrics.json"
        if not path.exists():
            return {}
        values: dict[str, dict[str, Any]] = read_record(path, dict[str, Any], fix=_FIX_MEASURED)
        validate_record(values, MeasuredSplits, source=str(path), fix=_FIX_MEASURED)
        return values

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
            known = self._read_predictions(table.schema)
            table = pa.concat_tables([known.filter(pc.not_equal(known["split"], split)), table])
        with replacing(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")

    def read_probabilities(self, split: str, class_names: Sequence[str]) -> NDArray[np.float32]:
        """What `write_predictions` wrote of a split: [N, K], in its order.

        Raises:
            CheckpointError: when the file is damaged.
        """
        schema = pa.schema([("split", pa.string()), *((f"p_{name}", pa.float32()) for name in class_names)])
        table = self._read_predictions(schema)
        table = table.filter(pc.equal(table["split"], split))
        return np.stack([table[f"p_{name}"].to_numpy() for name in class_names], axis=1)

    def read_predicted_ids(self) -> dict[str, list[str]]:
        """The ids of the images that were measured, by split, in order; none where nothing was measured.

        Raises:
            CheckpointError: when the file is damaged.
        """
        if not (self.path / "predictions.parquet").exists():
            return {}
        table = self._read_predictions(pa.schema([("split", pa.string()), ("image", pa.string())]))
        ids: dict[str, list[str]] = {}
        for split, image in zip(table["split"].to_pylist(), table["image"].to_pylist(), strict=True):
            ids.setdefault(split, []).append(image)
        return ids

    def _read_predictions(self, schema: pa.Schema) -> pa.Table:
        """The columns of `schema` of `predictions.parquet`; CheckpointError when they are not there."""
        path = self.path / "predictions.parquet"
        try:
            with open_regular(path) as opened, pq.ParquetFile(opened) as file:
                found, size = list(file.schema_arrow), os.fstat(opened.fileno()).st_size
                # Looked at before they are read: a few bytes can claim any number of rows.
                problems = [f"it has no column {field.name} as written" for field in schema if field not in found]
                if (rows := file.metadata.num_rows) > _ROWS_PER_BYTE * size:
                    problems.append(f"it claims {rows:,} rows in {size:,} bytes")
                table = file.read(columns=schema.names, use_threads=False) if not problems else pa.table({})
        except (pa.ArrowException, OSError, ValueError) as error:
            problems = [" ".join(str(error).split())[:200]]
        if problems:
            raise CheckpointError(f"{path} is damaged ({problems[0]}): {_FIX_MEASURED}")
        return table.select(schema.names)

    def read_environment(self) -> dict[str, Any]:
        """What `env.json` says of the machine and the versions; nobody but a reader of the report needs it.

        Raises:
            CheckpointError: when it is damaged.
        """
        values: dict[str, Any] = read_record(self.path / "env.json", Environment, fix=_FIX)
        return values

    def read_timing(self) -> dict[str, float]:
        """How long training took, and how fast it was.

        Raises:
            CheckpointError: when `timing.json` is damaged.
        """
        timing = read_record(self.path / "timing.json", Timing, fix=_FIX)
        return {"train_s": timing.train_s, "images_per_s": timing.images_per_s, "epochs": len(timing.epochs)}


def _clipped(name: str) -> str:
    """The beginning of a name, in as many bytes as a folder's name can have beside a number."""
    return name.encode()[:_NAME_BYTES].decode(errors="ignore")
