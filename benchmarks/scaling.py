"""Training on 1, 10 and 100 times CIFAR-10's images takes the same time a step and no more memory as it goes on.

CIFAR-10's 50,000 training images are repeated into one .npz file of each size, trained on for some steps by the
call that the command line makes, each in a fresh process, and removed. The images are memory-mapped. RssAnon, the
memory of the process that no file backs, is sampled at every eighth of the steps from a quarter on.
There is no peer.
"""

import json
import shutil
import sys
import tempfile
import zipfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from harness import STATUS, begin, command_line, measure_apart, print_goal, print_row, write_record

GOAL = 1.02
"""For the memory at the end over that at a quarter, and a step's time over that on the fewest images."""
SIZE = 32


def write_repeated(path: Path, arguments: Namespace, factor: int) -> int:
    """Write the data set's training images and labels `factor` times into an .npz file; how many that makes."""
    from foveate.data.dataset import load_dataset
    from foveate.settings import DataConfig

    found = load_dataset(arguments.data, DataConfig(size=SIZE), data_dir=arguments.data_dir)
    chosen = np.sort(np.concatenate([found.splits["train"], found.splits["validation"]]))
    images, count = found.images[chosen].tobytes(), factor * len(chosen)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("images.npy", "w", force_zip64=True) as file:
            shape = (count, SIZE, SIZE, 3)
            npy.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for _ in range(factor):
                file.write(images)
        with archive.open("labels.npy", "w", force_zip64=True) as file:
            npy.write_array(file, np.tile(found.labels[chosen], factor))
    return count


def measure(arguments: Namespace) -> dict[str, Any]:
    """Train on the file `arguments.measure` in this process."""
    from rates import sample_steps

    # As many epochs as steps: enough, however few images there are.
    settings = {"epochs": arguments.steps, "resize_until": 0, "size": SIZE, "preset": arguments.preset}
    settings |= {"device": arguments.device, "threads": arguments.threads}
    settings |= {"batch": arguments.batch} if arguments.batch else {}
    return sample_steps(arguments.measure, arguments.steps, **settings)


def main() -> None:
    """Make, train on and remove each size in turn, or train on one file in this process."""
    parser = command_line(
        __doc__,
        "data",
        "threads",
        "device",
        factors=([1, 10, 100], "times the images"),
        steps=(2000, "of training"),
        preset=("minute", "what is trained"),
        batch=(int, "images in a step (default: the preset's)"),
        folder=(Path, "where the files are made, 31 GB at 100× (default: temporary)"),
        measure=(Path, "train on this file alone, in this process"),
    )
    arguments = begin(parser)
    if not STATUS.exists():
        sys.exit(f"there is no {STATUS} on this system: run this on Linux")
    if arguments.measure:
        print(json.dumps(measure(arguments)))
        return
    rows: list[dict[str, Any]] = []
    for factor in arguments.factors:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
            folder = Path(name)
            needed = 2 * factor * 50_000 * SIZE * SIZE * 3  # the file, and the cache of decoded images
            if (free := shutil.disk_usage(folder).free) < 1.05 * needed:
                sys.exit(
                    f"{factor}× takes {needed / 1e9:.1f} GB, {free / 1e9:.1f} are free: give another --folder"
                )
            print(f"{factor}×: making {needed / 1e9:.1f} GB in {folder}", flush=True)
            images = write_repeated(folder / "repeated.npz", arguments, factor)
            words = (__file__, *sys.argv[1:], "--measure", folder / "repeated.npz")
            measured = measure_apart(*words, FOVEATE_CACHE=str(folder / "cache"))
            rows.append({"factor": factor, "images": images, **measured})
    print_row("images", "ms a step", "MB at 1/4", "at the end", "ratio", first=12)
    for row in rows:
        quarter, *_, end = row["rss_anon_mb"]
        cells = (f"{1000 * row['step_s']:.2f}", f"{quarter:.1f}", f"{end:.1f}", f"{end / quarter:.3f}")
        print_row(f"{row['images']:,}", *cells, first=12)
    growth = max(row["rss_anon_mb"][-1] / row["rss_anon_mb"][0] for row in rows)
    print_goal("RssAnon, at the end over at a quarter", growth, "≤", GOAL)
    slowing = max(row["step_s"] for row in rows) / rows[0]["step_s"]
    print_goal("a step, the slowest over that on the first size", slowing, "≤", GOAL)
    write_record(arguments.json, rows)


if __name__ == "__main__":
    main()
