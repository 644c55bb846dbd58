"""How much memory there is, so that what could never fit is refused before it is tried."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_CONTAINER = Path("/sys/fs/cgroup/memory.max")
"""The limit of a container, on Linux with control groups of version 2; "max" where it has none."""


def device_memory(device: "torch.device") -> int:
    """Bytes of memory that `device` has in all; where no one says, as many as can be counted."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.get_device_properties(device).total_memory)
    return host_memory()


def host_memory() -> int:
    """Bytes of memory that this machine, or the container that this process runs in, has in all."""
    if not hasattr(os, "sysconf"):  # Windows
        return sys.maxsize
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(memory, int(_CONTAINER.read_text()))
    except (OSError, ValueError):
        return memory
