"""The command line: one command per verb."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

import foveate
from foveate import terminal
from foveate.config import DEFAULT_PRESET, AttentionKind, preset_names, setting_value
from foveate.errors import ConfigError, FoveateError, Interrupted

__all__ = ["app", "main"]

INTERRUPTED = 130
"""What shells expect of a command that Ctrl-C ended."""

app = typer.Typer(
    name="foveate",
    help="Attention in small CNNs for image classification: train, measure and report, honestly.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

Preset = Annotated[
    str | None,
    typer.Option(help=f"Settings to start from: {', '.join(preset_names())} (default: {DEFAULT_PRESET})."),
]
ConfigFile = Annotated[
    Path | None, typer.Option(help="YAML file of settings, over the preset and below the flags.")
]
Setting = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other setting; repeatable.")
]
Size = Annotated[int | None, typer.Option(help="Side of the network's input in pixels, 16 to 256.")]
Attention = Annotated[str | None, typer.Option(help=f"Kind of attention: {', '.join(get_args(AttentionKind))}.")]
DataDir = Annotated[
    Path | None, typer.Option(help="Where cifar10 lies (else $FOVEATE_DATA, the cache, a download).")
]
Runs = Annotated[Path, typer.Option(help="Folder that holds the run folders.")]
Name = Annotated[str | None, typer.Option(help="Name of the run folder.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Workers = Annotated[
    int | None,
    typer.Option(help="Jobs side by side (default: 1; by Ray, all there is room for; 0: in this process)."),
]
Ray = Annotated[str | None, typer.Option(metavar="local|HOST:PORT", help="Run by Ray, here or on a cluster.")]
Gpus = Annotated[
    float | None, typer.Option(help="GPUs that a job takes of Ray's; a fraction shares one (default: 1).")
]
JobThreads = Annotated[
    int | None, typer.Option("--threads", help="CPU threads of a job (default: shared among the workers).")
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print every metric, not the main ones alone.")]
HangLimit = Annotated[
    float | None, typer.Option(help="Seconds without a step after which a job counts as hanging.")
]


@app.callback(invoke_without_command=True)
def _foveate(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(f"foveate {foveate.__version__}")
        raise typer.Exit


@app.command()
def check(
    data: Annotated[str, typer.Argument(help="digits, cifar10, or a folder, CSV, Parquet or .npz file.")],
    labels: Annotated[
        bool,
        typer.Option("--labels", help="Doubt labels too, by networks that never saw the image (trains three)."),
    ] = False,
    augment: Annotated[
        bool, typer.Option("--augment", help="Draw a sheet of what each family of augmentation does.")
    ] = False,
    preset: Preset = None,
    size: Size = None,
    device: Device = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    setting: Setting = None,
    name: Name = None,
    runs: Runs = Path("runs"),
    data_dir: DataDir = None,
) -> None:
    """Find what is wrong with DATA: exit code 1 when there is an error."""
    settings = _settings(setting, size=size, device=device, threads=threads)
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
    terminal.print_check(checked)
    if checked.has_errors:
        raise typer.Exit(1)


@app.command()
def train(
    data: Annotated[
        str | None, typer.Argument(help="digits, cifar10, or a folder, CSV, Parquet or .npz file.")
    ] = None,
    preset: Preset = None,
    config: ConfigFile = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images in a training step.")] = None,
    size: Size = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, order and augmentation.")] = None,
    attention: Attention = None,
    device: Device = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    allow_bad: Annotated[
        bool, typer.Option("--allow-bad", help="Train however many images are unreadable.")
    ] = False,
    setting: Setting = None,
    name: Name = None,
    runs: Runs = Path("runs"),
    data_dir: DataDir = None,
    final: Annotated[
        bool, typer.Option("--final", help="Train on train + validation, then open the test split once.")
    ] = False,
    resume: Annotated[
        Path | None, typer.Option(help="Run folder to take up where it stopped; DATA only if it was moved.")
    ] = None,
    study: Annotated[
        Path | None, typer.Option("--from", help="Study whose winner to train, on its data, as with --final.")
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Train on DATA, measure on its validation split, and write a report."""
    settings = _settings(
        setting,
        epochs=epochs,
        batch=batch,
        size=size,
        lr=lr,
        seed=seed,
        attention=attention,
        device=device,
        threads=threads,
        max_bad=1.0 if allow_bad else None,
    )
    if resume is not None and (preset or config or name or final or settings.keys() - {"device", "threads"}):
        raise ConfigError(
            "--resume takes every setting but --device and --threads from the run: "
            f"`foveate train --resume {resume}`"
        )
    if study is not None and (data or preset or config or resume or data_dir):
        raise ConfigError(f"--from takes data and settings from the study: `foveate train --from {study}`")
    if resume is None and study is None and data is None:
        raise ConfigError("nothing to train on: name a data set, as in `foveate train digits`")
    with _stoppable():
        if resume is not None:
            run = foveate.resume(resume, data, data_dir=data_dir, display=terminal.display(), **settings)
        elif study is not None:
            run = foveate.train_best(study, runs=runs, name=name, display=terminal.display(), **settings)
        else:
            run = foveate.train(
                data or "",
                preset=preset,
                config=config,
                data_dir=data_dir,
                runs=runs,
                name=name,
                final=final,
                display=terminal.display(),
                **settings,
            )
    terminal.print_results(run, verbose=verbose)


