import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from PIL import Image

from foveate.cli import main

TINY = [
    "--preset",
    "small",
    "--set",
    "stages=[{filters: 4, kernels: [3], pool: 2}, {filters: 6, kernels: [3], pool: 3}]",
    "--set",
    "hidden=8",
]


@dataclass(frozen=True)
class Outcome:
    """What a command gave."""

    status: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def blank_plots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw nothing, unless a test asks for `drawn_plots`: they are 95 % of what a tiny run costs."""
    if "drawn_plots" in request.fixturenames:
        return
    from matplotlib.figure import Figure

    def savefig(figure: Figure, file: Any, **named: Any) -> None:
        if named["format"] == "svg":
            file.write('<svg xmlns="http://www.w3.org/2000/svg"/>')
        else:
            Image.new("RGB", (1, 1)).save(file, named["format"])

    monkeypatch.setattr(Figure, "savefig", savefig)
    monkeypatch.setattr("foveate.report.plots._lay_out", lambda _: None)


@pytest.fixture
def drawn_plots() -> None:
    """Draw plots as they are; tests/report draws each of them too."""


@pytest.fixture
def foveate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: object
) -> Callable[..., Outcome]:
    """Runs the command line in this process, in a folder of its own."""
    monkeypatch.chdir(str(tmp_path))

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["foveate", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = capsys.readouterr()
        assert isinstance(exit_.value.code, int)
        return Outcome(exit_.value.code, captured.out, captured.err)

    return run


@pytest.fixture
def tiny() -> list[str]:
    """Flags of a network that trains in a moment."""
    return TINY
