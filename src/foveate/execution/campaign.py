"""One engine for whatever has many jobs done: a campaign's jobs go to a pool, what becomes of them comes back."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from itertools import count
from typing import ClassVar, Generic, Literal, Protocol, TypeVar

from pydantic import Field

from foveate.durations import left
from foveate.errors import FoveateError
from foveate.execution.pool import Event, Message, Pool
from foveate.execution.supervision import Supervisor
from foveate.records import Digest
from foveate.settings import Section

T = TypeVar("T")
_POLL_INTERVAL_S = 0.1
"""Seconds between looks at whether a job hangs, or the campaign should stop."""


class CampaignConfig(Section):
    """The settings that every campaign has. None says how many workers run it: they change none of its figures."""

    data: str
    """A known name or an absolute path."""
    data_dir: str | None
    fingerprint: str
    splits: Digest | None = None
    """sha256 of the file that says which images are in which split; None: an earlier version kept none."""
    hang_limit_s: float = Field(600, gt=0)
    """Seconds without a step after which a job counts as hanging."""
    draws: Literal[1, 2, 3] = 1
    """Version of what random numbers are drawn from (`training.fit.DRAWS`); files that lack it have 1."""


class Jobs(Protocol):
    """Plans jobs, and remembers what became of them: made again from what it has written, it goes on from there.

    Attributes:
        hang_limit_s: seconds without a step after which a job counts as hanging.
        fatal: errors of a job that end the work, as a full disk does; any other ends that job alone.
    """

    hang_limit_s: float

    @property
    def fatal(self) -> tuple[type[FoveateError], ...]: ...  # noqa: D102

    def next_job(self) -> tuple[int, Message] | None:
        """The next job and its number; None when none can begin before another has ended."""
        ...

    def record(self, event: Event) -> Event:
        """Write down that a job is `done`, has `failed`, or was `lost` and will be given again by `next_job`.

        Returns:
            The event to hand on; a job that is done may turn out to have failed.
        """
        ...


class Campaign(Jobs, Protocol):
    """Jobs that a display can follow: a study, a comparison, a cross-validation.

    Attributes:
        columns: titles of the table of jobs that are running; the last is the widest, and is cut off to fit.
    """

    @property
    def columns(self) -> tuple[str, ...]: ...  # noqa: D102

    def announcement(self, workers: int) -> list[str]:
        """What there is to do, in lines, before the first job begins."""
        ...

    def row(self, job: int, epoch: int) -> tuple[str, ...]:
        """The cells of a job that is running and has ended `epoch` (0: none yet)."""
        ...

    def lines(self, event: Event) -> list[str]:
        """What to print of a job that is done, failed or lost."""
        ...

    def progress(self) -> str:
        """How much is done, and how long the rest will take."""
        ...


def run_campaign(campaign: Jobs, pool: Pool) -> Iterator[Event | None]:
    """Have all jobs done by `pool` until none is left.

    Yields:
        What happens to its jobs: `begun`, `progress`, `done`, `lost`, or `failed` with the `kind` of the error and
        a `reason`; and None when nothing did for a while, so that whoever iterates can stop then too.

    Raises:
        FoveateError: an error of `campaign.fatal` that a job met, or one that the campaign itself raises.
    """
    supervisor, numbered = Supervisor(campaign.hang_limit_s), _Numbered(pool)
    while True:
        while numbered.under_way < pool.workers and (job := campaign.next_job()) is not None:
            number, message = job
            supervisor.begun(number)
            numbered.submit(number, message)
            yield Event(number, "begun", {})
        if not numbered.under_way:
            return
        event = numbered.event(timeout_s=_POLL_INTERVAL_S)
        supervisor.stop_hanging(numbered)
        if event is None:
            yield None
            continue
        supervisor.heard(event.job)
        if event.kind == "progress":
            yield event if event.value else None  # an empty report is a heartbeat
            continue
        yield campaign.record(_judged(event, supervisor, campaign.fatal))


_SUBMISSIONS = count()
"""Numbers of submissions; one pool may serve several campaigns, one after another."""


class _Numbered:
    """A pool that knows each submission by a number of its own, and leaves out what comes after its end.

    Ray may deliver a report after the end of its job. A campaign may submit a job under the same number again at
    once, as of a trial that is promoted: the late report would say of the new job that it has begun, and its wait
    for room in the cluster would count as silence.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool, self.workers, self.queues = pool, pool.workers, pool.queues
        self._jobs: dict[int, int] = {}
        """The job of every submission under way."""
        self._submissions: dict[int, int] = {}

    @property
    def under_way(self) -> int:
        return len(self._jobs)

    def submit(self, job: int, message: Message) -> None:
        submission = next(_SUBMISSIONS)
        self._jobs[submission], self._submissions[job] = job, submission
        self._pool.submit(submission, message)

    def event(self, timeout_s: float) -> Event | None:
        event = self._pool.event(timeout_s)
        if event is None or event.job not in self._jobs:
            return None
        job = self._jobs[event.job]
        if event.kind != "progress":
            del self._jobs[event.job], self._submissions[job]
        return replace(event, job=job)

    def stop(self, job: int) -> None:
        if job in self._submissions:
            self._pool.stop(self._submissions[job])

    def waited_s(self, job: int) -> Mapping[int, float]:
        return self._pool.waited_s(self._submissions[job]) if job in self._submissions else {}

    def close(self) -> None:
        self._pool.close()


def _judged(event: Event, supervisor: Supervisor, fatal: tuple[type[FoveateError], ...]) -> Event:
    """The end of a job; one that hung or cost too many workers has `failed`, and is not to be done again."""
    if event.kind == "lost":
        kind, reason = "lost", supervisor.lost(event.job, event.value["message"])
        if reason is None:
            return event
    elif event.kind == "failed":
        kind, reason = event.value["kind"], "{kind}: {message} ({where})".format(**event.value)
        for error in fatal:
            if error.__name__ == kind:
                raise error(event.value["message"])
    supervisor.ended(event.job)
    return event if event.kind == "done" else Event(event.job, "failed", {"kind": kind, "reason": reason})


class Backlog(ABC, Generic[T]):
    """The jobs of a campaign that keeps a result of each: those without one, and how fast they come to an end."""

    things: ClassVar[str]
    """What the jobs are called."""

    def __init__(self) -> None:
        self._ended, self._clock = 0, time.monotonic()

    @abstractmethod
    def pending(self) -> list[T]:
        """The jobs that have no result, in the order in which they begin."""

    @cached_property
    def _todo(self) -> list[T]:
        """The jobs that had no result when the first began."""
        return self.pending()

    @cached_property
    def _waiting(self) -> list[T]:
        """Those of them that are to begin, or to begin again; the next one is the last."""
        return self._todo[::-1]

    def progress(self) -> str:
        """How many jobs have ended, and how long the others take at the pace so far."""
        done, total, seconds = self._ended, len(self._todo), time.monotonic() - self._clock
        rest = left(seconds / done * (total - done)) if done else "? left"
        return ", ".join(filter(None, [f"{done}/{total} {self.things}", rest]))


def failure_words(event: Event) -> str:
    """What became of a job that failed or was lost."""
    return (
        f"failed: {event.value['reason']}" if event.kind == "failed" else f"begins again: {event.value['message']}"
    )
