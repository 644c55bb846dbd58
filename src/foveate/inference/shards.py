"""Predictions of any number of images, kept as they come, so that a job that was stopped goes on."""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from foveate.errors import ConfigError, OutputError
from foveate.execution.pool import Message
from foveate.files import locked, new_folder, replacing, write_json
from foveate.inference.engine import About
from foveate.inference.predictor import Predictor
from foveate.inference.tables import WRITERS, Columns, Row, id_of
from foveate.records import Count, Digest, Record, read_record

SHARD = 2048
"""Images whose predictions are kept together: a job that was stopped repeats at most this many."""
_FIX = "remove its folder to begin again"
_FILE = "file"
"""A column that parts alone have: what `file_state` said of an image before it was read."""


class _Plan(Record):
    """Identifies the command whose predictions lie in a folder."""

    kind: str = Field("predictions of Foveate", pattern="^predictions of Foveate$")
    digest: Digest
    """sha256 of the model's weights, what was asked for and the images' names."""
    images: Count


class Rest(NamedTuple):
    """What is left to be predicted of one part."""

    number: int
    """Of the part."""
    places: Sequence[int]
    """Of its images in the part."""
    paths: Sequence[str]

    def states(self) -> list[str]:
        """What each of its files is now."""
        return [file_state(path) for path in self.paths]


def file_state(path: str) -> str:
    """What tells a file from what lay under its name before; empty where there is none."""
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return ""
    return f"{status.st_size} bytes of {status.st_mtime_ns}"


