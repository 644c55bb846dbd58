"""The command line: one command per verb. The only place that prints."""

import errno
import os
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
import yaml

from foveate.config import DEFAULT_PRESET, preset_names
from foveate.errors import ConfigError, FoveateError, Interrupted
from foveate.progress import Track, untracked

if TYPE_CHECKING:
    from foveate.training.loop import EpochResult
    from foveate.workflows import Run

__all__ = ["app", "main"]

T = TypeVar("T")
_BEGAN = time.monotonic()
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
Attention = Annotated[str | None, typer.Option(help="Kind of attention: none, luong_row, luong, luong_scaled.")]
DataDir = Annotated[
    Path | None, typer.Option(help="Where cifar10 lies (else $FOVEATE_DATA, the cache, a download).")
]
Runs = Annotated[Path, typer.Option(help="Folder that holds the run folders.")]
Name = Annotated[str | None, typer.Option(help="Name of the run folder.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]


@app.callback(invoke_without_command=True)
def _foveate(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from importlib.metadata import version as installed

        print(f"foveate {installed('foveate')}")
        raise typer.Exit


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
    from foveate import workflows

    if resume is not None and (preset or config or name or final or settings):
        raise ConfigError(f"--resume takes every setting from the run: `foveate train --resume {resume}`")
    if resume is None and data is None:
        raise ConfigError("nothing to train on: name a data set, as in `foveate train digits`")
    try:
        if resume is not None:
            run = workflows.resume(resume, data, data_dir=data_dir, display=_display())
        else:
            run = workflows.train(
                data or "",
                preset=preset,
                config=config,
                data_dir=data_dir,
                runs=runs,
                name=name,
                final=final,
                display=_display(),
                **settings,
            )
    except Interrupted as stopped:  # typer would end silently
        raise typer.Exit(_complain(f"stopped and saved; continue with: {stopped}", INTERRUPTED)) from stopped
    _print_results(run)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder made by `foveate train`.")],
    data: Annotated[str | None, typer.Argument(help="Other data to measure on (default: the run's own).")] = None,
    final: Annotated[bool, typer.Option("--final", help="Open the test split; the run records it.")] = False,
    device: Device = None,
    name: Name = None,
    runs: Runs = Path("runs"),
    data_dir: DataDir = None,
) -> None:
    """Measure a trained RUN on its validation split, or on DATA."""
    from foveate import workflows

    measured = workflows.evaluate(
        run, data, final=final, device=device, data_dir=data_dir, runs=runs, name=name, display=_display()
    )
    _print_results(measured)


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

    from foveate import workflows

    settings = _settings(setting, size=size, attention=attention)
    layers = workflows.summarize(preset=preset, config=config, num_classes=classes, **settings)
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
        status = _complain(f"{' '.join(told.split())} (`foveate --help` lists what there is)", 2)
    sys.exit(status if isinstance(status, int) else 0)


class Lines:
    """Follows the work by plain lines, for logs and pipes: no bar, one line an epoch."""

    track: "Track" = staticmethod(untracked)

    def say(self, line: str) -> None:
        """Print a line of its own."""
        print(line, flush=True)

    def epoch(self, result: "EpochResult", *, epochs: int, best: bool) -> None:
        """Print what the epoch gave and how long the rest will take."""
        parts = [
            f"epoch {result.epoch:>{len(str(epochs))}}/{epochs}",
            f"loss {result.train_loss:.4f}",
            f"accuracy {result.train_accuracy:6.2%}",
        ]
        if result.val_loss is not None and result.val_accuracy is not None:
            parts += [f"val loss {result.val_loss:.4f}", f"val accuracy {result.val_accuracy:6.2%}"]
        left = timedelta(seconds=round((epochs - result.epoch) * result.seconds))
        parts += [f"{result.images_per_s:,.0f} images/s", f"{left} left"]
        self.say("  ".join(parts) + ("  best" if best else ""))


class Bars(Lines):
    """Follows the work by a bar with images/s and the time left, and prints each epoch's line above it."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(highlight=False)
        self.track = self._track

    def say(self, line: str) -> None:
        """Print a line of its own."""
        self.console.print(line, markup=False, soft_wrap=True)

    def _track(self, items: Iterable[T], *, total: int, label: str, images_each: int = 1) -> Iterator[T]:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(label, total=total, rate="")
            began = time.monotonic()
            for done, item in enumerate(items, start=1):
                yield item
                rate = done * images_each / (time.monotonic() - began)
                progress.update(task, completed=done, rate=f"{rate:,.0f} images/s" if rate else "")


def _display() -> Lines:
    return Bars() if sys.stdout.isatty() else Lines()


def _settings(given: list[str] | None, **flags: Any) -> dict[str, Any]:
    """The flags that were given, and over them `["lr=0.1", "patience=null"]`, whose values are read as YAML."""
    settings = {name: value for name, value in flags.items() if value is not None}
    for item in given or ():
        key, equals, text = item.partition("=")
        if not equals:
            raise ConfigError(f"--set {item}: write it as --set KEY=VALUE")
        try:
            settings[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {item}: the value is not YAML") from error
    return settings


def _print_results(run: "Run") -> None:
    """The table of results, with 95 % intervals, and where the report lies."""
    from rich.console import Console
    from rich.table import Table

    metrics = run.metrics
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Metric")
    for split, report in metrics.items():
        table.add_column(f"{split} (n = {report['n']:,})", justify="right")
        table.add_column("95 % interval", justify="right")
    for metric in next(iter(metrics.values()))["intervals"]:
        cells = [metric.replace("_", " ")]
        for report in metrics.values():
            low, high = report["intervals"][metric]
            cells += [f"{report[metric]:.4f}", f"{low:.4f} to {high:.4f}"]
        table.add_row(*cells)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    for split, report in metrics.items():
        for name, variant in report.get("variants", {}).items():
            low, high = variant["intervals"]["accuracy"]
            print(f"{split} accuracy, {name}: {variant['accuracy']:.4f} ({low:.4f} to {high:.4f})")
        if report.get("gate") is not None:
            print(f"gate of the attention: {report['gate']:+.4f}")
    print(f"time: {time.monotonic() - _BEGAN:.1f} s in all")
    print(f"report: {run.report}")


def _complain(line: str, status: int) -> int:
    print(f"foveate: {line}", file=sys.stderr)
    return status
