"""Foveate: attention in small CNNs for image classification; trained, measured and reported honestly."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foveate.workflows import (
        Run,
        Study,
        evaluate,
        open_run,
        open_study,
        resume,
        resume_study,
        summarize,
        train,
        train_best,
        tune,
    )

__all__ = [
    "Run",
    "Study",
    "evaluate",
    "open_run",
    "open_study",
    "resume",
    "resume_study",
    "summarize",
    "train",
    "train_best",
    "tune",
]


def __getattr__(name: str) -> Any:
    # torch takes a second to import: `import foveate` and `foveate --help` do without it.
    if name in __all__:
        return getattr(import_module("foveate.workflows"), name)
    raise AttributeError(f"module 'foveate' has no attribute {name!r}")
