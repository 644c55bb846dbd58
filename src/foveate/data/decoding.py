"""Decodes blocks in processes that can be ended: an image that hangs or kills its process costs itself alone."""

import contextlib
import itertools
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from foveate.data.source import Block
from foveate.data.worker import Progress, decode_job, decoding_job
from foveate.errors import DataError
from foveate.execution.local import LocalPool
from foveate.execution.pool import Message, Work
from foveate.execution.supervision import Supervisor

__all__ = ["TOO_SLOW", "decode_in_workers"]

TOO_SLOW = "decoding it takes longer than"
"""How the reason begins of an image that was given too little time."""
_MEMORY_BYTES = 2 << 30
"""That decoding one image may take: one of 89 million pixels with transparency takes 1.4 GB."""
_LOOK_S = 0.1
"""Seconds between looks at whether an image takes too long."""


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

    def job(self, size: int, path: Path, *, white: int | None, memory_bytes: int) -> Message:
        """What a process is given to do what is left of it."""
        return decoding_job(
            self.block,
            size,
            path,
            white=white,
            memory_bytes=memory_bytes,
            begin=self.done,
            one_by_one=self.one_by_one,
            skip=self.skip,
        )

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


def _drained(parts: deque[_Part]) -> Iterator[_Part]:
    while parts:
        yield parts.popleft()


def decode_in_workers(
    blocks: Iterable[Block],
    size: int,
    path: Path,
    *,
    white: int | None = None,
    workers: int,
    timeout_s: float,
    memory_bytes: int = _MEMORY_BYTES,
    work: Work = decode_job,
) -> Generator[Progress]:
    """Decode into rows of `path`, as `decode_blocks` does, in processes each of which takes the next block when it
    is free. The images come in no order.

    Args:
        blocks: the next one is asked for when a process is free.
        white: as `decode_image` has it.
        timeout_s: in which an image must be decoded; time for which its process waits for a processor aside.
        memory_bytes: that decoding one image may take, where the system can bound it.
        work: what the processes do with a `decoding_job`.

    Raises:
        DataError: when the file that holds a block's images is damaged, or no process can decode.
        OSError: when `path` cannot be written.
    """
    waiting, again = map(_Part, blocks), deque[_Part]()
    running: dict[int, _Part] = {}
    numbers = itertools.count()
    supervisor = Supervisor(timeout_s)
    with contextlib.closing(LocalPool(work, workers)) as pool:
        while True:
            free = pool.workers - len(running)
            for part in itertools.islice(itertools.chain(_drained(again), waiting), free):
                number = next(numbers)
                running[number] = part
                supervisor.begun(number)
                pool.submit(number, part.job(size, path, white=white, memory_bytes=memory_bytes))
            if not running:
                return
            event = pool.event(_LOOK_S)
            supervisor.stop_hanging(pool)
            if event is None:
                continue
            part = running[event.job]
            supervisor.heard(event.job)
            if event.kind == "progress":
                if event.value:
                    part.done += event.value["read"]
                    bad = [(index, reason) for index, reason in event.value["bad"]]
                    yield event.value["first"], event.value["read"], bad
                continue
            del running[event.job]
            message = event.value.get("message", "")
            if event.kind == "failed":
                raise DataError(message)
            if event.kind == "lost":
                hung = supervisor.lost(event.job, message) is not None
                part.lose(message, too_slow=f"{TOO_SLOW} {timeout_s:g} s (decode_timeout_s)" if hung else None)
                again.append(part)
            elif (code := event.value.get("errno")) is not None:
                raise OSError(code, os.strerror(code))
            supervisor.ended(event.job)
