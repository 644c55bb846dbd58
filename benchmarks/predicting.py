"""`foveate predict` on a folder of JPEGs, against decoding them and asking the network, each alone.

The photographs are CIFAR-10's, enlarged (Lanczos) and written as JPEG (quality 90). In turns: all of them decoded
by as many processes as there are processors, and not looked at; as many decoded images run through the network;
and `Predictor.predict_files`. **Peer:** 1 / (decoding + network), the rate of doing one after the other with the
same processors. Told: the ratio of medians (goal: at least .90), and how much memory grows from a tenth of the
images on.

    python benchmarks/predicting.py --model runs/train/NAME --images 20000 --json FILE
"""

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from foveate.config import DataConfig
from foveate.data.dataset import load_dataset
from foveate.data.stream import stream_files
from foveate.inference.engine import BATCH
from foveate.inference.predictor import Predictor


def main() -> None:
    """Write the folder, time the three in turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a run, a .safetensors or an .onnx file")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--data-dir", type=Path, help="where it lies (default $FOVEATE_DATA)")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--side", type=int, default=128, help="of the photographs, in pixels")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    predictor = Predictor.load(arguments.model)
    with tempfile.TemporaryDirectory() as name:
        seconds, growth = timed(predictor, photographs(arguments, Path(name)), arguments.turns)
    medians = {what: statistics.median(times) for what, times in seconds.items()}
    ratio = (medians["decoding"] + medians["network"]) / medians["predicting"]
    for what, median in medians.items():
        print(f"{what:12}{median:9.2f} s{arguments.images / median:10,.0f} images/s")
    print(f"ratio to decoding and network alone, one after the other: {ratio:.2f} (goal: at least .90)")
    print(f"memory from a tenth of the images to the last: {max(growth) / 2**20:+.1f} MiB")
    if arguments.json:
        record = {
            "images": arguments.images,
            "side": arguments.side,
            "seconds": seconds,
            "ratio": ratio,
            "growth_bytes": growth,
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def timed(predictor: Predictor, paths: list[str], turns: int) -> tuple[dict[str, list[float]], list[int]]:
    """Seconds of each of the three in every turn, and the bytes that predicting has grown by in each."""
    size = predictor.about.size
    batch = np.random.default_rng(0).integers(0, 256, (BATCH, size, size, 3), dtype=np.uint8)
    growth: list[int] = []

    def decode() -> None:
        for _ in stream_files(paths, size, at_once=BATCH):
            pass

    def ask() -> None:
        for _ in range(-(-len(paths) // BATCH)):
            predictor.engine.logits(batch)

    def predict() -> None:
        before = 0
        for number, _ in enumerate(predictor.predict_files(paths)):
            before = resident() if number == len(paths) // 10 else before
        growth.append(resident() - before)

    works: dict[str, Callable[[], None]] = {"decoding": decode, "network": ask, "predicting": predict}
    seconds: dict[str, list[float]] = {what: [] for what in works}
    for _ in range(turns):
        for what, work in works.items():
            began = time.perf_counter()
            work()
            seconds[what].append(time.perf_counter() - began)
    return seconds, growth


def photographs(arguments: argparse.Namespace, folder: Path) -> list[str]:
    """Write the images as files."""
    data = load_dataset(arguments.data, DataConfig(size=32), data_dir=arguments.data_dir)
    paths = []
    for number in range(arguments.images):
        pixels = Image.fromarray(data.images[number % len(data.images)])
        path = folder / f"{number:06}.jpg"
        pixels.resize((arguments.side, arguments.side), Image.Resampling.LANCZOS).save(path, quality=90)
        paths.append(os.fspath(path))
    return paths


def resident() -> int:
    """Bytes of memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    main()
