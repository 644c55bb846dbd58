"""The commands for a network that was trained: predict, explain, export, serve; and the cache."""

import sys
from pathlib import Path
from typing import Annotated

import typer

import foveate
from foveate import terminal
from foveate.cli import options as opt
from foveate.cli.early import check_request, check_use
from foveate.cli.results import print_cache, told_of_predictions
from foveate.errors import ConfigError
from foveate.progress import untracked


def predict(
    model: Annotated[Path, typer.Argument(help="A run folder, a .safetensors or an exported .onnx file.")],
    images: Annotated[
        list[str], typer.Argument(help="Image files, folders, patterns, or - for a list on standard input.")
    ],
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a CSV table; - is the screen.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write JSON; - is the screen.")] = None,
    parquet: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a Parquet table.")] = None,
    top: Annotated[int, typer.Option(help="Show this many classes of each image.")] = 1,
    every: Annotated[bool, typer.Option("--all", help="Give the probabilities of all classes.")] = False,
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
    ray: opt.Ray = None,
    device: opt.Device = None,
) -> None:
    """Predict the classes of IMAGES. The exit code is 1 when an image cannot be read."""
    from foveate.data.listing import list_images
    from foveate.inference.tables import WRITERS
    from foveate.workflows.output import refuse_within
    from foveate.workflows.sorting import Sorter

    given = {"csv": csv, "json": json, "parquet": parquet}
    table, kind = _one_table({name: path for name, path in given.items() if path is not None})
    display = terminal.display(sys.stderr)
    if table is not None:
        refuse_within(table, *images, fix="write the table elsewhere")
    check_use(model, images)
    sorter = Sorter(sort_into, images) if sort_into else None  # refused before anything else is written
    from foveate.workflows.predict import Predicted, predict_rows

    paths, notes = list_images(images, sys.stdin)
    rows_shown = table is None and sys.stdout.isatty()  # a bar among them would be drawn into their lines
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
        track=untracked if rows_shown else display.track,
        say=display.say,
    )
    for note in notes:
        display.say(note)
    counted = Predicted()
    counting = counted.through(rows, paths, sorter)
    if table is not None:
        for _ in counting:
            pass
        display.say(f"predictions: {table}")
    else:
        WRITERS[kind or "text"](sys.stdout, columns, counting)
    display.say(told_of_predictions(counted))
    if counted.unreadable:
        raise typer.Exit(1)


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
        int | None,
        typer.Option(
            "--images", help="Validation images to measure maps on (default: 100, or 30 with a backbone)."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of that measurement's controls and intervals.")] = 0,
    device: opt.Device = None,
    name: opt.Name = None,
    runs: opt.Runs = opt.RUNS,
    data_dir: opt.DataDir = None,
) -> None:
    """Show where a network looks in IMAGES. Without images, measure whether the maps of a run mean anything."""
    display = terminal.display()
    methods = tuple(method or ())
    check_use(model, images or (), kind="any" if images else "run", of_class=of_class)
    if not images:
        if of_class is not None or name is not None:
            raise ConfigError("--class and --name are for images: give some")
        verdicts = foveate.explain_run(
            model, methods=methods, images=count, data_dir=data_dir, device=device, seed=seed, display=display
        )
        terminal.print_lines((each.words for each in verdicts), report=model / "report.html")
        return
    if count is not None or data_dir is not None:
        raise ConfigError("--images and --data-dir are for measuring a run's maps: give no images then")
    check_request("explain", None, runs, name)
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
    data_dir: opt.DataDir = None,
) -> None:
    """Write a trained MODEL as ONNX. The file must first give the same answers."""
    from foveate.workflows.output import check_new_folder

    check_use(model, kind="weights")
    check_new_folder(to)
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
    pages = {"page": done.web} if done.web.exists() else {}
    terminal.print_lines(done.certificate.lines, model=done.model, **pages, certificate=done.page)


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
        list[str] | None, typer.Option(metavar="ORIGIN", help="Site whose pages may use the server; repeatable.")
    ] = None,
    queue: Annotated[
        int | None, typer.Option(help="Images accepted at one time, under Ray a replica (default: two batches).")
    ] = None,
    decoders: Annotated[
        int | None,
        typer.Option(help="Processes that decode images (default: one a processor; under Ray one a replica)."),
    ] = None,
    ray: opt.Ray = None,
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
    device: opt.Device = None,
) -> None:
    """Serve MODEL by HTTP. People get a page, programs JSON and KServe v2."""
    check_use(model)
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
    display = terminal.display()
    for line in (f"serving {serving.name} at {serving.url} (Ctrl-C stops it)", *serving.notes):
        display.say(line)
    serving.run()


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove what lies there.")] = False,
    older_than: Annotated[
        float | None, typer.Option(metavar="DAYS", help="With --clear: only what was not used for this many days.")
    ] = None,
) -> None:
    """List decoded images and downloads that are kept, or clear them. They are made again when needed."""
    if older_than is not None and not clear:
        raise ConfigError("--older-than says what --clear removes: give both")
    if clear:
        for line in foveate.clear_cache(older_than_days=older_than or 0.0).lines:
            print(line)
    else:
        print_cache(foveate.list_cache())


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
