"""Supervision: what costs workers or goes silent is given up; what waits, speaks or is slowed by load is not."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from tests.execution.jobs import work

from foveate.execution import supervision
from foveate.execution.local import LocalPool
from foveate.execution.pool import Event, Message
from foveate.execution.supervision import MAX_WORKER_LOSSES, START_S, Supervisor


class Stopping:
    """A pool that only stops."""

    workers = 1

    def __init__(self, *, queues: bool = False) -> None:
        self.queues = queues
        self.stopped: list[int] = []
        self.waited: dict[int, float] = {}

    def submit(self, job: int, message: Message) -> None: ...

    def event(self, timeout_s: float) -> Event | None: ...

    def stop(self, job: int) -> None:
        self.stopped.append(job)

    def waited_s(self, job: int) -> Mapping[int, float]:
        return dict(self.waited)

    def close(self) -> None: ...


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(supervision.time, "monotonic", lambda: now[0])
    return now


def pass_time(supervisor: Supervisor, pool: Stopping, clock: list[float], seconds: float) -> None:
    """Look every half second, as whoever waits for events does."""
    for _ in range(round(seconds / 0.5)):
        clock[0] += 0.5
        supervisor.stop_hanging(pool)


def test_a_job_that_costs_workers_is_given_up_after_a_few() -> None:
    supervisor = Supervisor(10)
    told = [supervisor.lost(7, "killed by signal 9") for _ in range(MAX_WORKER_LOSSES)]
    assert told == [None] * (MAX_WORKER_LOSSES - 1) + [
        "its worker was lost each time that it was tried: killed by signal 9"
    ]
    supervisor.ended(7)
    assert supervisor.lost(7, "again") is None


def test_a_silent_job_is_stopped_once_and_has_failed_by_it(clock: list[float]) -> None:
    supervisor, pool = Supervisor(10), Stopping()
    for job in (1, 2):
        supervisor.begun(job)
        supervisor.heard(job)
    pass_time(supervisor, pool, clock, 9)
    supervisor.heard(2)
    pass_time(supervisor, pool, clock, 4)
    assert pool.stopped == [1]
    assert supervisor.lost(1, "stopped") == "no step for 10 s"


def test_a_job_that_never_says_a_word_hangs_too_but_has_the_time_to_start(clock: list[float]) -> None:
    supervisor, pool = Supervisor(10), Stopping()
    supervisor.begun(1)
    pass_time(supervisor, pool, clock, START_S)
    assert not pool.stopped
    pass_time(supervisor, pool, clock, 1)
    assert pool.stopped == [1]
    patient, pool = Supervisor(600), Stopping()
    patient.begun(1)
    pass_time(patient, pool, clock, 600)
    assert not pool.stopped
    pass_time(patient, pool, clock, 1)
    assert pool.stopped == [1]


def test_what_waits_for_room_in_a_cluster_does_not_hang_until_it_has_begun(
    clock: list[float],
) -> None:
    supervisor, pool = Supervisor(10), Stopping(queues=True)
    supervisor.begun(1)
    pass_time(supervisor, pool, clock, 1000)
    assert not pool.stopped
    supervisor.heard(1)
    pass_time(supervisor, pool, clock, 11)
    assert pool.stopped == [1]


def test_what_begins_again_has_its_time_again(clock: list[float]) -> None:
    supervisor, pool = Supervisor(10), Stopping()
    supervisor.begun(1)
    supervisor.heard(1)
    pass_time(supervisor, pool, clock, 8)
    supervisor.lost(1, "killed by signal 9")
    pass_time(supervisor, pool, clock, 200)
    supervisor.begun(1)
    supervisor.heard(1)
    pass_time(supervisor, pool, clock, 8)
    supervisor.ended(1)
    pass_time(supervisor, pool, clock, 200)
    assert not pool.stopped


def test_time_in_which_the_driver_was_stopped_does_not_count(clock: list[float]) -> None:
    supervisor, pool = Supervisor(10), Stopping()
    supervisor.begun(1)
    supervisor.heard(1)
    clock[0] += 3600  # Ctrl-Z
    supervisor.stop_hanging(pool)
    pass_time(supervisor, pool, clock, 8)
    assert not pool.stopped


def test_a_job_hangs_however_much_others_say(clock: list[float]) -> None:
    """Events that come all the time leave no moment in which nothing happens."""
    supervisor, pool = Supervisor(10), Stopping()
    for job in (1, 2):
        supervisor.begun(job)
        supervisor.heard(job)
    for _ in range(2000):
        clock[0] += 0.01
        supervisor.heard(2)
        supervisor.stop_hanging(pool)
    assert pool.stopped == [1]


def test_time_for_which_a_job_waits_for_a_processor_does_not_count(clock: list[float]) -> None:
    supervisor, pool = Supervisor(10), Stopping()
    supervisor.begun(1)
    supervisor.heard(1)
    for _ in range(200):  # 100 s: one of two threads gets a tenth of a processor, the other sleeps
        pool.waited = {7: 5.0, 8: pool.waited.get(8, 100.0) + 0.45}
        pass_time(supervisor, pool, clock, 0.5)
        if clock[0] == 90:
            assert not pool.stopped
    pass_time(supervisor, pool, clock, 10)  # and now both sleep
    assert pool.stopped == [1]


# With real processes


def run(
    pool: LocalPool, message: Message, hang_limit_s: float, during: Callable[[int], None] = lambda _: None
) -> str:
    """What came of a job: `done`, or why it was given up. `during` is given its process after its first word."""
    supervisor = Supervisor(hang_limit_s)
    supervisor.begun(1)
    pool.submit(1, message)
    while True:
        event = pool.event(0.1)
        supervisor.stop_hanging(pool)
        if event is None:
            continue
        supervisor.heard(event.job)
        if event.kind == "lost":
            return supervisor.lost(1, event.value["message"]) or "lost"
        if event.kind != "progress":
            return event.kind
        during(event.value["pid"])


@pytest.fixture
def pool() -> Iterator[LocalPool]:
    pool = LocalPool(work, 1)
    yield pool
    pool.close()


@pytest.mark.parametrize("what", ["sleep", "spin"])
def test_a_worker_that_hangs_is_found(pool: LocalPool, what: str) -> None:
    assert run(pool, {"what": what, "seconds": 600}, 1.0) == "no step for 1 s"


def test_a_worker_that_is_stopped_is_found(pool: LocalPool) -> None:
    message = {"what": "spin", "seconds": 20}
    assert run(pool, message, 1.0, lambda pid: os.kill(pid, signal.SIGSTOP)) == "no step for 1 s"


def test_a_worker_that_hangs_before_its_first_word_is_found(
    pool: LocalPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "START_S", 1.0)
    assert run(pool, {"what": "hang"}, 0.5) == "no step for 0.5 s"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="only Linux says who waits for a processor")
def test_a_worker_that_is_slowed_by_load_is_none_that_hangs(pool: LocalPool) -> None:
    """It works for half a second without a word; so many others on its processor make five of it."""
    place = min(os.sched_getaffinity(0))
    busy = f"import os\nos.sched_setaffinity(0, {{{place}}})\nwhile True: pass"
    others = [subprocess.Popen([sys.executable, "-c", busy], start_new_session=True) for _ in range(12)]
    began = time.monotonic()
    try:
        assert run(pool, {"what": "spin", "seconds": 0.5, "place": place}, 2.0) == "done"
        assert time.monotonic() - began > 3
    finally:
        for each in others:
            each.kill()
            each.wait()
