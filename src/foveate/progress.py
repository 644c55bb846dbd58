"""How long work is followed: a wrapper around an iterable, as the command line, a notebook or nobody wants it."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
_BEAT_EVERY_S = 2.0
"""Seconds between two beats."""
COMPILING_S = 900.0
"""Seconds that one step of a compiled network may take: torch.compile works for minutes within a step, and does so
again for each new shape of a batch."""


class Track(Protocol):
    """Wraps `items` to show progress; yields them unchanged, in order."""

    def __call__(self, items: Iterable[T], *, total: int, label: str, images_each: int = 1) -> Iterable[T]:
        """Follow `total` items; each stands for `images_each` images in the rate that is shown."""
        ...


def untracked(items: Iterable[T], *, total: int, label: str, images_each: int = 1) -> Iterator[T]:  # noqa: ARG001
    """Follow nothing: the default of the Python API."""
    yield from items


def heartbeat(report: Callable[[Mapping[str, Any]], None], step_s: float = 0.0) -> Track:
    """Follows work by an empty report every two seconds, for a process that waits for this one.

    Args:
        report: takes the empty report.
        step_s: seconds for which a thread reports while one item is worked on; 0: no report comes from within. A
            hang within an item is then found that much later.
    """
    reported = time.monotonic()

    def track(items: Iterable[T], *, total: int, label: str, images_each: int = 1) -> Iterator[T]:  # noqa: ARG001
        nonlocal reported
        with _beating(report, step_s) as begin:
            for item in items:
                begin()
                yield item
                if time.monotonic() - reported >= _BEAT_EVERY_S:
                    report({})
                    reported = time.monotonic()

    return track


@contextlib.contextmanager
def _beating(report: Callable[[Mapping[str, Any]], None], step_s: float) -> Iterator[Callable[[], None]]:
    """Report from a thread, until `step_s` after the last call of the function that is yielded."""
    if not step_s:
        yield lambda: None
        return
    until, ended = 0.0, threading.Event()

    def begin() -> None:
        nonlocal until
        until = time.monotonic() + step_s

    def beat() -> None:
        while not ended.wait(_BEAT_EVERY_S):
            if time.monotonic() < until:
                report({})

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield begin
    finally:
        ended.set()
        thread.join()
