"""Supervision: what costs workers or goes silent is given up, what waits or speaks is not."""

import pytest

from foveate.execution import supervision
from foveate.execution.pool import Event, Message
from foveate.execution.supervision import LOST_AT_MOST, Supervisor


class Stopping:
    """A pool that only stops."""

    workers = 1

    def __init__(self) -> None:
        self.stopped: list[int] = []

    def submit(self, job: int, message: Message) -> None: ...

    def event(self, timeout_s: float) -> Event | None: ...

    def stop(self, job: int) -> None:
        self.stopped.append(job)

    def close(self) -> None: ...


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(supervision.time, "monotonic", lambda: now[0])
    return now


def test_a_job_that_costs_workers_is_given_up_after_a_few() -> None:
    supervisor = Supervisor(10)
    told = [supervisor.lost(7, "killed by signal 9") for _ in range(LOST_AT_MOST)]
    assert told == [None] * (LOST_AT_MOST - 1) + [f"cost {LOST_AT_MOST} workers: killed by signal 9"]
    supervisor.ended(7)
    assert supervisor.lost(7, "again") is None


def test_a_silent_job_is_stopped_once_and_has_failed_by_it(clock: list[float]) -> None:
    supervisor, pool = Supervisor(10), Stopping()
    for job in (1, 2):
        supervisor.begun(job)
        supervisor.heard(job)
    clock[0] = 9.0
    supervisor.heard(2)
    clock[0] = 11.0
    supervisor.stop_hanging(pool)
    supervisor.stop_hanging(pool)
    assert pool.stopped == [1]
    assert supervisor.lost(1, "stopped") == "no step for 10 s"


def test_what_was_never_heard_of_waits_for_room_and_what_begins_again_has_its_time(clock: list[float]) -> None:
    supervisor, pool = Supervisor(10), Stopping()
    supervisor.begun(1)
    clock[0] = 100.0
    supervisor.stop_hanging(pool)
    supervisor.heard(1)
    supervisor.lost(1, "killed by signal 9")
    clock[0] = 200.0
    supervisor.begun(1)
    supervisor.stop_hanging(pool)
    supervisor.ended(1)
    supervisor.stop_hanging(pool)
    assert not pool.stopped
