"""One trial: trained from one epoch to another by the loop of `train`, and scored on images apart."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import FailFast, Field

from foveate.checkpoint import checkpoint_metadata, load_tensors, section
from foveate.config import Config, DataConfig, Section
from foveate.data.dataset import Dataset, KnownData, load_known
from foveate.data.splits import StoredSplits, stratified_split, stratified_subset
from foveate.errors import CheckpointError, ConfigError, DataError
from foveate.evaluation import point_metrics
from foveate.execution.pool import Message
from foveate.inference.network import collect_logits
from foveate.progress import COMPILING_S, Track, heartbeat
from foveate.records import Record
from foveate.training.loop import EpochResult, TrainingState, best_epoch, train_epochs
from foveate.training.optim import build_optimizer
from foveate.training.setup import DRAWS, Feed, new_state, pick_device, prepare_process, settle
from foveate.training.state import restore_state, save_state
from foveate.tuning.hyperparameters import Value
from foveate.tuning.samplers import Usable
from foveate.tuning.space import Space
from foveate.tuning.storage import working_folder

__all__ = ["Row", "Semantics", "TrialJob", "run_trial", "study_dataset", "train_trial", "usable_in"]

Semantics = Literal["foveate", "kerastuner"]

Row = dict[str, Any]
"""An epoch of a trial: `EpochResult`, and `rank_loss` and `rank_accuracy` on the images that rank trials."""


@dataclass(frozen=True)
class _Ranked(EpochResult):
    """A `Row` that is read back."""

    val_accuracy: float
    rank_loss: float
    rank_accuracy: float


class _Done(Record):
    """What a trial's checkpoint says of it."""

    from_epoch: Annotated[int, Field(ge=0)]
    rows: Annotated[tuple[_Ranked, ...], FailFast(), Field(min_length=1)]


class TrialJob(Section):
    """What a worker is given: from the end of `from_epoch` to that of `to_epoch`, counted from 1; 0 is nothing.

    Under `kerastuner` semantics one set of validation images both stops and ranks, and a promoted trial begins
    from its best epoch's weights with a new optimizer, while it counts from its last; so does KerasTuner 1.4.8.
    """

    config: Config
    """The study's, settled, under the trial's own; `epochs` is the study's, over which the schedule spans."""
    dataset: str
    data_dir: str | None
    fingerprint: str
    splits: str | None = None
    """The file of the study's splits; None: it keeps none."""
    splits_sha256: str | None = None
    subset: int | None
    folder: str
    """The trial's own, for its checkpoints: a path or a URL, as `storage` takes it."""
    from_epoch: int
    to_epoch: int
    semantics: Semantics
    draws: int = DRAWS
    """Of the study, as `new_state` takes it."""


def run_trial(message: Message, report: Callable[[Message], None]) -> Message:
    """Do a `TrialJob` in a worker: report each epoch's row as it ends, and give back what `train_trial` does.

    Empty reports, the first of them at once, say that it is alive.

    Raises:
        CheckpointError: when the data set is not the study's any more, or the trial's checkpoint is damaged.
        TrainingError: when the loss is not finite.
        OutputError: when the checkpoint cannot be written.
    """
    report({})
    job = TrialJob.model_validate(message)
    prepare_process(job.config)
    dataset = _dataset(job, heartbeat(report))
    return train_trial(job, dataset, report)


def study_dataset(dataset: Dataset, subset: int | None, seed: int) -> Dataset:
    """What a study trains on: the same share of every class where it is a `subset` of so many images.

    The validation images are split in halves, by class: `validation` stops trials, `rank` ranks them.

    Raises:
        DataError: when they are too few for that.
    """
    splits = {name: dataset.splits[name] for name in ("train", "validation")}
    total = sum(len(indices) for indices in splits.values())
    if subset is not None and subset < total:
        splits = {
            name: indices[stratified_subset(dataset.labels[indices], round(subset * len(indices) / total), seed)]
            for name, indices in splits.items()
        }
    validation = splits["validation"]
    stopping, ranking = stratified_split(dataset.labels[validation], 0.5, seed)
    if not len(ranking) or not len(splits["train"]):
        of = "" if subset is None else f" of subset={subset}"
        raise DataError(f"{len(validation)} validation images{of} are too few to be halved: give more images")
    return replace(
        dataset, splits={"train": splits["train"], "validation": validation[stopping], "rank": validation[ranking]}
    )


def usable_in(space: Space, base: Config, dataset: Dataset) -> Usable:
    """Whether settings of `space`, over a settled `base`, make a network that can be trained on `dataset`."""

    def usable(settings: Mapping[str, Value]) -> bool:
        try:
            settle(space.apply(base, settings), dataset, final=False)
        except ConfigError:
            return False
        return True

    return usable


_loaded: dict[tuple[str, str | None, str, str | None, DataConfig, int | None], Dataset] = {}
"""What this process trained on last: a worker's next job most often trains on the same."""


