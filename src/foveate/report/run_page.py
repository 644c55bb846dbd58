"""From a run folder to the page that tells of it."""

import io
from dataclasses import asdict, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveate.checkpoint import Checkpoint
from foveate.config import Config
from foveate.data.dataset import Dataset
from foveate.model.build import layer_table
from foveate.report.abstaining import abstaining
from foveate.report.page import DatasetSummary, Mistake, RunPage, most_confident_mistakes
from foveate.training.loop import best_epoch
from foveate.training.runs import RunFolder

__all__ = ["mistakes", "page_of_run"]


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
    probabilities = folder.read_probabilities(page.lead, names)
    return replace(
        page,
        mistakes=mistakes(probabilities, dataset, page.lead),
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
