"""Which jobs of a pool are not worth another try: those that cost too many workers, and those that hang."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from foveate.execution.pool import Pool

MAX_WORKER_LOSSES = 3
"""Times that a job's worker may be lost: a job that runs out of memory will do so again."""
START_S = 120.0
"""Seconds without a first report after which a job hangs, where its limit is shorter: from a slow disk Python and
torch start slowly."""


@dataclass
class _Silence:
    """How long a job has reported nothing, without the time in which it could not."""

    seconds: float = 0.0
    is_first: bool = True
    """Whether it has reported nothing at all yet."""
    waited_s: Mapping[int, float] | None = None
    """How long its threads had waited for a processor at the last look."""


class Supervisor:
    """Knows of each job under way for how long it has been silent, and how many workers it has cost.

    Silence is the time that passes without a report, minus the time for which the job's process waited for a
    processor: a machine under load makes a worker slow, which is no hang. A process that is stopped,
    blocked or in an endless loop does not wait for a processor.

    Args:
        hang_limit_s: seconds of silence after which a job counts as hanging.
    """

    def __init__(self, hang_limit_s: float) -> None:
        self.hang_limit_s = hang_limit_s
        self._lost: dict[int, int] = {}
        self._silent: dict[int, _Silence] = {}
        self._hanging: set[int] = set()
        self._look_every_s = min(0.5, hang_limit_s / 10)
        self._step_s = min(1.0, max(0.25, hang_limit_s / 2))
        """The most that is counted between two looks."""
        self._looked = time.monotonic()

    def begun(self, job: int) -> None:
        """It was submitted, and has not reported yet."""
        self._silent[job] = _Silence()
        self._hanging.discard(job)

    def heard(self, job: int) -> None:
        """Something came from it."""
        if (silence := self._silent.get(job)) is not None:
            silence.seconds, silence.is_first = 0.0, False

    def ended(self, job: int) -> None:
        """It ended by itself, or is given up."""
        self._lost.pop(job, None)
        self._silent.pop(job, None)

    def lost(self, job: int, message: str) -> str | None:
        """Its worker is gone, as `message` says: why the job has failed, or None where it may try again."""
        self._silent.pop(job, None)
        self._lost[job] = self._lost.get(job, 0) + 1
        if job in self._hanging:
            return f"no step for {self.hang_limit_s:g} s"
        given_up = self._lost[job] >= MAX_WORKER_LOSSES
        return f"its worker was lost each time that it was tried: {message}" if given_up else None

    def stop_hanging(self, pool: Pool) -> None:
        """End the processes of jobs that have been silent for too long; a `lost` event of each follows.

        It is to be called whenever an event was waited for, whether one came or not.
        """
        now = time.monotonic()
        if now - self._looked < self._look_every_s:
            return
        # Where this process itself was stopped, as by Ctrl-Z, what the jobs reported meanwhile was not read yet.
        step, self._looked = min(now - self._looked, self._step_s), now
        for job, silence in self._silent.items():
            if job in self._hanging or (silence.is_first and pool.queues):
                continue
            waited_s = pool.waited_s(job)
            silence.seconds += max(0.0, step - _longest_wait(silence.waited_s, waited_s))
            silence.waited_s = waited_s
            limit = max(self.hang_limit_s, START_S) if silence.is_first else self.hang_limit_s
            if silence.seconds > limit:
                self._hanging.add(job)
                pool.stop(job)


def _longest_wait(before: Mapping[int, float] | None, now: Mapping[int, float]) -> float:
    """The longest time that any one thread has waited since `before`.

    Not the sum: many threads in an endless loop, more than there are processors, always wait for each other.
    """
    if before is None:
        return 0.0
    return max((waited - before.get(thread, 0.0) for thread, waited in now.items()), default=0.0)
