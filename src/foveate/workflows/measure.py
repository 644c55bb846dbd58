"""Measuring a model file, of which no run is known, on images with labels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from foveate.config import DataConfig
from foveate.data.dataset import Dataset, align_classes, load_dataset
from foveate.errors import ConfigError
from foveate.evaluation import point_metrics, score
from foveate.inference.engine import BATCH, Engine, load_engine
from foveate.report.html import write_page
from foveate.report.run_folder import measured_splits, summarize
from foveate.report.run_page import RunPage, run_page
from foveate.training.runs import RunFolder
from foveate.workflows.request import Display, NullDisplay, check_output_dir, print_data_warnings

__all__ = ["MeasuredModel", "evaluate_model"]


@dataclass(frozen=True)
class MeasuredModel:
    """What a model file came to on some images, and the folder that tells of it, `runs/evaluate/<name>/`."""

    path: Path
    metrics: dict[str, dict[str, Any]]

    @property
    def report(self) -> Path:
        """The page that shows it."""
        return RunFolder(self.path).report


def evaluate_model(
    model: Path | str,
    data: str | Path,
    *,
    final: bool = False,
    device: str | None = None,
    data_dir: Path | str | None = None,
    runs: Path | str = "runs",
    name: str | None = None,
    display: Display | None = None,
) -> MeasuredModel:
    """Measure a weights file (`.safetensors`) or an exported `.onnx` file on images whose classes match by name.

    It is measured on all images where the data declares no splits, and else on its validation split.

    Args:
        final: on the test split. Of a run that knows its data, use `evaluate`, which records that it was opened.

    Raises:
        CheckpointError, ConfigError, DataError, OutputError: for a request that cannot be met.
    """
    display = display or NullDisplay()
    check_output_dir(Path(runs), str(data))
    RunFolder.refuse_name(Path(runs), "evaluate", name)
    engine = load_engine(model, device=device)
    about = engine.about
    settings = DataConfig(size=about.size, depth=about.white or "format")
    place = Path(data_dir) if data_dir else None
    found = load_dataset(str(data), settings, data_dir=place, for_training=False, track=display.track)
    dataset = align_classes(found, about.class_names)
    print_data_warnings(dataset, display)
    split = "test" if final else "all" if "all" in dataset.splits else "validation"
    if split not in dataset.splits:
        there = ", ".join(dataset.splits)
        raise ConfigError(
            f"{dataset.name} has no {split} images (it has: {there}): give --final for its test split"
        )
    logits = _logits(engine, dataset, split, display)
    folder = RunFolder.create(
        Path(runs),
        "evaluate",
        name,
        fallback=f"{Path(model).stem}-on-{dataset.name}",
        fill=lambda made: _write(made, engine, dataset, split, logits, Path(model).name),
    )
    return MeasuredModel(folder.path, folder.read_metrics())


def _logits(engine: Engine, dataset: Dataset, split: str, display: Display) -> np.ndarray[Any, Any]:
    indices = dataset.splits[split]
    batches = [indices[at : at + BATCH] for at in range(0, len(indices), BATCH)]
    tracked = display.track(batches, total=len(batches), label=split, images_each=BATCH)
    return np.concatenate([engine.logits(dataset.images[batch]) for batch in tracked])


def _write(
    folder: RunFolder, engine: Engine, dataset: Dataset, split: str, logits: np.ndarray[Any, Any], model: str
) -> None:
    """Measurements, every image's probabilities, and the page."""
    indices, names, confidence = dataset.splits[split], dataset.class_names, engine.about.confidence
    labels = dataset.labels[indices]
    groups = [dataset.groups[index] for index in indices] if dataset.groups else None
    measured: dict[str, Any] = {**score(logits, labels, names, groups).to_dict(), "variants": {}, "gate": None}
    if confidence.temperature is not None:
        scaled = point_metrics(logits / confidence.temperature, labels)
        measured["calibration"] = {
            "loss": scaled["loss"],
            "expected_calibration_error": scaled["expected_calibration_error"],
            "temperature": confidence.temperature,
        }
    folder.write_metrics(split, measured)
    probabilities = softmax(logits, axis=1).astype(np.float32)
    folder.write_predictions(
        split,
        ids=[dataset.ids[index] for index in indices],
        labels=labels,
        probabilities=probabilities,
        class_names=names,
        groups=groups,
    )
    page = RunPage(
        title=model,
        subtitle=f"{dataset.name}, {len(names)} classes",
        dataset=summarize(dataset, split, probabilities, confidence, size=engine.about.size),
        reports=measured_splits({split: measured}),
    )
    write_page(run_page(page), folder.report)
