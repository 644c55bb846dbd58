"""Seconds to an accuracy on CIFAR-10's test images: Foveate's presets against airbench and the paper's script.

**Peers:** airbench94_muon's algorithm in fp32 (`airbench_cpu.py`), and the paper's script in Keras on TensorFlow,
extrapolated from its training step (`train_step_keras.py`). docs/benchmarks.md says how each side is measured.
Each run opens the test split once, at its end; nothing is chosen by it.
"""

import json
import shlex
import statistics
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from harness import (
    FOVEATE,
    HERE,
    begin,
    command_line,
    mean_and_sd,
    prepare,
    print_row,
    read_record,
    run_python,
    write_record,
)

# isort: split
import torch

from foveate.config import preset_names
from foveate.data.dataset import load_dataset
from foveate.settings import DataConfig
from foveate.training.runs import RunFolder
from rates import matmul_gflop_per_s, run_gflop
from train_step import install_keras, measure_keras, rate

STANDARD_GFLOP_PER_S = 180.0
PAPER_ACCURACY, PAPER_IMAGES = 0.854, 45 * 40_000
GOALS, GOAL_RATIO = (PAPER_ACCURACY, 0.90, 0.94, 0.96), 1.3
AIRBENCH_ACCURACY, AIRBENCH_WITHIN = 0.940, 0.0015
KERAS_ROUNDS = 5
VIEWS = ("plain", "six_views")
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


class Turn(NamedTuple):
    """Runs that one process, or one process for each, makes."""

    who: str
    side: str
    seeds: list[int]
    run: Callable[[Namespace, Path, str, list[int]], list[Row]]
    what: str
    """The preset, or the number of epochs."""


def main() -> None:
    """Run the turns, keep each run as it ends, and print the table."""
    parser = command_line(
        __doc__,
        "data",
        "device",
        presets=([name for name in ("minute", "fast", "strong", "best") if name in preset_names()], "ours"),
        seeds=[0],
        airbench_epochs=([8], "of the port"),
        skip_keras=False,
        warm=(False, "all seeds in one process as well"),
        threads=(torch.get_num_threads(), "of all sides"),
        foveate_more=("", 'more of its command line, as "--set batch=64"'),
        airbench_more=("", 'more of its command line, as "--batch 500"'),
        product_seconds=(2.0, "to measure the matrix product before each run"),
    )
    arguments = begin(parser)
    prepare(arguments.threads)
    load_dataset(arguments.data, DataConfig(size=32), data_dir=arguments.data_dir)  # warms the decode cache
    rows: list[Row] = read_record(arguments.json, [])
    done = {(row["who"], row["seed"]) for row in rows}
    with tempfile.TemporaryDirectory() as folder:
        for who, side, every, run, what in turns(arguments):
            if not (seeds := [seed for seed in every if (who, seed) not in done]):
                continue
            also = {"side": side, "threads": arguments.threads, "device": arguments.device}
            also["matmul_gflop_per_s"] = matmul_gflop_per_s(arguments.product_seconds, arguments.device)
            for row in run(arguments, Path(folder), what, seeds):
                rows.append({"who": who, **row, **also})
                print(f"{who}, seed {row['seed']}: {row['seconds']:.1f} s", flush=True)
            write_record(arguments.json, rows)
    show(rows, on_gpu=arguments.device.startswith("cuda"))


def turns(arguments: Namespace) -> Iterator[Turn]:
    """The turns, from the first to the last."""
    presets = [
        (preset, f"{preset} {arguments.foveate_more}".strip(), "twin" if preset.endswith("-twin") else "ours")
        for preset in arguments.presets
    ]
    ports = [(f"airbench port, epochs: {epochs}", str(epochs)) for epochs in arguments.airbench_epochs]
    keras_rounds = 0 if arguments.skip_keras else KERAS_ROUNDS
    for number in range(max(len(arguments.seeds), keras_rounds)):
        if seeds := arguments.seeds[number : number + 1]:
            yield from (Turn(who, side, seeds, foveate_process, preset) for preset, who, side in presets)
            yield from (Turn(who, "airbench", seeds, airbench_process, epochs) for who, epochs in ports)
        if number < keras_rounds:
            yield Turn("the paper's script, extrapolated", "keras", [number], keras_process, "")
    if arguments.warm:
        seeds = arguments.seeds
        yield from (Turn(f"{who}, warm", side, seeds, foveate_warm, preset) for preset, who, side in presets)
        yield from (Turn(f"{who}, warm", "airbench", seeds, airbench_warm, epochs) for who, epochs in ports)


