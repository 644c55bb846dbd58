"""One training by two real processes: killed and resumed, refused, and as accurate as by one."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.commands import finish

import foveate as fv
from foveate.errors import ConfigError
from foveate.tensors import load_tensors

Foveate = Callable[..., Any]
SETTINGS = [
    "--preset", "minute", "--seed", "7", "--threads", "1", "--set", "save_every_s=0", "--set", "images_seen=2000",
    "--set", "batch=51", "--set", "micro_batch=20", "--set", "resize_until=0.4", "--set", "augmentations=[mixup]",
    "--set", "stages=[{filters: 4, kernels: [3, 3]}, {filters: 6, kernels: [3, 3, 3], dropout: 0.2}]",
]  # fmt: skip
"""Muon, mixing, dropout, batch normalisation, parts of a batch, small images first."""
FILES = ("results.csv", "metrics.json", "args.yaml")
WEIGHTS = ("weights/best.safetensors", "weights/last/state.safetensors")


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-c", "from foveate.cli import main; main()", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()  # its processes end with it
        process.communicate()


def ended_well(folder: Path, *arguments: str) -> str:
    with started(folder, *arguments) as process:
        out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")
    return out


def saved_again(run: Path, times: int) -> None:
    """Wait until the state was saved so often."""
    state, seen, deadline = run / WEIGHTS[1], set(), time.monotonic() + 120
    while len(seen) < times and time.monotonic() < deadline:
        with suppress(FileNotFoundError):
            seen.add(state.stat().st_mtime_ns)
        time.sleep(0.001)
    assert len(seen) >= times


def process_of(rank: int, parent: int) -> int:
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        if f"\0LOCAL_RANK={rank}\0" in Path(f"/proc/{child}/environ").read_text():
            return int(child)
    raise AssertionError(f"no process of rank {rank}")


def contents(run: Path) -> dict[str, bytes]:
    """All that must be the same, without the times."""
    found = {name: (run / name).read_bytes() for name in FILES}
    for name in WEIGHTS:
        tensors, meta = load_tensors(run / name)
        for row in meta.get("training", {}).get("history", []):
            del row["seconds"], row["images_per_s"]
        found[f"{name} header"] = json.dumps(meta).encode()
        found |= {f"{name} {key}": tensor.numpy().tobytes() for key, tensor in tensors.items()}
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
def test_when_one_is_killed_the_others_end_and_resumed_they_come_to_the_same_bits(tmp_path: Path) -> None:
    whole, run = tmp_path / "whole" / "runs/train/a", tmp_path / "runs/train/a"
    whole.parents[2].mkdir()
    ended_well(whole.parents[2], "train", "digits", "--name", "a", "--devices", "2", *SETTINGS)
    command = ["train", "digits", "--name", "a", "--devices", "2", *SETTINGS]
    for rank, saves in ((1, 4), (0, 9)):
        with started(tmp_path, *command) as process:
            saved_again(run, saves)
            victim, other = (process_of(each, process.pid) for each in (rank, 1 - rank))
            os.kill(victim, signal.SIGKILL)
            out, err = process.communicate(timeout=30)
        assert not Path(f"/proc/{other}").exists()
        assert process.returncode == 1
        assert "report:" not in out
        told = re.fullmatch(
            r"foveate: another process of this training has ended: continue with `foveate (.+ --devices 2)`\n", err
        )
        assert told, err
        command = told[1].split()
    ended_well(tmp_path, *command)
    once, resumed = contents(whole), contents(run)
    assert once.keys() == resumed.keys()
    assert [name for name in once if once[name] != resumed[name]] == []
    assert "resumed" not in json.loads((run / "env.json").read_text())


@pytest.mark.slow
def test_ctrl_c_saves_and_another_number_of_devices_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "runs/train/a"
    with started(tmp_path, "train", "digits", "--name", "a", "--devices", "2", *SETTINGS) as process:
        saved_again(run, 4)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "foveate: stopped; continue with: foveate train --resume runs/train/a --devices 2\n"
    out = ended_well(tmp_path, "train", "--resume", "runs/train/a")
    assert "the run was on 2 devices and goes on on 1" in out
    environment = json.loads((run / "env.json").read_text())
    assert (environment["devices"], environment["resumed"][0]["devices"]) == (2, 1)


@pytest.mark.slow
def test_two_are_as_accurate_as_one_and_torchrun_starts_them_too(tmp_path: Path) -> None:
    """With everything that is drawn. Of 287 images one is a third of a point."""
    command = ["train", "digits", "--set", "images_seen=5000", "--threads", "1", "--name"]
    finish(tmp_path, *command, "one")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "foveate"]
    done = subprocess.run([*torchrun, *command, "two"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report: runs/train/two/report.html") == 1
    one, two = (
        json.loads((tmp_path / "runs/train" / name / "metrics.json").read_text())["validation"]["accuracy"]
        for name in ("one", "two")
    )
    assert one > 0.9
    assert abs(one - two) < 0.05
    page = (tmp_path / "runs/train/two/report.html").read_text()
    assert re.search(r"<code>devices</code></th><td[^>]*>2</td>", page)


class TestRefused:
    """In a process that would be the first of two, before it looks for the other."""

    @pytest.fixture(autouse=True)
    def first_of_two(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setenv("MASTER_ADDR", "localhost")

    @pytest.mark.parametrize(
        ("arguments", "line"),
        [
            (
                ["--folds", "3"],
                "devices and folds: folds are trained side by side by --workers: leave --devices out",
            ),
            (
                ["--time", "5m"],
                "devices and time: several devices are not measured first: give epochs or images_seen",
            ),
            (["--set", "batch=1"], "2 devices share steps of 1 images: give a larger batch or fewer devices"),
            (["--devices", "2"], "--devices starts its processes itself: leave it out under torchrun"),
            (["--preset", "photos"], "preset photos looks at each image once, which several devices do not share"),
            (["--preset", "photos-head"], "preset photos-head looks at each image once"),
            (["--preset", "photos-tuned"], "regression_first: a regression is fitted by one device"),
        ],
    )
    def test_what_several_devices_cannot_share(self, foveate: Foveate, arguments: list[str], line: str) -> None:
        done = foveate("train", "digits", *arguments)
        assert done.status == 2
        assert done.err.startswith(f"foveate: {line}")
        assert done.err.count("\n") == 1
        assert not Path("runs").exists()

    def test_the_winner_of_a_study(self, foveate: Foveate) -> None:
        done = foveate("train", "--from", "runs/tune/a")
        assert (done.status, done.err.count("\n")) == (2, 1)
        assert "--from trains on one device" in done.err


@pytest.mark.parametrize("number", ["0", "-1"])
def test_a_number_of_devices_that_is_none(foveate: Foveate, number: str) -> None:
    done = foveate("train", "digits", "--devices", number)
    assert (done.status, done.err) == (2, f"foveate: --devices {number}: give 1 at least\n")


def test_an_error_of_all_of_them_is_one_line(tmp_path: Path) -> None:
    with started(tmp_path, "train", "digits", "--devices", "2", "--set", "bach=3") as process:
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("foveate: ")


@pytest.mark.slow
def test_python_starts_them_too_and_gets_the_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    given: dict[str, Any] = {"preset": "minute", "images_seen": 500, "threads": 1, "seed": 7}
    run = fv.train("digits", runs=tmp_path, devices=2, **given)
    assert capfd.readouterr() == ("", "")
    assert run.path == tmp_path / "train/digits-minute"
    assert json.loads((run.path / "env.json").read_text())["devices"] == 2
    assert fv.resume(run, devices=2).metrics["validation"]["accuracy"] > 0.1
    with pytest.raises(ConfigError, match=r"^2 devices share steps of 1 images: give a larger batch or fewer"):
        fv.train("digits", runs=tmp_path, devices=2, **given, batch=1)


def test_what_python_cannot_hand_to_several() -> None:
    with pytest.raises(ConfigError, match="devices and time"):
        fv.train("digits", devices=2, time="5m")
    with pytest.raises(ConfigError, match="give 1 at least"):
        fv.train("digits", devices=0)
