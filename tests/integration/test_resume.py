"""Real processes, really killed: the resumed run ends as the run that was never killed, bit for bit."""

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.commands import command, finish

from foveate.tensors import load_tensors

pytestmark = pytest.mark.slow

SETTINGS = [
    "--preset", "small", "--epochs", "3", "--seed", "7", "--threads", "1", "--attention", "luong",
    "--set", "save_every_s=0", "--set", "flip=0.5",
    "--set", "stages=[{filters: 4, kernels: [3], pool: 2}, {filters: 6, kernels: [3], pool: 3, dropout: 0.2}]",
]  # fmt: skip
FAST = [
    "--preset", "minute", "--seed", "7", "--threads", "1", "--set", "save_every_s=0", "--set", "flip=0.5",
    "--set", "tta_views=6", "--set", "images_seen=3000", "--set", "batch=50", "--set", "micro_batch=20",
    "--set", "resize_until=0.4", "--set", "keep=last",
    "--set", "stages=[{filters: 4, kernels: [3, 3]}, {filters: 6, kernels: [3, 3, 3], dropout: 0.2}]",
]  # fmt: skip
"""Three epochs of 23 steps, the last cut short: Muon, crops, alternating flips, small images first, keep=last."""
SAME = ("weights/best.safetensors", "weights/last/state.safetensors", "results.csv", "metrics.json", "args.yaml")


def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command(*arguments), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_progress(run: Path, process: "subprocess.Popen[str]", saves: int) -> None:
    """Until the state was saved `saves` times: each save is a newer file."""
    state, seen = run / "weights" / "last" / "state.safetensors", set()
    deadline = time.monotonic() + 300
    while len(seen) < saves and process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):
            seen.add(state.stat().st_mtime_ns)
        time.sleep(0.001)


def contents(run: Path) -> dict[str, bytes]:
    found = {name: (run / name).read_bytes() for name in SAME if name.endswith((".csv", ".json", ".yaml"))}
    for name in SAME[:2]:
        tensors, meta = load_tensors(run / name)
        for row in meta.get("training", {}).get("history", []):
            del row["seconds"], row["images_per_s"]
        found[name + " header"] = json.dumps(meta).encode()
        for key, tensor in tensors.items():
            found[f"{name} {key}"] = tensor.numpy().tobytes()
    return found


def whole_run(folder: Path, settings: list[str]) -> dict[str, bytes]:
    finish(folder, "train", "digits", "--name", "a", *settings)
    return contents(folder / "runs" / "train" / "a")


@pytest.fixture(scope="module")
def unkilled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return whole_run(tmp_path_factory.mktemp("unkilled"), SETTINGS)


@pytest.fixture(scope="module")
def unkilled_fast(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return whole_run(tmp_path_factory.mktemp("unkilled_fast"), FAST)


@pytest.mark.parametrize(("settings", "whole"), [(SETTINGS, "unkilled"), (FAST, "unkilled_fast")])
def test_killed_twice_and_resumed_it_ends_with_the_same_bits(
    settings: list[str], whole: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    unkilled: dict[str, bytes] = request.getfixturevalue(whole)
    run = tmp_path / "runs" / "train" / "a"
    process = start(tmp_path, "train", "digits", "--name", "a", *settings)
    for saves in (4, 20):
        wait_for_progress(run, process, saves)
        assert process.poll() is None, "it ended before it was killed"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        process = start(tmp_path, "train", "--resume", "runs/train/a")
    out, err = process.communicate()
    assert process.returncode == 0, err
    killed = contents(run)
    assert killed.keys() == unkilled.keys()
    assert [name for name in killed if killed[name] != unkilled[name]] == []
    assert "report: runs/train/a/report.html" in out
    assert not list(run.rglob(".*.tmp"))


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_and_says_how_to_go_on(
    unkilled: dict[str, bytes], tmp_path: Path, signum: signal.Signals
) -> None:
    settings = [item.replace("save_every_s=0", "save_every_s=3600") for item in SETTINGS]
    process = start(tmp_path, "train", "digits", "--name", "a", *settings)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("epoch 1/3")
    process.send_signal(signum)
    _, err = process.communicate()
    assert process.returncode == 130
    told = re.fullmatch(r"foveate: stopped; continue with: (foveate train --resume runs/train/a)\n", err)
    assert told
    finish(tmp_path, *told[1].split()[1:])
    ours = contents(tmp_path / "runs" / "train" / "a")
    assert [n for n in ours if ours[n] != unkilled[n] and n != "args.yaml"] == []


def test_a_script_without_a_main_guard_works(tmp_path: Path, photographs: Callable[..., Path]) -> None:
    """Though images are decoded by other processes, which must not run it again."""
    script = tmp_path / "script.py"
    script.write_text(
        "import foveate\n"
        f"run = foveate.train({str(photographs())!r}, preset='small', epochs=1, batch=10, hidden=4,\n"
        "                    stages=[{'filters': 2, 'kernels': [1], 'pool': 8}])\n"
        "print(run.metrics['validation']['n'])\n"
    )
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "6\n", done.stderr
