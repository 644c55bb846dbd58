"""Epochs as TensorBoard events, where tensorboard is installed."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from foveate.training.state import EpochResult


@contextlib.contextmanager
def event_writer(folder: Path, history: Sequence[EpochResult]) -> Iterator[Any]:
    """A function that logs an epoch as TensorBoard events, where tensorboard is installed; else does nothing.

    Args:
        history: the epochs already logged, when a run is resumed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        yield lambda _: None
        return
    # A killed run may have logged more than its last saved state, and would log it twice: purge_step removes it.
    writer = SummaryWriter(str(folder / "events"), purge_step=len(history) + 1 if history else None)

    def log(row: EpochResult) -> None:
        for name, value in asdict(row).items():
            if name != "epoch" and value is not None:
                writer.add_scalar(name, value, row.epoch)
        writer.flush()

    try:
        yield log
    finally:
        writer.close()
