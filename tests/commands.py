"""The command line: in this process, and as one of its own where a test is about processes; both draw no plots."""

import contextlib
import io
import runpy
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock


@dataclass(frozen=True)
class Outcome:
    """What a command gave."""

    status: int
    out: str
    err: str


@contextlib.contextmanager
def undrawn() -> Iterator[None]:
    """Empty plots: to draw them takes longer than a small run; tests/report draws each."""
    from matplotlib.figure import Figure
    from PIL import Image

    def savefig(figure: Figure, file: Any, **named: Any) -> None:
        if named["format"] == "svg":
            file.write('<svg xmlns="http://www.w3.org/2000/svg"/>')
        else:
            Image.new("RGB", (1, 1)).save(file, named["format"])

    with mock.patch.object(Figure, "savefig", savefig), mock.patch("foveate.report.plots._lay_out"):
        yield


def command(*arguments: object) -> list[str]:
    """A command in a process of its own, to be started in any folder."""
    return [sys.executable, "-P", __file__, *map(str, arguments)]


def run() -> None:
    """The command of this process, which `command` started."""
    from foveate.cli import main

    with undrawn():
        main()


def run_script(path: Path) -> None:
    """A script as it is run, but that what it starts and forks draws nothing."""
    with undrawn():
        runpy.run_path(str(path), run_name="__main__")


def call(folder: Path, *arguments: object) -> Outcome:
    """Run a command in this process and in a folder."""
    import pytest

    out, err = io.StringIO(), io.StringIO()
    words = mock.patch.object(sys, "argv", ["foveate", *map(str, arguments)])
    told = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
    with contextlib.chdir(folder), words, told[0], told[1], pytest.raises(SystemExit) as ended:
        run()
    assert isinstance(ended.value.code, int)
    return Outcome(ended.value.code, out.getvalue(), err.getvalue())


def finish(folder: Path, *arguments: object) -> str:
    """What a command printed that ended well in this process."""
    done = call(folder, *arguments)
    assert done.status == 0, done.err
    return done.out


if __name__ == "__main__":
    run()
