"""The jobs themselves, as the command line and the Python API call them."""

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
    "Display",
    "Run",
    "Silent",
    "SilentStudy",
    "Study",
    "StudyDisplay",
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
