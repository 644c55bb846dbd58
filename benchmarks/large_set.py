"""Two million images are trained on with flat memory: they are memory-mapped, and no step keeps anything of them.

The images, seeded noise at 32 px (6 GB), are made here as one .npz file, trained on, and removed. What is
sampled is RssAnon: the memory of the process that no file backs.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

GOAL_GROWTH = 1.02

CHUNK = 8192
CLASSES = 10
SIZE = 32
STATUS = Path("/proc/self/status")


def anonymous_mb() -> float:
    """RssAnon of this process in MB."""
    line = next(line for line in STATUS.read_text(encoding="ascii").splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024 / 1e6


def write_noise(path: Path, count: int) -> None:
    """An .npz file of `count` images of noise and their labels, written a chunk at a time."""
    random = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("images.npy", "w", force_zip64=True) as file:
            shape = (count, SIZE, SIZE, 3)
            npy.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for start in range(0, count, CHUNK):
                file.write(random.bytes(min(CHUNK, count - start) * SIZE * SIZE * 3))
        with archive.open("labels.npy", "w") as file:
            npy.write_array(file, np.arange(count, dtype=np.int64) % CLASSES)


def main() -> None:
    """Make, train, compare the quarters, remove."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2_000_000, help="how many (default 2,000,000)")
    parser.add_argument("--steps", type=int, default=2000, help="steps to train (default 2,000)")
    parser.add_argument("--preset", default="small", help="what to train (default small)")
    parser.add_argument("--folder", type=Path, help="where to make them, 6.5 kB an image (default: temporary)")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    arguments = parser.parse_args()
    if not STATUS.exists():
        sys.exit(f"there is no {STATUS} on this system: run this on Linux")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        needed = 2 * arguments.images * SIZE * SIZE * 3  # the file, and the cache of decoded images
        if shutil.disk_usage(folder).free < 1.05 * needed:
            sys.exit(f"{folder} has no room for {needed / 1e9:.1f} GB: give another --folder")
        data = folder / "noise.npz"
        write_noise(data, arguments.images)
        print(f"made {arguments.images} images, {data.stat().st_size / 1e9:.2f} GB", flush=True)
        os.environ["FOVEATE_CACHE"] = str(folder / "cache")
        from bounded import train_steps

        every, samples = max(1, arguments.steps // 20), []

        def sample(step: int) -> None:
            if step % every == 0:
                samples.append(anonymous_mb())
                print(f"step {step:6}  RssAnon {samples[-1]:8.1f} MB", flush=True)

        train_steps(data, arguments.steps, sample, preset=arguments.preset, size=SIZE, device="cpu")
    quarter = max(1, len(samples) // 4)
    early = statistics.median(samples[quarter : 2 * quarter])
    late = statistics.median(samples[-quarter:])
    verdict = "reached" if late <= GOAL_GROWTH * early else "NOT reached"
    print(f"RssAnon: second quarter {early:.1f} MB, last quarter {late:.1f} MB, ratio {late / early:.3f}")
    print(f"goal ≤ {GOAL_GROWTH:.2f}: {verdict}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"rss_anon_mb": samples}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