@dataclass(frozen=True)
class Shards:
    """Predictions of images in parts: one Parquet file for every `SHARD` of them, beside the table they will be.

    Args:
        table: the file that is to be made: `.csv`, `.json` or `.parquet`.
        paths: of all images, in order.
        columns: of the table.
    """

    table: Path
    paths: Sequence[str]
    columns: Columns

    @property
    def folder(self) -> Path:
        """Where the parts lie until the table is whole."""
        return self.table.with_name(f".{self.table.name}.parts")

    def begin(self, about: About, coverage: float | None) -> None:
        """Make the folder, or find the one of the same command.

        Args:
            about: the model; its weights and its confidence decide what is predicted.

        Raises:
            ConfigError: when it holds predictions of another command.
            OutputError: when it cannot be made.
        """
        asked = json.dumps([about.digest, about.confidence.model_dump(), coverage, asdict(self.columns)])
        digest = hashlib.sha256(asked.encode())
        for path in self.paths:
            digest.update(path.encode(errors="surrogateescape") + b"\0")
        plan = _Plan(digest=digest.hexdigest(), images=len(self.paths))
        self.clear()
        if self.folder.exists():
            found = read_record(self._plan, _Plan, fix=_FIX, error=OutputError)
            if found != plan:
                raise ConfigError(
                    f"{self.folder} holds unfinished predictions of another command: remove it, or write to "
                    "another file"
                )
            return
        with new_folder(self.folder) as temporary:
            write_json(temporary / self._plan.name, plan.model_dump())

    def rest(self) -> list[Rest]:
        """What is to be predicted, by parts.

        Those are images of a part that is not there, those whose files have changed, and those that could not be
        read: a folder on another machine may be away for a while.

        Raises:
            OutputError: when a part is damaged.
        """
        found = []
        for number in range(self._count):
            paths = self._paths_of(number)
            places = self._stale(number) if self._part(number).exists() else range(len(paths))
            if places:
                found.append(Rest(number, places, [paths[place] for place in places]))
        return found

    def job(self, rest: Rest, model: str, device: str | None, coverage: float | None) -> Message:
        """What `predict_shard` is given of one part: it may run elsewhere than where relative paths begin."""
        asked = {"model": model, "device": device, "coverage": coverage, "columns": asdict(self.columns)}
        return {**asked, "paths": [str(Path(path).absolute()) for path in rest.paths]}

    def keep(self, rest: Rest, states: Sequence[str], rows: Sequence[Row]) -> None:
        """Write a part, or those of its rows that were left to be predicted, under the paths that were given.

        Args:
            states: of the files, from before they were read.

        Raises:
            OutputError: when it cannot be written, or is damaged.
        """
        part = self._part(rest.number)
        kept: dict[int, Row] = dict(enumerate(self._read(rest.number).to_pylist())) if part.exists() else {}
        for place, path, state, row in zip(rest.places, rest.paths, states, rows, strict=True):
            kept[place] = {**row, "id": id_of(path), _FILE: state}
        with replacing(part) as temporary:
            ordered = [dict(kept[place]) for place in sorted(kept)]
            pq.write_table(pa.Table.from_pylist(ordered, self._part_schema()), temporary)

    def finish(self) -> None:
        """Make the table of all parts, and remove them; the folder, in which the lock lies, is left to `clear`.

        Raises:
            OutputError: when it cannot be written; the parts stay.
        """
        with replacing(self.table) as temporary:
            write = WRITERS.get(self.table.suffix.lower().removeprefix("."))
            if write is None:
                with pq.ParquetWriter(temporary, self._schema()) as writer:
                    for number in range(self._count):
                        writer.write_table(self._predicted(number))
            else:
                with temporary.open("w", encoding="utf-8", newline="") as file:
                    write(file, self.columns, self.rows())
        with contextlib.suppress(OSError):  # the plan last: parts are never without it
            for number in range(self._count):
                self._part(number).unlink()
            self._plan.unlink()

    def clear(self) -> None:
        """Remove the folder where nothing but its lock is left in it.

        While a process holds the lock, Windows and NFS refuse that.
        """
        if not self._plan.exists():
            with contextlib.suppress(OSError):
                (self.folder / ".lock").unlink(missing_ok=True)
                self.folder.rmdir()

    def locked(self) -> Any:
        """To be held while parts are written."""
        return locked(self.folder, f"{self.table} is being written")

    def rows(self) -> Iterator[Row]:
        """Of all parts, in order.

        Raises:
            OutputError: when a part is damaged.
        """
        for number in range(self._count):
            yield from self._predicted(number).to_pylist()

    @property
    def _plan(self) -> Path:
        return self.folder / "plan.json"

    @property
    def _count(self) -> int:
        return -(-len(self.paths) // SHARD)

    def _paths_of(self, number: int) -> Sequence[str]:
        return self.paths[number * SHARD : (number + 1) * SHARD]

    def _stale(self, number: int) -> list[int]:
        kept = self._read(number)
        known = zip(self._paths_of(number), kept["reason"].to_pylist(), kept[_FILE].to_pylist(), strict=True)
        return [
            place
            for place, (path, reason, state) in enumerate(known)
            if reason is not None or state != file_state(path)
        ]

    def _predicted(self, number: int) -> pa.Table:
        return self._read(number).drop_columns([_FILE])

    def _read(self, number: int) -> pa.Table:
        try:
            table = pq.read_table(self._part(number), schema=self._part_schema())
        except (OSError, pa.ArrowException) as error:
            raise OutputError(f"{self._part(number)} is damaged: {_FIX}") from error
        if table["id"].to_pylist() != list(map(id_of, self._paths_of(number))):
            raise OutputError(f"{self._part(number)} is damaged (it is of other images): {_FIX}")
        return table

    def _part(self, number: int) -> Path:
        return self.folder / f"{number:08}.parquet"

    def _schema(self) -> pa.Schema:
        kinds = {"probability": pa.float64(), "set": pa.list_(pa.string()), "unlike": pa.bool_()}
        fields = [(name, kinds.get(name.partition("_")[0], pa.string())) for name in self.columns.names]
        if self.columns.every:
            fields.append(("probabilities", pa.list_(pa.float64())))
        names = json.dumps(list(self.columns.class_names))
        return pa.schema(fields, metadata={"class_names": names})

    def _part_schema(self) -> pa.Schema:
        return self._schema().append(pa.field(_FILE, pa.string()))


_loaded: dict[tuple[str, str | None], Predictor] = {}
"""The model of this worker: jobs of one command all ask for the same."""


def predict_shard(message: Message, report: Any) -> Message:
    """Predict the images of one part, a `Shards.job`, as work of a pool.

    Returns:
        `rows`, as `Columns.row` gives them.
    """
    report({})
    which = (message["model"], message["device"])
    if which not in _loaded:
        _loaded[which] = Predictor.load(which[0], device=which[1])
    columns = Columns(**{**message["columns"], "class_names": tuple(message["columns"]["class_names"])})
    rows = []
    for each in _loaded[which].predict_files(message["paths"], coverage=message["coverage"], workers=1):
        rows.append(columns.row(each))
        if not len(rows) % 64:
            report({"images": 64})
    return {"rows": rows}
