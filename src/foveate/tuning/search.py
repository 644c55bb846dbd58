"""A study under way: the plan is asked, workers do the jobs, and every decision is in the journal first."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, pairwise
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import Field, ValidationError, model_validator

from foveate.config import Config, Section
from foveate.data.splits import SPLITS_FILE
from foveate.errors import CheckpointError, ConfigError, DataError, FoveateError, OutputError, StudyError
from foveate.execution.pool import Event, Pool
from foveate.execution.supervision import Supervisor
from foveate.records import Digest, Line, first_problem
from foveate.tuning.hyperband import (
    FORMULAS,
    MAX_EPOCHS,
    Asha,
    Bracket,
    Cost,
    Formula,
    Hyperband,
    Job,
    Outcome,
    Plan,
    Rung,
    Scores,
    cost,
)
from foveate.tuning.journal import Asked, Entry, Journal, Opened, Returned, Times, Told
from foveate.tuning.samplers import Sampler
from foveate.tuning.space import Space, Value
from foveate.tuning.storage import open_storage
from foveate.tuning.trial import Row, Semantics, TrialJob

__all__ = ["Search", "StudyConfig", "Trial", "Update", "brackets_of", "cost_of"]

_POLL_INTERVAL_S = 0.1
"""Seconds between looks at whether something hangs, or should stop."""
_STUDYS: Mapping[str, type[FoveateError]] = {
    each.__name__: each for each in (OutputError, CheckpointError, DataError)
}
"""What stops the study and not the trial alone that met it."""
_FAILED_AT_LEAST = 3
"""Trials that must have failed before their share can end a study."""
_MOST_TRIALS = 100_000
"""Of a study: its page and its journal are read as a whole."""


class _MisfitError(Exception):
    """What an entry of the journal says cannot have happened."""


class StudyConfig(Section):
    """Every setting of a study. Nothing about how many workers run it: that changes none of its figures."""

    data: str
    """A known name or an absolute path."""
    data_dir: str | None
    fingerprint: str
    splits: Digest | None = None
    """sha256 of the file that says which images are in which split; None: an earlier version kept none."""
    subset: int | None = Field(None, ge=10, le=10**12)
    """Images of training and validation together; None: all."""
    space_name: Line
    space: Space
    base: Config
    """What all trials have in common, settled."""
    algorithm: Literal["hyperband", "asha"] = "hyperband"
    formula: Formula = "li2018"
    max_epochs: int = Field(ge=1, le=MAX_EPOCHS)
    factor: int = Field(3, ge=2, le=MAX_EPOCHS)
    iterations: int = Field(1, ge=1, le=_MOST_TRIALS)
    """How often Hyperband's brackets are gone through."""
    trials: int | None = Field(None, ge=1, le=_MOST_TRIALS)
    """Of `asha`; None: as many as Hyperband's brackets have."""
    semantics: Semantics = "foveate"
    sampler: Literal["random", "tpe"] = "random"
    seed: int = Field(0, ge=0, lt=2**63)
    storage: str | None = None
    """Where its checkpoints lie, and no other study's: a path, or a URL that fsspec knows; None: in its folder."""
    hang_limit_s: float = Field(600, gt=0)
    """Seconds without a step after which a trial counts as hanging."""
    fail_share: float = Field(0.5, ge=0, le=1)
    """Share of failed trials above which the study ends."""
    draws: Literal[1, 2] = 1
    """Version of what random numbers are drawn from (`training.fit.DRAWS`); files that lack it have 1."""

    @model_validator(mode="after")
    def _nothing_without_effect(self) -> "StudyConfig":
        if self.algorithm == "asha":
            if self.sampler == "tpe":
                raise ValueError(
                    "sampler=tpe learns from finished brackets, which asha has none of: use hyperband"
                )
            if self.formula != "li2018" or self.iterations != 1:
                raise ValueError("formula and iterations are hyperband's")
        elif self.trials is not None:
            raise ValueError("trials is asha's: hyperband's are said by max_epochs, factor and iterations")
        return self

    @model_validator(mode="after")
    def _not_endless(self) -> "StudyConfig":
        trials = self.trials or cost(FORMULAS[self.formula](self.max_epochs, self.factor)).trials * self.iterations
        if trials > _MOST_TRIALS:
            raise ValueError(
                f"max_epochs={self.max_epochs}, factor={self.factor} and iterations={self.iterations} make "
                f"{trials:,} trials: {_MOST_TRIALS:,} are the most"
            )
        return self


