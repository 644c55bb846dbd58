import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.commands import Outcome

from foveate.cli import main

TINY = [
    "--preset",
    "small",
    "--set",
    "stages=[{filters: 4, kernels: [3], pool: 2}, {filters: 6, kernels: [3], pool: 3}]",
    "--set",
    "hidden=8",
]


@pytest.fixture(autouse=True)
def plots(blank_plots: None) -> None:
    """No command of these tests draws, unless a test asks for `drawn_plots`."""


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


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `trained` keeps its runs."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def trained(
    foveate: Callable[..., Outcome], photographs: Callable[..., Path], tiny: list[str], tmp_path: Path, kept: Path
) -> Callable[..., Path]:
    """Gives a test a run of its own on `each` photographs of a class; runs that are alike are trained once."""

    def train(name: str, each: int, *settings: object) -> Path:
        data, run = photographs(each=each), tmp_path / "runs" / "train" / name
        before = kept / "-".join(map(str, (name, each, *settings)))
        if before.exists():
            shutil.copytree(before, run)
            record = json.loads((run / "run.json").read_text())
            (run / "run.json").write_text(json.dumps({**record, "dataset": str(data)}))
        else:
            done = foveate("train", data, "--name", name, *tiny, *settings)
            assert done.status == 0, done.err
            shutil.copytree(run, before)
        return run

    return train


@pytest.fixture
def tiny() -> list[str]:
    """Flags of a network that trains in a moment."""
    return TINY
