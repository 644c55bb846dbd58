"""The jobs themselves, as the command line and the Python API call them."""

from foveate.workflows.check import Check, check
from foveate.workflows.comparison import (
    Comparison,
    ComparisonDisplay,
    SilentComparison,
    compare,
    open_comparison,
    plan_comparison,
    resume_comparison,
)
from foveate.workflows.request import Display, Silent
from foveate.workflows.run import Run, evaluate, open_run, resume, summarize, train
from foveate.workflows.study import (
    SilentStudy,
    Study,
    StudyDisplay,
    open_study,
    resume_study,
    train_best,
    tune,
)

__all__ = [
    "Check",
    "Comparison",
    "ComparisonDisplay",
    "Display",
    "Run",
    "Silent",
    "SilentComparison",
    "SilentStudy",
    "Study",
    "StudyDisplay",
    "check",
    "compare",
    "evaluate",
    "open_comparison",
    "open_run",
    "open_study",
    "plan_comparison",
    "resume",
    "resume_comparison",
    "resume_study",
    "summarize",
    "train",
    "train_best",
    "tune",
]
