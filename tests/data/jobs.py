"""Decoding as the tests' workers do it: an image whose file name, or first word, says so hangs, or kills its
process.
"""

import ctypes
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foveate.data import worker
from foveate.data.source import Image
from foveate.execution.pool import Message
from foveate.preprocessing import Preprocessing

_decode = worker.decode


def decode(image: Image, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """What `worker` does, or what the name says; of a file named by a number, its first bytes."""
    name = image.name if isinstance(image, Path) else ""
    if isinstance(image, Path) and name.isdecimal():
        name = image.read_bytes()[:8].decode("latin-1")
    if name.startswith("hang"):
        time.sleep(600)
    elif name.startswith("spin"):
        while True:
            pass
    elif name.startswith("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    elif name.startswith("segfault"):
        ctypes.string_at(0)
    elif name.startswith("once"):  # by a fault that does not come again
        mark = Path(f"{image}.seen")
        if not mark.exists():
            mark.write_text("")
            os.kill(os.getpid(), signal.SIGKILL)
    elif name.startswith("slow"):
        time.sleep(0.4)
    return _decode(image, preprocessing)


worker.decode = decode


def deadly_job(message: Message, report: Callable[[Message], None]) -> Message:
    """`decode_job`, by that."""
    return worker.decode_job(message, report)


def no_job(message: Message, report: Callable[[Message], None]) -> Message:
    """A machine on which nothing decodes."""
    os._exit(7)
