"""ASHA: the plan of a study in which no trial waits for others."""

import heapq
from bisect import bisect_left, insort
from collections import deque
from typing import Literal

from foveate.errors import ConfigError
from foveate.tuning.brackets import check_plan, li2018_brackets
from foveate.tuning.hyperband import Draw, Job, Outcome, Settings


class Asha:
    """Asynchronous successive halving: a trial goes on once it is among the best 1/η of its rung.

    Nobody waits: where none can go on a new one begins, up to `trials` of them. Decisions so hang on the order in
    which outcomes are told. Ties, failures and early stops are as in `Hyperband`. Li et al., "A system for
    massively parallel hyperparameter tuning", MLSys 2020 (arXiv 1810.05934), algorithm 2.

    Args:
        trials: how many begin.
        draw: as in `Hyperband`; it is never shown scores, as no bracket ends before the last.
        anew: as in `Hyperband`.
    """

    def __init__(self, max_epochs: int, factor: int, trials: int, draw: Draw, *, anew: bool = False) -> None:
        check_plan(max_epochs, factor)
        if trials < 1:
            raise ConfigError(f"trials={trials}: give 1 at least")
        self._epochs = [rung.epochs for rung in li2018_brackets(max_epochs, factor)[0]]
        self._factor, self._trials, self._draw, self._anew = factor, trials, draw, anew
        self._settings: list[Settings] = []
        self._ranked: list[list[tuple[float, int]]] = [[] for _ in self._epochs]
        """Of each rung, all that it has heard of, the best first: (-score, trial)."""
        self._unpromoted: list[list[tuple[float, int]]] = [[] for _ in self._epochs]
        """Heaps of those that have not gone on."""
        self._heard = [0 for _ in self._epochs]
        self._stopped: set[int] = set()
        self._running = 0
        self._returned: deque[Job] = deque()

    def ask(self) -> Job | Literal["wait", "done"]:
        """A trial that can go on, the highest rung first; else a new one."""
        if self._returned:
            self._running += 1
            return self._returned.popleft()
        for rung in range(len(self._epochs) - 2, -1, -1):
            if (trial := self._promotable(rung)) is not None:
                heapq.heappop(self._unpromoted[rung])
                self._carry()
                self._running += 1
                begins = 0 if self._anew else self._epochs[rung]
                return Job(trial, self._settings[trial], 0, rung + 1, begins, self._epochs[rung + 1])
        if len(self._settings) < self._trials:
            trial = len(self._settings)
            if (settings := self._draw(trial, {})) is None:
                self._trials = trial
            else:
                self._settings.append(settings)
                self._running += 1
                return Job(trial, settings, 0, 0, 0, self._epochs[0])
        return "wait" if self._running else "done"

    def tell(self, job: Job, outcome: Outcome) -> list[int]:
        """Take the outcome of a job; only failed trials and those at the last rung end by it."""
        self._running -= 1
        if outcome.stopped:
            self._stopped.add(job.trial)
        self._enter(job.rung, job.trial, outcome.score)
        self._carry()
        return [job.trial] if outcome.score is None or job.rung == len(self._epochs) - 1 else []

    def give_back(self, job: Job) -> None:
        """Take a job back, to be asked for next."""
        self._running -= 1
        self._returned.append(job)

    def _enter(self, rung: int, trial: int, score: float | None) -> None:
        self._heard[rung] += 1
        if score is not None:
            insort(self._ranked[rung], (-score, trial))
            heapq.heappush(self._unpromoted[rung], (-score, trial))

    def _carry(self) -> None:
        """Move up what stopped early and may go on: at once, so that an `ask` without a job changes nothing."""
        for rung in range(len(self._epochs) - 1):
            while (trial := self._promotable(rung)) in self._stopped:
                key, _ = heapq.heappop(self._unpromoted[rung])
                self._enter(rung + 1, trial, -key)

    def _promotable(self, rung: int) -> int | None:
        """The best trial of a rung that has not gone on, where it is among the best 1/η of all."""
        if not self._unpromoted[rung]:
            return None
        best = self._unpromoted[rung][0]
        place = bisect_left(self._ranked[rung], best)
        return best[1] if place < self._heard[rung] // self._factor else None
