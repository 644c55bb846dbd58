"""The processes that train one network together, one for each device of this machine; without torch."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any, NamedTuple

from foveate.errors import ConfigError
from foveate.processors import usable_processors

RENDEZVOUS = "FOVEATE_RENDEZVOUS"
"""Names the file by which the processes of `run_on_devices` find each other: no port is opened for it."""
_LOOPBACK = {"linux": "lo", "darwin": "lo0"}
"""The network interface of this machine alone: nothing outside can reach the processes."""
_POLL_INTERVAL_S = 0.05
_GRACE_S = 15.0
"""For which the others may say what they lost when one was killed; then they are ended. They notice it by their
closed connections within a second, where they do not wait for a GPU."""


def in_group() -> bool:
    """Whether this process was started to train with others, by `run_on_devices` or by torchrun."""
    several = os.environ.get("WORLD_SIZE", "1") != "1"
    return several and "RANK" in os.environ and (RENDEZVOUS in os.environ or "MASTER_ADDR" in os.environ)


def processes_to_start(devices: int | None) -> int:
    """How many processes are to train in place of this one; 0 where it trains itself.

    Raises:
        ConfigError: for a number below 1, and in a process that torchrun has started.
    """
    if devices is not None and devices < 1:
        raise ConfigError(f"--devices {devices}: give 1 at least")
    if devices is not None and in_group() and RENDEZVOUS not in os.environ:
        raise ConfigError("--devices starts its processes itself: leave it out under torchrun")
    return 0 if devices in (None, 1) or in_group() else devices


def is_first() -> bool:
    """Whether this process is the one that tells a person what all of them do."""
    return not in_group() or os.environ["RANK"] == "0"


def end_with_parent() -> None:
    """In a process of `run_on_devices`: end when the one that started it ends, be it in the middle of a step."""

    def wait() -> None:
        # Nothing is ever written there: it ends when the parent does. Not by sys.stdin, whose lock Python needs
        # to end.
        os.read(0, 1)
        os._exit(1)

    if RENDEZVOUS in os.environ:
        threading.Thread(target=wait, daemon=True).start()


def hand_back(text: str) -> None:
    """Give the caller of `run_on_devices` a text, where it was one that started this process."""
    if RENDEZVOUS in os.environ:
        _beside(Path(os.environ[RENDEZVOUS])).write_text(text, encoding="utf-8")


class Ended(NamedTuple):
    """How such processes ended."""

    status: int
    """The exit code of the one that says why they failed; 0 where none did."""
    errors: str
    """What is to be written to standard error."""
    result: str = ""
    """What one of them has handed back."""


def run_on_devices(command: Sequence[str], devices: int, *, quiet: bool = False) -> Ended:
    """Run `command` in as many processes as there are `devices`; when one fails, the others are ended.

    Each finds its place where torchrun would put it, in RANK, LOCAL_RANK and WORLD_SIZE. torchrun itself is not
    asked: it answers an error with a page of its own, and takes three seconds to begin. The first process prints
    what there is to see, unless it is to be `quiet`. Ctrl-C and SIGTERM go to the first process, which saves.
    """
    with contextlib.ExitStack() as held:
        store = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="foveate-"))) / "store"
        errors = [held.enter_context(tempfile.TemporaryFile()) for _ in range(devices)]
        processes = []
        for rank in range(devices):
            process = subprocess.Popen(  # noqa: S603 (our own module, by the running interpreter)
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL if quiet or rank > 0 else None,
                stderr=errors[rank],
                env=_environment(rank, devices, store),
                start_new_session=True,  # Ctrl-C reaches this process alone
            )
            held.callback(_end, process)
            processes.append(process)
        with _signals_to(processes[0]) as stopped:
            teller = _wait(processes)
        if teller is not None:
            return Ended(processes[teller].returncode, _told(errors[teller]))
        if all(each.returncode == 0 for each in processes):
            result = _beside(store)
            return Ended(0, _written(errors[0]), result.read_text(encoding="utf-8") if result.exists() else "")
        if stopped:  # before there was anything to save
            return Ended(130, "")
        rank, code = next((rank, each.returncode) for rank, each in enumerate(processes) if each.returncode)
        return Ended(
            1,
            f"foveate: the process of device {rank} was killed (signal {-code}), perhaps as memory ran out: "
            f"continue with `foveate train --resume RUN --devices {devices}`\n",
        )


def _beside(store: Path) -> Path:
    """Where a result is handed back."""
    return store.with_name("result")


def _environment(rank: int, devices: int, store: Path) -> dict[str, str]:
    """The variables of one process; what the user has set for all of them stays."""
    shared = {"OMP_NUM_THREADS": str(max(1, usable_processors() // devices))}
    if (loopback := _LOOPBACK.get(sys.platform)) is not None:
        shared["GLOO_SOCKET_IFNAME"] = loopback
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": devices, "LOCAL_WORLD_SIZE": devices}
    return {
        **shared,
        **os.environ,
        **{name: str(value) for name, value in place.items()},
        "PYTHONPATH": os.pathsep.join(sys.path),
        RENDEZVOUS: str(store),
    }


def _wait(processes: Sequence["subprocess.Popen[bytes]"]) -> int | None:
    """Wait until all have ended well, or one has failed; which says why, None where none does."""
    killed_at: float | None = None
    while True:
        codes = [each.poll() for each in processes]
        for rank, code in enumerate(codes):
            if code is not None and code > 0:
                return rank
        if None not in codes:
            return None
        if any(code is not None and code < 0 for code in codes):  # which itself could say nothing
            killed_at = killed_at or time.monotonic()
            if time.monotonic() - killed_at > _GRACE_S:
                return None
        time.sleep(_POLL_INTERVAL_S)


@contextlib.contextmanager
def _signals_to(process: "subprocess.Popen[bytes]") -> Iterator[list[int]]:
    """Hand Ctrl-C and SIGTERM on to a process; yields those that came."""
    came: list[int] = []

    def hand_on(signum: int, _: FrameType | None) -> None:
        came.append(signum)
        process.send_signal(signum)

    previous: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # the only one that may set handlers
        previous = {each: signal.signal(each, hand_on) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _written(errors: IO[bytes]) -> str:
    errors.seek(0)
    return errors.read().decode(errors="replace")


def _told(errors: IO[bytes]) -> str:
    """The line of an error that was meant for a person; where there is none, all that was written."""
    text = _written(errors)
    lines = [line for line in text.splitlines() if line.startswith("foveate: ")]
    return f"{lines[-1]}\n" if lines else text
