"""Options that several commands have, and what becomes of them."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from foveate import terminal
from foveate.arguments import at_home
from foveate.config import DEFAULT_PRESET, preset_names, setting_value
from foveate.errors import ConfigError, Interrupted
from foveate.settings import EARLIER_NAMES, AttentionKind

INTERRUPTED = 130
"""What shells expect of a command that Ctrl-C ended."""

Data = Annotated[str | None, typer.Argument(help="digits, cue, cifar10, or a folder, CSV, Parquet or .npz file.")]

Preset = Annotated[
    str | None,
    typer.Option(
        help=f"Settings to start from: {', '.join(preset_names())} (default: photos for photographs, else "
        f"{DEFAULT_PRESET})."
    ),
]

ConfigFile = Annotated[
    Path | None, typer.Option(help="YAML file of settings, over the preset and below the flags.")
]

Setting = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other setting; repeatable.")
]

Size = Annotated[int | None, typer.Option(help="Side of the network's input in pixels, 16 to 384.")]

Attention = Annotated[str | None, typer.Option(help=f"Kind of attention: {', '.join(get_args(AttentionKind))}.")]

DataDir = Annotated[
    Path | None, typer.Option(help="Where cifar10 lies (else $FOVEATE_DATA, the cache, a download).")
]

RUNS = Path("runs")
"""Where runs go, unless `--runs` names another folder."""
Runs = Annotated[Path, typer.Option(help="Folder that holds the run folders.")]

Name = Annotated[str | None, typer.Option(help="Name of the run folder.")]

Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]

Workers = Annotated[
    int | None,
    typer.Option(help="Jobs side by side (default: 1; by Ray, all there is room for; 0: in this process)."),
]

Ray = Annotated[str | None, typer.Option(metavar="local|HOST:PORT", help="Run by Ray, here or on a cluster.")]

Gpus = Annotated[
    float | None,
    typer.Option(help="GPUs for each job, with --ray; with a fraction several jobs share one (default: 1)."),
]

JobThreads = Annotated[
    int | None, typer.Option("--threads", help="CPU threads of a job (default: shared among the workers).")
]

Devices = Annotated[
    int | None,
    typer.Option(metavar="N", help="Number of processes that train together: one for each GPU, or on CPUs."),
]

Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print every metric, not the main ones alone.")]

HangLimit = Annotated[
    float | None, typer.Option(help="Seconds without a step after which a job counts as hanging.")
]


def given_settings(given: list[str] | None, **flags: Any) -> dict[str, Any]:
    """The flags that were given, and with them `["lr=0.1", "patience=null"]`, whose values are read as YAML."""
    settings = {name: value for name, value in flags.items() if value is not None}
    seen = set(settings)
    for item in given or ():
        key, equals, text = item.partition("=")
        if not equals:
            raise ConfigError(f"--set {item}: write it as --set KEY=VALUE")
        settings[key] = setting_value(key, text)
        leaf = key.rpartition(".")[2]
        if leaf in seen:
            raise ConfigError(f"--set {item}: {leaf} is set twice: give it once")
        seen.add(leaf)
        if leaf in EARLIER_NAMES:
            terminal.display(sys.stderr).say(
                f"{leaf} is named {EARLIER_NAMES[leaf]} now; the earlier name still works"
            )
    return settings


def paths_at_home(command: Callable[..., None]) -> Callable[..., None]:
    """`command`, with `~` as the home folder in every path that it is given."""

    @wraps(command)
    def expanded(**given: Any) -> None:
        command(**{name: at_home(value) if isinstance(value, Path) else value for name, value in given.items()})

    return expanded


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """After Ctrl-C say how to go on, where typer would end silently."""
    try:
        yield
    except Interrupted as stopped:
        raise typer.Exit(complain(f"stopped; continue with: {stopped}", INTERRUPTED)) from stopped


def complain(line: str, status: int) -> int:
    """Print a line on standard error; give back the exit code."""
    terminal.PlainDisplay(sys.stderr).say(f"foveate: {line}")
    return status
