"""Encoded images that come one by one, decoded by processes that can be ended, and given back one by one."""

import collections
import contextlib
import os
import tempfile
import threading
import time
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foveate.data.container import BadImageError
from foveate.data.decoding import Decoding
from foveate.data.source import FileBlock
from foveate.data.worker import decode_job, write_all
from foveate.errors import DataError
from foveate.execution.pool import Work
from foveate.files import temporary_told
from foveate.preprocessing import Preprocessing

_AT_ONCE = 16
"""Images that a process is given at once: one by one, telling it of each costs more than decoding a small one."""
_KEPT_S = 1.0
"""Seconds without an image after which the files are emptied. Not after each: taking room on a disk and giving it
back takes longer than decoding a small image, writing over what is there a twentieth of it."""
_IDLE_S = 3600.0
"""Seconds that the thread sleeps while no image is being decoded; a new image ends that at once."""
_RETRY_S = 0.1
"""Seconds between two looks at whether an image came, where no folder for the files can be made."""
_PIXELS = "pixels"
"""The file of the decoded images."""
_SMALLEST = b"GIF89a\x01\x00\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"
"""A GIF of one pixel, with which each process is started before the first image comes."""

Decoder = Future[NDArray[np.uint8]]
"""Pixels [size, size, 3] that will be there; `BadImageError` for an image that cannot be decoded, and `DataError`
where decoding itself failed."""


@dataclass
class _Taken:
    """Images that a process has."""

    futures: list[Decoder]
    left: int