@app.command()
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
    device: Device = None,
    name: Name = None,
    runs: Runs = Path("runs"),
    data_dir: DataDir = None,
    verbose: Verbose = False,
) -> None:
    """Measure a trained MODEL on its validation split, or on DATA."""
    if run.suffix.lower() in (".onnx", ".safetensors") and not run.is_dir():
        if data is None:
            raise ConfigError(f"{run} does not know its data: give some, as in `foveate evaluate {run} DATA`")
        if unfinished or corruptions or images is not None:
            raise ConfigError("--unfinished, --corruptions and --images are for runs: give a run folder")
        file = foveate.evaluate_model(
            run,
            data,
            final=final,
            device=device,
            data_dir=data_dir,
            runs=runs,
            name=name,
            display=terminal.display(),
        )
        terminal.print_results(file, verbose=verbose)
        return
    measured = foveate.evaluate(
        run,
        data,
        final=final,
        unfinished=unfinished,
        corruptions=corruptions,
        images=images,
        device=device,
        data_dir=data_dir,
        runs=runs,
        name=name,
        display=terminal.display(),
    )
    terminal.print_results(measured, verbose=verbose)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A run folder, a .safetensors or an exported .onnx file.")],
    images: Annotated[
        list[str],
        typer.Argument(help="Image files, folders, patterns, or - for a list on standard input."),
    ],
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a CSV table; - is the screen.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write JSON; - is the screen.")] = None,
    parquet: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a Parquet table.")] = None,
    top: Annotated[int, typer.Option(help="Show this many classes of each image.")] = 1,
    every: Annotated[bool, typer.Option("--all", help="Write the probabilities of all classes.")] = False,
    coverage: Annotated[
        float | None,
        typer.Option(help="Give sets of classes that hold the true class of such a share of images, as 0.95."),
    ] = None,
    min_probability: Annotated[
        float, typer.Option(metavar="P", help="Below this probability the label is `unsure`.")
    ] = 0.0,
    sort_into: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Copy the images into a folder for each label.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="With a FILE: processes that each predict a part of the images.")
    ] = None,
    ray: Ray = None,
    device: Device = None,
) -> None:
    """Predict the classes of IMAGES: exit code 1 when an image cannot be read."""
    from foveate.data.listing import list_images
    from foveate.inference.tables import WRITERS
    from foveate.workflows.predict import Predicted, Sorter, predict_rows

    given = {"csv": csv, "json": json, "parquet": parquet}
    table, kind = _one_table({name: path for name, path in given.items() if path is not None})
    display = terminal.message_display()
    paths, notes = list_images(images, sys.stdin)
    columns, rows = predict_rows(
        model,
        paths,
        top=top,
        every=every,
        min_probability=min_probability,
        coverage=coverage,
        device=device,
        table=table,
        workers=workers,
        ray=ray,
        track=display.track,
    )
    sorter = Sorter(sort_into, images) if sort_into else None
    for note in notes:
        display.say(note)
    counted = Predicted()
    counting = counted.through(rows, paths, sorter)
    if table is not None:
        for _ in counting:
            pass
        display.say(f"predictions: {table}")
    elif kind:
        WRITERS[kind](sys.stdout, columns, counting)
    else:
        terminal.print_predictions(columns, counting)
    display.say(terminal.told_of_predictions(counted))
    if counted.unreadable:
        raise typer.Exit(1)


