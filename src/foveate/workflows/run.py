"""The jobs themselves, as the command line and the Python API call them: train, resume, evaluate, summarize."""

import math
import shlex
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from scipy.special import softmax
from torch import nn

from foveate.checkpoint import (
    Checkpoint,
    checkpoint_metadata,
    load_model,
    save_confidence,
    save_tensors,
    weights_digest,
)
from foveate.confidence import fit_confidence
from foveate.config import Config, resolve_config
from foveate.data.copies import copies_among
from foveate.data.corruptions import CORRUPTIONS, SEVERITIES, Corrupted
from foveate.data.dataset import Dataset, KnownData, align_classes, load_dataset, load_known
from foveate.data.loader import Loader, preload
from foveate.data.splits import SPLITS, stratified_subset
from foveate.errors import CheckpointError, ConfigError, DataError, FoveateError
from foveate.evaluation import point_metrics, score, score_ablation
from foveate.files import write_json
from foveate.inference.network import ViewsAveraged, collect_logits
from foveate.model.build import LayerTable, build_model, layer_table
from foveate.progress import Track
from foveate.report.page import write_report
from foveate.report.run_page import page_of_run
from foveate.training.environment import environment, environment_changes, places_resumed
from foveate.training.events import event_writer
from foveate.training.loop import TrainingState, best_epoch, train_epochs
from foveate.training.optim import run_length
from foveate.training.runs import RunFolder, RunRecord
from foveate.training.saving import interruptible, saving
from foveate.training.setup import (
    EVAL_BATCH_SIZE,
    Feed,
    new_state,
    pick_device,
    prepare_process,
    settle,
)
from foveate.training.state import restore_state, save_state
from foveate.workflows.request import (
    Display,
    NullDisplay,
    check_output_dir,
    command_line,
    find_device,
    print_data_warnings,
)

_IN_USE = "being trained or measured"

__all__ = ["Run", "evaluate", "open_run", "resume", "summarize", "train"]


@dataclass(frozen=True)
class Run:
    """A run folder and what lies in it."""

    folder: RunFolder

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.folder.path

    @property
    def config(self) -> Config:
        """The settings, as resolved."""
        return self.folder.read_config()

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """The measurements by split, as in `metrics.json`."""
        return self.folder.read_metrics()

    @property
    def report(self) -> Path:
        """The page that tells everything."""
        return self.folder.report

    def checkpoint(self, device: str = "cpu") -> Checkpoint:
        """The trained network with its classes and preprocessing.

        Raises:
            CheckpointError: when it is missing or damaged.
            ConfigError: for a device that is not there.
        """
        return _load_kept(self.folder, self.config, self.folder.read_record(), pick_device(device))


def train(
    data: str | Path,
    *,
    preset: str | None = None,
    config: Path | str | None = None,
    data_dir: Path | str | None = None,
    runs: Path | str = "runs",
    name: str | None = None,
    final: bool = False,
    known: KnownData | None = None,
    display: Display | None = None,
    **settings: Any,
) -> Run:
    """Train a network on `data`, measure it on validation, and report.

    Args:
        data: `digits`, `cifar10`, or the path of a folder, CSV, Parquet or `.npz` file.
        preset: where the settings come from; over it come those of the YAML file `config`, then `settings`.
        data_dir: where `cifar10` lies; else `$FOVEATE_DATA` and the cache are searched.
        runs: the run folder is `runs/train/<name>`.
        final: train on train + validation for the whole length, and open the test split once, at the end.
        known: what `data` must be, and the splits that are used instead of drawing them.
        settings: any setting by its name, such as `epochs=3, attention="luong"`.

    Raises:
        ConfigError, DataError, OutputError: for a request that cannot be met; nothing is written then.
        TrainingError: when the loss is not finite.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, when the state is saved.
    """
    display = display or NullDisplay()
    check_output_dir(Path(runs), data)
    resolved = resolve_config(preset, Path(config) if config else None, settings)
    device = find_device(display, resolved.train.device)
    prepare_process(resolved)
    place = Path(data_dir) if data_dir else None
    if known is None:
        dataset = load_dataset(str(data), resolved.data, data_dir=place, track=display.track)
    else:
        dataset = load_known(str(data), resolved.data, known, data_dir=place, track=display.track)
    print_data_warnings(dataset, display)
    resolved = settle(resolved, dataset, final=final)
    if final:
        _require(dataset, "test", "add a test split to it, or train without --final")
    state = new_state(resolved, dataset, device, final=final)
    command = command_line(
        "train",
        data,
        preset=preset,
        config=config,
        data_dir=data_dir,
        name=name,
        final=final,
        settings=settings,
    )

    def fill(folder: RunFolder) -> None:
        record = _record(dataset, place, command, final=final, splits=folder.write_splits(dataset))
        _write_identity(folder, resolved, device, record)
        folder.last.parent.mkdir(parents=True)
        save_state(folder.last, state, _card(folder, resolved, dataset))

    fallback = f"{dataset.name}-{resolved.preset}"
    folder = RunFolder.create(Path(runs), "train", name, fallback=fallback, fill=fill)
    with folder.locked(_IN_USE):
        return _fit(folder, resolved, dataset, state, device, display, final=final)


