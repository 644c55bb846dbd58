"""A comparison under way: which runs there are, who does them in which order, and what they come to."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from foveate.comparison.arms import Arm, Cost, cost_of
from foveate.comparison.statistics import Difference, Verdict, compare, conclude, seeds_needed
from foveate.comparison.training import ArmJob, ArmResult, JudgedSplit, result_path, unpack
from foveate.config import Section
from foveate.data.splits import SPLITS_FILE
from foveate.errors import CheckpointError, ConfigError, DataError, FoveateError, OutputError, TrainingError
from foveate.execution.pool import Event, Pool
from foveate.execution.supervision import Supervisor
from foveate.files import refuse_links, write_json
from foveate.records import Digest, Name, Reason, Record, distinct, read_record

__all__ = ["ArmRun", "ArmSummary", "ComparisonConfig", "Experiment", "Finding", "Pair", "Update"]

_POLL_INTERVAL_S = 0.1
"""Seconds between looks at whether something hangs, or should stop."""
_FAILED = "failed.json"
_MOST_RUNS = 100_000
_EVERYONES: Mapping[str, type[FoveateError]] = {
    each.__name__: each for each in (OutputError, CheckpointError, DataError, ConfigError)
}
"""What stops the comparison and not the run alone that met it."""


class _Failure(Record):
    """How a run failed."""

    kind: Name
    reason: Reason


class ComparisonConfig(Section):
    """Every setting of a comparison. Nothing about how many workers run it: that changes none of its figures."""

    data: str
    """A known name or an absolute path."""
    data_dir: str | None
    fingerprint: str
    splits: Digest | None = None
    """sha256 of the file that says which images are in which split; None: an earlier version kept none."""
    num_classes: int = Field(ge=1, le=100_000)
    arms: tuple[Arm, ...] = Field(min_length=2, max_length=1_000)
    """Settled. The first is the reference, controls come last."""
    seeds: int = Field(5, ge=1, le=10_000)
    first_seed: int = Field(0, ge=0, lt=2**62)
    subsets: tuple[Annotated[int, Field(ge=1, le=10**12)] | None, ...] = Field(
        (None,), min_length=1, max_length=1_000
    )
    """Training images; None: all. Of several there is a curve."""
    delta: float = Field(0.005, gt=0, lt=1)
    """δ: the smallest difference in accuracy that matters, 0…1."""
    alpha: float = Field(0.05, ge=1e-9, lt=1)
    """Over all pairs together."""
    hang_limit_s: float = Field(600, gt=0)
    """Seconds without a step after which a run counts as hanging."""
    draws: Literal[1, 2] = 1
    """Version of what random numbers are drawn from (`training.setup.DRAWS`); files that lack it have 1."""
    pilot: bool = False
    """Whether it is there to learn the spread of seeds by: it is no evidence, and never sees the test split."""

    @model_validator(mode="after")
    def _arms_fit_each_other(self) -> "ComparisonConfig":
        if (runs := self.seeds * len(self.arms) * len(self.subsets)) > _MOST_RUNS:
            raise ValueError(f"seeds × arms × subsets are {runs:,} runs: {_MOST_RUNS:,} are the most")
        distinct(self.subsets)
        names = distinct([arm.name for arm in self.arms])
        if self.arms[0].matched or not {name for arm in self.arms for name in arm.matched} <= set(names):
            raise ValueError("arms: the first is the reference, and controls are matched to other arms by name")
        data = [arm.config.data for arm in self.arms]
        if data[0].size is None or any(each != data[0] for each in data):
            raise ValueError("arms: all must have the same `data`, with a size")
        return self


class ArmRun(NamedTuple):
    """Places in `ComparisonConfig`'s `subsets` and `arms`, and a seed."""

    subset: int
    seed: int
    arm: int


class Pair(NamedTuple):
    """An arm and what it is compared with: places in `ComparisonConfig.arms`."""

    arm: int
    other: int


@dataclass(frozen=True)
class Update:
    """A run begins, ended an epoch, is done, has failed, or begins again."""

    kind: Literal["begun", "epoch", "done", "failed", "again"]
    run: ArmRun
    value: Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """What came of a pair: an arm's accuracy less the other's."""

    pair: Pair
    subset: int | None
    seeds: tuple[int, ...]
    """Of which both have a result."""
    difference: Difference | None
    """None where there are none."""
    verdict: Verdict | None
    seeds_needed: int | None
    """That would see δ with a power of 80 %, if they spread as here; None: unknown, or more than looked for."""


@dataclass(frozen=True)
class ArmSummary:
    """What an arm's runs came to, with all training images or a subset."""

    arm: int
    subset: int | None
    seeds: tuple[int, ...]
    accuracies: tuple[float, ...]
    without_attention: float | None
    """Mean accuracy with the attention taken out."""
    gates: tuple[float, ...]
    cost: Cost
    ms_per_image: float | None
    """Of training, the median of the runs."""


