"""What runs jobs: the interface, and what comes back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

Message: TypeAlias = Mapping[str, Any]
"""What goes to a job and comes back from it: anything that JSON can hold."""
Work: TypeAlias = Callable[[Message, Callable[[Message], None]], Message]
"""Does a job: takes its message and a function that reports progress, and returns the result. The process that
runs it finds it by its name: it must be a function of a module."""


@dataclass(frozen=True)
class Event:
    """What happened to a job.

    `begun` comes from whoever submits the job, the others from the pool: `progress` and `done` carry what the job
    said; `failed` carries the `kind` of the exception, its `message` and `where` it was raised; `lost` says in its
    `message` how the process that ran the job ended: the job can be submitted again.
    """

    job: int
    kind: Literal["begun", "progress", "done", "failed", "lost"]
    value: Message


class Pool(Protocol):
    """Workers that do one kind of work. Jobs are named by whoever submits them, by numbers."""

    workers: int
    """How many jobs run side by side."""
    queues: bool
    """Whether a submitted job may have to wait for room; it then reports by an empty message that it has begun."""

    def submit(self, job: int, message: Message) -> None:
        """Begin a job; no more than `workers` may be under way."""
        ...

    def event(self, timeout_s: float) -> Event | None:
        """What happened next to any job; None when nothing did for `timeout_s`."""
        ...

    def stop(self, job: int) -> None:
        """End a job's process at once: a `lost` event follows."""
        ...

    def waited_s(self, job: int) -> Mapping[int, float]:
        """Seconds that each thread of a job's process has waited for a processor so far, by the thread's number;
        empty where that is not known.
        """
        ...

    def close(self) -> None:
        """End all workers."""
        ...
