"""Predictions of any number of images, kept as they come, so that a job that was stopped goes on."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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


class _Plan(Record):
    """Identifies the command whose predictions lie in a folder."""

    kind: str = Field("predictions of Foveate", pattern="^predictions of Foveate$")
    digest: Digest
    """sha256 of the model's weights, what was asked for and the images' names."""
    images: Count


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
        if self.folder.exists():
            found = read_record(self.folder / "plan.json", _Plan, fix=_FIX, error=OutputError)
            if found != plan:
                raise ConfigError(
                    f"{self.folder} holds unfinished predictions of another command: remove it, or write to "
                    "another file"
                )
            return
        with new_folder(self.folder) as temporary:
            write_json(temporary / "plan.json", plan.model_dump())

    def missing(self) -> list[int]:
        """The numbers of the parts that are not there yet."""
        count = -(-len(self.paths) // SHARD)
        return [number for number in range(count) if not self._part(number).exists()]

    def paths_of(self, number: int) -> Sequence[str]:
        """Of one part."""
        return self.paths[number * SHARD : (number + 1) * SHARD]

    def job(self, number: int, model: str, device: str | None, coverage: float | None) -> Message:
        """What `predict_shard` is given of one part."""
        asked = {"model": model, "device": device, "coverage": coverage, "columns": asdict(self.columns)}
        return {**asked, "paths": list(self.paths_of(number))}

    def keep(self, number: int, rows: Sequence[Row]) -> None:
        """Write a part.

        Raises:
            OutputError: when it cannot be written.
        """
        with replacing(self._part(number)) as temporary:
            pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], self._schema()), temporary)

    def finish(self) -> None:
        """Make the table of all parts, and remove them.

        Raises:
            OutputError: when it cannot be written; the parts stay.
        """
        with replacing(self.table) as temporary:
            write = WRITERS.get(self.table.suffix.lower().removeprefix("."))
            if write is None:
                with pq.ParquetWriter(temporary, self._schema()) as writer:
                    for number in range(-(-len(self.paths) // SHARD)):
                        writer.write_table(self._read(number))
            else:
                with temporary.open("w", encoding="utf-8", newline="") as file:
                    write(file, self.columns, self.rows())
        shutil.rmtree(self.folder)

    def locked(self) -> Any:
        """To be held while parts are written."""
        return locked(self.folder, "being written by another process")

    def rows(self) -> Iterator[Row]:
        """Of all parts, in order.

        Raises:
            OutputError: when a part is damaged.
        """
        for number in range(-(-len(self.paths) // SHARD)):
            yield from self._read(number).to_pylist()

    def _read(self, number: int) -> pa.Table:
        try:
            table = pq.read_table(self._part(number), schema=self._schema())
        except (OSError, pa.ArrowException) as error:
            raise OutputError(f"{self._part(number)} is damaged: {_FIX}") from error
        if table["id"].to_pylist() != list(map(id_of, self.paths_of(number))):
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
