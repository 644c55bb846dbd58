"""A study under way: the plan is asked, trials are trained, and every decision is in the journal first."""

import time
from collections.abc import Iterable, Mapping
from itertools import count, pairwise
from pathlib import Path
from typing import Literal, cast

from pydantic import ValidationError

from foveate.durations import left
from foveate.errors import CheckpointError, ConfigError, DataError, OutputError, StudyError
from foveate.execution.campaign import failure_words
from foveate.execution.pool import Event, Message
from foveate.records import first_problem
from foveate.tuning.asha import Asha
from foveate.tuning.brackets import budget_of
from foveate.tuning.hyperband import Hyperband, Job, Outcome, Plan, Scores
from foveate.tuning.hyperparameters import Value
from foveate.tuning.journal import Asked, Ended, Entry, Journal, Opened, Returned, Times
from foveate.tuning.pace import Pace, ask_in_time
from foveate.tuning.samplers import Sampler
from foveate.tuning.settings import StudyConfig
from foveate.tuning.storage import open_storage
from foveate.tuning.trials import Trial

_MIN_FAILURES = 3
"""Trials that must have failed before their share can end a study."""


_TOLD_BYTES = 100_000_000
"""Of checkpoints, from which it is told what they may take on the disk."""


class _ImpossibleError(Exception):
    """What an entry of the journal says cannot have happened."""


