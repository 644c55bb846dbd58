"""Foveate: attention in small CNNs for image classification; trained, measured and reported honestly."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foveate.model.attention import register_attention
    from foveate.workflows import (
        Check,
        Comparison,
        Run,
        Study,
        check,
        compare,
        evaluate,
        open_comparison,
        open_run,
        open_study,
        plan_comparison,
        resume,
        resume_comparison,
        resume_study,
        summarize,
        train,
        train_best,
        tune,
    )

__all__ = [
    "Check",
    "Comparison",
    "Run",
    "Study",
    "check",
    "compare",
    "evaluate",
    "open_comparison",
    "open_run",
    "open_study",
    "plan_comparison",
    "register_attention",
    "resume",
    "resume_comparison",
    "resume_study",
    "summarize",
    "train",
    "train_best",
    "tune",
]


def __getattr__(name: str) -> Any:
    # torch takes a second to import: `import foveate` and `foveate --help` do without it.
    if name in __all__:
        module = "foveate.model.attention" if name == "register_attention" else "foveate.workflows"
        return getattr(import_module(module), name)
    raise AttributeError(f"module 'foveate' has no attribute {name!r}")