def _dataset(job: TrialJob, track: Track) -> Dataset:
    config = job.config.data
    same = (job.dataset, job.data_dir, job.fingerprint, job.splits, config, job.subset)
    if same not in _loaded:
        stored = StoredSplits(Path(job.splits), job.splits_sha256) if job.splits and job.splits_sha256 else None
        known = KnownData(job.fingerprint, stored, "the study")
        whole = load_known(job.dataset, config, known, data_dir=job.data_dir, track=track)
        _loaded.clear()
        _loaded[same] = study_dataset(whole, job.subset, config.split_seed)
    return _loaded[same]


def train_trial(job: TrialJob, dataset: Dataset, report: Callable[[Message], None]) -> Message:
    """As `run_trial`, on the images of `study_dataset`.

    Returns:
        `score`: the accuracy on the ranking images, in the epoch that was most accurate on the stopping images;
        `stopped`: whether training stopped early; `rows`: an epoch each, from `from_epoch` on.
    """
    settled = settle(job.config, dataset, final=False)
    with working_folder(job.folder) as (folder, bring):
        return _train(job.model_copy(update={"config": settled}), dataset, report, folder, bring)


def _train(
    job: TrialJob, dataset: Dataset, report: Callable[[Message], None], folder: Path, bring: Callable[[Path], None]
) -> Message:
    train, theirs = job.config.train, job.semantics == "kerastuner"
    device = pick_device(train.device)
    state = new_state(job.config, dataset, device, final=False, draws=job.draws)
    path, best_path = folder / "state.safetensors", _best_path(folder, job.from_epoch)
    rows = _restore(job, state, path)
    feed = Feed(job.config, dataset, device, final=False)
    halves = [dataset.splits["validation"], dataset.splits["rank"]]
    if theirs:
        halves = [np.sort(np.concatenate(halves))]
    stopping, *ranking = map(feed.measured, halves)
    card = checkpoint_metadata(job.config.model, dataset.class_names, dataset.images.shape[1], dataset.white)
    if not state.history or state.history[-1].epoch < job.to_epoch:
        track = heartbeat(report, COMPILING_S if train.compile else 0.0)
        epochs = train_epochs(state, feed.train, stopping, train, augment=feed.augment, device=device, track=track)
        for result in epochs:
            row = {**asdict(result), "rank_loss": result.val_loss, "rank_accuracy": result.val_accuracy}
            for half in ranking:
                of_half = collect_logits(
                    state.model, half, device=device, precision=train.precision, label="ranking", track=track
                )
                measured = point_metrics(*of_half)
                row |= {"rank_loss": measured["loss"], "rank_accuracy": measured["accuracy"]}
            rows.append(row)
            told = {"trial": {"from_epoch": job.from_epoch, "rows": rows}}
            if theirs and best_epoch(state.history, "accuracy") == result.epoch:
                save_state(best_path, state, card)
                bring(best_path)
            save_state(path, state, {**card, **told})
            bring(path)
            for older in set(folder.glob("best-*.safetensors")) - {best_path}:
                older.unlink()
            report(row)
            if result.epoch >= job.to_epoch:
                break
    own = [row for row in rows if row["epoch"] > job.from_epoch]
    best = max(own if theirs else rows, key=lambda row: row["val_accuracy"])
    return {"score": best["rank_accuracy"], "stopped": rows[-1]["epoch"] < job.to_epoch, "rows": own}


def _best_path(folder: Path, from_epoch: int) -> Path:
    """The best weights of the job that began there, which one cut off later must not write over."""
    return folder / f"best-{from_epoch}.safetensors"


def _restore(job: TrialJob, state: TrainingState, path: Path) -> list[Row]:
    """Take up what the trial has done, be it before this job or in a part of it that was cut off; its rows.

    Of a study whose journal was damaged it may have done more than the journal knows, or be deleted already: it
    begins again from nothing, and comes out as before. Under `kerastuner` semantics it would not.
    """
    told = section(path, load_tensors(path)[1], "trial", _Done) if path.exists() else None
    rows: list[Row] = [asdict(row) for row in told.rows] if told else []
    behind = job.from_epoch > 0 and not rows
    if behind or (rows and rows[-1]["epoch"] > job.to_epoch):
        if job.semantics == "kerastuner":
            raise CheckpointError(f"{job.folder} does not fit the study's journal: begin a new study")
        return []
    if told is None:
        return []
    restore_state(path, state)
    if job.semantics == "kerastuner" and told.from_epoch != job.from_epoch:
        # As its library: the best weights so far, a new optimizer, no memory of earlier epochs but their count.
        restore_state(_best_path(path.parent, told.from_epoch), state)
        state.epoch, state.step, state.history = job.from_epoch + 1, 0, []
        state.optimizer = build_optimizer(state.model, job.config.train)
    return rows
