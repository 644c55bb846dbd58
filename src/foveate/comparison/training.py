"""One run of a comparison: an arm trained with a seed, and which images it gets right."""

import base64
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator

from foveate.checkpoint import checkpoint_metadata, load_model, load_tensors, save_tensors, section
from foveate.config import Config, DataConfig, Section
from foveate.data.dataset import Dataset, KnownData, load_known
from foveate.data.splits import StoredSplits, stratified_subset
from foveate.evaluation import point_metrics
from foveate.execution.pool import Message
from foveate.files import write_json
from foveate.inference.network import collect_logits
from foveate.progress import COMPILING_S, Track, heartbeat
from foveate.records import Accuracy, Count, Record, Seconds
from foveate.training.loop import train_epochs
from foveate.training.setup import (
    DRAWS,
    EVAL_BATCH_SIZE,
    Feed,
    new_state,
    pick_device,
    prepare_process,
    settle,
)
from foveate.training.state import restore_state, save_state

__all__ = ["ArmJob", "ArmResult", "JudgedSplit", "pack", "result_path", "run_arm", "training_subset", "unpack"]

JudgedSplit = Literal["validation", "test"]


class ArmResult(Record):
    """What `run_arm` gives back and keeps."""

    accuracy: Accuracy
    loss: Annotated[float, Field(strict=True, ge=0)]
    without_attention: Accuracy | None
    gate: float | None
    images: Annotated[Count, Field(ge=2)]
    right: str
    """The packed bits of who was right, in base64."""
    train_s: Seconds
    images_shown: Count

    @model_validator(mode="after")
    def _bits_fit(self) -> "ArmResult":
        bits = np.unpackbits(np.frombuffer(base64.b64decode(self.right, validate=True), np.uint8))
        if len(bits) != -(-self.images // 8) * 8 or bits[self.images :].any():
            raise ValueError(f"right holds {len(bits)} bits, which do not fit images={self.images}")
        if abs(bits.sum() / self.images - self.accuracy) > 1e-6:
            raise ValueError(f"accuracy={self.accuracy} is not that of the bits in `right`")
        return self


class _Trained(Record):
    """What the weights of a run say of its training."""

    train_s: Seconds
    images_shown: Count


class ArmJob(Section):
    """What a worker is given: train an arm with a seed where that is not done yet, and measure it on a split."""

    config: Config
    """Settled, with its seed."""
    dataset: str
    data_dir: str | None
    fingerprint: str
    splits: str | None = None
    """The file of the comparison's splits; None: it keeps none."""
    splits_sha256: str | None = None
    subset: int | None
    """Training images; None: all."""
    folder: str
    """The run's own."""
    split: JudgedSplit
    draws: int = DRAWS
    """Of the comparison, as `new_state` takes it."""


def run_arm(message: Message, report: Callable[[Message], None]) -> Message:
    """Do an `ArmJob` in a worker: report each epoch, and give back and keep what it measured.

    A run is trained to its last epoch, which is the one that is measured; after a kill it goes on from the last
    epoch that had ended. The augmentation, the order of the images and, of all parts that have one name and
    shape, the initial weights are the same for all arms of a seed: each draws from generators of its own.

    Returns:
        `accuracy`, `loss`, `right` (the packed bits of who was right, in base64), `images`; `gate` and
        `without_attention`, None where there is none; and `train_s` and `images_shown` of the training.

    Raises:
        CheckpointError: when the data set is not the comparison's any more, or a checkpoint is damaged.
        TrainingError: when the loss is not finite.
        OutputError: when a file cannot be written.
    """
    report({})
    job = ArmJob.model_validate(message)
    prepare_process(job.config)
    whole = _dataset(job, heartbeat(report))
    dataset = training_subset(whole, job.subset, job.config.data.split_seed)
    folder, device = Path(job.folder), pick_device(job.config.train.device)
    folder.mkdir(parents=True, exist_ok=True)
    config = settle(job.config, dataset, final=False)  # an epoch is as long as this many images make it
    track = heartbeat(report, COMPILING_S if config.train.compile else 0.0)
    feed = Feed(config, dataset, device, final=False)
    weights = folder / "weights.safetensors"
    if not weights.exists():
        _train(config, dataset, feed, device, folder, report, track, job.draws)
    card = checkpoint_metadata(config.model, dataset.class_names, dataset.images.shape[1])
    at_once = min(EVAL_BATCH_SIZE, len(dataset.splits[job.split]))
    model = load_model(weights, device=device, expect=card, images_at_once=at_once).model
    images = feed.measured(dataset.splits[job.split])

    def logits_of(label: str) -> tuple[Any, Any]:
        return collect_logits(
            model, images, device=device, precision=config.train.precision, label=label, track=track
        )

    logits, labels = logits_of(job.split)
    right = logits.argmax(axis=1) == labels
    without = None
    if config.model.attention != "none":
        with model.without_attention():
            without = point_metrics(*logits_of(f"{job.split}, attention taken out"))["accuracy"]
    measured: dict[str, Any] = {
        "accuracy": float(right.mean()),
        "loss": point_metrics(logits, labels)["loss"],
        "without_attention": without,
        "gate": model.gate,
        "images": len(right),
        "right": pack(right),
        **section(weights, load_tensors(weights)[1], "run", _Trained).model_dump(),
    }
    ArmResult.model_validate(measured)  # what could not be read back is not written
    write_json(result_path(folder, job.split), measured)
    return measured


def result_path(folder: Path, split: JudgedSplit) -> Path:
    """Where a run keeps what it measured on a split."""
    return folder / f"{split}.json"


def training_subset(dataset: Dataset, subset: int | None, seed: int) -> Dataset:
    """The data set with so many of its training images, the same share of every class; None: all of them."""
    train = dataset.splits["train"]
    if subset is None or subset >= len(train):
        return dataset
    kept = stratified_subset(dataset.labels[train], subset, seed)
    return replace(dataset, splits={**dataset.splits, "train": train[kept]})


def pack(right: NDArray[np.bool_]) -> str:
    """Bits as text: base64 of eight a byte."""
    return base64.b64encode(np.packbits(right).tobytes()).decode()


def unpack(text: str, images: int) -> NDArray[np.bool_]:
    """What `pack` packed."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=images).astype(bool)


_loaded: dict[tuple[str, str | None, str, str | None, DataConfig], Dataset] = {}
"""What this process trained on last: a worker's next job most often trains on the same."""


def _dataset(job: ArmJob, track: Track) -> Dataset:
    config = job.config.data
    same = (job.dataset, job.data_dir, job.fingerprint, job.splits, config)
    if same not in _loaded:
        stored = StoredSplits(Path(job.splits), job.splits_sha256) if job.splits and job.splits_sha256 else None
        known = KnownData(job.fingerprint, stored, "the comparison")
        dataset = load_known(job.dataset, config, known, data_dir=job.data_dir, track=track)
        _loaded.clear()
        _loaded[same] = dataset
    return _loaded[same]


def _train(
    config: Config,
    dataset: Dataset,
    feed: Feed,
    device: torch.device,
    folder: Path,
    report: Callable[[Message], None],
    track: Track,
    draws: int,
) -> None:
    """Train to the last epoch and keep the weights; on the way, what it takes to go on after a kill."""
    state, path = new_state(config, dataset, device, final=False, draws=draws), folder / "state.safetensors"
    if path.exists():
        restore_state(path, state)
    card = checkpoint_metadata(config.model, dataset.class_names, dataset.images.shape[1], dataset.white)
    train = config.train
    for result in train_epochs(state, feed.train, None, train, augment=feed.augment, device=device, track=track):
        save_state(path, state, card)
        report({"epoch": result.epoch, "train_loss": result.train_loss})
    told = {
        "train_s": sum(row.seconds for row in state.history),
        "images_shown": round(sum(row.seconds * row.images_per_s for row in state.history)),
    }
    save_tensors(folder / "weights.safetensors", state.model.state_dict(), {**card, "run": told})
    path.unlink(missing_ok=True)
