"""What runs jobs: the interface, and what comes back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

__all__ = ["Event", "Message", "Pool", "Work"]

Message: TypeAlias = Mapping[str, Any]
"""What goes to a job and comes back from it: what JSON can hold."""
Work: TypeAlias = Callable[[Message, Callable[[Message], None]], Message]
"""Does a job: takes its message and a function that reports progress, and gives the result. It is a function of a
module, and found by its name in the process that runs it."""


@dataclass(frozen=True)
class Event:
    """What happened to a job.

    `progress` and `done` carry what the job said; `failed` carries the `kind` of the exception and its `message`;
    `lost` says in its `message` how the process ended that ran it: the job can be submitted again.
    """

    job: int
    kind: Literal["progress", "done", "failed", "lost"]
    value: Message


class Pool(Protocol):
    """Workers that do one kind of work. Jobs are named by whoever submits them, by numbers."""

    workers: int
    """How many jobs run side by side."""
    queues: bool
    """Whether a submitted job may have to wait for room; it then says by an empty report that it has begun."""

    def submit(self, job: int, message: Message) -> None:
        """Begin a job; no more than `workers` may be under way."""
        ...

    def event(self, timeout_s: float) -> Event | None:
        """What happened next to any job; None when nothing did for so long."""
        ...

    def stop(self, job: int) -> None:
        """End a job's process at once: a `lost` event follows."""
        ...

    def waited_s(self, job: int) -> Mapping[int, float]:
        """Seconds for which each thread of a job's process has waited for a processor so far, by the thread's
        number; empty where that is not known.
        """
        ...

    def close(self) -> None:
        """End all workers."""
        ...