def foveate_process(arguments: Namespace, folder: Path, preset: str, seeds: list[int]) -> list[Row]:
    """Ours as a user starts it, a process for each seed."""
    words = [foveate_words(arguments, folder, preset, seed) for seed in seeds]
    return [
        read_run(folder, preset, seed, run_python(*FOVEATE, *each)[0])
        for seed, each in zip(seeds, words, strict=True)
    ]


def foveate_warm(arguments: Namespace, folder: Path, preset: str, seeds: list[int]) -> list[Row]:
    """Ours in one process, after a first run."""
    folder, every = folder / "warm", [max(seeds) + 1, *seeds]
    _, printed = run_python(
        "-c", WARM, json.dumps([foveate_words(arguments, folder, preset, seed) for seed in every])
    )
    lines = [line for line in printed.splitlines() if line.startswith("seconds ")]
    first, *rest = (float(line.split()[1]) for line in lines)
    return [read_run(folder, preset, *each) | {"first_s": first} for each in zip(seeds, rest, strict=True)]


def foveate_words(arguments: Namespace, folder: Path, preset: str, seed: int) -> list[str]:
    """The command line of ours."""
    words = ["train", arguments.data, "--preset", preset, "--final", "--runs", str(folder), "--seed", str(seed)]
    return [*words, "--name", f"{preset}-{seed}", *shared_words(arguments), *shlex.split(arguments.foveate_more)]


def shared_words(arguments: Namespace) -> list[str]:
    """What the command lines of ours and of the port have in common."""
    words = ["--device", arguments.device, "--threads", str(arguments.threads)]
    return [*words, *(["--data-dir", str(arguments.data_dir)] if arguments.data_dir else [])]


def read_run(folder: Path, preset: str, seed: int, seconds: float) -> Row:
    """The row of a run that took `seconds`, from its folder."""
    run = RunFolder(folder / "train" / f"{preset}-{seed}")
    test, config = run.read_metrics()["test"], run.read_config()
    measured = {name: variant["accuracy"] for name, variant in test["variants"].items()}
    views = next((accuracy for name, accuracy in measured.items() if "views" in name), None)
    row = {"seed": seed, "seconds": seconds, "train_s": run.read_timing()["train_s"]}
    row |= {"plain": test["accuracy"], "six_views": views}
    if config.train.images_seen is not None:
        row["train_gflop"] = run_gflop(config, config.data.size)
    return {**row, "variants": measured, "gate": test["gate"]}


def airbench_process(arguments: Namespace, folder: Path, epochs: str, seeds: list[int]) -> list[Row]:
    """The port, a process for each seed."""
    every = [airbench_runs(arguments, folder, epochs, [seed]) for seed in seeds]
    return [{**row, "seconds": seconds} for seconds, (row,) in every]


def airbench_warm(arguments: Namespace, folder: Path, epochs: str, seeds: list[int]) -> list[Row]:
    """The port in one process, after a first run: training and its one measurement."""
    _, rows = airbench_runs(arguments, folder, epochs, [max(seeds) + 1, *seeds])
    first, *rest = ({**row, "seconds": row["train_s"] + row["plain_s"] + row["six_views_s"]} for row in rows)
    return [{**row, "first_s": first["seconds"]} for row in rest]


def airbench_runs(arguments: Namespace, folder: Path, epochs: str, seeds: list[int]) -> tuple[float, list[Row]]:
    """Seconds of a process of the port, and its row after the last epoch of each seed."""
    record = folder / "airbench.json"
    words = [
        HERE / "airbench_cpu.py",
        "--test-once",
        "--data",
        arguments.data,
        "--json",
        record,
        "--epochs",
        epochs,
    ]
    words += ["--seed", *seeds, *shared_words(arguments), *shlex.split(arguments.airbench_more)]
    seconds, _ = run_python(*words)
    return seconds, [row for row in read_record(record, {})["rows"] if "plain" in row]