def resume(
    run: Run | Path | str,
    data: str | Path | None = None,
    *,
    device: str | None = None,
    threads: int | None = None,
    data_dir: Path | str | None = None,
    display: Display | None = None,
) -> Run:
    """Take up a run that was killed or stopped, from its last saved step, and end as if it never had been.

    Args:
        data: where its data set lies now, if it was moved; it must be the same.
        device, threads: to go on with; None: what the run asked for, and where its device is not there, `auto`.

    Raises:
        CheckpointError: when it is not a run, is damaged, or its data set is another one now.
        ConfigError: when the `device` is not there.
        TrainingError, KeyboardInterrupt: as in `train`.
    """
    display = display or NullDisplay()
    folder = _folder(run)
    if folder.read_record().finished:
        display.say(f"{folder.path} is finished")
        return Run(folder)
    with folder.locked(_IN_USE):
        config, record = folder.read_config(), folder.read_record()
        picked = find_device(display, device, config.train.device)
        if threads is not None:
            config = config.replacing(threads=threads)
        prepare_process(config)
        dataset = dataset_of_run(folder, config, record, data, Path(data_dir) if data_dir else None, display)
        state = new_state(config, dataset, picked, final=record.final)
        continued = restore_state(folder.last, state, settings=folder.identity(record))
        before, now = folder.read_environment(), environment(picked)
        if changes := environment_changes(before, now, continued=continued):
            write_json(folder.path / "env.json", {**before, "resumed": [*places_resumed(before), now]})
            for line in changes:
                display.say(line)
        return _fit(folder, config, dataset, state, picked, display, final=record.final)


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
        images: corrupt so many of the split's images, the same share of every class; None: all.

    Raises:
        CheckpointError: when it is not a run, is damaged, or its data set is another one now.
        DataError: when the data cannot be read, has an unknown class, or lacks the split.
    """
    display = display or NullDisplay()
    _check_evaluation(data, name, images, corruptions=corruptions)
    folder = _folder(run)
    config, record = folder.read_config(), folder.read_record()
    if final and not unfinished:
        _require_finished(folder, record)
    picked = find_device(display, device, config.train.device)
    prepare_process(config)
    place = Path(data_dir) if data_dir else None
    other = None
    if data is not None:
        other = load_dataset(str(data), config.data, data_dir=place, for_training=False, track=display.track)
        if other.fingerprint == record.fingerprint:
            other = None  # the run's own data by another path: its splits hold, and the lock on its test split
    if other is None:
        dataset = dataset_of_run(folder, config, record, data, place, display)
        if record.final and not final:
            raise ConfigError(
                f"{folder.path} was trained on its validation images as well: measure it with --final"
            )
    else:
        check_output_dir(Path(runs), str(data))
        dataset = align_classes(other, record.class_names)
        print_data_warnings(dataset, display)
    split = "test" if final else "all" if "all" in dataset.splits else "validation"
    _require(dataset, split, f"measure on other data with `foveate evaluate {folder.path} DATA`")
    if other is not None:
        _tell_copies(folder, config, record, dataset, split, display)
    checkpoint = _load_kept(folder, config, record, picked, images=len(dataset.splits[split]))
    command = command_line(
        "evaluate",
        folder.path,
        *([data] if data else []),
        data_dir=data_dir,
        name=name,
        final=final,
        corruptions=corruptions,
        images=images,
    )
    loader = Loader(*preload(dataset, picked), dataset.splits[split], EVAL_BATCH_SIZE)
    corrupted = _some_of(loader, images, config.data.split_seed) if corruptions else None
    target, writing = folder, folder.locked(_IN_USE)
    if other is not None:
        if final:
            with writing:
                folder.record_test_opening(command)
        target = RunFolder.create(
            Path(runs),
            "evaluate",
            name,
            fallback=f"{folder.path.name}-on-{dataset.name}",
            fill=lambda made: _write_identity(made, config, picked, _record(dataset, place, command, final=final)),
        )
        writing = target.locked(_IN_USE)
    with writing:
        _tell_state(folder, record, display, final=final)
        if other is None and final:
            folder.record_test_opening(command)
        fit = _kept_weights(folder, config) if other is None and record.finished else None
        _measure(
            target, checkpoint, config, dataset, split, loader, picked, display.track, fit=fit, corrupted=corrupted
        )
    return Run(target)


def open_run(path: Path | str) -> Run:
    """A run that lies in a folder.

    Raises:
        CheckpointError: when it is not one.
    """
    return Run(RunFolder.open(Path(path)))


def summarize(
    *, preset: str | None = None, config: Path | str | None = None, num_classes: int = 10, **settings: Any
) -> LayerTable:
    """The table of layers of a preset's network, as figure 3.1 of the paper.

    Raises:
        ConfigError: for settings that no network can have.
    """
    resolved = resolve_config(preset, Path(config) if config else None, settings)
    size = resolved.data.size or 32
    return layer_table(build_model(resolved.model, num_classes=num_classes, size=size), size)


def _fit(
    folder: RunFolder,
    config: Config,
    dataset: Dataset,
    state: TrainingState,
    device: torch.device,
    display: Display,
    *,
    final: bool,
) -> Run:
    """Train from wherever `state` is to the end, saving on the way; then measure and report."""
    card = _card(folder, config, dataset)
    save = partial(save_state, folder.last, state, card)
    feed = Feed(config, dataset, device, final=final)
    validation = None if final else feed.measured(dataset.splits["validation"])
    length, _ = run_length(config.train, len(feed.train), feed.train.images_before(len(feed.train)))
    small = round(feed.train.side * config.train.resize_scale) if config.train.resize_until else feed.train.side
    if small < feed.train.side and (state.epoch, state.step) == (1, 0):
        display.say(
            f"the first {config.train.resize_until:.0%} of training is on images of {small} px, which is faster: "
            "until then accuracy on validation is low"
        )
    resuming = f"foveate train --resume {shlex.quote(str(folder.path))}"
    with interruptible(resuming) as interrupted:
        keeps_best = config.train.keep == "best"
        if keeps_best and state.step == 0 and best_epoch(state.history, config.train.monitor) == state.epoch - 1:
            # It may have been killed after this state was saved, and before its weights were as the best.
            save_tensors(folder.best, state.model.state_dict(), card)
        track = saving(display.track, save, config.train.save_every_s, interrupted)
        epochs = train_epochs(
            state, feed.train, validation, config.train, augment=feed.augment, device=device, track=track
        )
        with event_writer(folder.path, state.history) as log:
            for result in epochs:
                best = keeps_best and best_epoch(state.history, config.train.monitor) == result.epoch
                # The state first: a GPU would not come to the same weights again, and what is kept as the best
                # must be of an epoch that is in the history.
                save()
                if best:
                    save_tensors(folder.best, state.model.state_dict(), card)
                folder.write_history(state.history)
                log(result)
                display.epoch(result, epochs=length, best=best)
        folder.write_history(state.history)
        record, images = folder.read_record(), len(dataset.splits["test" if final else "validation"])
        checkpoint = _load_kept(folder, config, record, device, images=images)
        if final:
            folder.record_test_opening(record.command)
        track = saving(display.track, lambda: None, math.inf, interrupted)
        split = "test" if final else "validation"
        measured = feed.measured(dataset.splits[split])
        _measure(
            folder, checkpoint, config, dataset, split, measured, device, track, fit=_kept_weights(folder, config)
        )
        if not keeps_best:  # the file that people take for the run's network is that network
            kept = _load_kept(folder, config, record, device)
            description = {**card, "confidence": kept.confidence.model_dump(mode="json")}
            save_tensors(folder.best, kept.model.state_dict(), description)
        folder.record_finished()
    return Run(folder)


def _measure(
    folder: RunFolder,
    checkpoint: Checkpoint,
    config: Config,
    dataset: Dataset,
    split: str,
    loader: Loader,
    device: torch.device,
    track: Track,
    *,
    fit: Path | None,
    corrupted: Loader | None = None,
) -> None:
    """Score one split; put the measurements, every image's probabilities and the report into `folder`.

    Args:
        loader: of its images.
        fit: where the weights lie, to keep the temperature with them that is fitted where `split` is validation.
        corrupted: images of it to be measured under corruptions.
    """
    indices, model = dataset.splits[split], checkpoint.model
    logits_of = partial(
        collect_logits, loader=loader, device=device, precision=config.train.precision, track=track
    )
    logits, labels = logits_of(model, label=split)
    variants = {}
    if config.train.views > 1:
        mirror = bool(config.augment.flip)
        averaged = ViewsAveraged(model, mirror=mirror)
        name = f"mean of {6 if mirror else 3} views"
        variants[name] = asdict(score_ablation(*logits_of(averaged, label=f"{split}, {name}")))
    if config.model.attention != "none":
        with model.without_attention():
            name = "attention taken out"
            variants[name] = asdict(score_ablation(*logits_of(model, label=f"{split}, {name}")))
    groups = [dataset.groups[index] for index in indices] if dataset.groups else None
    confidence, calibration = checkpoint.confidence, None
    report = score(logits, labels, dataset.class_names, groups)  # which refuses what is not finite
    if fit is not None and split == "validation":
        confidence = fit_confidence(logits, labels, seed=config.data.split_seed, grouped=groups is not None)
        if confidence != checkpoint.confidence:
            save_confidence(fit, confidence)
    if confidence.temperature is not None:
        scaled = point_metrics(logits / confidence.temperature, labels)
        calibration = {name: scaled[name] for name in ("loss", "expected_calibration_error")}
        calibration["temperature"] = confidence.temperature
    folder.write_predictions(
        split,
        ids=[dataset.ids[index] for index in indices],
        labels=labels,
        probabilities=softmax(logits, axis=1),
        class_names=dataset.class_names,
        groups=groups,
    )
    measured = {**report.to_dict(), "variants": variants, "gate": model.gate, "calibration": calibration}
    before = folder.read_metrics().get(split, {}).get("corruptions", {})
    if corrupted is not None:
        measured["corruptions"] = _under_corruptions(model, corrupted, device, config, track)
    elif before.get("weights") == weights_digest(model):
        measured["corruptions"] = before  # of the same network
    folder.write_metrics(split, measured)
    page = page_of_run(folder, replace(checkpoint, confidence=confidence), config, dataset)
    write_report(page, folder.path)


def _some_of(loader: Loader, count: int | None, seed: int) -> Loader:
    """So many of the loader's images, the same share of every class; None: all."""
    if count is None or count >= len(loader.indices):
        return loader
    labels = loader.labels.cpu().numpy()[loader.indices]
    return replace(loader, indices=loader.indices[stratified_subset(labels, count, seed)])


