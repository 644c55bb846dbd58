"""To train a run, or to resume one: by this process, or by one for each device."""

import contextlib
import math
from functools import partial
from pathlib import Path
from typing import Unpack

from foveate.data.dataset import KnownData
from foveate.data.folds import StoredFolds
from foveate.errors import ConfigError
from foveate.execution.devices import hand_back, processes_to_start
from foveate.files import write_json
from foveate.keywords import Settings
from foveate.training.device import DeviceData, prepare_process
from foveate.training.distributed import LostError, World
from foveate.training.environment import environment, environment_changes, places_resumed
from foveate.training.events import event_writer
from foveate.training.fit import Fit
from foveate.training.loop import best_epoch
from foveate.training.record import FoldsRecord, RunRecord
from foveate.training.runs import RunFolder
from foveate.training.saving import interruptible, saving
from foveate.training.settings import resolve_settings
from foveate.workflows.devices import check_shared, run_command
from foveate.workflows.folds import check_folds, cross_validate, draw_run_folds, threads_of_folds
from foveate.workflows.leaks import tell_own_copies
from foveate.workflows.measure import Measurement
from foveate.workflows.next_step import few_to_tune_told, resuming
from foveate.workflows.output import check_output_name, new_output, refuse_within
from foveate.workflows.prepare import prepare
from foveate.workflows.request import Display, NullDisplay, command_line, find_device, tell
from foveate.workflows.run import IN_USE, Run, dataset_of_run, folder_of, open_run
from foveate.workflows.start import start_told, starting_from
from foveate.workflows.workers import Workers


def train(
    data: str | Path,
    *,
    preset: str | None = None,
    config: Path | str | None = None,
    data_dir: Path | str | None = None,
    runs: Path | str = "runs",
    name: str | None = None,
    final: bool = False,
    folds: int | None = None,
    workers: int | None = None,
    ray: str | None = None,
    gpus: float | None = None,
    devices: int | None = None,
    time: str | None = None,
    known: KnownData | None = None,
    command: str | None = None,
    display: Display | None = None,
    **settings: Unpack[Settings],
) -> Run:
    """Train a network on `data`, measure it on validation, and report.

    By several processes, those of `devices` or of torchrun, each has a share of every batch. The first measures,
    writes and speaks; all of them return its run.

    Args:
        data: `digits`, `cue`, `cifar10`, or the path of a folder, CSV, Parquet or `.npz` file.
        preset: where the settings come from; over it come those of the YAML file `config`, then `settings`. Where
            both are None, `default_preset` chooses by the data.
        data_dir: where `cifar10` lies; else `$FOVEATE_DATA` and the cache are searched.
        runs: the run folder is `runs/train/<name>`.
        final: train on train + validation for the whole length, and open the test split once, at the end.
        folds: cross-validate: train this many networks besides, each without one fold of train + validation, and
            measure each image by the one that never saw it. The model is trained on train + validation, for the
            same length; the test split stays closed.
        workers, ray, gpus: who trains the folds, as `tune` takes them.
        devices: train by this many processes of this machine, one for each GPU, as `--devices` does. They know
            no attention class that was registered in this process, and with a `display` they print what the
            command line prints.
        time: how long it may take, decoding left out, as "5m": a few steps measure this machine, and images shown
            and their size are chosen so that it ends then.
        known: what `data` must be, and the splits that are used instead of drawing them.
        command: the command line that the run records; None: that of these arguments.
        settings: any setting by its name, such as `epochs=3, attention="luong"`; `start` may be the name of a run
            in `runs`.

    Raises:
        CheckpointError, ConfigError, DataError, OutputError: for a request that cannot be met; nothing is written.
            With several `devices` it is a ConfigError.
        TrainingError: when the loss is not finite, or another process of torchrun has ended.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, when the state is saved.
    """
    world = World.here()
    refuse_within(runs, data)
    check_output_name(Path(runs), "train", name)
    several = processes_to_start(devices)
    check_shared(several or world.size, folds=folds is not None, timed=time is not None)
    others = (workers, ray, gpus) != (None, None, None)
    check_folds(folds, final=final, timed=time is not None, workers=others)
    settings = starting_from(settings, Path(runs))
    asked: dict[str, object] = {"config": config, "data_dir": data_dir, "name": name, "final": final}
    asked |= {"folds": folds, "workers": workers, "ray": ray, "gpus": gpus}
    if several:
        if known is not None:
            raise ConfigError("devices and known: other processes cannot be given it: leave devices out")
        words = command_line("train", data, preset=preset, **asked, runs=runs, devices=several, settings=settings)
        return open_run(run_command(words, several, display))
    display = display if display is not None and world.leads else NullDisplay()
    crew = Workers(workers, ray, gpus)
    on_all = final or folds is not None
    ready = prepare(
        str(data),
        preset=preset,
        file=Path(config) if config else None,
        settings=settings,
        place=data_dir,
        final=final,
        on_all=on_all,
        time=time,
        known=known,
        world=world,
        display=display,
    )
    resolved, own, dataset = ready.config, ready.loaded.own, ready.loaded.own.dataset
    training = ready.loaded.training
    if folds is not None:
        crew.check_attention([resolved.model.attention])
        drawn = draw_run_folds(resolved, training.dataset, folds)
    tell_own_copies(dataset, display, final=final, folds=folds is not None)
    fit = Fit(resolved, training, world=world, holds_out=True)
    measured = ("train", "validation") if folds is not None else ("test",) if final else ("validation", "test")
    trained_images = len(training.dataset.splits["train"])
    tell(
        display,
        None if fit.origin is None else f"training starts from {fit.origin.words}",
        *start_told(resolved, own.dataset, measured, display.track),
        few_to_tune_told(resolved, trained_images),
    )
    command = command or command_line(
        "train",
        data,
        preset=ready.preset,
        **asked,
        runs=None if Path(runs) == Path("runs") else runs,
        devices=world.devices,
        settings=ready.settings,
    )

    def make_folder() -> str:
        with new_output(Path(runs), "train", name, fallback=f"{dataset.name}-{resolved.preset}") as output:
            folder = RunFolder(output.draft)
            record = RunRecord.of(dataset, data_dir, command, final=on_all, trained_images=trained_images)
            record = record.model_copy(update={"splits": folder.write_splits(dataset)})
            if folds is not None:
                stored = StoredFolds.write(folder.path, training.dataset, drawn, folds)
                threads = threads_of_folds(resolved, crew, own.device)
                kept = FoldsRecord(count=folds, sha256=stored.sha256, threads=threads)
                record = record.model_copy(update={"folds": kept})
            folder.write_identity(resolved, own.device, record, devices=world.size)
            fit.metadata["settings"] = folder.identity(record)
            folder.last.parent.mkdir(parents=True)
            fit.save(folder.last)
        return str(output.path)

    with world.connected(own.device):
        folder = RunFolder(Path(world.tell(make_folder() if world.leads else None)))
        if world.leads:
            hand_back(str(folder.path.resolve()))
        with _held(folder, world):
            return _train(Run(folder), fit, own, crew, display)


