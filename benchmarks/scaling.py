"""Training on 1, 10 and 100 times CIFAR-10's images takes the same time a step and no more memory as it goes on.

CIFAR-10's 50,000 training images are repeated into one .npz file of each size, trained on for so many steps by the
call that the command line makes, each in a fresh process, and removed. The images are memory-mapped. RssAnon, the
memory of the process that no file backs, is sampled at every eighth of the steps from a quarter on.
There is no peer.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

GOAL = 1.02
"""Of the memory at the end to that at a quarter, and of the time of a step to that on the fewest images."""
WARM_UP = 5
SIZE = 32
STATUS = Path("/proc/self/status")


def anonymous_mb() -> float:
    """RssAnon of this process in MB."""
    line = next(line for line in STATUS.read_text(encoding="ascii").splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024 / 1e6


def write_repeated(path: Path, arguments: argparse.Namespace, factor: int) -> int:
    """An .npz file of the data set's training images and labels, `factor` times over; how many that makes."""
    from foveate.config import DataConfig
    from foveate.data.dataset import load_dataset

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


def measure(arguments: argparse.Namespace, data: Path) -> dict[str, Any]:
    """Train on `data` in this process."""
    from bounded import train_steps

    moments: list[float] = []
    anonymous: list[float] = []
    sampled = {max(1, eighth * arguments.steps // 8) for eighth in range(2, 9)}

    def sample(step: int) -> None:
        moments.append(time.perf_counter())
        if step in sampled:
            anonymous.append(anonymous_mb())

    # However few images there are, there are steps enough.
    settings = {
        "epochs": arguments.steps,
        "resize_until": 0,
        "device": arguments.device,
        "threads": arguments.threads,
    }
    train_steps(data, arguments.steps, sample, preset=arguments.preset, size=SIZE, **settings)
    seconds = statistics.median(np.diff(moments)[WARM_UP:])
    return {"step_s": float(seconds), "steps": len(moments), "rss_anon_mb": anonymous}


def in_fresh_process(folder: Path, data: Path) -> dict[str, Any]:
    """What a fresh process of this script measures on `data`: its last line."""
    command = [sys.executable, __file__, *sys.argv[1:], "--measure", str(data)]
    environment = {**os.environ, "FOVEATE_CACHE": str(folder / "cache")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"training on {data} failed with exit code {done.returncode}:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def compare(arguments: argparse.Namespace) -> None:
    """Make, train and remove each size, and print the table."""
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
            rows.append({"factor": factor, "images": images, **in_fresh_process(folder, folder / "repeated.npz")})
    print(f"\n{'images':>12}{'ms a step':>12}{'RssAnon at 1/4':>18}{'at the end':>14}{'ratio':>9}")
    for row in rows:
        quarter, *_, end = row["rss_anon_mb"]
        memory = f"{quarter:15.1f} MB{end:11.1f} MB{end / quarter:9.3f}"
        print(f"{row['images']:12,}{1000 * row['step_s']:12.2f}{memory}")
    growth = max(row["rss_anon_mb"][-1] / row["rss_anon_mb"][0] for row in rows)
    slowing = max(row["step_s"] for row in rows) / rows[0]["step_s"]
    for name, ratio in (("RssAnon, end to quarter", growth), ("a step, slowest to the first size", slowing)):
        print(f"{name}: {ratio:.3f}   goal ≤ {GOAL:.2f}: {'reached' if ratio <= GOAL else 'NOT reached'}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """The whole comparison, or one size of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--factors", type=int, nargs="+", default=[1, 10, 100], help="times the images")
    parser.add_argument("--steps", type=int, default=2000, help="steps to train (default 2,000)")
    parser.add_argument("--preset", default="minute", help="what to train (default minute)")
    parser.add_argument("--data", default="cifar10", help="what to repeat (default cifar10)")
    parser.add_argument("--data-dir", type=Path, help="where it lies (default $FOVEATE_DATA)")
    parser.add_argument("--folder", type=Path, help="where to make them, 31 GB at 100× (default: temporary)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    parser.add_argument("--measure", type=Path, help="train on this file alone, in this process")
    arguments = parser.parse_args()
    if not STATUS.exists():
        sys.exit(f"there is no {STATUS} on this system: run this on Linux")
    if arguments.measure:
        print(json.dumps(measure(arguments, arguments.measure)))
    else:
        compare(arguments)


if __name__ == "__main__":
    main()
