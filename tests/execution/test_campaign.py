"""The engine of studies and comparisons: every job is begun, judged, recorded, and told of once."""

import time
from collections.abc import Mapping
from typing import Any

import pytest

from foveate.errors import FoveateError, OutputError
from foveate.execution.campaign import run_campaign
from foveate.execution.pool import Event, Message
from foveate.execution.serial import SerialPool
from foveate.execution.supervision import MAX_WORKER_LOSSES


class Squares:
    """Has numbers squared, and remembers what became of each."""

    hang_limit_s = 60.0
    fatal: tuple[type[FoveateError], ...] = (OutputError,)
    columns = ("number",)

    def __init__(self, *numbers: int) -> None:
        self.waiting = list(numbers)
        self.ended: dict[int, Event] = {}

    def next_job(self) -> tuple[int, Message] | None:
        return (number := self.waiting.pop(0), {"number": number}) if self.waiting else None

    def record(self, event: Event) -> Event:
        if event.kind == "lost":
            self.waiting.append(event.job)
        else:
            self.ended[event.job] = event
        return event

    def announcement(self, workers: int) -> list[str]:
        return []

    def row(self, job: int, epoch: int) -> tuple[str, ...]:
        return (str(job),)

    def lines(self, event: Event) -> list[str]:
        return []

    def progress(self) -> str:
        return ""


class ScriptedPool:
    """Says what the script has it say, of the last submission of a job; a `Late` event is of its first."""

    queues = False

    def __init__(self, *events: Event | None, workers: int = 1) -> None:
        self.workers, self.events = workers, list(events)
        self.submitted: list[int] = []
        self.numbers: dict[int, list[int]] = {}

    def submit(self, job: int, message: Message) -> None:
        self.submitted.append(message["number"])
        self.numbers.setdefault(message["number"], []).append(job)

    def event(self, timeout_s: float) -> Event | None:
        event = self.events.pop(0)
        if event is None:
            return None
        numbers = self.numbers[event.job]
        return Event(numbers[0 if isinstance(event, Late) else -1], event.kind, event.value)

    def stop(self, job: int) -> None: ...

    def waited_s(self, job: int) -> Mapping[int, float]:
        return {}

    def close(self) -> None: ...


class Late(Event):
    """Of a job's first submission."""


def kinds(campaign: Squares, pool: Any) -> list[tuple[int, str] | None]:
    return [event and (event.job, event.kind) for event in run_campaign(campaign, pool)]


def done(job: int) -> Event:
    return Event(job, "done", {"square": job**2})


def test_jobs_begin_in_order_and_as_many_as_there_are_workers() -> None:
    pool = ScriptedPool(done(2), None, done(1), done(3), workers=2)
    assert kinds(Squares(1, 2, 3), pool) == [
        (1, "begun"), (2, "begun"), (2, "done"), (3, "begun"), None, (1, "done"), (3, "done"),
    ]  # fmt: skip


def test_a_heartbeat_and_what_comes_after_the_end_are_no_events() -> None:
    progress = [Event(1, "progress", {}), Event(1, "progress", {"epoch": 1}), done(1), Event(1, "progress", {})]
    told = kinds(Squares(1, 2), ScriptedPool(*progress, done(2)))
    assert told == [(1, "begun"), None, (1, "progress"), (1, "done"), (2, "begun"), None, (2, "done")]


class Again(Squares):
    """Asks for a job a second time, under the same number, once it is done."""

    def record(self, event: Event) -> Event:
        if event.job not in self.ended:
            self.waiting.append(event.job)
        return super().record(event)


def test_a_late_report_does_not_say_that_the_next_job_of_that_number_has_begun() -> None:
    """By Ray the next one may wait for room in the cluster; were it heard of, its wait would be a silence."""
    pool = ScriptedPool(done(1), Late(1, "progress", {"epoch": 1}), None, done(1))
    pool.queues = True  # type: ignore[misc]
    assert kinds(Again(1), pool) == [(1, "begun"), (1, "done"), (1, "begun"), None, None, (1, "done")]
    assert pool.numbers[1][0] != pool.numbers[1][1]


def test_of_a_job_that_hangs_the_running_submission_is_stopped() -> None:
    class Silent(ScriptedPool):
        stopped: list[int] = []  # noqa: RUF012

        def stop(self, job: int) -> None:
            self.stopped.append(job)
            self.events = [Event(1, "lost", {"message": "stopped"})]

    pool = Silent(done(1), Event(1, "progress", {}))
    campaign = Again(1)
    campaign.hang_limit_s = 0.05
    told = []
    for event in run_campaign(campaign, pool):
        told.append(event and event.kind)
        if not pool.events:
            time.sleep(0.05)
            pool.events = [None]
    assert told[-1] == "failed"
    assert pool.stopped == pool.numbers[1][1:]


def test_a_lost_job_is_done_again_and_fails_when_it_has_cost_too_many_workers() -> None:
    lost = Event(1, "lost", {"message": "killed"})
    campaign, pool = Squares(1), ScriptedPool(*[lost] * MAX_WORKER_LOSSES)
    again = [(1, "begun"), (1, "lost")] * (MAX_WORKER_LOSSES - 1)
    assert kinds(campaign, pool) == [*again, (1, "begun"), (1, "failed")]
    assert campaign.ended[1].value == {
        "kind": "lost", "reason": "its worker was lost each time that it was tried: killed",
    }  # fmt: skip


def test_a_failure_has_a_reason_and_the_rest_goes_on() -> None:
    failed = Event(1, "failed", {"kind": "TrainingError", "message": "nan", "where": "loop.py:1"})
    campaign = Squares(1, 2)
    assert kinds(campaign, ScriptedPool(failed, done(2)))[1:] == [(1, "failed"), (2, "begun"), (2, "done")]
    assert campaign.ended[1].value == {"kind": "TrainingError", "reason": "TrainingError: nan (loop.py:1)"}


def test_a_fatal_error_ends_all_and_is_not_recorded() -> None:
    failed = Event(1, "failed", {"kind": "OutputError", "message": "the disk is full", "where": "x.py:1"})
    campaign, pool = Squares(1, 2), ScriptedPool(failed)
    with pytest.raises(OutputError, match=r"^the disk is full$"):
        kinds(campaign, pool)
    assert (campaign.ended, pool.submitted) == ({}, [1])


def test_what_is_stopped_between_two_events_has_recorded_what_it_told() -> None:
    campaign = Squares(1, 2, 3)
    pool = SerialPool(lambda message, report: {"square": message["number"] ** 2})
    for event in run_campaign(campaign, pool):
        if event is not None and event.job == 2:
            break
    assert {job: event.value["square"] for job, event in campaign.ended.items()} == {1: 1}
    assert campaign.waiting == [3]
