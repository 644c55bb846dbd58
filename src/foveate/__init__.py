"""Foveate: attention in small CNNs for image classification; trained, measured and reported honestly."""

from importlib import import_module
from types import FunctionType
from typing import TYPE_CHECKING, Any

from foveate.arguments import typed
from foveate.errors import (
    CheckpointError,
    ComparisonError,
    ConfigError,
    DataError,
    ExportError,
    FoveateError,
    Interrupted,
    OutOfMemoryError,
    OutputError,
    StudyError,
    TrainingError,
)

if TYPE_CHECKING:
    from foveate.inference.predictor import Prediction, Predictor
    from foveate.model.attention_kinds import register_attention
    from foveate.workflows.cache import Cached, Cleared, clear_cache, list_cache
    from foveate.workflows.check import Check, check
    from foveate.workflows.comparison import (
        Comparison,
        compare,
        open_comparison,
        plan_comparison,
        resume_comparison,
    )
    from foveate.workflows.evaluate import MeasuredModel, evaluate, evaluate_model
    from foveate.workflows.explain import Explanation, explain, explain_run
    from foveate.workflows.export import Export, export
    from foveate.workflows.predict import predict
    from foveate.workflows.run import Run, open_run
    from foveate.workflows.serve import Serving, serve
    from foveate.workflows.study import resume_study, train_best, tune
    from foveate.workflows.study_files import Study, open_study
    from foveate.workflows.summary import summarize
    from foveate.workflows.train import resume, train

__all__ = [
    "Cached",
    "Check",
    "CheckpointError",
    "Cleared",
    "Comparison",
    "ComparisonError",
    "ConfigError",
    "DataError",
    "Explanation",
    "Export",
    "ExportError",
    "FoveateError",
    "Interrupted",
    "MeasuredModel",
    "OutOfMemoryError",
    "OutputError",
    "Prediction",
    "Predictor",
    "Run",
    "Serving",
    "Study",
    "StudyError",
    "TrainingError",
    "check",
    "clear_cache",
    "compare",
    "evaluate",
    "evaluate_model",
    "explain",
    "explain_run",
    "export",
    "list_cache",
    "open_comparison",
    "open_run",
    "open_study",
    "plan_comparison",
    "predict",
    "register_attention",
    "resume",
    "resume_comparison",
    "resume_study",
    "serve",
    "summarize",
    "train",
    "train_best",
    "tune",
]

_HOMES = {
    "foveate.inference.predictor": ("Prediction", "Predictor"),
    "foveate.model.attention_kinds": ("register_attention",),
    "foveate.workflows.cache": ("Cached", "Cleared", "clear_cache", "list_cache"),
    "foveate.workflows.check": ("Check", "check"),
    "foveate.workflows.comparison": (
        "Comparison",
        "compare",
        "open_comparison",
        "plan_comparison",
        "resume_comparison",
    ),
    "foveate.workflows.evaluate": ("MeasuredModel", "evaluate", "evaluate_model"),
    "foveate.workflows.predict": ("predict",),
    "foveate.workflows.explain": ("Explanation", "explain", "explain_run"),
    "foveate.workflows.export": ("Export", "export"),
    "foveate.workflows.run": ("Run", "open_run"),
    "foveate.workflows.serve": ("Serving", "serve"),
    "foveate.workflows.study": ("resume_study", "train_best", "tune"),
    "foveate.workflows.study_files": ("Study", "open_study"),
    "foveate.workflows.summary": ("summarize",),
    "foveate.workflows.train": ("resume", "train"),
}


def __getattr__(name: str) -> Any:
    # torch takes a second to import, and each job what it alone needs: nothing is loaded that is not asked for.
    if name == "__version__":
        from importlib.metadata import version

        return version("foveate")
    for home, names in _HOMES.items():
        if name in names:
            found = getattr(import_module(home), name)
            return typed(found) if isinstance(found, FunctionType) else found
    raise AttributeError(f"module 'foveate' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
