"""Standard streams that are closed, or that nobody reads any more."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

GONE = (errno.EPIPE, errno.EIO)
"""How writing fails where nobody reads any more: a pipe, and a terminal that was closed."""


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
