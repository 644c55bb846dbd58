"""The work of a study's trials, but that some go wrong as `faults.py` has planned."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import torch

from foveate.errors import TrainingError
from foveate.execution.pool import Message
from foveate.tuning import trial

__all__ = ["run_trial"]


def run_trial(message: Message, report: Callable[[Message], None]) -> Message:
    """As `foveate.tuning.trial.run_trial`; a trial that the plan names goes wrong."""
    plan = Path(os.environ["FAULTS_PLAN"])
    number = Path(message["folder"]).name.lstrip("0") or "0"
    fault = json.loads((plan / "faults.json").read_text(encoding="utf-8")).get(number)
    if fault == "exception":
        raise RuntimeError("a fault on purpose")
    if fault == "memory":
        raise torch.OutOfMemoryError("CUDA out of memory, on purpose")
    if fault == "not finite":
        raise TrainingError("the loss became nan, on purpose")
    if fault == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    if fault == "worker killed":
        try:
            (plan / f"{number}.killed").touch(exist_ok=False)
        except FileExistsError:
            return trial.run_trial(message, report)
        os.kill(os.getpid(), signal.SIGKILL)
    return trial.run_trial(message, report)
