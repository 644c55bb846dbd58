"""One fold of a cross-validation: a network trained on the other folds, and what it says of this one."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from foveate.data.dataset import Dataset
from foveate.data.folds import StoredFolds
from foveate.errors import CheckpointError
from foveate.execution.pool import Message
from foveate.inference.network import pick_device
from foveate.progress import COMPILING_S, heartbeat
from foveate.tensors import check_finite, load_tensors, save_tensors, section
from foveate.training.device import DeviceData, prepare_process
from foveate.training.fit import Fit
from foveate.training.job import TrainingCost, TrainingJob
from foveate.training.regression import classifier_logits

HELD_OUT = "held_out"
_FIX = "remove it, and the fold is trained again"


class FoldJob(TrainingJob):
    """What a worker is given: train on every fold but one, and ask the network about that one.

    `config` is resolved for the final model, whose length every fold has; `subset` is None.
    """

    fold: int = Field(ge=0)
    """Counted from 0."""
    folds: int
    folds_path: str
    folds_sha256: str


def run_fold(message: Message, report: Callable[[Message], None]) -> Message:
    """Do a `FoldJob` in a worker: report each epoch, and keep the logits of the images that were held out.

    The network is trained to its last epoch, whatever it comes to: nothing of the images that are held out is
    looked at before. After a kill it goes on from the last epoch that had ended.

    Returns:
        `accuracy` of the fold, and its number of `images`.

    Raises:
        CheckpointError: when the data set is not the run's any more, or a file is damaged.
        TrainingError: when the loss is not finite.
        OutputError: when a file cannot be written.
    """
    report({})
    job = FoldJob.model_validate(message)
    config = job.config
    prepare_process(config)
    track = heartbeat(report, COMPILING_S if config.train.compile else 0.0)
    joined = job.load_dataset("the run", track).for_final()
    stored = StoredFolds(Path(job.folds_path), job.folds, job.folds_sha256)
    held_out = stored.held_out(joined)[job.fold]
    data = DeviceData.load(without_fold(joined, held_out), pick_device(config.train.device))
    folder = Path(job.folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / f"{result_path(folder, job.fold).stem}-state.safetensors"
    fit = Fit(config, data, path=state, draws=job.draws, holds_out=True)
    if state.exists():
        fit.resume(state)
    for result in fit.epochs(track=track):
        report({"epoch": result.epoch, "train_loss": result.train_loss})
    if config.train.optimizer == "logistic_regression":
        logits = classifier_logits(fit.state, data, HELD_OUT, config, track=track)
    else:
        logits, _ = data.logits(fit.state.model, HELD_OUT, config, track=track)
    tensors = {"logits": torch.from_numpy(logits), "images": torch.from_numpy(held_out)}
    save_tensors(result_path(folder, job.fold), tensors, {"fold": TrainingCost.of(fit.state.history).model_dump()})
    state.unlink(missing_ok=True)
    right = logits.argmax(axis=1) == joined.labels[held_out]
    return {"accuracy": float(right.mean()), "images": len(right)}


def without_fold(joined: Dataset, held_out: NDArray[np.int64]) -> Dataset:
    """The data set whose training images are those that are not held out; it has no other split."""
    rest = np.setdiff1d(joined.splits["train"], held_out)
    return replace(joined, splits={"train": rest, HELD_OUT: held_out})


def result_path(folder: Path, fold: int) -> Path:
    """Where a fold, counted from 0, keeps its logits."""
    return folder / f"fold-{fold + 1:03}.safetensors"


def read_fold(path: Path, held_out: NDArray[np.int64], classes: int) -> tuple[NDArray[np.float32], TrainingCost]:
    """The logits [n, K] of a fold, in the order of its images, and what its training took.

    Raises:
        CheckpointError: when the file is damaged, or of other images.
    """
    tensors, meta = load_tensors(path)
    logits, images = tensors.get("logits"), tensors.get("images")
    if (
        set(tensors) != {"logits", "images"}
        or logits is None
        or images is None
        or (logits.dtype, images.dtype) != (torch.float32, torch.int64)
        or logits.shape != (len(held_out), classes)
        or not np.array_equal(images.numpy(), held_out)
    ):
        raise CheckpointError(f"{path} does not fit the folds of its run: {_FIX}")
    check_finite(path, {"logits": logits}, fix=_FIX)
    return logits.numpy(), section(path, meta, "fold", TrainingCost)
