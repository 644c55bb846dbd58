"""The presets on a folder of photographs: JPEGs of 64 px, few or many, trained at other sizes as well.

The photographs are CIFAR-10's, enlarged to 64 px (Lanczos) and written as JPEG (quality 90), a folder a class; so
many of every class, the same for all rows. The presets train on 80 % of what `foveate train` leaves them after a
test split, which has no part in this, and are measured on the validation images. **Peer:** the same preset on the
same images at CIFAR's own 32 px. Told: validation accuracy, and seconds of training.

    python benchmarks/photographs.py --images 500 5000 --presets minute --sizes 16 32 64 96 --json FILE
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import foveate
from foveate.config import DataConfig
from foveate.data.dataset import Dataset, load_dataset

SIDE, QUALITY = 64, 90


def main() -> None:
    """Write each folder, train each preset at each size, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--data-dir", type=Path, help="where it lies (default $FOVEATE_DATA)")
    parser.add_argument("--images", type=int, nargs="+", default=[500, 5000])
    parser.add_argument("--presets", nargs="+", default=["minute"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 32, 64, 96])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of every row")
    parser.add_argument("--json", type=Path, help="file that keeps each row as it ends, and is gone on from")
    arguments = parser.parse_args()
    kept = arguments.json and arguments.json.exists()
    rows: list[dict[str, Any]] = json.loads(arguments.json.read_text(encoding="utf-8")) if kept else []
    source = load_dataset(arguments.data, DataConfig(size=32), data_dir=arguments.data_dir)
    settings = dict(item.split("=", 1) for item in arguments.set)
    with tempfile.TemporaryDirectory() as name:
        for count in arguments.images:
            folder = write_folder(source, count, Path(name) / str(count))
            for preset in arguments.presets:
                for size in arguments.sizes:
                    key = {"images": count, "preset": preset, "size": size, "seed": arguments.seed}
                    if any(key.items() <= row.items() for row in rows):
                        continue
                    rows.append({**key, **train(folder, Path(name), key, settings)})
                    print(rows[-1], file=sys.stderr, flush=True)
                    if arguments.json:
                        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(f"{'preset':10}{'photographs':>13}{'size':>7}{'accuracy':>11}{'95 %':>15}{'training, s':>13}")
    for row in rows:
        low, high = row["interval"]
        cells = f"{row['accuracy']:11.1%}{f'{low:.1%} to {high:.1%}':>17}{row['train_s']:11.1f}"
        print(f"{row['preset']:10}{row['images']:13,}{row['size']:7}{cells}")


def write_folder(source: Dataset, count: int, folder: Path) -> Path:
    """`count` of the training images as photographs, the first of every class alike."""
    train = source.splits["train"]
    each = count // len(source.class_names)
    for label, name in enumerate(source.class_names):
        (folder / name).mkdir(parents=True)
        for index in train[np.flatnonzero(source.labels[train] == label)[:each]]:
            picture = Image.fromarray(source.images[index]).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            picture.save(folder / name / f"{index}.jpg", quality=QUALITY)
    return folder


def train(folder: Path, place: Path, key: dict[str, Any], settings: dict[str, str]) -> dict[str, Any]:
    """What one preset reaches at one size."""
    run = foveate.train(
        folder, preset=key["preset"], size=key["size"], seed=key["seed"], runs=place / "runs", **settings
    )
    measured = run.metrics["validation"]
    seconds = json.loads((run.path / "timing.json").read_text(encoding="utf-8"))["train_s"]
    return {"accuracy": measured["accuracy"], "interval": measured["intervals"]["accuracy"], "train_s": seconds}


if __name__ == "__main__":
    main()