@app.command()
def explain(
    model: Annotated[Path, typer.Argument(help="A run folder, a .safetensors or an exported .onnx file.")],
    images: Annotated[
        list[str] | None,
        typer.Argument(help="Image files, folders, patterns, or -; none: measure what a run's maps are worth."),
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="attention, gradcam or occlusion; repeatable (default: all).")
    ] = None,
    of_class: Annotated[
        str | None, typer.Option("--class", help="Show what speaks for this class (default: the predicted one).")
    ] = None,
    count: Annotated[
        int | None, typer.Option("--images", help="Validation images to measure maps on (default: 100).")
    ] = None,
    device: Device = None,
    name: Name = None,
    runs: Runs = Path("runs"),
    data_dir: DataDir = None,
) -> None:
    """Show where a network looks in IMAGES; without images, measure on a run whether its maps mean anything."""
    display = terminal.display()
    methods = tuple(method or ())
    if not images:
        if of_class is not None or name is not None:
            raise ConfigError("--class and --name are for images: give some")
        given = {} if count is None else {"images": count}
        verdicts = foveate.explain_run(
            model, methods=methods, data_dir=data_dir, device=device, display=display, **given
        )
        terminal.print_verdicts(verdicts, model)
        return
    if count is not None or data_dir is not None:
        raise ConfigError("--images and --data-dir are for measuring a run's maps: give no images then")
    explanation = foveate.explain(
        model,
        images,
        listed=sys.stdin if "-" in images else (),
        methods=methods,
        of_class=of_class,
        device=device,
        runs=runs,
        name=name,
        display=display,
    )
    for path, reason in explanation.unreadable.items():
        display.say(f"cannot be read: {path} ({reason})")
    display.say(f"page: {explanation.page}")
    if explanation.unreadable:
        raise typer.Exit(1)


