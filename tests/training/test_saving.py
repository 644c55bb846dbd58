"""What a signal does while training runs."""

import os
import signal
from collections.abc import Iterator

import pytest

from foveate.errors import Interrupted
from foveate.training.saving import interruptible


@pytest.fixture(autouse=True)
def python_handlers() -> Iterator[None]:
    """Python's own handlers: a shell starts what runs in the background with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


BOTH = pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])


@BOTH
def test_the_first_signal_is_noted_and_the_second_acts(signum: signal.Signals) -> None:
    with interruptible("foveate go on") as interrupted:
        os.kill(os.getpid(), signum)
        assert interrupted.is_set()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@BOTH
def test_at_once_the_first_acts_and_says_how_to_go_on(signum: signal.Signals) -> None:
    before = signal.getsignal(signum)

    def work() -> None:
        with interruptible("foveate go on", at_once=True):
            os.kill(os.getpid(), signum)
            pytest.fail("it went on")

    with pytest.raises(Interrupted, match="foveate go on"):
        work()
    assert signal.getsignal(signum) is before


@BOTH
def test_where_another_process_decides_neither_acts(signum: signal.Signals) -> None:
    before = signal.getsignal(signum)
    with interruptible("foveate go on", heeded=False) as interrupted:
        for _ in range(2):
            os.kill(os.getpid(), signum)
    assert not interrupted.is_set()
    assert signal.getsignal(signum) is before
