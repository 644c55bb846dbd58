"""Predictions, as the command line and the Python API call them."""

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from foveate.counts import plural
from foveate.data.listing import list_images
from foveate.errors import CheckpointError, ConfigError, DataError, FoveateError, OutputError
from foveate.execution.campaign import run_campaign
from foveate.execution.local import LocalPool
from foveate.execution.pool import Event, Message, Pool
from foveate.inference.predictor import IN_PROCESS, Prediction, Predictor
from foveate.inference.tables import UNSURE, Columns, Row
from foveate.progress import Track, untracked
from foveate.workflows.run import unfinished_told
from foveate.workflows.sorting import Sorter

if TYPE_CHECKING:
    from foveate.inference.shards import Rest, Shards

TABLES = (".csv", ".json", ".parquet")


@dataclass
class Predicted:
    """Counts over all predictions."""

    labels: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0
    unlike: int = 0

    @property
    def images(self) -> int:
        """All of them."""
        return self.labels.total() + self.unreadable

    def through(self, rows: Iterable[Row], paths: Iterable[str], sorter: "Sorter | None" = None) -> Iterator[Row]:
        """Yield the rows as they come; count them, and copy their images where there is a sorter."""
        for row, path in zip(rows, paths, strict=True):
            if row["label"] is None:
                self.unreadable += 1
            else:
                self.labels[row["label"]] += 1
                self.unlike += bool(row["unlike"])
                if sorter is not None:
                    sorter.copy(path, row["label"])
            yield row


def predict(
    model: Path | str,
    images: Sequence[Path | str],
    *,
    listed: Iterable[str] = (),
    coverage: float | None = None,
    device: str | None = None,
    track: Track = untracked,
) -> Iterator[Prediction]:
    """Predict image files by a run, a weights file (`.safetensors`) or an exported `.onnx` file, in their order.

    Args:
        images: files, folders, patterns such as `photos/*.jpg`, and `-` for what is `listed`.
        listed: paths, one an item.
        coverage: what share of prediction sets is to hold the true class; None: no sets are made.
        device: where a network in PyTorch runs; None: on the CPU.

    Raises:
        CheckpointError, ConfigError, DataError: for a request that cannot be met, before the first prediction.
    """
    paths, _ = list_images(images, listed)
    predictor = Predictor.load(model, device=device)
    predictor.check_coverage(coverage)
    return _predictions(predictor, paths, coverage, track)


def predict_rows(
    model: Path | str,
    paths: Sequence[str],
    *,
    top: int = 1,
    every: bool = False,
    min_probability: float = 0.0,
    coverage: float | None = None,
    device: str | None = None,
    table: Path | str | None = None,
    workers: int | None = None,
    ray: str | None = None,
    track: Track = untracked,
    say: Callable[[str], None] | None = None,
) -> tuple[Columns, Iterator[Row]]:
    """Predict files as the rows of a table: its columns, and an iterator that does the work.

    Into a file nothing is lost: what was predicted is kept beside it until the table is whole, and the same call
    goes on where it was stopped.

    Args:
        paths: of images, as `list_images` gives them.
        top, every, min_probability: as `Columns` has them.
        table: a `.csv`, `.json` or `.parquet` file to write, which must not exist; None: none is written.
        workers: processes that each predict a part of the images, with a `table`; None: this process predicts,
            and others decode.
        ray: `local`, or HOST:PORT of a cluster's head, which runs the workers.
        say: takes a line on each thing that the model cannot say of its confidence, and on how much is done.

    Raises:
        ConfigError, CheckpointError, DataError, OutputError: for a request that cannot be met.
    """
    if top < 1:
        raise ConfigError(f"top={top}: give 1 at least")
    if not 0 <= min_probability <= 1:
        raise ConfigError(f"min_probability={min_probability:g}: give a probability between 0 and 1")
    if table is None and (workers is not None or ray is not None):
        raise ConfigError("workers and Ray predict into a file: give --csv, --json or --parquet FILE")
    if workers is not None and workers < 1:
        raise ConfigError(f"workers={workers}: give 1 at least, or leave it out")
    place = None if table is None else _new_table(Path(table))
    predictor = Predictor.load(model, device=device)
    predictor.check_coverage(coverage)
    if min_probability and UNSURE in predictor.class_names:
        raise ConfigError(
            f"a class of this model is called {UNSURE!r}, as images below --min-probability are: leave it "
            "out, and compare the column probability instead"
        )
    confidence = predictor.about.confidence
    sets = None if coverage is None else confidence.coverage_told(coverage)
    for line in (unfinished_told(model), confidence.told, sets):
        if say is not None and line is not None:
            say(line)
    columns = Columns(predictor.class_names, top, every, min_probability, coverage is not None)
    if place is None:
        return columns, map(columns.row, _predictions(predictor, paths, coverage, track))
    from foveate.inference.shards import Shards  # pyarrow is slow to import

    shards = Shards(place, paths, columns)
    shards.begin(predictor.about, coverage)
    pool = _open_pool(workers, ray)
    job = partial(shards.job, model=str(Path(model).resolve()), device=device, coverage=coverage)
    return columns, _into_table(shards, predictor, coverage, job, pool, track, say)