@app.command()
def tune(
    data: Annotated[
        str | None, typer.Argument(help="digits, cifar10, or a folder, CSV, Parquet or .npz file.")
    ] = None,
    space: Annotated[
        str | None, typer.Option(help="What is searched: paper, default (the default), or a YAML file.")
    ] = None,
    knob: Annotated[
        list[str] | None, typer.Option(help="Search this knob of the space; repeatable (default: all).")
    ] = None,
    max_epochs: Annotated[
        int | None, typer.Option(help="R: epochs of the trials that go all the way (default: 9).")
    ] = None,
    factor: Annotated[
        int | None, typer.Option(help="η: a rung keeps one trial in this many (default: 3).")
    ] = None,
    formula: Annotated[
        str | None, typer.Option(help="Sizes of the brackets: li2018 (the default) or kerastuner.")
    ] = None,
    algorithm: Annotated[
        str | None, typer.Option(help="hyperband (the default), or asha, where no trial waits.")
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Trials of asha (default: as many as Hyperband has).")] = None,
    iterations: Annotated[int | None, typer.Option(help="Times that the brackets are gone through.")] = None,
    semantics: Annotated[
        str | None, typer.Option(help="foveate (the default); or kerastuner: as the paper's library does it.")
    ] = None,
    sampler: Annotated[str | None, typer.Option(help="random (the default), or tpe.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the trials' settings.")] = None,
    workers: Workers = None,
    ray: Ray = None,
    gpus: Gpus = None,
    threads: JobThreads = None,
    subset: Annotated[
        int | None, typer.Option(help="Images to search with, training and validation together (default: all).")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(help="Folder or URL (of fsspec) for the checkpoints (default: the study's folder)."),
    ] = None,
    hang_limit: HangLimit = None,
    size: Size = None,
    device: Device = None,
    setting: Setting = None,
    name: Name = None,
    runs: Runs = Path("runs"),
    data_dir: DataDir = None,
    resume: Annotated[Path | None, typer.Option(help="Study to take up where it stopped.")] = None,
) -> None:
    """Search settings on DATA by Hyperband; the test split stays closed."""
    plan: dict[str, Any] = {
        "max_epochs": max_epochs,
        "factor": factor,
        "formula": formula,
        "algorithm": algorithm,
        "trials": trials,
        "iterations": iterations,
        "semantics": semantics,
        "sampler": sampler,
        "seed": seed,
        "storage": storage,
        "hang_limit_s": hang_limit,
    }
    given = {key: value for key, value in plan.items() if value is not None}
    settings = _settings(setting, size=size, device=device, threads=threads)
    if resume is not None and (data or given or settings or space or knob or subset or name or data_dir):
        raise ConfigError(f"--resume takes every setting from the study: `foveate tune --resume {resume}`")
    if resume is None and data is None:
        raise ConfigError("nothing to tune on: name a data set, as in `foveate tune digits`")
    display = terminal.study_display()
    with _stoppable():
        if resume is not None:
            done = foveate.resume_study(resume, workers=workers, ray=ray, gpus=gpus, display=display)
        else:
            done = foveate.tune(
                data or "",
                space=space or "default",
                knobs=tuple(knob or ()),
                workers=workers,
                ray=ray,
                gpus=gpus,
                subset=subset,
                data_dir=data_dir,
                runs=runs,
                name=name,
                display=display,
                settings=settings,
                **given,
            )
    terminal.print_study(done)


@app.command()
def compare(
    data: Annotated[
        str | None, typer.Argument(help="digits, cifar10, or a folder, CSV, Parquet or .npz file.")
    ] = None,
    arm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PRESET[,KEY=VALUE…]", help="One side; repeatable. Of one, the other is it without attention."
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Runs of every arm (default: 5; of a plan 4).")] = None,
    first_seed: Annotated[int | None, typer.Option(help="The first seed (default: 0).")] = None,
    subset: Annotated[
        list[int] | None,
        typer.Option(help="Train on this many images; repeatable, for a curve of data size (default: all)."),
    ] = None,
    delta: Annotated[
        float | None, typer.Option(help="Smallest difference that matters, in points of accuracy (default: 0.5).")
    ] = None,
    alpha: Annotated[float | None, typer.Option(help="Over all pairs together (default: 0.05).")] = None,
    controls: Annotated[
        bool, typer.Option("--controls/--no-controls", help="Controls matched in parameters and in FLOPs.")
    ] = True,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say by a pilot with seeds of its own how many seeds it takes.")
    ] = False,
    workers: Workers = None,
    ray: Ray = None,
    gpus: Gpus = None,
    threads: JobThreads = None,
    hang_limit: HangLimit = None,
    size: Size = None,
    device: Device = None,
    setting: Setting = None,
    name: Name = None,
    runs: Runs = Path("runs"),
    data_dir: DataDir = None,
    final: Annotated[
        bool, typer.Option("--final", help="Open the test split after every run has ended, and judge by it.")
    ] = False,
    resume: Annotated[Path | None, typer.Option(help="Comparison to take up where it stopped.")] = None,
) -> None:
    """Train arms with the same seeds on DATA and say whether they differ."""
    chosen: dict[str, Any] = {
        "seeds": seeds,
        "first_seed": first_seed,
        "subsets": tuple(subset) if subset else None,
        "delta": delta / 100 if delta is not None else None,
        "alpha": alpha,
        "hang_limit_s": hang_limit,
    }
    given = {key: value for key, value in chosen.items() if value is not None}
    settings = _settings(setting, size=size, device=device, threads=threads)
    if delta is not None and not 0 < delta < 100:
        raise ConfigError(f"--delta {delta:g}: give points of accuracy, above 0 and below 100")
    if resume is not None and (
        data or arm or seeds or given or settings or name or data_dir or plan or not controls
    ):
        raise ConfigError(f"--resume takes every setting from the comparison: `foveate compare --resume {resume}`")
    if resume is None and data is None:
        raise ConfigError("nothing to compare on: name a data set, as in `foveate compare digits --arm minute`")
    if plan and (final or first_seed is not None):
        raise ConfigError(
            "--plan has seeds of its own and opens no test split: give neither --final nor --first-seed"
        )
    display = terminal.comparison_display()
    with _stoppable():
        if resume is not None:
            done = foveate.resume_comparison(
                resume, final=final, workers=workers, ray=ray, gpus=gpus, display=display
            )
        else:
            if final:
                given["final"] = True
            make = foveate.plan_comparison if plan else foveate.compare
            done = make(
                data or "",
                tuple(arm or ()),
                controls=controls,
                workers=workers,
                ray=ray,
                gpus=gpus,
                data_dir=data_dir,
                runs=runs,
                name=name,
                settings=settings,
                display=display,
                **given,
            )
    if done.config.pilot:
        terminal.print_plan(done)
    else:
        terminal.print_comparison(done)


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="Run folder made by `foveate train`, or a .safetensors file.")],
    to: Annotated[Path, typer.Option("--to", help="Folder to make, which holds the files.")],
    int8: Annotated[
        bool | None,
        typer.Option("--int8/--no-int8", help="Write a file in 8-bit numbers as well (default: with --web)."),
    ] = None,
    bundle: Annotated[
        bool, typer.Option("--bundle", help="Add what runs the file without Foveate and torch.")
    ] = False,
    web: Annotated[bool, typer.Option("--web", help="Add a page that works offline in a browser.")] = False,
    web_assets: Annotated[
        Path | None, typer.Option(help="Folder that holds onnxruntime-web (default: where `make web` puts it).")
    ] = None,
    examples: Annotated[
        int, typer.Option(help="Put this many of the images of the proof into the page, to try.")
    ] = 0,
    data: Annotated[
        str | None, typer.Option(help="Images to prove the file on (default: the run's own validation images).")
    ] = None,
    unproved: Annotated[
        bool, typer.Option("--unproved", help="Leave the proof out; the file and its certificate say so.")
    ] = False,
    licence: Annotated[str | None, typer.Option(help="Licence of the model, such as apache-2.0.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Write a trained MODEL as ONNX, once it has proved that it gives the same answers."""
    done = foveate.export(
        model,
        to,
        int8=int8,
        bundle=bundle,
        web=web,
        web_assets=web_assets,
        examples=examples,
        data=data,
        data_dir=data_dir,
        unproved=unproved,
        licence=licence,
        display=terminal.display(),
    )
    terminal.print_export(done)


@app.command()
def serve(
    model: Annotated[Path, typer.Argument(help="Run folder, .safetensors file or exported .onnx file.")],
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond this machine only with --token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0: any that is free.")] = 8000,
    name: Annotated[str | None, typer.Option(help="Name of the model in addresses (default: its file's).")] = None,
    token: Annotated[
        str | None, typer.Option(help="Requests must have it (better given as $FOVEATE_TOKEN).")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Name that the server goes by; repeatable.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Site whose pages may use the server; repeatable."),
    ] = None,
    queue: Annotated[
        int | None, typer.Option(help="Images accepted at one time, under Ray a replica (default: two batches).")
    ] = None,
    decoders: Annotated[
        int | None,
        typer.Option(help="Processes that decode images (default: one a processor; under Ray one a replica)."),
    ] = None,
    ray: Ray = None,
    replicas: Annotated[
        str | None,
        typer.Option(
            metavar="N|MIN-MAX",
            help="Processes of Ray's that do the work; from MIN to MAX, as the load asks (default: 1).",
        ),
    ] = None,
    gpus: Annotated[
        float | None, typer.Option(help="GPUs that a replica takes of Ray's; a fraction shares one.")
    ] = None,
    device: Device = None,
) -> None:
    """Serve MODEL by HTTP: a page for people, JSON and KServe v2 for programs."""
    serving = foveate.serve(
        model,
        host=host,
        port=port,
        name=name,
        token=token,
        allow_hosts=allow_host or (),
        allow_origins=allow_origin or (),
        queue=queue,
        decoders=decoders,
        device=device,
        ray=ray,
        replicas=replicas,
        gpus=gpus,
    )
    terminal.print_serving(serving)
    serving.run()


@app.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove what lies there.")] = False,
    older_than: Annotated[
        float | None, typer.Option(metavar="DAYS", help="With --clear: only what was not used for so long.")
    ] = None,
) -> None:
    """List the decoded images and downloads that are kept, or clear them: they are made again when needed."""
    if older_than is not None and not clear:
        raise ConfigError("--older-than says what --clear removes: give both")
    if clear:
        terminal.print_cleared(foveate.clear_cache(older_than_days=older_than or 0.0))
    else:
        terminal.print_cache(foveate.list_cache())


@app.command()
def summary(
    preset: Preset = None,
    config: ConfigFile = None,
    size: Size = None,
    attention: Attention = None,
    classes: Annotated[int, typer.Option(help="Number of classes.")] = 10,
    setting: Setting = None,
) -> None:
    """Print the network's layers, output shapes and parameter counts."""
    from rich.console import Console
    from rich.table import Table

    settings = _settings(setting, size=size, attention=attention)
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
    print("Shapes are (batch, height, width, channels), as in figure 3.1 of the paper.")


def main() -> None:
    """Run the command line and exit: 0 done, 1 the work failed, 2 the request was wrong, 130 interrupted."""
    # OpenMP's threads spin while they wait for each other: where a neighbour has the core, that costs a factor
    # of two; where none has, sleeping costs nothing that was measured. Read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        status = app(prog_name="foveate", standalone_mode=False)
    except FoveateError as error:
        status = _complain(str(error), error.exit_code)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EPIPE):
            raise
        # What is lost is what was to be shown: the run folder is written by itself, and whole.
        status = _complain(f"cannot write the output: {error.strerror}; what was done is in the run folder", 2)
    except typer.TyperException as error:
        told = error.format_message() if isinstance(error, typer.BadParameter) else str(error)
        status = _complain(f"{' '.join(told.split())} (`foveate --help` lists the commands and options)", 2)
    sys.exit(status if isinstance(status, int) else 0)


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """After Ctrl-C say how to go on, where typer would end silently."""
    try:
        yield
    except Interrupted as stopped:
        raise typer.Exit(_complain(f"stopped; continue with: {stopped}", INTERRUPTED)) from stopped


def _one_table(given: dict[str, Path]) -> tuple[Path | None, str]:
    """The file that a table is written to, None: the screen; and its format, empty where none was asked for."""
    if len(given) > 1:
        raise ConfigError(f"give one of --{' and --'.join(given)}")
    for kind, path in given.items():
        if str(path) == "-" and kind != "parquet":
            return None, kind
        if path.suffix.lower() != f".{kind}":
            raise ConfigError(f"--{kind} {path}: give a file whose name ends in .{kind}")
        return path, kind
    return None, ""


def _settings(given: list[str] | None, **flags: Any) -> dict[str, Any]:
    """The flags that were given, and over them `["lr=0.1", "patience=null"]`, whose values are read as YAML."""
    settings = {name: value for name, value in flags.items() if value is not None}
    for item in given or ():
        key, equals, text = item.partition("=")
        if not equals:
            raise ConfigError(f"--set {item}: write it as --set KEY=VALUE")
        settings[key] = setting_value(key, text)
    return settings


def _complain(line: str, status: int) -> int:
    print(f"foveate: {line}", file=sys.stderr)
    return status
