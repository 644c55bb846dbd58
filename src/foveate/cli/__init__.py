"""The command line: one command per verb."""

import errno
import io
import os
import signal
import sys
from typing import Annotated, Any

import typer

import foveate
from foveate.cli.campaigns import compare, tune
from foveate.cli.options import complain, paths_at_home
from foveate.cli.training import check, evaluate, summary, train
from foveate.cli.usage import as_given, usage_told
from foveate.cli.using import cache, explain, export, predict, serve
from foveate.errors import FoveateError
from foveate.streams import GONE, Lasting, discard, open_closed

app = typer.Typer(
    name="foveate",
    help="Attention in small CNNs for image classification: train, measure and report, honestly.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback(invoke_without_command=True)
def _foveate(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    if version:
        print(f"foveate {foveate.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(2)


for command in (check, train, evaluate, predict, explain, tune, compare, export, serve, cache, summary):
    app.command()(paths_at_home(command))  # `foveate --help` lists them in this order


def main() -> None:
    """Run the command line and exit: 0 done, 1 the work failed, 2 the request was wrong, 130 interrupted."""
    open_closed()
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:  # as Ctrl-C, by which temporary files are removed
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    # OpenMP's threads spin while they wait for each other: where a neighbour has the core, that costs a factor
    # of two; where none has, sleeping costs nothing that was measured. Read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # What the terminal's encoding lacks, such as a name of an image, is shown as an escape and stops nothing.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = app(prog_name="foveate", standalone_mode=False)
        Lasting(sys.stdout).flush()  # here, where it is told that the disk is full
    except FoveateError as error:
        verbs: Any = typer.main.get_command(app)
        command = next((verbs.commands[word] for word in sys.argv[1:] if word in verbs.commands), None)
        status = complain(as_given(str(error), sys.argv[1:], command), error.exit_code)
    except OSError as error:
        # What is lost is what was to be shown: the run folder is written by itself, and whole.
        if error.errno in GONE:  # a terminal; of a pipe typer knows, and ends the command as quietly
            discard(sys.stdout)
            status = 1
        elif error.errno == errno.ENOSPC:
            status = complain(f"cannot write the output: {error.strerror}; what was done is in the run folder", 2)
        else:
            raise
    except typer.TyperException as error:
        status = complain(usage_told(error, sys.argv[1:]), 2)
    sys.exit(status if isinstance(status, int) else 0)
