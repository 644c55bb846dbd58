"""Saving while training runs: at intervals, and when Ctrl-C or SIGTERM asks it to stop."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any, TypeVar

from foveate.errors import Interrupted
from foveate.progress import Track

T = TypeVar("T")


def saving(track: Track, save: Callable[[], None], every_s: float, interrupted: threading.Event) -> Track:
    """`track`, with a save between batches whenever the last is `every_s` old, and on an interrupt."""
    saved = time.monotonic()

    def wrapped(items: Iterable[T], *, total: int, label: str, images_each: int = 1) -> Iterator[T]:
        nonlocal saved
        for item in track(items, total=total, label=label, images_each=images_each):
            yield item
            if interrupted.is_set():
                save()
                raise KeyboardInterrupt
            if time.monotonic() - saved >= every_s:
                save()
                saved = time.monotonic()

    return wrapped


@contextlib.contextmanager
def interruptible(command: str, *, at_once: bool = False, heeded: bool = True) -> Iterator[threading.Event]:
    """Turn the first Ctrl-C or SIGTERM into an event that is checked between steps; the second acts at once.

    Args:
        command: the command line that resumes the work.
        at_once: let the first act at once too, for work whose steps are long and can be repeated.
        heeded: False: neither does anything, as another process takes this one to its next step, saves and ends.

    Raises:
        Interrupted: with the `command`, for a KeyboardInterrupt raised inside.
    """
    event = threading.Event()
    previous: dict[int, Any] = {}

    def restore() -> None:
        for signum, handler in previous.items():
            signal.signal(signum, handler)

    def note(_signum: int, _: FrameType | None) -> None:
        event.set()
        restore()
        if at_once:
            raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():  # the only one that may set handlers
        previous = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
        for signum in previous:
            signal.signal(signum, note if heeded else signal.SIG_IGN)
    try:
        yield event
    except KeyboardInterrupt:
        raise Interrupted(command) from None
    finally:
        restore()
