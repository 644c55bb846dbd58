"""`foveate predict` on a folder of JPEGs, against decoding them and running the network, each alone.

The photographs are CIFAR-10's, enlarged (Lanczos) and written as JPEG (quality 90). In turns: all of them decoded
by as many processes as there are processors, and thrown away; as many decoded images run through the network; and
`Predictor.predict_files`. **Peer:** 1 / (decoding + network), the rate of doing one after the other with the same
processors. Shown: the ratio of medians (goal: at least .90), and how much memory grows from a tenth of the images
on.

    python benchmarks/predicting.py --model runs/train/NAME --images 20000 --json FILE
"""

import os
import resource
import tempfile
from argparse import Namespace
from pathlib import Path

import numpy as np
from PIL import Image

from foveate.data.dataset import load_dataset
from foveate.data.stream import stream_files
from foveate.inference.engine import BATCH
from foveate.inference.predictor import Predictor
from foveate.preprocessing import Preprocessing
from foveate.settings import DataConfig
from harness import (
    begin,
    command_line,
    in_turns,
    medians,
    print_goal,
    print_row,
    seconds_of,
    write_record,
)


def main() -> None:
    """Write the folder, time the three in turns, and print the table."""
    side = (128, "of the photographs, in pixels")
    parser = command_line(__doc__, "data", images=20_000, side=side, turns=3)
    parser.add_argument("--model", type=Path, required=True, help="a run, a .safetensors or an .onnx file")
    arguments = begin(parser)
    predictor = Predictor.load(arguments.model)
    with tempfile.TemporaryDirectory() as name:
        seconds, growth = measure(predictor, write_photographs(arguments, Path(name)), arguments.turns)
    found = medians(seconds)
    ratio = (found["decoding"] + found["network"]) / found["predicting"]
    for what, median in found.items():
        print_row(what, f"{median:.2f} s", f"{arguments.images / median:,.0f} images/s", width=20, first=12)
    print_goal("decoding and network one after the other / predicting", ratio, "≥", 0.90)
    print(f"memory from a tenth of the images to the last: {max(growth) / 2**20:+.1f} MiB")
    record = {"images": arguments.images, "side": arguments.side, "seconds": seconds, "ratio": ratio}
    record |= {"growth_bytes": growth, "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    write_record(arguments.json, record)


def measure(predictor: Predictor, paths: list[str], turns: int) -> tuple[dict[str, list[float]], list[int]]:
    """Seconds of each of the three in every turn, and the bytes that predicting has grown by in each."""
    size = predictor.about.size
    batch = np.random.default_rng(0).integers(0, 256, (BATCH, size, size, 3), dtype=np.uint8)
    growth: list[int] = []

    def decode() -> None:
        for _ in stream_files(paths, Preprocessing(size), at_once=BATCH):
            pass

    def run_network() -> None:
        for _ in range(-(-len(paths) // BATCH)):
            predictor.engine.logits(batch)

    def predict() -> None:
        before = 0
        for number, _ in enumerate(predictor.predict_files(paths)):
            before = resident() if number == len(paths) // 10 else before
        growth.append(resident() - before)

    works = {"decoding": decode, "network": run_network, "predicting": predict}
    return in_turns({what: seconds_of(work) for what, work in works.items()}, turns), growth


def write_photographs(arguments: Namespace, folder: Path) -> list[str]:
    """Write the images as files; their paths."""
    data = load_dataset(arguments.data, DataConfig(size=32), data_dir=arguments.data_dir)
    paths = [folder / f"{number:06}.jpg" for number in range(arguments.images)]
    for number, path in enumerate(paths):
        pixels = Image.fromarray(data.images[number % len(data.images)])
        pixels.resize((arguments.side, arguments.side), Image.Resampling.LANCZOS).save(path, quality=90)
    return list(map(os.fspath, paths))


def resident() -> int:
    """Bytes of memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    main()