def _under_corruptions(
    model: nn.Module, loader: Loader, device: torch.device, config: Config, track: Track
) -> dict[str, Any]:
    """Accuracy of the loader's images as they are, and by kind and severity of corruption."""

    def accuracy(network: nn.Module, label: str) -> float:
        logits, labels = collect_logits(
            network, loader, device=device, precision=config.train.precision, label=label, track=track
        )
        return float((logits.argmax(axis=1) == labels).mean())

    found = {
        kind: [
            accuracy(Corrupted(model, kind, severity), f"{kind}, severity {severity}")
            for severity in range(1, SEVERITIES + 1)
        ]
        for kind in CORRUPTIONS
    }
    return {
        "images": len(loader.indices),
        "clean": accuracy(model, "as they are"),
        "mean": mean(value for values in found.values() for value in values),
        "accuracy": found,
        "weights": weights_digest(model),
    }


def dataset_of_run(
    folder: RunFolder,
    config: Config,
    record: RunRecord,
    data: str | Path | None,
    data_dir: Path | None,
    display: Display,
) -> Dataset:
    """The data set the run was trained on, where its record says or at `data`, and proof that it is the same."""
    known = KnownData(record.fingerprint, folder.stored_splits(record), folder.path)
    place = data_dir or record.data_dir
    if data is None and Path(record.dataset).is_absolute() and not Path(record.dataset).exists():
        raise DataError(
            f"the data of {folder.path} is not at {record.dataset} any more: give its new place after the run, as "
            f"in `foveate evaluate {folder.path} NEW/PLACE`"
        )
    dataset = load_known(str(data or record.dataset), config.data, known, data_dir=place, track=display.track)
    if known.splits is None:
        _check_redrawn(folder, dataset)
    print_data_warnings(dataset, display)
    return dataset


