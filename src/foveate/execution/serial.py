"""Jobs run in this process, one after another: for what no other process knows, such as a custom attention."""

from collections import deque
from collections.abc import Mapping

from foveate.execution.pool import Event, Message, Work
from foveate.execution.worker import do_job


class SerialPool:
    """A `Pool` of this process alone; a job is done, from first step to last, when an event is asked for."""

    workers = 1
    queues = False

    def __init__(self, work: Work) -> None:
        self._work = work
        self._jobs: deque[tuple[int, Message]] = deque()
        self._events: deque[Event] = deque()

    def submit(self, job: int, message: Message) -> None:
        """Keep a job until an event is asked for."""
        self._jobs.append((job, message))

    def event(self, timeout_s: float) -> Event | None:  # noqa: ARG002
        """What happened next; where nothing did, the job that waits longest is done now."""
        if not self._events and self._jobs:
            job, message = self._jobs.popleft()
            do_job(self._work, lambda *event: self._events.append(Event(*event)), job, message)
        return self._events.popleft() if self._events else None

    def stop(self, job: int) -> None:
        """Nothing runs while anyone could ask for this."""

    def waited_s(self, job: int) -> Mapping[int, float]:  # noqa: ARG002
        """Nothing: no job is under way while anyone could ask for this."""
        return {}

    def close(self) -> None:
        """Forget the jobs that were not done."""
        self._jobs.clear()
        self._events.clear()
