"""The commands around one network: check, train, evaluate, summary."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import foveate
from foveate import terminal
from foveate.cli import options as opt
from foveate.cli.early import check_request, check_use
from foveate.cli.options import given_settings, stoppable
from foveate.cli.results import print_results
from foveate.errors import ConfigError
from foveate.execution.devices import end_with_parent, in_group, processes_to_start, run_on_devices


def check(
    data: Annotated[str, typer.Argument(help="digits, cue, cifar10, or a folder, CSV, Parquet or .npz file.")],
    labels: Annotated[
        bool,
        typer.Option("--labels", help="Doubt labels too, by networks that never saw the image (trains three)."),
    ] = False,
    augment: Annotated[
        bool, typer.Option("--augment", help="Draw a sheet of what each family of augmentation does.")
    ] = False,
    preset: opt.Preset = None,
    size: opt.Size = None,
    device: opt.Device = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    setting: opt.Setting = None,
    name: opt.Name = None,
    runs: opt.Runs = opt.RUNS,
    data_dir: opt.DataDir = None,
) -> None:
    """Find what is wrong with DATA. The exit code is 1 when there is an error."""
    settings = given_settings(setting, size=size, device=device, threads=threads)
    check_request("check", data, runs, name, preset=preset, settings=settings)
    checked = foveate.check(
        data,
        labels=labels,
        augment=augment,
        preset=preset,
        data_dir=data_dir,
        runs=runs,
        name=name,
        settings=settings,
        display=terminal.display(),
    )
    from foveate.workflows.request import command_line

    correcting = "correct the errors above, then " if checked.has_errors else ""
    place = {"data_dir": data_dir, "runs": None if runs == opt.RUNS else runs}
    step = f"next: {correcting}{command_line('train', data, preset=preset, **place, settings=settings)}"
    terminal.print_lines([*checked.lines, step], findings=checked.path / "check.json", report=checked.report)
    if checked.has_errors:
        raise typer.Exit(1)


def train(
    data: opt.Data = None,
    preset: opt.Preset = None,
    config: opt.ConfigFile = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images in a training step.")] = None,
    size: opt.Size = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    time: Annotated[
        str | None,
        typer.Option(
            metavar="90s|5m|1h", help="How long it may take: images shown and their size follow from it."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, order and augmentation.")] = None,
    attention: opt.Attention = None,
    weights: Annotated[
        str | None,
        typer.Option(help="What a backbone starts from: imagenet, or a .safetensors file of timm or torchvision."),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Another network of Foveate to start from: a run, its name, or a weights file."
        ),
    ] = None,
    device: opt.Device = None,
    devices: opt.Devices = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    allow_bad: Annotated[
        bool, typer.Option("--allow-bad", help="Train however many images are unreadable.")
    ] = False,
    setting: opt.Setting = None,
    name: opt.Name = None,
    runs: opt.Runs = opt.RUNS,
    data_dir: opt.DataDir = None,
    final: Annotated[
        bool, typer.Option("--final", help="Train on train + validation, then open the test split once.")
    ] = False,
    folds: Annotated[
        int | None,
        typer.Option(
            metavar="K", help="Cross-validate: K networks besides, each asked about the images that it never saw."
        ),
    ] = None,
    workers: opt.Workers = None,
    ray: opt.Ray = None,
    gpus: opt.Gpus = None,
    resume: Annotated[
        Path | None, typer.Option(help="Run folder to resume where it stopped; DATA only if it was moved.")
    ] = None,
    study: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Study whose winner to train, on its data, as with --final; DATA only if it was moved.",
        ),
    ] = None,
    verbose: opt.Verbose = False,
) -> None:
    """Train on DATA and write a report. It is measured on the validation split."""
    settings = given_settings(
        setting,
        epochs=epochs,
        batch=batch,
        size=size,
        lr=lr,
        seed=seed,
        attention=attention,
        weights=weights,
        start=start,
        device=device,
        threads=threads,
        max_bad=1.0 if allow_bad else None,
    )
    if resume is not None and (
        preset
        or config
        or name
        or runs != opt.RUNS
        or final
        or folds
        or time
        or settings.keys() - {"device", "threads"}
    ):
        raise ConfigError(
            "--resume takes every setting but --device, --threads and the workers of folds from the run: "
            f"`foveate train --resume {shlex.quote(str(resume))}`"
        )
    if study is not None and (preset or config or resume or time):
        raise ConfigError(
            f"--from takes its settings from the study: `foveate train --from {shlex.quote(str(study))}`"
        )
    if study is not None and (folds or workers is not None or ray or gpus):
        raise ConfigError(
            "--from trains one network: cross-validate by `foveate train DATA --config FILE --folds K`"
        )
    if resume is None and study is None and data is None:
        raise ConfigError("nothing to train on: name a data set, as in `foveate train digits`")
    if study is not None and in_group():
        raise ConfigError(
            "--from trains on one device: for several, `foveate train DATA --config FILE --final --devices N`"
        )
    if resume is None:
        check_request("train", data, runs, name, preset=preset, config=config, settings=settings)
    _spread(devices)
    with stoppable():
        if resume is not None:
            crew: dict[str, Any] = {"workers": workers, "ray": ray, "gpus": gpus}
            run = foveate.resume(resume, data, data_dir=data_dir, display=terminal.display(), **crew, **settings)
        elif study is not None:
            place: dict[str, Any] = {"data_dir": data_dir, "runs": runs, "name": name}
            run = foveate.train_best(study, data, display=terminal.display(), **place, **settings)
        else:
            run = foveate.train(
                data or "",
                preset=preset,
                config=config,
                data_dir=data_dir,
                runs=runs,
                name=name,
                final=final,
                folds=folds,
                workers=workers,
                ray=ray,
                gpus=gpus,
                time=time,
                display=terminal.display(),
                **settings,
            )
    print_results(run, verbose=verbose)


def _spread(devices: int | None) -> None:
    """Start this very command once for each device, and exit as they do; in one of them, go on."""
    if several := processes_to_start(devices):
        ended = run_on_devices([sys.executable, "-P", "-m", "foveate", *sys.argv[1:]], several)
        print(ended.errors, end="", file=sys.stderr)
        raise typer.Exit(ended.status)
    end_with_parent()


def evaluate(
    run: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A run folder, or a .safetensors or exported .onnx file.")
    ],
    data: Annotated[
        str | None, typer.Argument(help="Other data to measure on (default: the run's own; a file has none).")
    ] = None,
    final: Annotated[bool, typer.Option("--final", help="Open the test split; the run records it.")] = False,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="With --final: open it though training has not come to its end.")
    ] = False,
    corruptions: Annotated[
        bool, typer.Option("--corruptions", help="Measure under common corruptions at five severities as well.")
    ] = False,
    images: Annotated[
        int | None, typer.Option(help="Corrupt this many of the images (default: all that are measured).")
    ] = None,
    device: opt.Device = None,
    name: opt.Name = None,
    runs: opt.Runs = opt.RUNS,
    data_dir: opt.DataDir = None,
    verbose: opt.Verbose = False,
) -> None:
    """Measure a trained MODEL on its validation split, or on DATA."""
    shared: dict[str, Any] = {"final": final, "device": device, "data_dir": data_dir, "runs": runs, "name": name}
    shared["display"] = terminal.display()
    check_use(run)
    if data is not None:
        check_request("evaluate", data, runs, name, apart=False)  # of a run's own data nothing is written there
    if run.suffix.lower() in (".onnx", ".safetensors") and not run.is_dir():
        if data is None:
            raise ConfigError(f"{run} does not know its data: give some, as in `foveate evaluate {run} DATA`")
        if unfinished or corruptions or images is not None:
            raise ConfigError("--unfinished, --corruptions and --images are for runs: give a run folder")
        print_results(foveate.evaluate_model(run, data, **shared), verbose=verbose)
        return
    measured = foveate.evaluate(run, data, unfinished=unfinished, corruptions=corruptions, images=images, **shared)
    print_results(measured, verbose=verbose)


def summary(
    preset: opt.Preset = None,
    config: opt.ConfigFile = None,
    size: opt.Size = None,
    attention: opt.Attention = None,
    classes: Annotated[int, typer.Option(help="Number of classes.")] = 10,
    setting: opt.Setting = None,
) -> None:
    """Print the network's layers, output shapes and parameter counts."""
    from rich.console import Console
    from rich.table import Table

    settings = given_settings(setting, size=size, attention=attention)
    layers = foveate.summarize(preset=preset, config=config, num_classes=classes, **settings)
    table = Table("Layer", "Type", "Output shape", "Params", box=None, pad_edge=False, header_style="bold")
    table.columns[-1].justify = "right"
    for row in layers.rows:
        shape = ", ".join(["None", *map(str, row.output_shape)])
        table.add_row(row.name, row.kind, f"({shape})", f"{row.params:,}")
    console = Console(width=None if sys.stdout.isatty() else 100)
    console.print(table)
    print(f"Total params: {layers.total:,}")
    print(f"Trainable params: {layers.trainable:,}")
    print(f"Non-trainable params: {layers.non_trainable:,}")
    if layers.sight is not None:
        print(
            f"{layers.sight.words} That is what a position of the feature maps depends on, in images of "
            f"{layers.sight.size} px."
        )
    print("Shapes are (batch, height, width, channels), as in figure 3.1 of the paper.")
