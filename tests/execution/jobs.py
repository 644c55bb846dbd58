"""Work for the pools of the tests."""

import os
import time
from collections.abc import Callable
from typing import Any

from foveate.execution.pool import Message
from foveate.progress import heartbeat

Report = Callable[[Message], None]


def square(report: Report, x: int) -> Message:
    report({"halfway": True})
    return {"square": x**2, "pid": os.getpid()}


def count(report: Report, paths: list[str]) -> Message:
    return {"paths": len(paths)}


def environment(report: Report, name: str) -> Message:
    return {"value": os.environ.get(name)}


def say(report: Report) -> Message:
    os.write(1, b"a line of its own\n")
    return {}


def fail(report: Report) -> Message:
    raise ValueError("no good")


def leave(report: Report) -> Message:
    os._exit(3)


def hang(report: Report) -> Message:
    time.sleep(600)
    return {}


def sleep(report: Report, seconds: float) -> Message:
    report({"pid": os.getpid()})
    time.sleep(seconds)
    return {}


def spin(report: Report, seconds: float, place: int | None = None) -> Message:
    """Be for so long on a processor, of that number if there is one, without a word."""
    if place is not None:
        os.sched_setaffinity(0, {place})
    report({"pid": os.getpid()})
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass
    return {}


def beat(report: Report, seconds: float, step_s: float) -> Message:
    for _ in heartbeat(report, step_s=step_s)(range(1), total=1, label="a long step"):
        time.sleep(seconds)
    return {}


WORK: dict[str, Callable[..., Message]] = {
    "square": square,
    "count": count,
    "environment": environment,
    "print": say,
    "raise": fail,
    "exit": leave,
    "hang": hang,
    "sleep": sleep,
    "spin": spin,
    "beat": beat,
}


def work(message: Message, report: Report) -> Message:
    """Do what the message says."""
    arguments: dict[str, Any] = {name: value for name, value in message.items() if name != "what"}
    return WORK[message["what"]](report, **arguments)
