"""Seconds to an accuracy on CIFAR-10's test images: Foveate's presets against airbench and the paper's script.

**Ours:** `foveate train cifar10 --preset P --final`, a whole process from its start to its end: metrics and report
are written, and six views measured too where the preset says so. **Peers:** airbench94_muon's algorithm in
fp32 (`airbench_cpu.py`), a whole process as well, less its six views where plain accuracies are compared; fewer
epochs are runs of their own, as its rates end at zero. And the paper's script in Keras on TensorFlow: the images
per second of its training step (`train_step_keras.py`, the faster of five fresh processes) are extrapolated over
its 45 epochs of 40,000 images; its accuracy is the paper's. All take turns, with the same threads and data; the
decode cache is warm (`loading.py` tells the cold one). Before each run the fp32 matrix product is measured;
seconds are told raw and scaled to 180 GFLOP/s of `torch.mm`; `share` is what a whole training of ours reaches of
the faster product. Each run opens the test split once, at its end; nothing is chosen by it. `--warm` adds, for a
GPU, runs in one process after a first one with a seed of its own, whose extra seconds are compiling and waking
the device.
"""

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # of the matrix product, and of every process below

import torch

from contenders import (
    PAPER_ACCURACY,
    Row,
    airbench_process,
    airbench_warm,
    foveate_process,
    foveate_warm,
    keras_process,
)
from foveate.config import DataConfig, preset_names
from foveate.data.dataset import load_dataset
from rates import matmul_gflop_per_s

STANDARD_GFLOP_PER_S = 180.0
GOALS, GOAL_RATIO = (PAPER_ACCURACY, 0.90, 0.94, 0.96), 1.3
AIRBENCH_ACCURACY, AIRBENCH_WITHIN = 0.940, 0.0015
KERAS_ROUNDS = 5
VIEWS = ("plain", "six_views")


class Turn(NamedTuple):
    """Runs that one process, or one process each, makes."""

    who: str
    side: str
    seeds: list[int]
    run: Callable[[argparse.Namespace, Path, str, list[int]], list[Row]]
    what: str
    """The preset, or how many epochs."""


def main() -> None:
    """Run what is asked for in turns, keep each run as it ends, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    there = [name for name in ("minute", "fast", "strong", "best") if name in preset_names()]
    parser.add_argument("--presets", nargs="*", default=there, help="ours (default: the fast ones)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--airbench-epochs", type=int, nargs="*", default=[8], help="of the port (default 8)")
    parser.add_argument("--skip-keras", action="store_true")
    parser.add_argument("--warm", action="store_true", help="all seeds in one process as well")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--data-dir", type=Path, help="where it lies (default $FOVEATE_DATA)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of all sides")
    parser.add_argument("--foveate-more", default="", help='more of its command line, as "--set batch=64"')
    parser.add_argument("--airbench-more", default="", help='more of its command line, as "--batch 500"')
    parser.add_argument("--json", type=Path, help="file that keeps each run as it ends, and is gone on from")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    load_dataset(arguments.data, DataConfig(size=32), data_dir=arguments.data_dir)  # warms the decode cache
    kept = arguments.json and arguments.json.exists()
    rows: list[Row] = json.loads(arguments.json.read_text(encoding="utf-8")) if kept else []
    done = {(row["who"], row["seed"]) for row in rows}
    with tempfile.TemporaryDirectory() as folder:
        for who, side, every, run, what in turns(arguments):
            if not (seeds := [seed for seed in every if (who, seed) not in done]):
                continue
            also = {"side": side, "threads": arguments.threads, "device": arguments.device}
            also["matmul_gflop_per_s"] = matmul_gflop_per_s(2.0, arguments.device)
            for row in run(arguments, Path(folder), what, seeds):
                rows.append({"who": who, **row, **also})
                print(f"{who}, seed {row['seed']}: {row['seconds']:.1f} s", flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    show(rows, on_gpu=arguments.device.startswith("cuda"))


def turns(arguments: argparse.Namespace) -> Iterator[Turn]:
    """Whose turn it is, from the first to the last."""
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


def show(rows: list[Row], *, on_gpu: bool) -> None:
    """The table, then the seconds to each accuracy."""
    heads = f"{'n':>3}{'seconds':>17}{'scaled':>17}{'plain %':>14}{'six views %':>14}{'mm':>7}{'oneDNN':>8}"
    print(f"\n{'':34}{heads}{'share':>7}")
    means: dict[str, Row] = {}
    for who in dict.fromkeys(row["who"] for row in rows):
        own = [row for row in rows if row["who"] == who]
        if own[0]["side"] == "keras":
            own = [min(own, key=lambda row: row["seconds"])]
        products = [row["matmul_gflop_per_s"] for row in own]
        scales = [1.0 if on_gpu else product["torch.mm"] / STANDARD_GFLOP_PER_S for product in products]
        columns = {name: [row[name] for row in own if row[name] is not None] for name in VIEWS}
        columns |= {"seconds": [row["seconds"] for row in own]}
        columns["scaled"] = [row["seconds"] * scale for row, scale in zip(own, scales, strict=True)]
        # The port always measures six views as well: to a plain accuracy it would not have had to.
        spared = [row.get("six_views_s", 0.0) for row in own]
        columns["spared"] = [each * scale for each, scale in zip(spared, scales, strict=True)]
        means[who] = {name: statistics.mean(values) if values else 0.0 for name, values in columns.items()}
        means[who]["side"] = own[0]["side"]
        cells = [f"{spread(columns[name], 1):>17}" for name in ("seconds", "scaled")]
        cells += [f"{spread(columns[name], 100):>14}" for name in VIEWS]
        mm, onednn = (statistics.mean(each.get(name, 0) for each in products) for name in ("torch.mm", "oneDNN"))
        share = (
            f"{statistics.mean(map(share_of_product, own)):7.2f}"
            if all("train_gflop" in row for row in own)
            else ""
        )
        print(f"{who:34}{len(own):3}{''.join(cells)}{mm:7.0f}{onednn:8.0f}{share}")
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


def share_of_product(row: Row) -> float:
    """Operations per second of a whole training to those of the matrix product before it, the faster one."""
    return float(row["train_gflop"] / row["train_s"] / max(row["matmul_gflop_per_s"].values()))


def show_goal(means: dict[str, Row], goal: float, views: str) -> None:
    """Who is the first of each side to reach an accuracy, in scaled seconds, and the peers' seconds over ours."""
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


def spread(values: list[float], factor: float) -> str:
    """Mean ± standard deviation."""
    numbers = [value * factor for value in values]
    if not numbers:
        return "–"
    deviation = f" ± {statistics.stdev(numbers):.2f}" if len(numbers) > 1 else ""
    return f"{statistics.mean(numbers):.2f}{deviation}"


if __name__ == "__main__":
    main()