@dataclass
class Trial:
    """What is known of a trial."""

    number: int
    settings: Mapping[str, Value]
    bracket: int
    rung: int = 0
    state: Literal["running", "waiting", "stopped", "out", "finished", "failed"] = "running"
    """`waiting` for its rung; `stopped` early; `out`: not promoted; `finished`: it has had all epochs."""
    score: float | None = None
    """Of its last job."""
    reached: int = 0
    """Epochs that the score stands for: to which that job went, or all where it stopped early."""
    rows: list[Row] = field(default_factory=list)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    """Each with `rung`, `began` and `ended` in seconds since the study began, the `slot` it ran on, `failed`."""
    reason: str | None = None
    """Why it failed."""

    @property
    def epochs(self) -> int:
        """To which it was trained."""
        return self.rows[-1]["epoch"] if self.rows else 0


@dataclass(frozen=True)
class Update:
    """Something happened to a job: it was begun, an epoch ended, it ended, failed, or has to be done again."""

    kind: Literal["begun", "epoch", "done", "failed", "again"]
    job: Job
    value: Mapping[str, Any]


def brackets_of(config: StudyConfig) -> tuple[Bracket, ...]:
    """Hyperband's brackets, as often as they are gone through."""
    return FORMULAS[config.formula](config.max_epochs, config.factor) * config.iterations


def cost_of(config: StudyConfig) -> Cost:
    """What a study takes: exactly under Hyperband, and about so under ASHA."""
    if config.algorithm == "hyperband":
        return cost(brackets_of(config))
    trials = config.trials or cost(brackets_of(config)).trials
    rungs, left = [], trials
    for rung in FORMULAS["li2018"](config.max_epochs, config.factor)[0]:
        rungs.append(Rung(left, rung.epochs))
        left //= config.factor
    return cost([tuple(rungs)])