def _tell_state(folder: RunFolder, record: RunRecord, display: Display, *, final: bool) -> None:
    """Say what whoever measures a run should know of it."""
    if not record.finished:
        resuming = f"foveate train --resume {shlex.quote(str(folder.path))}"
        display.say(f"training of {folder.path} is not finished; to continue: {resuming}")
    if record.test_openings and not final and "test" not in folder.read_metrics():
        display.say(
            f"the test split of {folder.path} was opened before, and its figures are no longer there: --final "
            "measures them again"
        )


def _tell_copies(
    folder: RunFolder, config: Config, record: RunRecord, dataset: Dataset, split: str, display: Display
) -> None:
    """Say how many images of other data the run was trained on, or chose its epoch by."""
    known = KnownData(record.fingerprint, folder.stored_splits(record), folder.path)
    try:
        own = load_known(record.dataset, config.data, known, data_dir=record.data_dir, track=display.track)
    except FoveateError as error:  # it is not there any more, or has changed
        display.say(
            f"whether {folder.path} was trained on images of {dataset.name} is not known, as its own cannot be "
            f"read: {error}"
        )
        return
    if count := len(copies_among(dataset, split, own, ("train", "validation"))):
        display.say(
            f"{count:,} of {len(dataset.splits[split]):,} images are copies of images that {folder.path} was "
            "trained or validated on: on others it will do worse"
        )