def resume(
    run: Run | Path | str,
    data: str | Path | None = None,
    *,
    device: str | None = None,
    threads: int | None = None,
    workers: int | None = None,
    ray: str | None = None,
    gpus: float | None = None,
    devices: int | None = None,
    data_dir: Path | str | None = None,
    display: Display | None = None,
) -> Run:
    """Resume a run that was killed or stopped from its last saved step; it ends as if it had never stopped.

    Args:
        data: where its data set lies now, if it was moved; it must be the same. `data_dir` says it of `cifar10`.
        device, threads: to continue with; None: what the run asked for, or `auto` where its device is missing.
        workers, ray, gpus: who trains the folds that are left, as in `train`.
        devices: as in `train`; it may be another number than before.

    Raises:
        CheckpointError: when it is not a run, is damaged, or its data set is another one now.
        ConfigError: when the `device` is not there.
        TrainingError, KeyboardInterrupt: as in `train`.
    """
    world, folder, moved = World.here(), folder_of(run), None if data is None else str(data)
    place = None if data_dir is None else str(Path(data_dir).resolve())
    folds, several = folder.read_record().folds, processes_to_start(devices)
    check_shared(several or world.size, folds=folds is not None, timed=False)
    others = (workers, ray, gpus) != (None, None, None)
    check_folds(folds.count if folds else None, final=False, timed=False, workers=others)
    if several:
        asked = {"data_dir": data_dir, "device": device, "threads": threads, "devices": several}
        words = command_line(
            "train", *([] if data is None else [data]), resume=folder.path, settings=None, **asked
        )
        run_command(words, several, display)
        return Run(folder, moved, place)
    display = display if display is not None and world.leads else NullDisplay()
    crew = Workers(workers, ray, gpus)
    if folder.read_record().finished:
        display.say(f"{folder.path} is finished")
        return Run(folder, moved, place)
    with _held(folder, world):
        config, record = folder.read_config(), folder.read_record()
        picked = world.place(find_device(display, device, config.train.device))
        if threads is not None:
            config = config.replacing(threads=threads)
        prepare_process(config)
        fix = f"give its new place, as in `{resuming(folder.path, 'NEW/PLACE')}`"
        dataset = dataset_of_run(folder, config, record, data, data_dir, display, fix=fix)
        own = DeviceData.load(dataset, picked)
        training = own.with_splits(dataset.for_final().splits) if record.final else own
        if world.size > 1:
            resolve_settings(config, training.dataset, world.size)  # which refuses what they cannot share
        fit = Fit(config, training, start=False, world=world, holds_out=True)
        fit.metadata["settings"] = folder.identity(record)
        continued = fit.resume(folder.last, settings=folder.identity(record))
        before, now = folder.read_environment(), environment(picked, world.size)
        if (changes := environment_changes(before, now, continued=continued)) and world.leads:
            write_json(folder.path / "env.json", {**before, "resumed": [*places_resumed(before), now]})
            tell(display, *changes)
        with world.connected(picked):
            return _train(Run(folder, moved, place), fit, own, crew, display)


