"""A comparison under way: which runs there are, in which order they are done, and what they have measured."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from foveate.comparison.groups import kept_groups
from foveate.comparison.settings import ComparisonConfig
from foveate.comparison.training import ArmJob, ArmResult, JudgedSplit, result_path, unpack
from foveate.errors import CheckpointError, ConfigError, DataError, OutputError, TrainingError
from foveate.execution.campaign import Backlog, failure_words
from foveate.execution.pool import Event, Message
from foveate.files import refuse_links, write_json
from foveate.records import Name, Reason, Record, read_record
from foveate.training.job import shared_fields

_FAILED = "failed.json"


class _Failure(Record):
    kind: Name
    reason: Reason


class ArmRun(NamedTuple):
    """A seed, and the places of its number of images and its arm in `ComparisonConfig`'s `subsets` and `arms`."""

    subset: int
    seed: int
    arm: int


class Experiment(Backlog[ArmRun]):
    """The campaign of a comparison, measured on one split. A run whose folder holds a result is done.

    Args:
        folder: of the comparison; the runs lie in `runs/`.
        split: on which the runs are measured; only for `validation` are they trained.
    """

    fatal = (OutputError, CheckpointError, DataError, ConfigError)
    columns = ("seed", "epoch", "arm")
    things = "runs"

    def __init__(self, config: ComparisonConfig, folder: Path, split: JudgedSplit = "validation") -> None:
        super().__init__()
        self.config, self.folder, self.split = config, folder, split
        self.hang_limit_s = config.hang_limit_s
        self.runs = [
            # All arms of a seed side by side: what drifts with time hits all alike.
            ArmRun(subset, config.first_seed_of(arm) + place, arm)
            for place in range(config.seeds)
            for subset in range(len(config.subsets))
            for arm in range(len(config.arms))
        ]
        self._results: dict[ArmRun, ArmResult] = {}

    def pending(self) -> list[ArmRun]:
        """The runs that have no result, in the order in which they begin.

        For validation without those whose training failed by itself, and would again wherever it ran; for the test
        split only those that were trained.
        """
        trained = None if self.split == "validation" else Experiment(self.config, self.folder)

        def wanted(run: ArmRun) -> bool:
            if trained is not None:
                return trained.result(run) is not None
            failure = self._failure(run)
            return failure is None or failure.kind != TrainingError.__name__

        return [run for run in self.runs if self.result(run) is None and wanted(run)]

    def failures(self) -> dict[ArmRun, str]:
        """Why runs have no result."""
        failures = ((run, self._failure(run)) for run in self.runs if self.result(run) is None)
        return {run: failure.reason for run, failure in failures if failure}

    def result(self, run: ArmRun) -> ArmResult | None:
        """What a run measured; None where it has not.

        Raises:
            CheckpointError: when its file is damaged.
        """
        if run not in self._results:
            path = result_path(self.place(run), self.split)
            if not path.exists():
                return None
            result = read_record(path, ArmResult, fix="remove it, and the run is measured again")
            for other, known in list(self._results.items())[:1]:  # all have as many images as the first
                if known.images != result.images:
                    raise CheckpointError(
                        f"{path} tells of {result.images:,} images and "
                        f"{result_path(self.place(other), self.split)} of {known.images:,}: "
                        "remove the wrong one, and its run is measured again"
                    )
            self._results[run] = result
        return self._results[run]

    def done(self, arm: int, subset: int) -> list[ArmRun]:
        """The runs of an arm with a number of training images that have a result, in the order of their seeds."""
        wanted = [run for run in self.runs if (run.arm, run.subset) == (arm, subset)]
        return [run for run in wanted if self.result(run) is not None]

    def right(self, runs: Sequence[ArmRun]) -> NDArray[np.bool_]:
        """Which images each of some runs got right: [runs, images]."""
        done = [self.result(run) for run in runs]
        return np.array([unpack(each.right, each.images) for each in done if each is not None])

    @cached_property
    def groups(self) -> NDArray[np.int64] | None:
        """The number of each measured image's group, [images]; None where images have none, or no run a result.

        Raises:
            CheckpointError: when its file is damaged.
        """
        measured = (result.images for run in self.runs if (result := self.result(run)) is not None)
        images = next(measured, None)
        return None if images is None else kept_groups(self.folder, self.split, images)

    def place(self, run: ArmRun) -> Path:
        """The folder of a run."""
        subset = self.config.subsets[run.subset]
        images = "all" if subset is None else str(subset)
        return self.folder.resolve() / "runs" / f"arm-{run.arm:02}" / f"{images}-{run.seed}"

    def next_job(self) -> tuple[int, Message] | None:
        """The next run.

        Raises:
            CheckpointError: when a link leads out of the comparison's folder.
        """
        if not self._waiting:
            return None
        run = self._waiting.pop()
        config, arm = self.config, self.config.arms[run.arm]
        job = ArmJob(
            **shared_fields(config, self.folder),
            config=arm.config.replacing(seed=run.seed),
            subset=config.subsets[run.subset],
            folder=str(self._safe_place(run)),
            split=self.split,
        )
        return self.runs.index(run), job.model_dump(mode="json")

    def record(self, event: Event) -> Event:
        """Keep why a run failed; its worker has kept what it measured.

        Raises:
            OutputError: when a worker on another machine wrote elsewhere.
            CheckpointError: when a link leads out of the comparison's folder.
        """
        run = self.runs[event.job]
        if event.kind == "lost":
            self._waiting.append(run)
            return event
        self._ended += 1
        if event.kind == "failed":
            self._safe_place(run).mkdir(parents=True, exist_ok=True)
            write_json(self.place(run) / _FAILED, dict(event.value))
        elif not result_path(self.place(run), self.split).exists():
            raise OutputError(f"{self.place(run)}: a worker wrote a result that is not here: share --runs")
        return event

    def announcement(self, workers: int) -> list[str]:
        """The arms, and how many runs there are to do."""
        config, left = self.config, len(self._todo)
        if not left:
            ended = sum(self.result(run) is not None for run in self.runs)
            told = f"{ended} of {len(self.runs)} runs are measured on the {self.split} images"
            return [f"nothing is left to do: {told}"]
        doing = "opening the test split:" if self.split == "test" else "training"
        sizes = f" × {len(config.subsets)} sizes" if len(config.subsets) > 1 else ""
        done = sum(self.result(run) is not None for run in self.runs)
        before = f"; {done} done before" if done else ""
        lines = [
            f"{doing} {len(config.arms)} arms × {config.seeds} seed{'s' if config.seeds > 1 else ''}{sizes}, "
            f"{left} runs on {workers} worker{'' if workers == 1 else 's'}{before}"
        ]
        for arm in config.arms if self.split == "validation" else ():
            control = f" (control of {', '.join(arm.matched)})" if arm.matched else ""
            lines.append(f"  {arm.name}{control}")
        return lines

    def row(self, job: int, epoch: int) -> tuple[str, ...]:
        """A run that is being trained."""
        run = self.runs[job]
        arm = self.config.arms[run.arm]
        return str(run.seed), f"{epoch}/{arm.config.train.epochs or '?'}", arm.name

    def lines(self, event: Event) -> list[str]:
        """A run that ended."""
        run = self.runs[event.job]
        subset = self.config.subsets[run.subset]
        images = "" if subset is None else f"  {subset:,} images"
        title = f"{self.config.arms[run.arm].name}  seed {run.seed}{images}"
        if event.kind != "done":
            return [f"{title}  {failure_words(event)}"]
        return [f"{title}  accuracy {event.value['accuracy']:.2%}  {self.progress()}"]

    def _safe_place(self, run: ArmRun) -> Path:
        """The folder of a run, to be written into; CheckpointError where a link leads elsewhere."""
        place = self.place(run)
        refuse_links(place, within=self.folder.resolve())
        return place

    def _failure(self, run: ArmRun) -> _Failure | None:
        path = self.place(run) / _FAILED
        if not path.exists():
            return None
        return read_record(path, _Failure, fix="remove it, and the run is trained again")
