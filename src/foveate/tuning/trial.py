"""One trial: trained from one epoch to another as by `train`, and scored on images that did not stop it."""

from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import numpy as np
from pydantic import FailFast, Field

from foveate.config import Config
from foveate.data.dataset import Dataset
from foveate.data.splits import group_numbers, grouped_split, stratified_split, stratified_subset
from foveate.errors import CheckpointError, ConfigError, DataError
from foveate.execution.pool import Message
from foveate.inference.network import pick_device
from foveate.metrics import point_metrics
from foveate.progress import COMPILING_S, Track, heartbeat, untracked
from foveate.records import Record
from foveate.tensors import load_tensors, section
from foveate.training.device import DeviceData, prepare_process
from foveate.training.fit import DRAWS, Fit
from foveate.training.job import TrainingJob
from foveate.training.loop import best_epoch
from foveate.training.optim import build_optimizer
from foveate.training.settings import resolve_settings
from foveate.training.state import EpochResult
from foveate.tuning.hyperparameters import Value
from foveate.tuning.samplers import Usable
from foveate.tuning.space import Space
from foveate.tuning.storage import working_folder

Semantics = Literal["anew", "continue", "kerastuner"]
"""What a promoted trial begins with: nothing; the state that it stopped in; or its best weights alone."""

ScoreMetric = Literal["accuracy", "balanced_accuracy"]

Row = dict[str, Any]
"""An epoch of a trial: `EpochResult`, and `rank_loss` and `rank_accuracy` on the images that rank trials."""

_STATE = "state.safetensors"
_BEST = "best-{}.safetensors"
"""The best weights of a job, by the epoch that it began from: a later job that is cut off keeps them."""


@dataclass(frozen=True)
class _Ranked(EpochResult):
    """A `Row` that is read back."""

    val_accuracy: float
    rank_loss: float
    rank_accuracy: float


class _Done(Record):
    """What a trial's checkpoint says of the trial."""

    from_epoch: Annotated[int, Field(ge=0)]
    rows: Annotated[tuple[_Ranked, ...], FailFast(), Field(min_length=1)]
    length: Annotated[int, Field(ge=1)] | None = None
    """Epochs of its schedule; None: of an earlier version, all that a trial of the study can have."""


class TrialJob(TrainingJob):
    """What a worker is given: to train from the end of `from_epoch` to that of `to_epoch`; from 0 is from nothing.

    `config` is the study's, resolved, under the trial's own settings; the schedule spans its `epochs`: those of
    the study, or under `anew` semantics `to_epoch`, and every job begins from nothing. `folder` may be a URL, as
    `storage` takes it.

    Under `kerastuner` semantics one set of validation images both stops and ranks, and a promoted trial begins
    from its best epoch's weights with a new optimizer, while it counts from its last; so does KerasTuner 1.4.8.
    """

    from_epoch: int
    to_epoch: int
    semantics: Semantics
    halves_validation: bool
    """Whether one half of the validation images stops the trial and names its best epoch; the other ranks it."""
    score: ScoreMetric = "accuracy"
    """What trials are ranked by; `rank_accuracy` of a row is that."""
    tells_right: bool = False
    """Whether to tell which of all validation images the trained network gets right; where they are not halved."""


def run_trial(message: Message, report: Callable[[Message], None]) -> Message:
    """Do a `TrialJob` in a worker: report each row that `train_trial` yields, and give back what it returns.

    Empty reports, the first of them at once, say that the worker is alive.

    Raises:
        CheckpointError: when the data set is not the study's any more, or the trial's checkpoint is damaged.
        TrainingError: when the loss is not finite.
        OutputError: when the checkpoint cannot be written.
    """
    report({})
    job = TrialJob.model_validate(message)
    prepare_process(job.config)
    whole = job.load_dataset("the study", heartbeat(report))
    seed = job.config.data.split_seed
    dataset = study_dataset(whole, job.subset, seed, halved=job.halves_validation, draws=job.draws)
    track = heartbeat(report, COMPILING_S if job.config.train.compile else 0.0)
    rows = train_trial(job, dataset, track=track)
    while True:
        try:
            report(next(rows))
        except StopIteration as ended:
            return cast("Message", ended.value)


def study_dataset(dataset: Dataset, subset: int | None, seed: int, *, halved: bool, draws: int = DRAWS) -> Dataset:
    """What a study trains on: all images, or a stratified `subset` of that many.

    Args:
        halved: split the validation images by class: `validation` stops trials, `rank` ranks them. Images of one
            group are in one half.
        draws: version of what is drawn; before 3 groups were parted.

    Raises:
        DataError: when they are too few for that, or their groups cannot be parted so.
    """
    splits = {name: dataset.splits[name] for name in ("train", "validation")}
    total = sum(len(indices) for indices in splits.values())
    if subset is not None and subset < total:
        splits = {
            name: indices[stratified_subset(dataset.labels[indices], round(subset * len(indices) / total), seed)]
            for name, indices in splits.items()
        }
    validation = splits["validation"]
    rest = {"validation": np.sort(validation)}
    if halved:
        if dataset.groups is not None and draws >= 3:
            groups = group_numbers([dataset.groups[index] for index in validation])
            stopping, ranking = grouped_split(dataset.labels[validation], groups, 0.5, seed)
        else:
            stopping, ranking = stratified_split(dataset.labels[validation], 0.5, seed)
        rest = {"validation": validation[stopping], "rank": validation[ranking]}
    if not len(splits["train"]) or not all(map(len, rest.values())):
        of = "" if subset is None else f" of subset={subset}"
        few = "to be halved" if halved else "to rank trials"
        more = "images" if dataset.groups is None else "images, of more groups"
        raise DataError(f"{len(validation)} validation images{of} are too few {few}: give more {more}")
    return replace(dataset, splits={"train": splits["train"], **rest})