class Experiment:
    """The runs of a comparison, of which those are done whose folder holds a result.

    Args:
        folder: of the comparison; the runs lie in `runs/`.
    """

    def __init__(self, config: ComparisonConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        seeds = range(config.first_seed, config.first_seed + config.seeds)
        self.runs = [
            ArmRun(subset, seed, arm)  # all arms of a seed side by side: what drifts with time hits all alike
            for seed in seeds
            for subset in range(len(config.subsets))
            for arm in range(len(config.arms))
        ]
        self._results: dict[tuple[JudgedSplit, ArmRun], ArmResult] = {}
        self._images: dict[JudgedSplit, tuple[Path, int]] = {}
        """How many images a split has, and the first result that says so."""

    @property
    def pairs(self) -> list[Pair]:
        """Every arm against the reference, and against its own controls."""
        arms = self.config.arms
        return [
            Pair(place, against)
            for place, arm in enumerate(arms)
            if place and not arm.matched
            for against, other in enumerate(arms)
            if against == 0 or arm.name in other.matched
        ]

    def pending(self, split: JudgedSplit) -> list[ArmRun]:
        """Runs that are to be done, in the order in which they begin: those without a result.

        For validation without those whose training failed by itself, and would again; for the test split of those
        that were trained.
        """

        def wanted(run: ArmRun) -> bool:
            if split == "test":
                return self.result(run, "validation") is not None
            failure = self._failure(run)
            return failure is None or failure.kind != TrainingError.__name__

        return [run for run in self.runs if self.result(run, split) is None and wanted(run)]

    def failures(self, split: JudgedSplit) -> dict[ArmRun, str]:
        """Why runs have no result on a split."""
        failures = ((run, self._failure(run)) for run in self.runs if self.result(run, split) is None)
        return {run: failure.reason for run, failure in failures if failure}

    def result(self, run: ArmRun, split: JudgedSplit) -> ArmResult | None:
        """What a run measured; None where it has not.

        Raises:
            CheckpointError: when its file is damaged.
        """
        if (split, run) not in self._results:
            path = result_path(self.place(run), split)
            if not path.exists():
                return None
            fix = "remove it, and the run is measured again"
            result = self._results[split, run] = read_record(path, ArmResult, fix=fix)
            other, images = self._images.setdefault(split, (path, result.images))
            if images != result.images:
                raise CheckpointError(
                    f"{path} tells of {result.images:,} images and {other} of {images:,}: "
                    "remove the wrong one, and its run is measured again"
                )
        return self._results[split, run]

    def place(self, run: ArmRun) -> Path:
        """The folder of a run."""
        subset = self.config.subsets[run.subset]
        images = "all" if subset is None else str(subset)
        return self.folder.resolve() / "runs" / f"arm-{run.arm:02}" / f"{images}-{run.seed}"

    def train(self, pool: Pool, split: JudgedSplit) -> Iterator[Update | None]:
        """Do what is pending. What is stopped between two updates goes on from there; None comes when nothing
        happened for a while. A run that fails is told, and the rest goes on.

        Raises:
            OutputError, CheckpointError, DataError, ConfigError: for what concerns all runs.
        """
        supervisor, running = Supervisor(self.config.hang_limit_s), dict[int, ArmRun]()
        numbers = {run: 2 * place + (split == "test") for place, run in enumerate(self.runs)}
        # A number is never used twice: what a worker says may come late.
        waiting = [(numbers[run], run) for run in self.pending(split)][::-1]
        while waiting or running:
            while waiting and len(running) < pool.workers:
                number, beginning = waiting.pop()
                running[number] = beginning
                supervisor.begun(number)
                pool.submit(number, self._job(beginning, split).model_dump(mode="json"))
                yield Update("begun", beginning, {})
            event = pool.event(timeout_s=_POLL_INTERVAL_S)
            supervisor.stop_hanging(pool)
            if event is None:
                yield None
                continue
            if (run := running.get(event.job)) is None:
                continue
            supervisor.heard(event.job)
            if event.kind == "progress":
                yield Update("epoch", run, event.value) if event.value else None
                continue
            del running[event.job]
            update = self._ended(event, run, split, supervisor)
            if update.kind == "again":
                waiting.append((event.job, run))
            yield update

    def findings(self, split: JudgedSplit) -> list[Finding]:
        """What the runs that are done say of every pair."""
        comparisons = len(self.pairs) * len(self.config.subsets)
        return [
            self._finding(pair, place, split, comparisons)
            for place in range(len(self.config.subsets))
            for pair in self.pairs
        ]

    def summaries(self, split: JudgedSplit) -> list[ArmSummary]:
        """Every arm, with every number of training images."""
        return [
            self._summary(arm, place, split)
            for place in range(len(self.config.subsets))
            for arm in range(len(self.config.arms))
        ]

    def right(self, runs: Sequence[ArmRun], split: JudgedSplit) -> NDArray[np.bool_]:
        """Which images each of some runs got right: [runs, images]."""
        done = [self.result(run, split) for run in runs]
        return np.array([unpack(each.right, each.images) for each in done if each is not None])

    def _ended(self, event: Event, run: ArmRun, split: JudgedSplit, supervisor: Supervisor) -> Update:
        """A run's job came to an end, well or not.

        Raises:
            OutputError, CheckpointError, DataError, ConfigError: for what concerns all runs.
        """
        if event.kind == "done":
            supervisor.ended(event.job)
            if not result_path(self.place(run), split).exists():
                raise OutputError(f"{self.place(run)}: a worker wrote a result that is not here: share --runs")
            return Update("done", run, event.value)
        if event.kind == "lost":
            kind, reason = event.kind, supervisor.lost(event.job, event.value["message"])
            if reason is None:
                return Update("again", run, event.value)
        else:
            kind, reason = event.value["kind"], "{kind}: {message} ({where})".format(**event.value)
            if (error := _EVERYONES.get(kind)) is not None:
                raise error(event.value["message"])
        supervisor.ended(event.job)
        self._own_place(run).mkdir(parents=True, exist_ok=True)
        write_json(self.place(run) / _FAILED, {"kind": kind, "reason": reason})
        return Update("failed", run, {"reason": reason})

    def _own_place(self, run: ArmRun) -> Path:
        """The folder of a run, before anything is written there.

        Raises:
            CheckpointError: when a link leads out of the comparison's folder.
        """
        place = self.place(run)
        refuse_links(place, within=self.folder.resolve())
        return place

    def _failure(self, run: ArmRun) -> _Failure | None:
        """What is kept of how a run failed."""
        path = self.place(run) / _FAILED
        if not path.exists():
            return None
        return read_record(path, _Failure, fix="remove it, and the run is trained again")

    def _job(self, run: ArmRun, split: JudgedSplit) -> ArmJob:
        config, arm = self.config, self.config.arms[run.arm]
        return ArmJob(
            config=arm.config.replacing(seed=run.seed),
            dataset=config.data,
            data_dir=config.data_dir,
            fingerprint=config.fingerprint,
            splits=str(self.folder.resolve() / SPLITS_FILE) if self.config.splits else None,
            splits_sha256=self.config.splits,
            subset=config.subsets[run.subset],
            folder=str(self._own_place(run)),
            split=split,
            draws=config.draws,
        )

    def _done(self, arm: int, subset: int, split: JudgedSplit) -> list[ArmRun]:
        return [
            run
            for run in self.runs
            if (run.arm, run.subset) == (arm, subset) and self.result(run, split) is not None
        ]

    def _finding(self, pair: Pair, subset: int, split: JudgedSplit, comparisons: int) -> Finding:
        config = self.config
        sides = [{run.seed: run for run in self._done(arm, subset, split)} for arm in pair]
        seeds = tuple(sorted(sides[0].keys() & sides[1].keys()))
        if not seeds:
            return Finding(pair, config.subsets[subset], (), None, None, None)
        difference = compare(*(self.right([side[seed] for seed in seeds], split) for side in sides))
        verdict = conclude(difference, delta=config.delta, alpha=config.alpha, comparisons=comparisons)
        sd = difference.sd
        needed = None if sd is None else seeds_needed(sd, config.delta, level=verdict.level)
        return Finding(pair, config.subsets[subset], seeds, difference, verdict, needed)

    def _summary(self, arm: int, subset: int, split: JudgedSplit) -> ArmSummary:
        config = self.config
        runs = self._done(arm, subset, split)
        results = [result for run in runs if (result := self.result(run, split)) is not None]
        without = [each.without_attention for each in results if each.without_attention is not None]
        speeds = [1e3 * each.train_s / each.images_shown for each in results if each.images_shown]
        settled = config.arms[arm].config
        assert settled.data.size is not None
        return ArmSummary(
            arm=arm,
            subset=config.subsets[subset],
            seeds=tuple(run.seed for run in runs),
            accuracies=tuple(each.accuracy for each in results),
            without_attention=mean(without) if without else None,
            gates=tuple(each.gate for each in results if each.gate is not None),
            cost=cost_of(settled, num_classes=config.num_classes, size=settled.data.size),
            ms_per_image=median(speeds) if speeds else None,
        )
