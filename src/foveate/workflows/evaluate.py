"""`evaluate`: a run, or a model file of which no run is known, measured on images with labels."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from foveate.data.dataset import Dataset
from foveate.data.splits import stratified_subset
from foveate.errors import ConfigError
from foveate.inference.engine import BATCH, Engine, load_engine
from foveate.report.html import write_page
from foveate.report.run_folder import measured_splits, summarize
from foveate.report.run_page import RunPage, run_page
from foveate.training.device import DeviceData, prepare_process
from foveate.training.record import RunRecord
from foveate.training.runs import RunFolder
from foveate.workflows.leaks import copies_of_run_told, copies_told
from foveate.workflows.measure import Measurement, calibration, score_split
from foveate.workflows.next_step import resuming
from foveate.workflows.output import check_output_name, new_output, refuse_within
from foveate.workflows.prepare import require_split
from foveate.workflows.request import Display, NullDisplay, command_line, find_device, tell
from foveate.workflows.run import IN_USE, Run, dataset_of_model, dataset_to_measure, folder_of, unfinished_told


def evaluate(
    run: Run | Path | str,
    data: str | Path | None = None,
    *,
    final: bool = False,
    unfinished: bool = False,
    corruptions: bool = False,
    images: int | None = None,
    device: str | None = None,
    data_dir: Path | str | None = None,
    runs: Path | str = "runs",
    name: str | None = None,
    display: Display | None = None,
) -> Run:
    """Measure a trained network: on the validation split of its own data, or on other data.

    On its own data the measurements join the run's. On other data, whose classes are matched by name, they go
    to `runs/evaluate/<name>`: of its validation split, or of all images where it has no splits.

    Args:
        final: open the test split instead; the run records each time.
        unfinished: open it even though the run is not trained to its end, so that it may be opened again after.
        corruptions: measure under common corruptions as well, each kind at five severities.
        images: how many of the split's images to corrupt, a stratified sample; None: all.

    Raises:
        CheckpointError: when it is not a run, is damaged, or its data set is another one now.
        DataError: when the data cannot be read, has an unknown class, or lacks the split.
    """
    display = display or NullDisplay()
    if images is not None and not (corruptions and images > 0):
        raise ConfigError(f"images={images}: it says how many to corrupt: give --corruptions, and 1 at least")
    _check_name(data, Path(runs), name)
    folder = folder_of(run)
    config, record = folder.read_config(), folder.read_record()
    if final and not unfinished:
        _require_finished(folder, record)
    picked = find_device(display, device, config.train.device)
    prepare_process(config)
    dataset, own = dataset_to_measure(folder, config, record, data, data_dir, display)
    if own and record.final and not final:
        found = f"; its out-of-fold figures are in {folder.report}" if record.folds else ""
        raise ConfigError(
            f"{folder.path} was trained on its validation images as well: measure it with --final{found}"
        )
    moved = str(data) if own and data is not None else None
    split = "test" if final else "all" if "all" in dataset.splits else "validation"
    elsewhere = f"measure on other data with `{command_line('evaluate', folder.path, 'DATA')}`"
    again = command_line("evaluate", folder.path, *([data] if data else []), final=True)
    measuring_test = f"--final measures on its test images: `{again}`"
    require_split(dataset, split, elsewhere if own or "test" not in dataset.splits else measuring_test)
    if not own:
        refuse_within(runs, str(data))
        tell(display, _left_out_told(dataset, split))
        tell(display, *_copies_told(dataset, split, folder, display))
    else:
        trained = ("train", "validation") if record.final else ("train",)
        tell(display, copies_told(dataset, split, dataset, trained, "it was trained on"))
    checkpoint = folder.load_network(config, picked, images=len(dataset.splits[split]))
    command = command_line(
        "evaluate",
        folder.path,
        *([data] if data else []),
        unfinished=unfinished,
        data_dir=data_dir,
        name=name,
        final=final,
        corruptions=corruptions,
        images=images,
    )
    on_device = DeviceData.load(dataset, picked)
    corrupted = _sample(on_device, split, images, config.data.split_seed) if corruptions else None
    weights = folder.kept_weights if own and record.finished else None
    measurement = Measurement(config, checkpoint, on_device, split, weights, corrupted, own)
    with folder.locked(IN_USE) if own or final else contextlib.nullcontext():
        _warn_of_state(folder, record, display, own=own, final=final, moved=moved)
        if final:
            folder.record_test_opening(command, own=own)
        if own:
            measurement.measure(display.track).write(folder)
            return Run(folder, moved)
    measured = measurement.measure(display.track)
    with new_output(Path(runs), "evaluate", name, fallback=f"{folder.path.name}-on-{dataset.name}") as output:
        about = RunRecord.of(dataset, data_dir, command, final=final)
        RunFolder(output.draft).write_identity(config, picked, about)
        measured.write(RunFolder(output.draft), name=output.path.name)
    return Run(RunFolder(output.path))


@dataclass(frozen=True)
class MeasuredModel:
    """The measurement of a model file on some images, and its folder, `runs/evaluate/<name>/`."""

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
    refuse_within(runs, str(data))
    check_output_name(Path(runs), "evaluate", name)
    engine = load_engine(model, device=device)
    dataset = dataset_of_model(engine.about, data, data_dir, display)
    split = "test" if final else "all" if "all" in dataset.splits else "validation"
    require_split(dataset, split, "leave --final out" if final else "give --final for its test split")
    tell(display, _left_out_told(dataset, split))
    indices = dataset.splits[split]
    batches = [indices[at : at + BATCH] for at in range(0, len(indices), BATCH)]
    tracked = display.track(batches, total=len(batches), label=split, images_each=BATCH)
    logits = np.concatenate([engine.logits(dataset.images[batch]) for batch in tracked])
    fallback = f"{Path(model).stem}-on-{dataset.name}"
    with new_output(Path(runs), "evaluate", name, fallback=fallback) as output:
        _write(RunFolder(output.draft), engine, dataset, split, logits, Path(model).name)
    return MeasuredModel(output.path, RunFolder(output.path).read_metrics())


def _write(
    folder: RunFolder, engine: Engine, dataset: Dataset, split: str, logits: np.ndarray[Any, Any], model: str
) -> None:
    """Measurements, every image's probabilities, and the page."""
    names, confidence = dataset.class_names, engine.about.confidence
    labels = dataset.labels[dataset.splits[split]]
    measured: dict[str, Any] = {**score_split(dataset, split, logits).to_dict(), "variants": {}, "gate": None}
    if (scaled := calibration(logits, labels, confidence)) is not None:
        measured["calibration"] = scaled
    folder.write_metrics(split, measured)
    probabilities = softmax(logits, axis=1).astype(np.float32)
    folder.predictions.write(split, dataset, probabilities)
    page = RunPage(
        title=model,
        subtitle=f"{dataset.name}, {len(names)} classes",
        dataset=summarize(dataset, split, probabilities, confidence, size=engine.about.size),
        reports=measured_splits({split: measured}),
    )
    write_page(run_page(page), folder.report)