def _new_table(place: Path) -> Path:
    if place.suffix.lower() not in TABLES:
        raise ConfigError(f"{place}: give a file whose name ends in {', '.join(TABLES)}")
    if os.path.lexists(place):
        raise ConfigError(f"{place} exists: remove it, or choose another name")
    return place


def _predictions(
    predictor: Predictor, paths: Sequence[str], coverage: float | None, track: Track
) -> Iterator[Prediction]:
    # Few are decoded in this process, which is faster to begin.
    workers = 0 if len(paths) <= IN_PROCESS else None
    found = predictor.predict_files(paths, coverage=coverage, workers=workers)
    return iter(track(found, total=len(paths), label="predicting"))


def _into_table(
    shards: "Shards",
    predictor: Predictor,
    coverage: float | None,
    job: "Callable[[Rest], Message]",
    pool: Pool | None,
    track: Track,
    say: Callable[[str], None] | None,
) -> Iterator[Row]:
    with shards.locked():
        rest = shards.rest()
        images = sum(len(part.paths) for part in rest)
        if say is not None and images < len(shards.paths):
            say(f"going on: {len(shards.paths) - images:,} of {plural(len(shards.paths), 'image')} are done")
        if pool is None:
            done = _here(predictor, shards, rest, coverage)
        else:
            done = _by_pool(pool, _Parts(shards, rest, job))
        for _ in track(done, total=images, label="predicting"):
            pass
        yield from shards.rows()
        shards.finish()
    shards.clear()


def _open_pool(workers: int | None, ray: str | None) -> Pool | None:
    from foveate.inference.shards import predict_shard

    if ray is not None:
        from foveate.execution.ray import RayPool

        return RayPool(predict_shard, workers, address=ray, cpus=1)
    return None if workers is None else LocalPool(predict_shard, workers)


def _here(
    predictor: Predictor, shards: "Shards", rest: "Sequence[Rest]", coverage: float | None
) -> Iterator[None]:
    """Predict what is left of the parts as one stream, so that no process waits between two of them."""
    states: dict[int, list[str]] = {}

    def paths() -> Iterator[str]:
        for part in rest:
            states[part.number] = part.states()
            yield from part.paths

    few = sum(len(part.paths) for part in rest) <= IN_PROCESS
    stream = predictor.predict_files(paths(), coverage=coverage, workers=0 if few else None)
    for part in rest:
        rows = []
        for _ in part.paths:
            rows.append(shards.columns.row(next(stream)))
            yield
        shards.keep(part, states.pop(part.number), rows)


class _Parts:
    """What is left of the parts as jobs for `run_campaign`; one that cannot be predicted ends all of them."""

    hang_limit_s = 600.0
    fatal = (CheckpointError, ConfigError, DataError, OutputError)

    def __init__(self, shards: "Shards", rest: "Sequence[Rest]", job: "Callable[[Rest], Message]") -> None:
        self._shards, self._job = shards, job
        self._rest = {part.number: part for part in rest}
        self._waiting = list(reversed(self._rest))
        self._states: dict[int, list[str]] = {}

    def next_job(self) -> tuple[int, Message] | None:
        if not self._waiting:
            return None
        number = self._waiting.pop()
        self._states[number] = self._rest[number].states()
        return number, self._job(self._rest[number])

    def record(self, event: Event) -> Event:
        from foveate.inference.shards import SHARD

        if event.kind == "failed":
            raise DataError(f"images {event.job * SHARD:,} and following: {event.value['reason']}")
        if event.kind == "lost":
            self._waiting.append(event.job)
        else:
            self._shards.keep(self._rest[event.job], self._states.pop(event.job), event.value["rows"])
        return event


def _by_pool(pool: Pool, parts: _Parts) -> Iterator[None]:
    """Have what is left of the parts predicted by others, some at once; yield for each image."""
    with contextlib.closing(pool):
        try:
            for event in run_campaign(parts, pool):
                if event is not None and event.kind == "progress":
                    yield from [None] * event.value.get("images", 0)
        except FoveateError as error:
            raise type(error)(f"{error}: run again to go on") from error
