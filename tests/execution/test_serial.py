"""Jobs in this very process: the same events as anywhere."""

import os

from tests.execution.jobs import work

from foveate.execution.pool import Event
from foveate.execution.serial import SerialPool


def test_jobs_are_done_in_order_and_told_as_anywhere() -> None:
    pool = SerialPool(work)
    assert pool.event(0.1) is None
    pool.submit(7, {"what": "square", "x": 3})
    pool.submit(8, {"what": "raise"})
    assert pool.event(0.1) == Event(7, "progress", {"halfway": True})
    assert pool.event(0.1) == Event(7, "done", {"square": 9, "pid": os.getpid()})
    failed = pool.event(0.1)
    assert failed is not None
    assert (failed.job, failed.kind, failed.value["kind"], failed.value["message"]) == (
        8,
        "failed",
        "ValueError",
        "no good",
    )
    assert pool.event(0.1) is None


def test_what_was_not_done_is_forgotten() -> None:
    pool = SerialPool(work)
    pool.submit(1, {"what": "square", "x": 1})
    pool.close()
    assert pool.event(0.1) is None