def _sample(data: DeviceData, split: str, count: int | None, seed: int) -> DeviceData:
    """A stratified sample of the split's images; all of them where `count` is None or larger."""
    indices = data.dataset.splits[split]
    if count is None or count >= len(indices):
        return data
    chosen = stratified_subset(data.dataset.labels[indices], count, seed)
    return data.with_splits({split: indices[chosen]})


def _check_name(data: str | Path | None, runs: Path, name: str | None) -> None:
    """Raises ConfigError for a name that no folder can have, or that no folder would get."""
    if data is not None:
        check_output_name(runs, "evaluate", name)
    elif name is not None:
        raise ConfigError("name: measured on its own data, a run keeps its folder; give other DATA, or no --name")


def _require_finished(folder: RunFolder, record: RunRecord) -> None:
    """Raises ConfigError for a run that is not trained to its end: its test split would be opened twice."""
    if not record.finished:
        with folder.locked(IN_USE):  # one that is still being trained is to be waited for, not resumed
            pass
        raise ConfigError(
            f"{folder.path} is not trained to its end: continue it with `{resuming(folder.path)}`, "
            "or open the test split for it as it is with --unfinished"
        )


def _warn_of_state(
    folder: RunFolder, record: RunRecord, display: Display, *, own: bool, final: bool, moved: str | None
) -> None:
    """Say what a person who measures a run should know of it."""
    tell(display, unfinished_told(folder.path, moved))
    if not own or not record.opened:
        return
    if final:
        display.say(
            f"the test split of {folder.path} was opened before: a network that was chosen by its figures has "
            "figures that are too good"
        )
    elif "test" not in folder.read_metrics():
        display.say(
            f"the test split of {folder.path} was opened before, and its figures are no longer there: --final "
            "measures them again"
        )


def _left_out_told(dataset: Dataset, split: str) -> str | None:
    """A line on the images of other data that are not measured, as they are in other splits."""
    count = sum(map(len, dataset.splits.values()))
    if not (left := count - len(dataset.splits[split])):
        return None
    return (
        f"{left:,} of {count:,} images of {dataset.name} are in other splits than {split}: they are not measured"
    )


def _copies_told(dataset: Dataset, split: str, folder: RunFolder, display: Display) -> list[str]:
    """How many images of other data the run was trained on, or chose its epoch by."""
    network, trained = str(folder.path), "was trained or validated on"
    return copies_of_run_told(dataset, [split], folder, ("train", "validation"), network, trained, display.track)
