"""Which trial trains when, and how far: Hyperband as a pure state machine, asked and told; `asha` is another.

A plan does no work and reads no clock: its caller asks for a job, has it done anywhere, and tells the outcome.
The same outcomes give the same decisions, in whatever order a synchronous plan is told them.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from foveate.tuning.brackets import Bracket

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Job:
    """Train a trial from the end of one epoch (0: from nothing) to the end of another."""

    trial: int
    settings: Settings = field(compare=False)
    bracket: int
    rung: int
    from_epoch: int
    to_epoch: int


@dataclass(frozen=True)
class Outcome:
    """What came of a job: a score, the larger the better; None where the trial failed."""

    score: float | None
    stopped: bool = False
    """It stopped early: no training would change its score any more."""


Scores = Mapping[tuple[int, float], float | None]
"""What is known of trials: their scores by (trial, epochs at full size that it takes); None where one failed."""
Draw = Callable[[int, Scores], Settings | None]
"""Settings of a new trial by its number, given the scores in finished brackets; None when none is left."""


class Plan(Protocol):
    """What runs a study asks and tells."""

    def ask(self) -> Job | Literal["wait", "done"]:
        """The next job; `wait` when it depends on outcomes not known yet; `done` when no more will come."""
        ...

    def tell(self, job: Job, outcome: Outcome) -> list[int]:
        """Take the outcome of a job that was asked for; the trials that will have no more jobs by it."""
        ...

    def give_back(self, job: Job) -> None:
        """Take a job back whose worker was lost: it is the next to be asked for."""
        ...


class _Halving:
    """One bracket under way: what its rungs still have to do, and what they gave."""

    def __init__(self, number: int, rungs: Bracket, first_trial: int, *, anew: bool) -> None:
        self.number, self.rungs, self.first_trial, self.anew = number, rungs, first_trial, anew
        self.entrants = [rungs[0].trials, *(0 for _ in rungs[1:])]
        """How many trials each rung waits for before it promotes; of a later rung, once that is known."""
        self.drawn = 0
        self.settings: dict[int, Settings] = {}
        self.scores: list[dict[int, float | None]] = [{} for _ in rungs]
        self.ready: deque[Job] = deque()
        self.stopped: set[int] = set()
        self.finished = False

    def next(self, draw: Callable[[int], Settings | None]) -> Job | None:
        """A promoted trial, else a new one."""
        if self.ready:
            return self.ready.popleft()
        if self.drawn == self.entrants[0]:
            return None
        trial = self.first_trial + self.drawn
        if (settings := draw(trial)) is None:
            self.entrants[0] = self.drawn
            self._promote(0)  # nobody hears which trials are pruned by it: their checkpoints stay to the end
            return self.ready.popleft() if self.ready else None
        self.drawn += 1
        self.settings[trial] = settings
        return Job(trial, settings, self.number, 0, 0, self.rungs[0].epochs)

    def tell(self, job: Job, outcome: Outcome) -> list[int]:
        """Take an outcome; a rung that is complete promotes. Returns the trials that end by it."""
        self.scores[job.rung][job.trial] = outcome.score
        if outcome.stopped:
            self.stopped.add(job.trial)
        return self._promote(job.rung)

    def _promote(self, rung: int) -> list[int]:
        if len(self.scores[rung]) < self.entrants[rung]:
            return []
        if rung == len(self.rungs) - 1:
            self.finished = True
            return list(self.scores[rung])
        following = self.rungs[rung + 1]
        chosen = _best(self.scores[rung])[: following.trials]
        self.entrants[rung + 1] = len(chosen)
        for trial in chosen:
            if trial in self.stopped:  # carried along: its score stands
                self.scores[rung + 1][trial] = self.scores[rung][trial]
            else:
                begins = 0 if self.anew else self.rungs[rung].epochs
                job = Job(trial, self.settings[trial], self.number, rung + 1, begins, following.epochs)
                self.ready.append(job)
        return sorted(set(self.scores[rung]) - set(chosen)) + self._promote(rung + 1)


class Hyperband:
    """Brackets side by side, or one after another: a rung's best go on once all of it is known.

    Trials are numbered bracket by bracket, whatever the order in which they are asked for. Of equal scores the
    lower number goes on. A failed trial is never promoted; where too few are left, a rung is smaller. A trial that
    stopped early keeps its score, and is carried into the rungs it is promoted to without a job.

    Args:
        draw: gives new trials their settings.
        in_turn: a bracket begins when the one before it has ended, so that `draw` can learn from it.
        anew: a promoted trial begins from nothing, and does not go on from where it was.

    Attributes:
        brackets, anew: as they were given.
        allowed: how many of the brackets may begin; the caller can change it at any time.
    """

    def __init__(
        self, brackets: Sequence[Bracket], draw: Draw, *, in_turn: bool = False, anew: bool = False
    ) -> None:
        self.brackets, self.anew = tuple(brackets), anew
        self._draw, self._in_turn = draw, in_turn
        self._brackets: list[_Halving] = []
        trials = 0
        for number, rungs in enumerate(brackets):
            self._brackets.append(_Halving(number, rungs, trials, anew=anew))
            trials += rungs[0].trials
        self.allowed = len(self._brackets)
        self._open = list(self._brackets)
        self._seen: dict[tuple[int, float], float | None] = {}
        self._returned: deque[Job] = deque()

    def ask(self) -> Job | Literal["wait", "done"]:
        """The next job: of the first bracket that has one, and of its promoted trials before new ones."""
        if self._returned:
            return self._returned.popleft()
        for bracket in self._may_run():
            if (job := bracket.next(self._settings)) is not None:
                return job
            self._close(bracket)  # where the space has no more settings, `next` ends it, and no outcome is told
            if self._in_turn and not bracket.finished:
                break
        return "wait" if self._may_run() else "done"

    def tell(self, job: Job, outcome: Outcome) -> list[int]:
        """Take the outcome of a job; a rung that is complete promotes, and its other trials are pruned."""
        bracket = self._brackets[job.bracket]
        out = bracket.tell(job, outcome)
        self._close(bracket)
        return out

    def give_back(self, job: Job) -> None:
        """Take a job back, to be asked for next."""
        self._returned.append(job)

    def _may_run(self) -> list[_Halving]:
        """The brackets that have not ended and may begin."""
        return [bracket for bracket in self._open if bracket.number < self.allowed]

    def _settings(self, trial: int) -> Settings | None:
        return self._draw(trial, self._seen)

    def _close(self, bracket: _Halving) -> None:
        """Where a bracket has ended, it is not asked again, and draws may depend on its scores."""
        if bracket.finished:
            self._open.remove(bracket)
            for rung, scores in zip(bracket.rungs, bracket.scores, strict=True):
                self._seen |= {(trial, rung.cost): score for trial, score in scores.items()}


def _best(scores: Mapping[int, float | None]) -> list[int]:
    """Trials by falling score, those without left out, equal ones by number."""
    scored = [(-score, trial) for trial, score in scores.items() if score is not None]
    return [trial for _, trial in sorted(scored)]
