"""Which jobs of a pool are not worth another try: those that cost workers, and those that have gone silent."""

import time

from foveate.execution.pool import Pool

__all__ = ["LOST_AT_MOST", "Supervisor"]

LOST_AT_MOST = 3
"""Workers a job may cost: what runs out of memory does so again."""


class Supervisor:
    """Knows of each job under way when it was last heard of, and how many workers it has cost.

    Args:
        hang_limit_s: seconds without a word after which a job counts as hanging.
    """

    def __init__(self, hang_limit_s: float) -> None:
        self.hang_limit_s = hang_limit_s
        self._lost: dict[int, int] = {}
        self._heard: dict[int, float] = {}
        self._hanging: set[int] = set()

    def begun(self, job: int) -> None:
        """It was submitted. Until it is heard of at all it waits for room in a cluster, and does not hang."""
        self._heard.pop(job, None)
        self._hanging.discard(job)

    def heard(self, job: int) -> None:
        """Something came from it."""
        self._heard[job] = time.monotonic()

    def ended(self, job: int) -> None:
        """It came to an end of its own, or is given up."""
        self._lost.pop(job, None)
        self._heard.pop(job, None)

    def lost(self, job: int, message: str) -> str | None:
        """Its worker is gone, as `message` tells: why the job failed by that, or None where it may try again."""
        self._heard.pop(job, None)
        self._lost[job] = self._lost.get(job, 0) + 1
        if job in self._hanging:
            return f"no step for {self.hang_limit_s:g} s"
        return f"cost {LOST_AT_MOST} workers: {message}" if self._lost[job] >= LOST_AT_MOST else None

    def stop_hanging(self, pool: Pool) -> None:
        """End the processes of jobs that have been silent for too long; a `lost` event of each follows."""
        now = time.monotonic()
        for job, heard in self._heard.items():
            if job not in self._hanging and now - heard > self.hang_limit_s:
                self._hanging.add(job)
                pool.stop(job)