def _train(run: Run, fit: Fit, data: DeviceData, crew: Workers, display: Display) -> Run:
    """Train from wherever the state of `fit` is to the end; then measure and report.

    Of several processes the first does all but the steps, and the others wait for it.

    Args:
        data: the data set in the run's own splits, also where validation is trained on.
        crew: who trains the folds, where there are some.
    """
    world, command = fit.world, _resuming(run, fit, crew)
    try:
        if world.leads:
            _lead(run, fit, data, crew, display)
            tell(display, fit.told)
        else:
            with interruptible(command, heeded=False):
                for _ in fit.epochs():
                    pass
        world.wait()
    except LostError as error:
        raise LostError(f"another process of this training has ended: continue with `{command}`") from error
    return run


def _resuming(run: Run, fit: Fit, crew: Workers) -> str:
    """The command line that resumes the run with as many processes, and with the workers of its folds."""
    return run.resuming(devices=fit.world.devices, **crew.flags)


def _lead(run: Run, fit: Fit, data: DeviceData, crew: Workers, display: Display) -> None:
    """What one process alone does, or the first of several."""
    folder, config, state = run.folder, fit.config, fit.state
    record = folder.read_record()
    train, history = config.train, state.history
    fit.path, epochs = folder.last, fit.length
    side = data.dataset.size
    small = round(side * train.resize_scale) if train.resize_until else side
    if small < side and (state.epoch, state.step) == (1, 0):
        display.say(
            f"the first {train.resize_until:.0%} of training is on images of {small} px, which is faster: "
            "until then accuracy on validation is low"
        )
    folder.forget_measurements()
    with interruptible(_resuming(run, fit, crew)) as interrupted:
        keeps_best = train.keep == "best"
        if keeps_best and state.step == 0 and best_epoch(history, train.monitor) == state.epoch - 1:
            # It may have been killed after this state was saved, and before its weights were as the best.
            fit.save_weights(folder.best)
        track = saving(display.track, partial(fit.save, folder.last), train.save_every_s, interrupted)
        logits = None  # of the weights that are kept, where they were measured in this process
        with event_writer(folder.path, history) as log:
            for result in fit.epochs(track=track):
                best = keeps_best and best_epoch(history, train.monitor) == result.epoch
                # After the state, which `fit` has saved: a GPU would not come to the same weights again, and what
                # is kept as the best must be of an epoch that is in the history.
                if best:
                    fit.save_weights(folder.best)
                if best or not keeps_best:
                    logits = state.val_logits
                folder.write_history(history)
                log(result)
                display.epoch(result, epochs=epochs, best=best)
        folder.write_history(history)
        if not keeps_best:
            fit.save_weights(folder.best)
            folder.change_record(last_kept_as_best=True)
        if record.folds is None:
            split = "test" if record.final else "validation"
            checkpoint = folder.load_network(config, data.device, images=len(data.dataset.splits[split]))
            if record.final:
                folder.record_test_opening(record.command)
            track = saving(display.track, lambda: None, math.inf, interrupted)
            weights, known = folder.kept_weights, None if record.final else logits
            Measurement(config, checkpoint, data, split, weights, logits=known).measure(track).write(folder)
    if record.folds is not None:
        moved = record.model_copy(update={"data_dir": run.data_dir or record.data_dir})
        cross_validate(
            folder, config, moved, data.dataset, data.device, crew, display, resuming=_resuming(run, fit, crew)
        )
    folder.change_record(finished=True)


def _held(folder: RunFolder, world: World) -> contextlib.AbstractContextManager[None]:
    """Keep other trainings out of the run; only the first process writes there."""
    return folder.locked(IN_USE) if world.leads else contextlib.nullcontext()
