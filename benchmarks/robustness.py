"""How the runs of a comparison do under common corruptions: every arm, on some of the images that judged it.

The networks are those that `foveate compare` trained; the corruptions those of `foveate evaluate --corruptions`,
of the same images for every run. Told for each arm: accuracy on those images as they are, its mean over all kinds
and severities, over seeds; and the difference of that mean from the reference arm's, with Student's 95 % interval
over seeds. There is no peer.

    foveate compare cifar10 --arm fast --arm fast,extra=[colour] --seeds 3 --no-controls --name families
    python benchmarks/robustness.py runs/compare/families --json FILE    # killed, it goes on in FILE
"""

import argparse
import json
import math
import os
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch is imported

import torch
from scipy import stats
from torch import nn

import foveate
from foveate.allocator import keep_freed_memory
from foveate.checkpoint import load_model
from foveate.data.corruptions import CORRUPTIONS, SEVERITIES, Corrupted
from foveate.data.dataset import KnownData, load_known
from foveate.data.loader import Loader, preload
from foveate.data.splits import StoredSplits, stratified_subset
from foveate.files import write_json
from foveate.inference.network import collect_logits

CPU = torch.device("cpu")
AT_ONCE = 250


def main() -> None:
    """Measure what was not measured yet, a run at a time, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path)
    parser.add_argument("--images", type=int, default=1000, help="so many, the same share of every class")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--json", type=Path, required=True, help="write every figure to this file")
    arguments = parser.parse_args()
    keep_freed_memory()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    comparison = foveate.open_comparison(arguments.comparison)
    experiment, config = comparison.experiment, comparison.config
    data = config.arms[0].config.data
    stored = StoredSplits.kept(comparison.path, config.splits)
    known = KnownData(config.fingerprint, stored, comparison.path)
    dataset = load_known(config.data, data, known, data_dir=config.data_dir)
    split = dataset.splits[comparison.split]
    chosen = stratified_subset(dataset.labels[split], arguments.images, data.split_seed)
    loader = Loader(*preload(dataset, CPU), split[chosen], AT_ONCE)
    what = {"comparison": comparison.path.name, "split": comparison.split, "images": len(chosen)}
    record: dict[str, Any] = (
        json.loads(arguments.json.read_text()) if arguments.json.exists() else {**what, "runs": []}
    )
    if {key: record[key] for key in what} != what:
        sys.exit(f"{arguments.json} is of something else: name another file")
    done = {(run["arm"], run["seed"], run["training_images"]) for run in record["runs"]}
    for run in experiment.runs:
        arm, size = config.arms[run.arm].name, config.subsets[run.subset]
        if (arm, run.seed, size) in done or experiment.result(run, comparison.split) is None:
            continue
        network = load_model(experiment.place(run) / "weights.safetensors", device=CPU).model
        told = {"arm": arm, "seed": run.seed, "training_images": size}
        record["runs"].append({**told, **measure(network, loader)})
        write_json(arguments.json, record)
    for size in config.subsets:
        if size is not None:
            print(f"{size:,} training images:")
        show([run for run in record["runs"] if run["training_images"] == size], [arm.name for arm in config.arms])


def measure(network: nn.Module, loader: Loader) -> dict[str, Any]:
    """Accuracy of the images as they are, and by kind and severity of corruption."""

    def accuracy(one: nn.Module) -> float:
        logits, labels = collect_logits(one, loader, device=CPU, precision="fp32", label="")
        return float((logits.argmax(axis=1) == labels).mean())

    severities = range(1, SEVERITIES + 1)
    return {
        "clean": accuracy(network),
        "accuracy": {
            kind: [accuracy(Corrupted(network, kind, each)) for each in severities] for kind in CORRUPTIONS
        },
    }


def show(runs: list[dict[str, Any]], arms: list[str]) -> None:
    """A line an arm, in points; the first is the reference."""
    corrupted = {
        arm: {run["seed"]: 100 * mean(map(mean, run["accuracy"].values())) for run in runs if run["arm"] == arm}
        for arm in arms
    }
    clean = {arm: [100 * run["clean"] for run in runs if run["arm"] == arm] for arm in arms}
    print(f"{'clean':>8}{'corrupted':>16}{'less the first':>16}{'95 % interval':>18}  arm")
    for arm in arms:
        values = list(corrupted[arm].values())
        if not values:
            continue
        apart = [
            value - corrupted[arms[0]][seed]
            for seed, value in corrupted[arm].items()
            if seed in corrupted[arms[0]]
        ]
        told = f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")
        line = f"{mean(clean[arm]):8.2f}{told:>16}"
        if arm != arms[0] and apart:
            line += f"{mean(apart):+16.2f}"
            if len(apart) > 1:
                half = float(stats.t.ppf(0.975, len(apart) - 1)) * stdev(apart) / math.sqrt(len(apart))
                line += f"{f'{mean(apart) - half:+.2f} to {mean(apart) + half:+.2f}':>18}"
        print(f"{line:58}  {arm}")


if __name__ == "__main__":
    main()
