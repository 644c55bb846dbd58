"""How many processors this process may use, which can be fewer than the machine has."""

import math
import os
from pathlib import Path

_CONTAINER = Path("/sys/fs/cgroup/cpu.max")
"""The share of a container, on Linux with control groups of version 2: microseconds of processor time in so many
microseconds, as "200000 100000"; "max" in place of the first where it has none."""


def usable_processors() -> int:
    """Processors that the scheduler gives this process, within the share of its container; one at least."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # only Linux tells it
        count = os.cpu_count() or 1
    try:
        time_us, period_us = map(int, _CONTAINER.read_text().split())
        count = min(count, math.ceil(time_us / period_us))
    except (OSError, ValueError, ZeroDivisionError):
        pass
    return max(1, count)