class Search:
    """A study as far as its journal says, and what takes it further.

    Args:
        folder: of the study; checkpoints lie in `trials/`.
        journal: what in it cannot have happened in this study is cut off.
        sampler: gives new trials their settings; what is in the journal comes before it.

    Raises:
        CheckpointError: when its storage is another study's.
    """

    def __init__(self, config: StudyConfig, folder: Path, journal: Journal, sampler: Sampler) -> None:
        self.config, self.folder, self.journal = config, folder, journal
        first = journal.entries[0]
        assert isinstance(first, Opened)
        self._storage = open_storage(config.storage, first.sha256, folder)
        self._sampler = sampler
        self._slots: dict[int, int] = {}
        self._began: dict[int, float] = {}
        self._begin_anew()
        while (misfit := self._replay_all()) is not None:
            journal.cut(*misfit)
            self._begin_anew()
        self._replaying.clear()
        self._before_s = max((job["ended"] for trial in self.trials.values() for job in trial.jobs), default=0.0)
        self._clock = time.monotonic()
        for job in list(self.running.values()):  # under way when the study was killed
            self._return(job, "the study was interrupted")

    def run(self, pool: Pool) -> Iterator[Update | None]:
        """Take the study to its end. What is stopped between two updates goes on from there; None comes when
        nothing happened for a while, so that it can be stopped then too.

        Raises:
            OutputError: when journal or checkpoints cannot be written, for example on a full disk.
            StudyError: when too many trials have failed.
        """
        while True:
            while len(self.running) < pool.workers and isinstance(job := self._plan.ask(), Job):
                self._begin(job, pool)
                yield Update("begun", job, {})
            if not self.running:
                break
            event = pool.event(timeout_s=_POLL_INTERVAL_S)
            self._supervisor.stop_hanging(pool)
            yield self._take(event) if event is not None else None
            self._check_failures()
        for trial in self.trials.values():
            if trial.state == "waiting":
                trial.state = "out"
        self._delete(self.trials)

    @property
    def epochs_done(self) -> int:
        """Over all trials."""
        return sum(trial.epochs for trial in list(self.trials.values()))

    @property
    def elapsed_s(self) -> float:
        """Since the study began, without the time between an interrupt and its resumption."""
        return self._before_s + time.monotonic() - self._clock

    def _begin_anew(self) -> None:
        """As before the first entry of the journal."""
        self.trials: dict[int, Trial] = {}
        self.running: dict[int, Job] = {}
        self._settings: dict[int, Mapping[str, Value]] = {}
        self._failed: list[Trial] = []
        self.best: Trial | None = None
        """Of the trials trained to the most epochs, or to where they stopped, the one with the best score."""
        self._plan = self._make_plan()
        self._supervisor = Supervisor(self.config.hang_limit_s)
        self._replaying: dict[int, Mapping[str, Value]] = {}
        for entry in self.journal.entries:
            if isinstance(entry, Asked):
                self._replaying.setdefault(entry.trial, entry.settings)

    def _make_plan(self) -> Plan:
        config = self.config
        if config.algorithm == "asha":
            return Asha(config.max_epochs, config.factor, cost_of(config).trials, self._draw)
        return Hyperband(brackets_of(config), self._draw, in_turn=config.sampler == "tpe")

    def _draw(self, trial: int, seen: Scores) -> Mapping[str, Value] | None:
        if (known := self._replaying.get(trial)) is not None:
            return known
        return self._sampler(trial, seen, self._settings)

    def _replay_all(self) -> tuple[int, str] | None:
        """Do again what the journal says; how many of its lines can have happened, and why the next one cannot."""
        for number, entry in enumerate(self.journal.entries):
            try:
                self._replay(entry)
            except _MisfitError as error:
                return number, str(error)
        return None

    def _replay(self, entry: Entry) -> None:
        """Do again what an entry of the journal says.

        Raises:
            _MisfitError: where that cannot have happened.
        """
        if isinstance(entry, Opened):
            return
        if isinstance(entry, Asked):
            self._check_settings(entry.settings, new=entry.trial not in self.trials)
            job = self._plan.ask()
            found = (job.trial, job.bracket, job.rung, job.settings) if isinstance(job, Job) else None
            if found != (entry.trial, entry.bracket, entry.rung, entry.settings):
                raise _MisfitError(f"the plan does not ask for trial {entry.trial} at rung {entry.rung} here")
            self._note_begun(cast("Job", job))
            return
        if (running := self.running.get(entry.trial)) is None:
            raise _MisfitError(f"trial {entry.trial} is not running here")
        if isinstance(entry, Returned):
            self._plan.give_back(self.running.pop(entry.trial))
            return
        epochs = [running.from_epoch, *(row.epoch for row in entry.rows), running.to_epoch + 1]
        if entry.rung != running.rung or any(later <= epoch for epoch, later in pairwise(epochs)):
            raise _MisfitError(f"trial {entry.trial} trains to epoch {running.to_epoch} here")
        self._note_told(running, entry)

    def _check_settings(self, settings: Mapping[str, Value], *, new: bool) -> None:
        """Raises _MisfitError for settings that no trial of the study can have."""
        try:
            if new and self.config.space.contains(settings):
                self.config.space.apply(self.config.base, settings)
                return
        except ConfigError as error:
            raise _MisfitError(str(error)) from error
        if new:
            raise _MisfitError(f"the space has no such settings: {dict(settings)}")

    def _begin(self, job: Job, pool: Pool) -> None:
        self.journal.append(
            Asked(trial=job.trial, bracket=job.bracket, rung=job.rung, settings=dict(job.settings))
        )
        self._note_begun(job)
        self._supervisor.begun(job.trial)
        self._slots[job.trial] = next(slot for slot in count() if slot not in self._slots.values())
        self._began[job.trial] = self.elapsed_s
        pool.submit(job.trial, self.trial_job(job).model_dump(mode="json"))

    def _note_begun(self, job: Job) -> None:
        if job.trial not in self.trials:
            self.trials[job.trial] = Trial(job.trial, job.settings, job.bracket)
            self._settings[job.trial] = job.settings
        self.trials[job.trial].state = "running"
        self.running[job.trial] = job

    def _take(self, event: Event) -> Update | None:
        job = self.running.get(event.job)
        if job is None:
            return None
        self._supervisor.heard(job.trial)
        if event.kind == "progress":
            return Update("epoch", job, event.value) if event.value else None  # a sign of life
        if event.kind == "done":
            return self._end(job, **event.value)
        if event.kind == "failed":
            if (error := _STUDYS.get(event.value["kind"])) is not None:
                raise error(event.value["message"])
            return self._end(job, reason="{kind}: {message} ({where})".format(**event.value))
        return self._lose(job, event.value)

    def _lose(self, job: Job, told: Mapping[str, Any]) -> Update:
        """A worker is gone, and with it a job: because it was stopped, or by a fault that may not come again."""
        if (reason := self._supervisor.lost(job.trial, told["message"])) is not None:
            return self._end(job, reason=reason)
        self._return(job, told["message"])
        return Update("again", job, told)

    def _end(
        self,
        job: Job,
        *,
        score: float | None = None,
        stopped: bool = False,
        rows: Sequence[Row] = (),
        reason: str | None = None,
    ) -> Update:
        """A job ended, well or not: into the journal, and then to the plan."""
        times = Times(slot=self._slots.pop(job.trial), began=self._began.pop(job.trial), ended=self.elapsed_s)
        told = {"trial": job.trial, "rung": job.rung, "time": times, "reason": reason}
        try:
            entry = Told.model_validate({**told, "score": score, "stopped": stopped, "rows": rows})
        except ValidationError as error:  # as a loss that is not finite
            failed = {"reason": f"what it measured is not valid: {first_problem(error)}", "score": None}
            entry = Told.model_validate({**told, **failed, "stopped": False, "rows": ()})
        self.journal.append(entry)
        self._delete(self._note_told(job, entry))
        return Update("done" if entry.reason is None else "failed", job, entry.model_dump())

    def _note_told(self, job: Job, told: Told) -> list[int]:
        """Let the plan and the trial know; the trials that are out by it."""
        del self.running[job.trial]
        self._supervisor.ended(job.trial)
        trial = self.trials[job.trial]
        trial.rung, trial.reason = job.rung, told.reason
        trial.rows += [row.model_dump() for row in told.rows]
        trial.jobs.append({"rung": job.rung, **told.time.model_dump(), "failed": told.reason is not None})
        # KerasTuner begins a promoted trial's early stopping anew.
        stopped, all_epochs = told.stopped and self.config.semantics == "foveate", self.config.max_epochs
        if told.reason is not None:
            trial.state = "failed"
            self._failed.append(trial)
        else:
            trial.score, trial.reached = told.score, all_epochs if stopped else job.to_epoch
            trial.state = "stopped" if stopped else "finished" if job.to_epoch == all_epochs else "waiting"
        out = self._plan.tell(job, Outcome(None if told.reason else told.score, stopped=stopped))
        for number in out:
            if self.trials[number].state == "waiting":
                self.trials[number].state = "out"
        # Only where the best itself may have fallen back does it take a look at all of them.
        rivals = self.trials.values() if trial is self.best else filter(None, (self.best, trial))
        scored = (each for each in rivals if each.score is not None and each.state != "failed")
        self.best = max(scored, key=lambda each: (each.reached, each.score, -each.number), default=None)
        return out

    def _return(self, job: Job, reason: str) -> None:
        """A job has to be done again."""
        self.journal.append(Returned(trial=job.trial, reason=reason))
        self._plan.give_back(self.running.pop(job.trial))
        self._slots.pop(job.trial, None)

    def _check_failures(self) -> None:
        """Raises StudyError when too large a share of the trials that ended has failed."""
        failed, ended = len(self._failed), len(self.trials) - len(self.running)
        if failed >= _FAILED_AT_LEAST and failed > self.config.fail_share * ended:
            raise StudyError(f"{failed} of {ended} trials failed, the last one so: {self._failed[-1].reason}")

    def _delete(self, trials: Iterable[int]) -> None:
        """Remove the checkpoints of trials that need them no more; the best one's stays."""
        trials = list(trials)
        best = self.best if trials else None
        for number in trials:
            if best is None or number != best.number:
                self._storage.remove(number)

    def place(self, trial: int) -> str:
        """Where a trial's checkpoints lie.

        Raises:
            CheckpointError: when that leads elsewhere by a link.
        """
        return self._storage.of(trial)

    def trial_job(self, job: Job) -> TrialJob:
        """What a worker is given."""
        config = self.config
        return TrialJob(
            config=config.space.apply(config.base, job.settings),
            dataset=config.data,
            data_dir=config.data_dir,
            fingerprint=config.fingerprint,
            splits=str(self.folder.resolve() / SPLITS_FILE) if self.config.splits else None,
            splits_sha256=self.config.splits,
            subset=config.subset,
            folder=self.place(job.trial),
            from_epoch=job.from_epoch,
            to_epoch=job.to_epoch,
            semantics=config.semantics,
            draws=config.draws,
        )