class Search:
    """The campaign of a study, as far as its journal goes; its jobs have the numbers of their trials.

    Args:
        folder: of the study; checkpoints lie in `trials/`.
        journal: is cut off at the first entry that cannot have happened in this study.
        sampler: gives new trials their settings; those in the journal come first.

    Raises:
        CheckpointError: when its storage is another study's.
    """

    fatal = (OutputError, CheckpointError, DataError)
    columns = ("trial", "bracket", "rung", "epoch", "settings")

    def __init__(self, config: StudyConfig, folder: Path, journal: Journal, sampler: Sampler) -> None:
        self.config, self.folder, self.journal = config, folder, journal
        self.hang_limit_s = config.hang_limit_s
        first = journal.entries[0]
        assert isinstance(first, Opened)
        self._storage = open_storage(config.storage, first.sha256, folder)
        self._sampler = sampler
        self._slots: dict[int, int] = {}
        self._began: dict[int, float] = {}
        self._shown_bytes = 0
        while (impossible := self._replay_all()) is not None:
            journal.cut(*impossible)
        self._replaying.clear()
        self._before_s = max((job["ended"] for trial in self.trials.values() for job in trial.jobs), default=0.0)
        self._clock = time.monotonic()
        for number in list(self.running):  # under way when the study was killed
            self._return(number, "the study was interrupted")

    def next_job(self) -> tuple[int, Message] | None:
        """The next job of the plan, once it is in the journal.

        Raises:
            OutputError: when the journal cannot be written, for example on a full disk.
            CheckpointError: when a link leads out of the folder of the checkpoints.
            StudyError: when too many trials have failed.
        """
        failed, ended = len(self._failed), len(self.trials) - len(self.running)
        if failed >= _MIN_FAILURES and failed > self.config.fail_share * ended:
            raise StudyError(f"{failed} of {ended} trials failed; the last error: {self._failed[-1].reason}")
        job = self._ask()
        if not isinstance(job, Job):
            if job == "done":
                self._delete(self._prune(self.trials))
            return None
        asked = Asked(trial=job.trial, bracket=job.bracket, rung=job.rung, settings=dict(job.settings))
        self.journal.append(asked)
        self._note_begun(job)
        self._slots[job.trial] = next(slot for slot in count() if slot not in self._slots.values())
        self._began[job.trial] = self.elapsed_s
        message = self.config.trial_job(job, self.folder, self._storage.of(job.trial))
        return job.trial, message.model_dump(mode="json")

    def _ask(self) -> Job | Literal["wait", "done"]:
        """The next job of the plan; where the study has a time, the next that fits."""
        if self.config.time_s is None or not isinstance(self._plan, Hyperband):
            return self._plan.ask()
        jobs = (each for trial in self.trials.values() for each in trial.jobs)
        worked_s = sum(each["ended"] - each["began"] for each in jobs)
        pace = Pace(self.cost_done, self.elapsed_s, worked_s, self.config.time_s - self.elapsed_s)
        job = ask_in_time(self._plan, pace, self._rungs)
        return "wait" if job == "done" and self.running else job

    def record(self, event: Event) -> Event:
        """A job ended, well or not: into the journal, and then to the plan."""
        if event.kind == "lost":
            self._return(event.job, event.value["message"])
            return event
        job = self.running[event.job]
        times = Times(slot=self._slots.pop(job.trial), began=self._began.pop(job.trial), ended=self.elapsed_s)
        common = {"trial": job.trial, "rung": job.rung, "time": times}
        failed = {**common, "score": None, "stopped": False, "rows": ()}
        try:
            if event.kind == "done":
                entry = Ended.model_validate({**common, **event.value, "reason": None})
            else:
                entry = Ended.model_validate({**failed, "reason": event.value["reason"]})
        except ValidationError as error:  # as a loss that is not finite
            reason = f"what it measured is not valid: {first_problem(error)}"
            entry = Ended.model_validate({**failed, "reason": reason})
        self.journal.append(entry)
        self._delete(self._note_ended(job, entry))
        return Event(job.trial, "done" if entry.reason is None else "failed", entry.model_dump())

    @property
    def epochs_done(self) -> int:
        """Over all trials; an epoch that was trained twice counts twice."""
        return sum(trial.epochs_paid for trial in list(self.trials.values()))

    @property
    def cost_done(self) -> float:
        """The same, in epochs at full size."""
        return sum(trial.cost for trial in list(self.trials.values()))

    @property
    def elapsed_s(self) -> float:
        """Since the study began, without the time between an interrupt and its resumption."""
        return self._before_s + time.monotonic() - self._clock

    def announcement(self, workers: int) -> list[str]:
        """What the study takes, in epochs that are paid."""
        before = f"; {self.epochs_done} epochs done before" if self.epochs_done else ""
        plan = f"{self.config.plan_words} on {workers} worker{'' if workers == 1 else 's'}{before}"
        return [plan, *filter(None, [self.config.cost_words])]

    def row(self, job: int, epoch: int) -> tuple[str, ...]:
        """A trial that is being trained, and its settings."""
        asked = self._asked[job]
        values = [
            f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {str(value).replace(' ', '')}"
            for name, value in asked.settings.items()
        ]
        epochs = f"{max(epoch, asked.from_epoch)}/{asked.to_epoch}"
        return str(job), str(asked.bracket), str(asked.rung), epochs, "  ".join(values)

    def lines(self, event: Event) -> list[str]:
        """A job that ended; and what the checkpoints may take on the disk, whenever that turns out to be more."""
        job = self._asked[event.job]
        title = f"trial {job.trial:>3}  bracket {job.bracket}  rung {job.rung}  to epoch {job.to_epoch:>3}"
        if event.kind != "done":
            return [f"{title}  {failure_words(event)}"]
        early = "  stopped early" if event.value["stopped"] else ""
        metric = self.config.score.replace("_", " ")
        lines = [f"{title}  {metric} {event.value['score']:6.2%}{early}  {self.progress()}"]
        files = self._most_trials() * (2 if self.config.semantics == "kerastuner" else 1)
        most = files * self._storage.largest_bytes()
        if most >= _TOLD_BYTES and most > 1.2 * self._shown_bytes:
            self._shown_bytes = most
            lines.append(
                f"checkpoints: {most / 1e6:,.0f} MB at most, if none becomes larger than the largest so far"
            )
        return lines

    def _most_trials(self) -> int:
        """How many trials can have checkpoints at one time. Of a study with a time, those of brackets that have
        begun and are not done: a later one begins as an earlier one ends.
        """
        if self.config.time_s is None or not isinstance(self._plan, Hyperband):
            return self.config.budget.trials
        begun = budget_of(self._plan.brackets[: self._plan.allowed]).trials
        gone = sum(trial.state in ("pruned", "finished", "failed") for trial in self.trials.values())
        return begun - gone + 1  # the best one's stays

    def progress(self) -> str:
        """Epochs, the time left at the pace so far, and the best trial."""
        budget, done, cost, time_s = self.config.budget, self.epochs_done, self.cost_done, self.config.time_s
        seconds = self.elapsed_s / cost * max(0.0, budget.cost - cost) if cost else 0.0
        if time_s is not None:
            seconds = min(seconds, max(0.0, time_s - self.elapsed_s))
        best = self.best
        words = "" if best is None or best.score is None else f"best {best.score:.2%} (trial {best.number})"
        epochs = f"{done}/{budget.epochs} epochs" if time_s is None else f"{done} epochs"
        return "  ".join(filter(None, [epochs, left(seconds) if done else "? left", words]))

    def _replay_all(self) -> tuple[int, str] | None:
        """Do again what the journal says; or how many entries can have happened, and why the next one cannot."""
        self.trials: dict[int, Trial] = {}
        self._settings: dict[int, Mapping[str, Value]] = {}
        self.running: dict[int, Job] = {}
        self._asked: dict[int, Job] = {}
        """The last job of every trial."""
        self._failed: list[Trial] = []
        self.best: Trial | None = None
        """Of the trials trained to the most epochs, or to where they stopped, the one with the best score."""
        config = self.config
        self._rungs: set[tuple[int, int]] = set()
        """The rungs that have begun: of which bracket, and which of its."""
        self._plan: Plan
        if config.algorithm == "asha":
            trials = config.budget.trials
            self._plan = Asha(config.max_epochs, config.factor, trials, self._draw, anew=config.anew)
        else:
            in_turn = config.sampler == "tpe"
            self._plan = plan = Hyperband(config.brackets, self._draw, in_turn=in_turn, anew=config.anew)
            plan.allowed = plan.allowed if config.time_s is None else 1
        self._replaying: dict[int, Mapping[str, Value]] = {}
        for entry in self.journal.entries:
            if isinstance(entry, Asked):
                self._replaying.setdefault(entry.trial, entry.settings)
        for number, entry in enumerate(self.journal.entries):
            try:
                self._replay(entry)
            except _ImpossibleError as error:
                return number, str(error)
        return None

    def _draw(self, trial: int, seen: Scores) -> Mapping[str, Value] | None:
        if (known := self._replaying.get(trial)) is not None:
            return known
        return self._sampler(trial, seen, self._settings)

    def _replay(self, entry: Entry) -> None:
        """Do again what an entry of the journal says; _ImpossibleError where that cannot have happened."""
        if isinstance(entry, Opened):
            return
        if isinstance(entry, Asked):
            if entry.trial not in self.trials:
                try:
                    self.config.space.check_settings(entry.settings, self.config.base)
                except ConfigError as error:
                    raise _ImpossibleError(str(error)) from error
            if isinstance(self._plan, Hyperband):
                self._plan.allowed = max(self._plan.allowed, entry.bracket + 1)
            job = self._plan.ask()
            found = (job.trial, job.bracket, job.rung, job.settings) if isinstance(job, Job) else None
            if found != (entry.trial, entry.bracket, entry.rung, entry.settings):
                raise _ImpossibleError(f"the plan does not ask for trial {entry.trial} at rung {entry.rung} here")
            self._note_begun(cast("Job", job))
            return
        if (running := self.running.get(entry.trial)) is None:
            raise _ImpossibleError(f"trial {entry.trial} is not running here")
        if isinstance(entry, Returned):
            self._plan.give_back(self.running.pop(entry.trial))
            return
        epochs = [running.from_epoch, *(row.epoch for row in entry.rows), running.to_epoch + 1]
        if entry.rung != running.rung or any(later <= epoch for epoch, later in pairwise(epochs)):
            raise _ImpossibleError(f"trial {entry.trial} trains to epoch {running.to_epoch} here")
        self._note_ended(running, entry)

    def _note_begun(self, job: Job) -> None:
        self._settings.setdefault(job.trial, job.settings)
        self.trials.setdefault(job.trial, Trial(job.trial, job.settings, job.bracket)).state = "running"
        self.running[job.trial] = self._asked[job.trial] = job
        self._rungs.add((job.bracket, job.rung))

    def _note_ended(self, job: Job, entry: Ended) -> list[int]:
        """Let the plan and the trial know; the trials that need no more training."""
        del self.running[job.trial]
        trial = self.trials[job.trial]
        # A longer schedule of its own may not stop; and KerasTuner begins a promoted trial's early stopping anew.
        stopped = entry.stopped and self.config.semantics == "continue"
        reached = self.config.max_epochs if stopped else 0 if self.config.is_small(job) else job.to_epoch
        trial.note_end(entry, reached=reached, epoch_cost=self.config.epoch_cost(job))
        if entry.score is None:
            trial.state = "failed"
            self._failed.append(trial)
        else:
            at_end = job.to_epoch == self.config.max_epochs
            trial.state = "stopped" if stopped else "finished" if at_end else "waiting"
        ended = self._plan.tell(job, Outcome(entry.score, stopped=stopped))
        # Only where the best itself may have fallen back are all trials looked at.
        rivals = self.trials.values() if trial is self.best else filter(None, (self.best, trial))
        scored = (each for each in rivals if each.score is not None and each.state != "failed")
        self.best = max(scored, key=lambda each: (each.reached, each.score, -each.number), default=None)
        return self._prune(ended)

    def _prune(self, trials: Iterable[int]) -> list[int]:
        """The trials, which will not be trained any further; of those that waited for it that is said."""
        pruned = list(trials)
        for number in pruned:
            if self.trials[number].state == "waiting":
                self.trials[number].state = "pruned"
        return pruned

    def _return(self, number: int, reason: str) -> None:
        self.journal.append(Returned(trial=number, reason=reason))
        self._plan.give_back(self.running.pop(number))
        self._slots.pop(number, None)

    def _delete(self, trials: Iterable[int]) -> None:
        """Remove the checkpoints of trials that no longer need them; the best one's stays."""
        for number in trials:
            if self.best is None or number != self.best.number:
                self._storage.remove(number)
