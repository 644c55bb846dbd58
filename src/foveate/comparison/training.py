"""One run of a comparison: an arm trained with a seed, and which images it gets right."""

import base64
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from foveate.checkpoint import checkpoint_metadata, load_model
from foveate.config import Config
from foveate.data.dataset import Dataset
from foveate.data.splits import stratified_subset
from foveate.execution.pool import Message
from foveate.files import write_json
from foveate.inference.network import pick_device
from foveate.metrics import point_metrics
from foveate.progress import COMPILING_S, Track, heartbeat
from foveate.records import Accuracy, Count
from foveate.tensors import load_tensors, section
from foveate.training.device import EVAL_BATCH_SIZE, DeviceData, prepare_process
from foveate.training.fit import Fit
from foveate.training.job import TrainingCost, TrainingJob
from foveate.training.settings import resolve_settings
from foveate.training.state import EpochResult

JudgedSplit = Literal["validation", "test"]


class ArmResult(TrainingCost):
    """What `run_arm` gives back and keeps."""

    accuracy: Accuracy
    loss: Annotated[float, Field(strict=True, ge=0)]
    without_attention: Accuracy | None
    gate: float | None
    images: Annotated[Count, Field(ge=2)]
    right: str
    """Which images are classified right: packed bits in base64."""

    @model_validator(mode="after")
    def _bits_fit(self) -> "ArmResult":
        bits = np.unpackbits(np.frombuffer(base64.b64decode(self.right, validate=True), np.uint8))
        if len(bits) != -(-self.images // 8) * 8 or bits[self.images :].any():
            raise ValueError(f"right holds {len(bits)} bits, which do not fit images={self.images}")
        if abs(bits.sum() / self.images - self.accuracy) > 1e-6:
            raise ValueError(f"accuracy={self.accuracy} is not that of the bits in `right`")
        return self


class ArmJob(TrainingJob):
    """What a worker is given: train an arm with a seed where that is not done yet, and measure it on a split.

    `config` is resolved, with the run's seed; `passes_per_epoch` may be open. `subset` counts
    training images alone.
    """

    split: JudgedSplit


def run_arm(message: Message, report: Callable[[Message], None]) -> Message:
    """Do an `ArmJob` in a worker: report each epoch, and give back and keep what it measured.

    A run is trained to its last epoch, which is the one that is measured; after a kill it goes on from the last
    epoch that had ended. The augmentation, the order of the images and, of all parts that have one name and
    shape, the initial weights are the same for all arms of a seed: each draws from generators of its own.

    Returns:
        `accuracy`, `loss`, `right` (the packed bits of which images were right, in base64), `images`; `gate` and
        `without_attention`, None where there is none; and `train_s` and `images_shown` of the training.

    Raises:
        CheckpointError: when the data set is not the comparison's any more, or a checkpoint is damaged.
        TrainingError: when the loss is not finite.
        OutputError: when a file cannot be written.
    """
    report({})
    job = ArmJob.model_validate(message)
    prepare_process(job.config)
    whole = job.load_dataset("the comparison", heartbeat(report))
    dataset = training_subset(whole, job.subset, job.config.data.split_seed)
    # An epoch is as long as this many images make it; in what precision was decided once for all runs.
    config = resolve_settings(job.config, dataset).replacing(precision=job.config.train.precision)
    track = heartbeat(report, COMPILING_S if config.train.compile else 0.0)
    data = DeviceData.load(dataset, pick_device(config.train.device))
    folder = Path(job.folder)
    weights = folder / "weights.safetensors"
    if not weights.exists():
        for result in _train(job, config, data, track):
            report({"epoch": result.epoch, "train_loss": result.train_loss})
    expect = checkpoint_metadata(config.model, dataset.class_names, dataset.preprocessing)
    at_once = min(EVAL_BATCH_SIZE, len(dataset.splits[job.split]))
    model = load_model(weights, device=data.device, expect=expect, images_at_once=at_once).model
    logits, labels = data.logits(model, job.split, config, track=track)
    right = logits.argmax(axis=1) == labels
    without = None
    if config.model.has_attention:
        with model.without_attention():
            label = f"{job.split}, attention taken out"
            without = point_metrics(*data.logits(model, job.split, config, label=label, track=track))["accuracy"]
    measured: dict[str, Any] = {
        "accuracy": float(right.mean()),
        "loss": point_metrics(logits, labels)["loss"],
        "without_attention": without,
        "gate": model.gate,
        "images": len(right),
        "right": pack(right),
        **section(weights, load_tensors(weights)[1], "run", TrainingCost).model_dump(),
    }
    ArmResult.model_validate(measured)  # what could not be read back is not written
    write_json(result_path(folder, job.split), measured)
    return measured


def _train(job: ArmJob, config: Config, data: DeviceData, track: Track) -> Iterator[EpochResult]:
    """Train to the last epoch and keep the weights; until then, the state from which to go on after a kill."""
    folder = Path(job.folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "state.safetensors"
    # Without validation images: the last epoch is judged, so that measuring each would be time lost.
    training_alone = data.with_splits({"train": data.dataset.splits["train"]})
    fit = Fit(config, training_alone, path=path, draws=job.draws)
    if path.exists():
        fit.resume(path)
    yield from fit.epochs(track=track)
    fit.save_weights(folder / "weights.safetensors", run=TrainingCost.of(fit.state.history).model_dump())
    path.unlink(missing_ok=True)


def result_path(folder: Path, split: JudgedSplit) -> Path:
    """Where a run keeps what it measured on a split."""
    return folder / f"{split}.json"


def training_subset(dataset: Dataset, subset: int | None, seed: int) -> Dataset:
    """The data set with `subset` of its training images, the same share of every class; None: all of them."""
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
