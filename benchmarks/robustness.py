"""How the runs of a comparison do under common corruptions: every arm, on some of the images that judged it.

The networks are those that `foveate compare` trained; the corruptions those of `foveate evaluate --corruptions`,
of the same images for every run. Shown for each arm: accuracy on those images as they are, its mean over all kinds
and severities, over seeds; and the difference of that mean from the reference arm's, with Student's 95 % interval
over seeds. There is no peer.

    foveate compare cifar10 --arm fast --arm fast,augmentations=[colour] --seeds 3 --no-controls --name families
    python benchmarks/robustness.py runs/compare/families --json FILE    # when it was killed, it resumes from FILE
"""

import math
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from harness import (
    begin,
    command_line,
    mean_and_sd,
    prepare,
    print_row,
    read_record,
    write_record,
)

# isort: split
import torch
from scipy import stats
from torch import nn

import foveate
from foveate.checkpoint import load_model
from foveate.data.corruptions import CORRUPTIONS, SEVERITIES, Corrupted
from foveate.data.dataset import KnownData, load_known
from foveate.data.loader import Loader, preload
from foveate.data.splits import StoredSplits, stratified_subset
from foveate.inference.network import collect_logits

CPU = torch.device("cpu")
AT_ONCE = 250


def main() -> None:
    """Measure what was not measured yet, a run at a time, and print the table."""
    parser = command_line(__doc__, "threads", images=(1000, "the same share of every class"))
    parser.add_argument("comparison", type=Path)
    arguments = begin(parser)
    if arguments.json is None:
        parser.error("--json FILE is needed: it keeps each run as it is measured")
    prepare(arguments.threads)
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
    record: dict[str, Any] = read_record(arguments.json, {**what, "runs": []})
    if {key: record[key] for key in what} != what:
        sys.exit(f"{arguments.json} is of something else: name another file")
    done = {(run["arm"], run["seed"], run["training_images"]) for run in record["runs"]}
    for run in experiment.runs:
        arm, size = config.arms[run.arm].name, config.subsets[run.subset]
        if (arm, run.seed, size) in done or experiment.result(run) is None:
            continue
        network = load_model(experiment.place(run) / "weights.safetensors", device=CPU).model
        told = {"arm": arm, "seed": run.seed, "training_images": size}
        record["runs"].append({**told, **measure(network, loader)})
        write_record(arguments.json, record)
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
    """A row for each arm, in points; the first is the reference."""
    corrupted = {
        arm: {run["seed"]: 100 * mean(map(mean, run["accuracy"].values())) for run in runs if run["arm"] == arm}
        for arm in arms
    }
    print_row("", "clean", "corrupted", "minus the first", "95 % interval", width=18, first=0)
    for arm in (arm for arm in arms if corrupted[arm]):
        values, reference = corrupted[arm], corrupted[arms[0]]
        diffs = [value - reference[seed] for seed, value in values.items() if seed in reference]
        clean = mean(100 * run["clean"] for run in runs if run["arm"] == arm)
        difference, interval = "", ""
        if arm != arms[0] and diffs:
            difference = f"{mean(diffs):+.2f}"
            if len(diffs) > 1:
                half = float(stats.t.ppf(0.975, len(diffs) - 1)) * stdev(diffs) / math.sqrt(len(diffs))
                interval = f"{mean(diffs) - half:+.2f} to {mean(diffs) + half:+.2f}"
        cells = (f"{clean:.2f}", mean_and_sd(list(values.values())), difference, interval)
        print_row("", *cells, f"  {arm}", width=18, first=0)


if __name__ == "__main__":
    main()
