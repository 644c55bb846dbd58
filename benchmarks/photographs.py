"""The presets on a folder of photographs: JPEGs of 64 px, few or many, trained at other sizes as well.

The photographs are CIFAR-10's, enlarged to 64 px (Lanczos) and written as JPEG (quality 90), a folder a class, as
many of each class; they are the same for all rows. The presets train on 80 % of what `foveate train` leaves them
after a test split, which has no part in this, and are measured on the validation images. **Peer:** the same preset
on the same images at CIFAR's own 32 px. Shown: validation accuracy, and seconds of training.

    python benchmarks/photographs.py --images 500 5000 --presets minute --sizes 16 32 64 96 --json FILE
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import foveate
from foveate.data.dataset import Dataset, load_dataset
from foveate.settings import DataConfig
from harness import begin, command_line, print_row, read_record, write_record

SIDE, QUALITY = 64, 90


def main() -> None:
    """Write each folder, train each preset at each size, and print the table."""
    options: dict[str, Any] = {"images": [500, 5000], "presets": ["minute"], "sizes": [16, 32, 64, 96]}
    arguments = begin(command_line(__doc__, "data", "seed", "set", **options))
    rows: list[dict[str, Any]] = read_record(arguments.json, [])
    source = load_dataset(arguments.data, DataConfig(size=32), data_dir=arguments.data_dir)
    settings = dict(item.split("=", 1) for item in arguments.set)
    with tempfile.TemporaryDirectory() as name:
        for count in arguments.images:
            folder = write_folder(source, count, Path(name) / str(count))
            for preset, size in ((preset, size) for preset in arguments.presets for size in arguments.sizes):
                key = {"images": count, "preset": preset, "size": size, "seed": arguments.seed}
                if any(key.items() <= row.items() for row in rows):
                    continue
                given = {"preset": preset, "size": size, "seed": arguments.seed, **settings}
                run = foveate.train(folder, runs=Path(name) / "runs", **given)
                found = run.metrics["validation"]
                row = {**key, "accuracy": found["accuracy"], "interval": found["intervals"]["accuracy"]}
                rows.append({**row, "train_s": run.folder.read_timing()["train_s"]})
                print(rows[-1], file=sys.stderr, flush=True)
                write_record(arguments.json, rows)
    print_row("preset", "photographs", "size", "accuracy", "95 %", "training, s", width=18, first=10)
    for row in rows:
        low, high = row["interval"]
        cells = (f"{row['accuracy']:.1%}", f"{low:.1%} to {high:.1%}", f"{row['train_s']:.1f}")
        print_row(row["preset"], f"{row['images']:,}", row["size"], *cells, width=18, first=10)


def write_folder(source: Dataset, count: int, folder: Path) -> Path:
    """Write `count` of the training images as photographs, the first of each class, as many of each."""
    train = source.splits["train"]
    each = count // len(source.class_names)
    for label, name in enumerate(source.class_names):
        (folder / name).mkdir(parents=True)
        for index in train[np.flatnonzero(source.labels[train] == label)[:each]]:
            picture = Image.fromarray(source.images[index]).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            picture.save(folder / name / f"{index}.jpg", quality=QUALITY)
    return folder


if __name__ == "__main__":
    main()
