"""Standard streams that are closed, or that nobody reads any more."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

GONE = (errno.EPIPE, errno.EIO)
"""How writing fails where nobody reads any more: a pipe, and a terminal that was closed."""


def open_closed() -> None:
    """Open the null device in place of each standard stream that is closed, here and in the processes begun here.

    Python has None there; and the next file that is opened would have the number of the stream.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free is this one
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 (for good)


class Lasting:
    """A stream that becomes the null device once nobody reads it: its lines are lost, and the work goes on."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, text: str) -> int:
        """Write `text`, if anybody reads it."""
        with self._outlived():
            self._file.write(text)
        return len(text)

    def flush(self) -> None:
        """Write what is in the buffer, if anybody reads it."""
        with self._outlived():
            self._file.flush()

    @contextmanager
    def _outlived(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in GONE:
                raise
            discard(self._file)


def discard(file: TextIO) -> None:
    """Make it the null device, also for what is still in its buffer: Python writes that at the end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, file.fileno())
    os.close(null)