class ArrivingImages:
    """Decodes images while they arrive, from any thread.

    An image lies in a temporary file, in a folder that its owner alone can read, while it is decoded and for a
    second after the last one was.

    Args:
        workers: processes that decode.
        timeout_s: in which an image must be decoded.
        work: what the processes do.
    """

    def __init__(
        self, preprocessing: Preprocessing, *, workers: int, timeout_s: float, work: Work = decode_job
    ) -> None:
        self._preprocessing, self._workers, self._timeout_s = preprocessing, workers, timeout_s
        self._work = work
        self._waiting: collections.deque[tuple[bytes, Decoder]] = collections.deque()
        self._taken: dict[int, _Taken] = {}
        """By the place of a process."""
        self._files: list[FileIO] = []
        """One for each image that processes can have, and one for the pixels of all."""
        self._gone = False
        """Whether something has deleted such a file."""
        self._decoding: Decoding | None = None
        self._called = False
        """Whether the thread has been told to look at what waits, and has not yet."""
        self._closing = False
        self._ended: str | None = None
        """Why nothing is decoded any more."""
        self._thread = threading.Thread(target=self._run, name="decoding", daemon=True)

    def start(self) -> None:
        """Start the processes, and wait until they are ready.

        Raises:
            DataError: when they cannot decode; none is left then.
        """
        first = [self.decode(_SMALLEST) for _ in range(self._workers)]
        self._thread.start()
        try:
            for each in first:
                each.result()
        except BaseException:
            self.close()
            raise

    def decode(self, image: bytes) -> Decoder:
        """Decode an encoded image."""
        future: Decoder = Future()
        self._waiting.append((image, future))
        if self._ended is None:
            self._call()
        else:
            self._refuse_waiting(self._ended)
        return future

    def close(self) -> None:
        """End the processes; images that wait are refused."""
        self._closing = True
        self._call()
        self._thread.join()

    def _call(self) -> None:
        if self._decoding is not None and not self._called:
            self._called = True
            self._decoding.wake()

    def _run(self) -> None:
        reason = "the server is stopping"
        try:
            self._decode_in_folder()
            while not self._closing:  # something has deleted its files
                self._decode_in_new_folder()
        except OSError as error:
            reason = temporary_told(error)
        except Exception as error:  # those who wait must hear of it, whatever it is
            reason = f"images cannot be decoded any more ({error}): start it again"
        # In this order: who does not see that it has ended yet has put its image where it is found here.
        self._ended = reason
        self._fail(reason)
        self._refuse_waiting(reason)

    def _decode_in_new_folder(self) -> None:
        """Where none can be made, as when the disk is full, the images that wait are lost and no others."""
        try:
            self._decode_in_folder()
        except OSError as error:
            self._refuse_waiting(temporary_told(error))
            while not self._waiting and not self._closing:
                time.sleep(_RETRY_S)

    def _decode_in_folder(self) -> None:
        """Until it is closed, or files of the folder are gone: systems clean away what nobody used for days."""
        with tempfile.TemporaryDirectory(prefix="foveate-") as name, contextlib.ExitStack() as opened:
            folder, rows, size = Path(name), self._workers * _AT_ONCE, self._preprocessing.size
            names = [*map(str, range(rows)), _PIXELS]
            self._files = [opened.enter_context((folder / each).open("xb", buffering=0)) for each in names]
            self._files[-1].truncate(rows * size * size * 3)
            pixels = np.memmap(folder / _PIXELS, np.uint8, mode="r", shape=(rows, size, size, 3))
            self._gone = False
            while not self._closing and not self._gone:
                # Where decoding itself fails, as when the disk is full, those images are lost and no others.
                try:
                    self._decode_until_closed(folder, pixels)
                except DataError as error:
                    self._fail(str(error))
                except OSError as error:
                    self._fail(temporary_told(error))
            del pixels  # Windows deletes no file that is mapped

    def _decode_until_closed(self, folder: Path, pixels: NDArray[np.uint8]) -> None:
        with contextlib.closing(
            Decoding(
                self._preprocessing,
                folder / _PIXELS,
                workers=self._workers,
                timeout_s=self._timeout_s,
                work=self._work,
            )
        ) as decoding:
            self._decoding = decoding
            while not self._closing:
                self._called = False  # before it looks: an image that comes after that calls again
                self._hand_out(decoding, folder)
                if not decoding.busy:
                    if self._gone:
                        return
                    self._wait_for_images(decoding)
                elif (progress := decoding.progress()) is not None:
                    first, read, bad = progress
                    self._give_back(pixels, range(first, first + read), dict(bad))

    def _wait_for_images(self, decoding: Decoding) -> None:
        """Until one comes; when none does, the files are emptied first."""
        began = time.monotonic()
        decoding.progress(_KEPT_S)
        if time.monotonic() - began < _KEPT_S:
            return
        for each in self._files[:-1]:
            each.truncate(0)
        # The call of an image that came as the first wait ended is spent, and none follows until it is looked at.
        if not self._waiting and not self._closing:
            decoding.progress(_IDLE_S)

    def _hand_out(self, decoding: Decoding, folder: Path) -> None:
        """Give the images that wait to the processes that are free, evenly."""
        free = [place for place in range(self._workers) if place not in self._taken][: decoding.free]
        for number, place in enumerate(free):
            count = min(_AT_ONCE, -(-len(self._waiting) // (len(free) - number)))
            row = place * _AT_ONCE
            paths = [folder / str(row + offset) for offset in range(count)]
            self._gone = self._gone or not all(each.exists() for each in (folder / _PIXELS, *paths))
            if not count or self._gone:
                return
            some = [self._waiting.popleft() for _ in range(count)]
            self._taken[place] = _Taken([future for _, future in some], count)
            for file, (image, _) in zip(self._files[row : row + count], some, strict=True):
                file.seek(0)
                write_all(file.fileno(), image)
                file.truncate(len(image))
            decoding.begin(FileBlock(row, count, [os.fspath(each) for each in paths]))

    def _give_back(self, pixels: NDArray[np.uint8], rows: range, bad: dict[int, str]) -> None:
        place = rows.start // _AT_ONCE
        taken = self._taken[place]
        for row in rows:
            future = taken.futures[row % _AT_ONCE]
            _settle(future, BadImageError(bad[row]) if row in bad else pixels[row].copy())
        taken.left -= len(rows)
        if not taken.left:
            del self._taken[place]

    def _fail(self, reason: str) -> None:
        """Tell those whose images processes had."""
        lost = [future for taken in self._taken.values() for future in taken.futures]
        self._taken.clear()
        for future in lost:
            _settle(future, DataError(reason))

    def _refuse_waiting(self, reason: str) -> None:
        """Tell those whose images wait; from any thread."""
        with contextlib.suppress(IndexError):
            while True:
                _, future = self._waiting.popleft()
                _settle(future, DataError(reason))


def _settle(future: Decoder, outcome: NDArray[np.uint8] | Exception) -> None:
    """Say what became of an image, unless that was said or whoever asked has cancelled it."""
    with contextlib.suppress(InvalidStateError):
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