def _check_evaluation(data: str | Path | None, name: str | None, images: int | None, *, corruptions: bool) -> None:
    """Raises ConfigError for arguments of `evaluate` that do not go together."""
    if data is None and name is not None:
        raise ConfigError("name: measured on its own data, a run keeps its folder; give other DATA, or no --name")
    if images is not None and not (corruptions and images > 0):
        raise ConfigError(f"images={images}: it says how many to corrupt: give --corruptions, and 1 at least")


def _require_finished(folder: RunFolder, record: RunRecord) -> None:
    """Raises ConfigError for a run that is not trained to its end: its test split would be opened twice."""
    if not record.finished:
        with folder.locked(_IN_USE):  # one that is still being trained is to be waited for, not resumed
            pass
        raise ConfigError(
            f"{folder.path} is not trained to its end: continue it with `foveate train --resume {folder.path}`, "
            "or open the test split for it as it is with --unfinished"
        )


def _check_redrawn(folder: RunFolder, dataset: Dataset) -> None:
    """Raises CheckpointError where a run kept no splits, and those drawn again are not what it was measured on."""
    for split, ids in folder.read_predicted_ids().items():
        if split in SPLITS and ids != [dataset.ids[index] for index in dataset.splits.get(split, ())]:
            raise CheckpointError(
                f"{folder.path} was made by an earlier version of Foveate, which did not keep its splits, and now "
                "others are drawn, as other images can be read: train again"
            )


def _record(
    dataset: Dataset, data_dir: Path | None, command: str, *, final: bool, splits: str | None = None
) -> RunRecord:
    return RunRecord(
        command=command,
        dataset=dataset.location,
        data_dir=str(data_dir.resolve()) if data_dir else None,
        fingerprint=dataset.fingerprint,
        class_names=dataset.class_names,
        final=final,
        splits=splits,
    )


def _write_identity(folder: RunFolder, config: Config, device: torch.device, record: RunRecord) -> None:
    folder.write_config(config, record.command)
    write_json(folder.path / "env.json", environment(device))
    folder.write_record(record)


def _require(dataset: Dataset, split: str, fix: str) -> None:
    if split not in dataset.splits:
        there = ", ".join(dataset.splits)
        raise DataError(f"{dataset.name} has no {split} images (it has: {there}): {fix}")


def _card(folder: RunFolder, config: Config, dataset: Dataset) -> dict[str, Any]:
    card = checkpoint_metadata(config.model, dataset.class_names, dataset.images.shape[1], dataset.white)
    return {**card, "settings": folder.identity(folder.read_record())}


def _kept_weights(folder: RunFolder, config: Config) -> Path:
    return folder.best if config.train.keep == "best" else folder.last


def _load_kept(
    folder: RunFolder, config: Config, record: RunRecord, device: torch.device, *, images: int = 1
) -> Checkpoint:
    """The network of a run, which can see so many `images` or a batch of them at once.

    Raises:
        CheckpointError: when it is missing, damaged, or not the network that the run describes.
    """
    if config.data.size is None:
        raise CheckpointError(f"{folder.path / 'args.yaml'} is damaged (it has no size): restore it from a copy")
    expect = checkpoint_metadata(config.model, record.class_names, config.data.size)
    expect["settings"] = folder.identity(record)
    at_once = min(EVAL_BATCH_SIZE, images)
    return load_model(_kept_weights(folder, config), device=device, expect=expect, images_at_once=at_once)


def _folder(run: Run | Path | str) -> RunFolder:
    return run.folder if isinstance(run, Run) else RunFolder.open(Path(run))
