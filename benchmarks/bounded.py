"""The product's training, by the call that the command line makes, ended after so many steps."""

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from foveate import train
from foveate.progress import Track
from foveate.training.loop import EpochResult

__all__ = ["train_steps"]

T = TypeVar("T")


class EnoughError(Exception):
    """Ends training after the last step that was asked for."""


class StepLimit:
    """A display that shows nothing, calls `after_step` with the steps done so far, and stops after `steps`."""

    def __init__(self, steps: int, after_step: Callable[[int], None]) -> None:
        self.steps = steps
        self.after_step = after_step
        self.done = 0
        self.track: Track = self.follow

    def follow(self, items: Iterable[T], *, total: int, label: str, images_each: int = 1) -> Iterator[T]:  # noqa: ARG002
        """Yield `items`, counting those that are batches to train on."""
        for item in items:
            yield item
            if label.startswith("epoch "):
                self.done += 1
                self.after_step(self.done)
                if self.done >= self.steps:
                    raise EnoughError

    def say(self, line: str) -> None:
        """Say nothing."""

    def epoch(self, result: EpochResult, *, epochs: int, best: bool) -> None:
        """Show nothing."""


def train_steps(
    data: str | Path, steps: int, after_step: Callable[[int], None] = lambda _: None, **arguments: Any
) -> None:
    """Call `foveate.train` on `data` and stop it after `steps` steps; the run folder is thrown away."""
    with tempfile.TemporaryDirectory() as runs, contextlib.suppress(EnoughError):
        train(data, runs=runs, display=StepLimit(steps, after_step), **arguments)
