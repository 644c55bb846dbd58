"""From a run folder to the page that tells of it."""

import io
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from foveate.checkpoint import Checkpoint, weights_digest
from foveate.config import Config
from foveate.data.dataset import Dataset
from foveate.inference.faithfulness import Verdict
from foveate.model.build import layer_table
from foveate.records import Digest, Line, Name, Record, read_record
from foveate.report.abstaining import abstaining
from foveate.report.page import DatasetSummary, Mistake, RunPage, most_confident_mistakes
from foveate.training.loop import best_epoch
from foveate.training.runs import RunFolder

__all__ = ["Explained", "ExplainedMistake", "mistakes", "page_of_run", "read_explained"]

_Base64 = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]+={0,2}$", max_length=4 << 20)]


class ExplainedMistake(Record):
    """An image of the report's grid, right or wrong, and PNGs in base64: of it, and of the maps over it."""

    id: Name
    true: Name
    predicted: Name
    shown: _Base64
    maps: dict[Name, _Base64]


class Explained(Record):
    """What `foveate explain RUN` found, as `explanation.json` keeps it."""

    weights: Digest
    """Of the network that was explained."""
    command: Line
    verdicts: Annotated[tuple[Verdict, ...], Field(max_length=10)]
    grid: Annotated[tuple[ExplainedMistake, ...], Field(max_length=50)]


def read_explained(folder: Path, weights: str) -> Explained | None:
    """What was found of a run's network; None where nothing was, or of other weights.

    Raises:
        CheckpointError: when it is damaged.
    """
    path = folder / "explanation.json"
    if not path.exists():
        return None
    found = read_record(path, Explained, fix="remove it, and run `foveate explain` again")
    return found if found.weights == weights else None


def page_of_run(folder: RunFolder, checkpoint: Checkpoint, config: Config, dataset: Dataset) -> RunPage:
    """Gather what the report of the run in `folder` shows, once `dataset` was measured with `checkpoint`.

    Raises:
        CheckpointError: when a file of the run is damaged.
    """
    record, history, names = folder.read_record(), folder.read_history(), dataset.class_names
    page = RunPage(
        title=folder.path.name,
        subtitle=f"{dataset.name}, {len(names)} classes, seed {config.train.seed}",
        dataset=DatasetSummary(
            name=dataset.name,
            size=checkpoint.size,
            counts={
                split: dict(zip(names, np.bincount(dataset.labels[indices], minlength=len(names)), strict=True))
                for split, indices in dataset.splits.items()
            },
        ),
        reports=folder.read_metrics(),
        history=[asdict(row) for row in history],
        best_epoch=best_epoch(history, config.train.monitor) if config.train.keep == "best" else None,
        settings=config.model_dump(mode="json"),
        environment=folder.read_environment(),
        timing=folder.read_timing() if history else {},
        layers=layer_table(checkpoint.model, checkpoint.size),
        attention=config.model.attention,
        bad=[(image.id, image.reason) for image in dataset.bad],
        notes=dataset.notes,
        test_openings=[opening.model_dump() for opening in record.test_openings],
        paper=config.preset == "paper" and dataset.name == "cifar10",
        command=record.command,
    )
    probabilities = folder.predictions.probabilities(page.lead, names)
    return replace(
        page,
        mistakes=mistakes(probabilities, dataset, page.lead),
        explained=read_explained(folder.path, weights_digest(checkpoint.model)),
        abstaining=abstaining(
            probabilities,
            dataset.labels[dataset.splits[page.lead]],
            names,
            checkpoint.confidence,
            split=page.lead,
        ),
    )


def mistakes(probabilities: NDArray[np.float32], dataset: Dataset, split: str, count: int = 24) -> list[Mistake]:
    """The most confident mistakes of a measured split, with their pictures."""
    indices = dataset.splits[split]
    labels = dataset.labels[indices]
    return [
        Mistake(
            png=_png(dataset.images[indices[row]]),
            id=dataset.ids[indices[row]],
            true=dataset.class_names[labels[row]],
            predicted=dataset.class_names[probabilities[row].argmax()],
            confidence=float(probabilities[row].max()),
        )
        for row in most_confident_mistakes(probabilities, labels, count)
    ]


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    return buffer.getvalue()