def usable_in(space: Space, base: Config, dataset: Dataset, first_size: int | None = None) -> Usable:
    """Whether settings of `space`, over a resolved `base`, make a network that can be trained on `dataset`.

    Args:
        first_size: of smaller images that it has to be trained on as well.
    """
    sizes = [dataset]
    if first_size is not None:  # nothing but the size of the images is looked at
        sizes.append(replace(dataset, images=dataset.images[:, :first_size, :first_size]))

    def usable(settings: Mapping[str, Value]) -> bool:
        try:
            for each in sizes:
                resolve_settings(space.apply(base, settings), each)
        except ConfigError:
            return False
        return True

    return usable


def train_trial(
    job: TrialJob, dataset: Dataset, *, track: Track = untracked
) -> Generator[Row, None, dict[str, Any]]:
    """Train a trial on the images of `study_dataset`; yield the row of each epoch when its state is saved.

    Returns:
        `score`: what the job calls so, on the images that rank trials: in the epoch that was best on the stopping
        images; where all validation images rank and none stops, in the last epoch, which nothing chose.
        `stopped`: whether training stopped early; `rows`: an epoch each, from `from_epoch` on; `right`: where the
        job asks for it, which images the network gets right, as bits in hexadecimal digits.
    """
    # In what precision was decided once for all trials.
    config = resolve_settings(job.config, dataset).replacing(precision=job.config.train.precision)
    keras = job.semantics == "kerastuner"
    data = DeviceData.load(dataset, pick_device(config.train.device))
    fit = Fit(config, data, draws=job.draws)
    with working_folder(job.folder) as folder:
        path, best_path = folder.path / _STATE, folder.path / _BEST.format(job.from_epoch)
        rows = _restore(job, fit, folder.path)
        history = fit.state.history
        done = bool(history) and history[-1].epoch >= job.to_epoch
        for result in () if done else fit.epochs(track=track):
            loss, accuracy = result.val_loss, getattr(result, f"val_{job.score}")
            if job.halves_validation:
                ranked = data.logits(fit.state.model, "rank", config, label="ranking", track=track)
                measured = point_metrics(*ranked)
                loss, accuracy = measured["loss"], measured[job.score]
            rows.append({**asdict(result), "rank_loss": loss, "rank_accuracy": accuracy})
            if keras and best_epoch(fit.state.history, job.score) == result.epoch:
                fit.save(best_path)
                folder.upload(best_path)
            fit.save(path, trial={"from_epoch": job.from_epoch, "rows": rows, "length": config.train.epochs})
            folder.upload(path)
            for older in set(folder.path.glob(_BEST.format("*"))) - {best_path}:
                older.unlink()
            yield rows[-1]
            if result.epoch >= job.to_epoch:
                break
    own = [row for row in rows if row["epoch"] > job.from_epoch]
    best = max(own if keras else rows, key=lambda row: row[f"val_{job.score}"])
    told: dict[str, Any] = {}
    if not keras and not job.halves_validation:
        best = rows[-1]
        if job.tells_right:
            logits, labels = data.logits(fit.state.model, "validation", config, label="ranking", track=track)
            told["right"] = np.packbits(logits.argmax(axis=1) == labels).tobytes().hex()
    return {"score": best["rank_accuracy"], "stopped": rows[-1]["epoch"] < job.to_epoch, "rows": own, **told}


def _restore(job: TrialJob, fit: Fit, folder: Path) -> list[Row]:
    """Go on from what the trial has done, before this job or in a part of it that was cut off; returns its rows.

    When the study's journal was damaged, the trial may have done more than the journal knows, or be deleted
    already: it begins again from nothing, and comes out as before. Under `kerastuner` semantics it would not.
    """
    path = folder / _STATE
    done = section(path, load_tensors(path)[1], "trial", _Done) if path.exists() else None
    if job.semantics == "anew" and done is not None and done.length != job.to_epoch:
        return []  # of a shorter schedule, from which it was promoted
    rows: list[Row] = [asdict(row) for row in done.rows] if done else []
    if (job.from_epoch > 0 and not rows) or (rows and rows[-1]["epoch"] > job.to_epoch):
        if job.semantics == "kerastuner":
            raise CheckpointError(f"{job.folder} does not fit the study's journal: begin a new study")
        return []
    if done is None:
        return []
    fit.resume(path)
    if job.semantics == "kerastuner" and done.from_epoch != job.from_epoch:
        # As KerasTuner does: the best weights so far, a new optimizer, and of earlier epochs only their number.
        fit.resume(folder / _BEST.format(done.from_epoch))
        state = fit.state
        state.epoch, state.step, state.history = job.from_epoch + 1, 0, []
        state.optimizer = build_optimizer(state.model, fit.config.train)
    return rows
