"""Epochs as TensorBoard events, where tensorboard is installed."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from foveate.training.loop import EpochResult

__all__ = ["event_writer"]


@contextlib.contextmanager
def event_writer(folder: Path, history: Sequence[EpochResult]) -> Iterator[Any]:
    """A function that logs an epoch as TensorBoard events, where tensorboard is installed; else does nothing.

    Args:
        history: the epochs already logged, when a run is taken up again.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        yield lambda _: None
        return
    # What a killed run logged beyond its last saved state would stand twice: purge_step takes it back.
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
