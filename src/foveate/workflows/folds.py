"""Cross-validation of a run: its folds drawn, trained by workers, and what they came to measured together."""

import contextlib
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from foveate.checkpoint import save_confidence
from foveate.confidence import Confidence, fit_confidence
from foveate.config import Config
from foveate.data.dataset import Dataset
from foveate.data.folds import (
    FOLDS_FILE,
    MOST_FOLDS,
    OUT_OF_FOLD,
    StoredFolds,
    check_units,
    draw_folds,
    fold_units,
)
from foveate.data.splits import SPLITS_FILE
from foveate.errors import ConfigError
from foveate.folds.campaign import FOLDER, CrossValidation
from foveate.folds.training import run_fold, without_fold
from foveate.training.job import TrainingJob
from foveate.training.record import RunRecord
from foveate.training.runs import RunFolder
from foveate.training.saving import interruptible
from foveate.training.settings import resolve_settings
from foveate.workflows.campaign import finish, sees_no_steps
from foveate.workflows.leaks import across_folds_told, copies_across_folds
from foveate.workflows.measure import calibration, score_split
from foveate.workflows.request import Display, tell
from foveate.workflows.workers import Workers


def check_folds(folds: int | None, *, final: bool, timed: bool, workers: bool) -> None:
    """Refuse a number of folds that cannot be used, and requests that do not go with folds.

    Args:
        timed: whether a length in minutes is asked for.
        workers: whether workers, Ray or GPUs are asked for.

    Raises:
        ConfigError: for these.
    """
    if folds is None:
        if workers:
            raise ConfigError("workers, ray and gpus are for the folds of a cross-validation: give --folds too")
        return
    if not 2 <= folds <= MOST_FOLDS:
        raise ConfigError(f"folds={folds}: give 2 to {MOST_FOLDS}, such as 5")
    if timed:
        raise ConfigError("time: each fold trains as long as the model; with folds give epochs or images_seen")
    if final:
        raise ConfigError(
            "folds and final: with --folds the model is trained on train + validation already, and the test split "
            "stays closed: leave --final out, and open the test split afterwards by `foveate evaluate RUN --final`"
        )


def draw_run_folds(config: Config, joined: Dataset, folds: int) -> NDArray[np.int8]:
    """The fold [n] of each training image of `joined`, whose training images are train and validation.

    Raises:
        DataError: when a class has too few images, or groups.
        ConfigError: when a fold leaves too few images for the settings.
    """
    train = joined.splits["train"]
    units = fold_units(joined)
    check_units(joined, units, folds)
    drawn = draw_folds(joined.labels[train], units, folds, config.data.split_seed)
    largest = int(np.bincount(drawn).argmax())
    resolve_settings(config, without_fold(joined, train[drawn == largest]))
    return drawn


def threads_of_folds(config: Config, crew: Workers, device: torch.device) -> int:
    """The threads that each fold of a new run is trained with."""
    return config.train.threads or crew.threads_for({"device": str(device)})


def cross_validate(
    folder: RunFolder,
    config: Config,
    record: RunRecord,
    dataset: Dataset,
    device: torch.device,
    crew: Workers,
    display: Display,
    *,
    resuming: str,
) -> None:
    """Train the folds that have no result yet, and measure all of them together; then write the run's page.

    What confidence needs is fitted on the out-of-fold logits, and saved with the weights of the final network. It
    comes of networks that were trained on fewer images, so for that one it is approximate.

    Args:
        config: of the final network, which is trained already.
        dataset: in the splits of the run.
        resuming: the command line that resumes the run.

    Raises:
        TrainingError: when a fold came to no end.
        CheckpointError, OutputError: when a file of the run is damaged, or cannot be written.
        Interrupted: after Ctrl-C or SIGTERM.
    """
    assert record.folds is not None
    joined = dataset.for_final()
    path = folder.path.resolve()
    stored = StoredFolds(path / FOLDS_FILE, record.folds.count, record.folds.sha256)
    # Those that were asked for, or that the run began with: with others its folds would come out otherwise.
    threads = config.train.threads or record.folds.threads or threads_of_folds(config, crew, device)
    job = config.replacing(device=str(device), threads=threads)
    shared = TrainingJob(
        config=job,
        dataset=dataset.location,
        data_dir=record.data_dir,
        fingerprint=record.fingerprint,
        splits=str(path / SPLITS_FILE),
        splits_sha256=record.splits,
        subset=None,
        folder=str(path / FOLDER),
    )
    if crew == Workers(None, None, None) and config.train.optimizer == "logistic_regression":
        crew = Workers(0, None, None)  # such a fold takes a second, and a process of its own several to begin
    campaign = CrossValidation(shared, stored, joined)
    copies = copies_across_folds(joined, campaign.held_out)
    tell(display, across_folds_told(joined, copies))
    if campaign.pending():
        with (
            contextlib.closing(crew.open_pool(run_fold, job, device)) as pool,
            interruptible(resuming, at_once=sees_no_steps(pool)) as interrupted,
        ):
            finish(campaign, pool, interrupted, display)
    _measure(
        folder, config, replace(joined, splits={OUT_OF_FOLD: joined.splits["train"]}), device, campaign, copies
    )


def _measure(
    folder: RunFolder,
    config: Config,
    dataset: Dataset,
    device: torch.device,
    campaign: CrossValidation,
    copies: int,
) -> None:
    """Put the out-of-fold measurements, every image's probabilities and the page into the folder."""
    from foveate.report.html import write_page  # with matplotlib, which takes a second to import
    from foveate.report.run_folder import page_of_run

    logits, folds = campaign.pooled()
    labels = dataset.labels[dataset.splits[OUT_OF_FOLD]]
    report = score_split(dataset, OUT_OF_FOLD, logits)
    confidence = fold_confidence(config, logits, labels, grouped=bool(dataset.groups))
    save_confidence(folder.kept_weights, confidence)
    checkpoint = folder.load_network(config, device)
    measured: dict[str, Any] = {"variants": {}, "gate": checkpoint.model.gate}
    measured["calibration"] = calibration(logits, labels, confidence)
    measured["folds"] = [each.model_dump() for each in folds]
    measured["copies_across_folds"] = copies
    folder.predictions.write(OUT_OF_FOLD, dataset, softmax(logits, axis=1))
    folder.write_metrics(OUT_OF_FOLD, {**report.to_dict(), **measured})
    write_page(page_of_run(folder, checkpoint, config, dataset), folder.report)


def fold_confidence(
    config: Config, logits: NDArray[np.float32], labels: NDArray[np.int64], *, grouped: bool
) -> Confidence:
    """What confidence needs, fitted for the final network on out-of-fold logits [N, K] and labels [N].

    Each logistic regression chooses its own penalty, so that logits of the folds may have another scale than those
    of the final one. That is about as sure as it should be, by the log-loss that chose its penalty: no temperature
    makes it surer.
    """
    least = 1.0 if config.train.optimizer == "logistic_regression" else 0.0
    return fit_confidence(logits, labels, seed=config.data.split_seed, grouped=grouped, least_temperature=least)
