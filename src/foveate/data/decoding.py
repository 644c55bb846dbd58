"""Decodes blocks in processes that can be ended: an image that hangs or kills its process costs itself alone."""

import contextlib
import errno
import itertools
import os
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from foveate.data.container import NO_MEMORY
from foveate.data.source import Block
from foveate.data.worker import Progress, decode_job, decoding_job
from foveate.errors import DataError
from foveate.execution.local import LocalPool
from foveate.execution.pool import Work
from foveate.execution.supervision import Supervisor
from foveate.preprocessing import Preprocessing

TOO_SLOW = "decoding it takes longer than"
"""How the reason begins of an image that was given too little time."""
_MEMORY_BYTES = 2 << 30
"""That decoding one image may take: one of 89 million pixels with transparency takes 1.4 GB."""
_POLL_INTERVAL_S = 0.1
"""Seconds between looks at whether an image takes too long."""
_OF_THE_MACHINE = ("its process ended with exit code -9", NO_MEMORY, os.strerror(errno.EIO).lower())
"""How reasons begin that may not be the image's: memory that ran out, and a disk that failed."""


def is_of_the_machine(reason: str) -> bool:
    """Whether an image that was bad for this reason may be good when it is tried again."""
    return reason.startswith(_OF_THE_MACHINE)


@dataclass
class _Part:
    """A block, or what is left of one whose process was lost."""

    block: Block
    done: int = 0
    """Images of the block that are written."""
    one_by_one: bool = False
    skip: dict[int, str] = field(default_factory=dict)
    """Images that are given up, by their index in the data set, and why."""
    suspect: int | None = None
    """The image before which the last process was lost."""

    def lose(self, message: str, *, too_slow: str | None) -> None:
        """Its process was lost: it begins again after the last image that was written. From then on each image is
        written by itself, so that it is known which one it was when that happens again.

        An image is given up when it took too long, or when two processes were lost by it: one may have been killed
        for another reason.

        Args:
            message: how the process ended.
            too_slow: the reason if it was ended because an image took too long.

        Raises:
            DataError: when it was not lost by an image.
        """
        index = self.block.start + self.done
        if index in self.skip:
            raise DataError(f"decoding: {message}: run again")
        if self.one_by_one and (too_slow or self.suspect == index):
            self.skip[index] = too_slow or f"decoding it failed: {message}"
        self.one_by_one, self.suspect = True, index


class Decoding:
    """Blocks being decoded into rows of `path`, as `decode_blocks` does, in processes, one block each. The
    images come in no order.

    Args:
        timeout_s: in which an image must be decoded; time for which its process waits for a processor aside.
        memory_bytes: that decoding one image may take, where the system can bound it.
        work: what the processes do with a `decoding_job`.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        path: Path,
        *,
        workers: int,
        timeout_s: float,
        memory_bytes: int = _MEMORY_BYTES,
        work: Work = decode_job,
    ) -> None:
        self._preprocessing, self._path = preprocessing, path
        self._timeout_s, self._memory_bytes = timeout_s, memory_bytes
        self._pool = LocalPool(work, workers)
        self._supervisor = Supervisor(timeout_s)
        self._running: dict[int, _Part] = {}
        self._numbers = itertools.count()

    @property
    def free(self) -> int:
        """Processes without a block."""
        return self._pool.workers - len(self._running)

    @property
    def busy(self) -> bool:
        """Whether any process has a block."""
        return bool(self._running)

    def begin(self, block: Block) -> None:
        """Give a block to a free process; there must be one."""
        self._submit(_Part(block))

    def progress(self, wait_s: float = _POLL_INTERVAL_S) -> Progress | None:
        """What was decoded next; None when nothing was within `wait_s`, or `wake` was called.

        Raises:
            DataError: when the file that holds a block's images is damaged, or no process can decode.
            OSError: when `path` cannot be written.
        """
        event = self._pool.event(wait_s)
        self._supervisor.stop_hanging(self._pool)
        if event is None:
            return None
        part = self._running[event.job]
        self._supervisor.heard(event.job)
        if event.kind == "progress":
            if not event.value:
                return None
            part.done += event.value["read"]
            bad = [(index, reason) for index, reason in event.value["bad"]]
            return event.value["first"], event.value["read"], bad
        del self._running[event.job]
        message = event.value.get("message", "")
        if event.kind == "failed":
            raise DataError(message)
        if event.kind == "lost":
            hung = self._supervisor.lost(event.job, message) is not None
            part.lose(message, too_slow=f"{TOO_SLOW} {self._timeout_s:g} s" if hung else None)
            self._submit(part)
        elif (code := event.value.get("errno")) is not None:
            raise OSError(code, os.strerror(code))
        self._supervisor.ended(event.job)
        return None

    def wake(self) -> None:
        """End the wait of `progress`; from any thread."""
        self._pool.wake()

    def close(self) -> None:
        """End all processes."""
        self._pool.close()

    def _submit(self, part: _Part) -> None:
        number = next(self._numbers)
        self._running[number] = part
        self._supervisor.begun(number)
        job = decoding_job(
            part.block,
            self._preprocessing,
            self._path,
            memory_bytes=self._memory_bytes,
            begin=part.done,
            one_by_one=part.one_by_one,
            skip=part.skip,
        )
        self._pool.submit(number, job)


def decode_in_workers(
    blocks: Iterable[Block],
    preprocessing: Preprocessing,
    path: Path,
    *,
    workers: int,
    timeout_s: float,
    memory_bytes: int = _MEMORY_BYTES,
    work: Work = decode_job,
) -> Generator[Progress]:
    """Decode blocks as `Decoding` does; the next one is asked for when a process is free.

    Raises:
        DataError, OSError: as `Decoding.progress`.
    """
    waiting = iter(blocks)
    with contextlib.closing(
        Decoding(preprocessing, path, workers=workers, timeout_s=timeout_s, memory_bytes=memory_bytes, work=work)
    ) as decoding:
        while True:
            for block in itertools.islice(waiting, decoding.free):
                decoding.begin(block)
            if not decoding.busy:
                return
            progress = decoding.progress()
            if progress is not None:
                yield progress
