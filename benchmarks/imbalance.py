"""Uneven classes: what class weights and a balanced sampler give, on CIFAR-10 with few images of half its classes.

Of each of the first five classes 1,000 training images are taken, of each of the others a tenth, and to measure on
200 of each class, from other training images. So the accuracy on them is the balanced accuracy. **Peer:** the same
preset on the same images with neither. Shown: the mean over seeds, the lowest and the highest, and the mean recall
of the large and of the small classes.

    python benchmarks/imbalance.py --preset minute --seeds 3 --set images_seen=30000 --set threads=1 --json FILE
"""

import sys
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from PIL import Image

import foveate
from foveate.data.dataset import Dataset, load_dataset
from foveate.settings import DataConfig
from harness import begin, command_line, print_row, read_record, write_record

ARMS: dict[str, dict[str, Any]] = {
    "neither": {},
    "class_weights=balanced": {"class_weights": "balanced"},
    "sampler=balanced": {"sampler": "balanced"},
}


def main() -> None:
    """Write the folder, train each arm with each seed, and print the table."""
    options: dict[str, Any] = {"preset": "minute", "seeds": 3, "large": 1000, "times": 10, "measured": 200}
    arguments = begin(command_line(__doc__, "data", "set", **options))
    rows: list[dict[str, Any]] = read_record(arguments.json, [])
    source = load_dataset(arguments.data, DataConfig(size=None), data_dir=arguments.data_dir)
    half = len(source.class_names) // 2
    settings = dict(item.split("=", 1) for item in arguments.set)
    with tempfile.TemporaryDirectory() as name:
        sizes = {"large": arguments.large, "small": arguments.large // arguments.times}
        folder = write_folder(source, sizes, arguments.measured, Path(name) / "uneven")
        for seed, arm in ((seed, arm) for seed in range(arguments.seeds) for arm in ARMS):
            key = {"preset": arguments.preset, "arm": arm, "seed": seed, **sizes}
            if any(key.items() <= row.items() for row in rows):
                continue
            given = {"preset": arguments.preset, "seed": seed, **settings, **ARMS[arm]}
            run = foveate.train(folder, runs=Path(name) / "runs", **given)
            found = run.metrics["validation"]
            recalls = [found["per_class"][each]["recall"] for each in source.class_names]
            parts = {"of_large": mean(recalls[:half]), "of_small": mean(recalls[half:])}
            rows.append({**key, "balanced": mean(recalls), **parts})
            print(rows[-1], file=sys.stderr, flush=True)
            write_record(arguments.json, rows)
    print_row("", "balanced accuracy", "lowest to highest", "large classes", "small classes", width=20, first=24)
    for arm in ARMS:
        own = [row for row in rows if row["arm"] == arm]
        balanced = [row["balanced"] for row in own]
        cells = [f"{mean(row[part] for row in own):.1%}" for part in ("of_large", "of_small")]
        spread = f"{min(balanced):.1%} to {max(balanced):.1%}"
        print_row(arm, f"{mean(balanced):.1%}", spread, *cells, width=20, first=24)


def write_folder(source: Dataset, sizes: dict[str, int], measured: int, folder: Path) -> Path:
    """Write training images as PNG, so many of each class of the first half and of the second.

    The first images of each class are those to measure on; those to train on come after them.
    """
    train = source.splits["train"]
    for label, name in enumerate(source.class_names):
        size = sizes["large" if label < len(source.class_names) // 2 else "small"]
        chosen = train[np.flatnonzero(source.labels[train] == label)[: measured + size]]
        for split, indices in (("val", chosen[:measured]), ("train", chosen[measured:])):
            (folder / split / name).mkdir(parents=True)
            for index in indices:
                Image.fromarray(source.images[index]).save(folder / split / name / f"{index}.png")
    return folder


if __name__ == "__main__":
    main()
