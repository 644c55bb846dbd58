"""The runs of `time_to_accuracy.py`: Foveate's, those of airbench's port, and the paper's script."""

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from foveate.training.runs import RunFolder
from rates import run_gflop
from train_step import install_keras, measure, rate

__all__ = [
    "PAPER_ACCURACY",
    "Row",
    "airbench_process",
    "airbench_warm",
    "foveate_process",
    "foveate_warm",
    "keras_process",
]

HERE = Path(__file__).resolve().parent
PAPER_ACCURACY, PAPER_IMAGES = 0.854, 45 * 40_000
WARM = """
import json, sys, time
from foveate.cli import app
for words in json.loads(sys.argv[1]):
    began = time.perf_counter()
    app(words, standalone_mode=False)
    print("seconds", time.perf_counter() - began)
"""
"""Several command lines of Foveate's in one process, and the seconds of each."""

Row = dict[str, Any]


def foveate_process(arguments: argparse.Namespace, folder: Path, preset: str, seeds: list[int]) -> list[Row]:
    """Ours as a user starts it, a process for each seed."""
    code = "from foveate.cli import main; main()"
    seconds = [timed("-c", code, *foveate_words(arguments, folder, preset, seed))[0] for seed in seeds]
    return [told_by_run(folder, preset, *each) for each in zip(seeds, seconds, strict=True)]


def foveate_warm(arguments: argparse.Namespace, folder: Path, preset: str, seeds: list[int]) -> list[Row]:
    """Ours in one process, after a first run."""
    folder, every = folder / "warm", [max(seeds) + 1, *seeds]
    words = [foveate_words(arguments, folder, preset, seed) for seed in every]
    _, lines = timed("-c", WARM, json.dumps(words))
    first, *rest = (float(line.split()[1]) for line in lines if line.startswith("seconds "))
    return [told_by_run(folder, preset, *each) | {"first_s": first} for each in zip(seeds, rest, strict=True)]


def foveate_words(arguments: argparse.Namespace, folder: Path, preset: str, seed: int) -> list[str]:
    """The command line of ours."""
    words = ["train", arguments.data, "--preset", preset, "--final", "--runs", str(folder), "--seed", str(seed)]
    words += ["--name", f"{preset}-{seed}", *shared_words(arguments)]
    return [*words, *shlex.split(arguments.foveate_more)]


def shared_words(arguments: argparse.Namespace) -> list[str]:
    """What the command lines of ours and of the port have in common."""
    words = ["--device", arguments.device, "--threads", str(arguments.threads)]
    return [*words, *(["--data-dir", str(arguments.data_dir)] if arguments.data_dir else [])]


def told_by_run(folder: Path, preset: str, seed: int, seconds: float) -> Row:
    """What a run folder says of the run."""
    run = folder / "train" / f"{preset}-{seed}"
    test = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["test"]
    train_s = json.loads((run / "timing.json").read_text(encoding="utf-8"))["train_s"]
    measured = {name: variant["accuracy"] for name, variant in test["variants"].items()}
    views = next((accuracy for name, accuracy in measured.items() if "views" in name), None)
    row = {"seed": seed, "seconds": seconds, "train_s": train_s, "plain": test["accuracy"], "six_views": views}
    config = RunFolder(run).read_config()
    if config.train.images_seen is not None:
        row["train_gflop"] = run_gflop(config, config.data.size)
    return {**row, "variants": measured, "gate": test["gate"]}


def airbench_process(arguments: argparse.Namespace, folder: Path, epochs: str, seeds: list[int]) -> list[Row]:
    """The port, a process for each seed."""
    every = [airbench_runs(arguments, folder, epochs, [seed]) for seed in seeds]
    return [{**row, "seconds": seconds} for seconds, (row,) in every]


def airbench_warm(arguments: argparse.Namespace, folder: Path, epochs: str, seeds: list[int]) -> list[Row]:
    """The port in one process, after a first run: training and its one measurement."""
    _, rows = airbench_runs(arguments, folder, epochs, [max(seeds) + 1, *seeds])
    first, *rest = ({**row, "seconds": row["train_s"] + row["plain_s"] + row["six_views_s"]} for row in rows)
    return [{**row, "first_s": first["seconds"]} for row in rest]


def airbench_runs(
    arguments: argparse.Namespace, folder: Path, epochs: str, seeds: list[int]
) -> tuple[float, list[Row]]:
    """Seconds of a process of the port, and its row after the last epoch of each seed."""
    record = folder / "airbench.json"
    words = [str(HERE / "airbench_cpu.py"), "--test-once", "--data", arguments.data, "--json", str(record)]
    words += ["--epochs", epochs, "--seed", *map(str, seeds), *shared_words(arguments)]
    seconds, _ = timed(*words, *shlex.split(arguments.airbench_more))
    return seconds, [row for row in json.loads(record.read_text(encoding="utf-8"))["rows"] if "plain" in row]


def keras_process(arguments: argparse.Namespace, folder: Path, what: str, seeds: list[int]) -> list[Row]:  # noqa: ARG001
    """The paper's script, from the step of its model; `seeds` are the numbers of the processes."""
    given = argparse.Namespace(batch=64, seconds=30, threads=arguments.threads, augment=False)
    rates = [rate(measure(str(install_keras()), "train_step_keras.py", given)) for _ in seeds]
    told = {"plain": PAPER_ACCURACY, "six_views": None}
    return [
        {"seed": seed, "seconds": PAPER_IMAGES / each, **told} for seed, each in zip(seeds, rates, strict=True)
    ]


def timed(*words: str) -> tuple[float, list[str]]:
    """Seconds of a process of this Python from its start to its end, and the lines it prints."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"{' '.join(words)} failed with exit code {done.returncode}:\n{done.stderr}")
    return seconds, done.stdout.splitlines()