def keras_process(arguments: Namespace, folder: Path, what: str, seeds: list[int]) -> list[Row]:  # noqa: ARG001
    """The paper's script, from the step of its model; `seeds` are the numbers of the processes."""
    rates = [rate(measure_keras(install_keras(), 64, 30, arguments.threads)) for _ in seeds]
    known = {"plain": PAPER_ACCURACY, "six_views": None}
    return [
        {"seed": seed, "seconds": PAPER_IMAGES / each, **known} for seed, each in zip(seeds, rates, strict=True)
    ]


def show(rows: list[Row], *, on_gpu: bool) -> None:
    """The table, then the seconds to each accuracy."""
    print_row("", "n", "seconds", "scaled", "plain %", "six views %", "mm", "oneDNN", "share", width=17, first=34)
    means: dict[str, Row] = {}
    for who in dict.fromkeys(row["who"] for row in rows):
        own = [row for row in rows if row["who"] == who]
        if own[0]["side"] == "keras":
            own = [min(own, key=lambda row: row["seconds"])]
        products = [row["matmul_gflop_per_s"] for row in own]
        scales = [1.0 if on_gpu else product["torch.mm"] / STANDARD_GFLOP_PER_S for product in products]
        columns = {name: [row[name] for row in own if row[name] is not None] for name in (*VIEWS, "seconds")}
        columns["scaled"] = [row["seconds"] * scale for row, scale in zip(own, scales, strict=True)]
        # The port always measures six views as well: to a plain accuracy it would not have had to.
        spared = [row.get("six_views_s", 0.0) for row in own]
        columns["spared"] = [each * scale for each, scale in zip(spared, scales, strict=True)]
        means[who] = {name: statistics.mean(values) if values else 0.0 for name, values in columns.items()}
        means[who]["side"] = own[0]["side"]
        cells = [mean_and_sd(columns[name]) for name in ("seconds", "scaled")]
        cells += [mean_and_sd(columns[name], 100) for name in VIEWS]
        cells += [
            f"{statistics.mean(each.get(name, 0) for each in products):.0f}" for name in ("torch.mm", "oneDNN")
        ]
        # Operations per second of a whole training over those of the faster matrix product before it.
        shares = [
            row["train_gflop"] / row["train_s"] / max(row["matmul_gflop_per_s"].values())
            for row in own
            if "train_gflop" in row
        ]
        print_row(who, len(own), *cells, f"{statistics.mean(shares):.2f}" if shares else "", width=17, first=34)
        if "first_s" in own[0]:
            print(f"{'':37}{own[0]['first_s']:8.2f}, the first run of that process")
    for who, row in means.items():
        if who in {"airbench port, epochs: 8", "airbench port, epochs: 8, warm"}:
            counts = row["six_views"] >= AIRBENCH_ACCURACY - AIRBENCH_WITHIN
            print(f"{who}: {'counts' if counts else 'does NOT count'} as a peer (94.0 less 0.15, six views)")
    print("seconds raw:" if on_gpu else "seconds scaled:")
    for goal in GOALS:
        for views in VIEWS:
            show_goal(means, goal, views)


def show_goal(means: dict[str, Row], goal: float, views: str) -> None:
    """The first of each side to reach an accuracy, in scaled seconds, and the peers' seconds over ours."""
    told, ours = [], None
    for side in ("ours", "airbench", "keras"):
        seconds = {
            who: row["scaled"] - (row["spared"] if views == "plain" else 0)
            for who, row in means.items()
            if row["side"] == side and row[views] >= goal - 1e-9
        }
        if seconds:
            first = min(seconds, key=lambda who: seconds[who])
            told.append(f"{first} {seconds[first]:.1f} s")
            if side == "ours":
                ours = seconds[first]
            elif ours:
                verdict = "reached" if seconds[first] >= GOAL_RATIO * ours else "NOT reached"
                told[-1] += f", {seconds[first] / ours:.2f} × ours (goal ≥ {GOAL_RATIO}: {verdict})"
    print(f"to {goal:.1%} {views.replace('_', ' ')}: {'; '.join(told) or 'nobody'}")


if __name__ == "__main__":
    main()
