"""From a run folder, or from what was measured elsewhere, to what the page of a run shows."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from foveate.checkpoint import Checkpoint, weights_digest
from foveate.confidence import Confidence
from foveate.config import Config
from foveate.data.dataset import Dataset
from foveate.model.layers import layer_table
from foveate.records import validate_record
from foveate.report.abstaining import abstaining
from foveate.report.explanation_page import read_explained
from foveate.report.html import percent, png
from foveate.report.run_page import DatasetSummary, RunPage, lead_split, run_page
from foveate.report.sections import Page, Picture, isolated
from foveate.training.loop import best_epoch
from foveate.training.measured import Measured, MeasuredSplits
from foveate.training.runs import RunFolder

_MISTAKES = 24


def page_of_run(
    folder: RunFolder, checkpoint: Checkpoint, config: Config, dataset: Dataset, *, name: str | None = None
) -> Page:
    """The page of the run in `folder`, once `dataset` was measured with `checkpoint`.

    Args:
        name: of the folder, where it is still another.

    Raises:
        CheckpointError: when a file of the run is damaged.
    """
    record, history, names = folder.read_record(), folder.read_history(), dataset.class_names
    reports = measured_splits(folder.read_metrics())
    lead = lead_split(reports)
    probabilities = folder.predictions.probabilities(lead, names)
    run = RunPage(
        title=name or folder.path.name,
        subtitle=f"{dataset.name}, {len(names)} classes, seed {config.train.seed}",
        dataset=summarize(dataset, lead, probabilities, checkpoint.confidence, size=checkpoint.size),
        reports=reports,
        history=history,
        best_epoch=best_epoch(history, config.train.monitor) if config.train.keep == "best" else None,
        settings=config.model_dump(mode="json"),
        environment=folder.read_environment(),
        timing=folder.read_timing() if history else {},
        layers=layer_table(checkpoint.model, checkpoint.size),
        attention=config.model.attention,
        started_from=checkpoint.weights.words if checkpoint.weights else "",
        test_openings=[(opening.time, opening.command) for opening in record.test_openings],
        explained=read_explained(folder.path, weights_digest(checkpoint.model)),
        paper=config.preset == "paper" and dataset.name == "cifar10",
        command=record.command,
    )
    return run_page(run)


def measured_splits(metrics: Mapping[str, Any]) -> dict[str, Measured]:
    """The measurements of `metrics.json`, by split."""
    splits = validate_record(
        metrics, MeasuredSplits, source="metrics.json", fix="measure again with `foveate evaluate`"
    )
    return {str(split): each for split, each in splits.items()}


def summarize(
    dataset: Dataset, split: str, probabilities: NDArray[np.float32], confidence: Confidence, *, size: int
) -> DatasetSummary:
    """What a page says of the images, once those of `split` were given the `probabilities` [N, K]."""
    names, labels = dataset.class_names, dataset.labels[dataset.splits[split]]
    return DatasetSummary(
        name=dataset.name,
        size=size,
        counts={
            name: dict(zip(names, np.bincount(dataset.labels[each], minlength=len(names)).tolist(), strict=True))
            for name, each in dataset.splits.items()
        },
        bad=[(image.id, image.reason) for image in dataset.bad],
        notes=dataset.notes,
        mistakes=[
            mistake(
                png(dataset.images[index]),
                dataset.ids[index],
                true=names[dataset.labels[index]],
                predicted=names[probabilities[row].argmax()],
                confidence=float(probabilities[row].max()),
            )
            for row in most_confident_mistakes(probabilities, labels, _MISTAKES)
            for index in (dataset.splits[split][row],)
        ],
        abstaining=abstaining(probabilities, labels, names, confidence, split=split),
    )


def mistake(content: bytes, name: str, *, true: str, predicted: str, confidence: float) -> Picture:
    """An image that the model was wrong about, as a PNG of what it saw; `confidence` in `predicted`, 0…1."""
    caption = Markup('<b>{}, {}</b><span>is {}</span><small title="{}">{}</small>')
    return Picture(
        [(content, f"{true}, predicted as {predicted}")],
        caption.format(isolated(predicted), percent(confidence), isolated(true), name, isolated(name)),
    )


def most_confident_mistakes(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], count: int
) -> NDArray[np.intp]:
    """Indices of the `count` wrong predictions of highest confidence, the highest first; fewer if there are fewer.

    `probabilities` is [N, K], `labels` [N]; equals keep the order of the images.
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    confidence = probabilities[wrong].max(axis=1)
    return wrong[np.argsort(-confidence, kind="stable")[:count]]
