"""An exported network under ONNX Runtime: against eager PyTorch, 8 bits against 32, and from a cold start.

The peer is the network as it was trained, in eager PyTorch on the CPU, in channels_last memory. The sides of a
ratio take turns in one process, in blocks of ten calls; each cold start is a process of its own.

    python benchmarks/onnx_speed.py RUN EXPORTED IMAGE      # EXPORTED made by `foveate export RUN --int8`
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import (
    FOVEATE,
    begin,
    command_line,
    in_turns,
    medians,
    print_goal,
    print_row,
    read_record,
    seconds_of,
    write_record,
)

# isort: split
import numpy as np

from foveate.inference.network import NetworkEngine
from foveate.inference.onnx import OnnxEngine

GOAL_LOST_POINTS, GOAL_COLD_S = 0.3, {"onnx": 1.0, "run": 4.0}
BLOCK = 10


def main() -> None:
    """Measure, print and write."""
    parser = command_line(__doc__, blocks=(12, f"of {BLOCK} calls each, and cold starts"))
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("exported", type=Path, help="folder made of it by `foveate export --int8`")
    parser.add_argument("image", type=Path, help="an image file, for the cold start")
    arguments = begin(parser)
    eager = NetworkEngine.load(arguments.run)
    plain, small = (OnnxEngine(arguments.exported / name) for name in ("model.onnx", "model-int8.onnx"))
    size = eager.about.size
    images = np.random.default_rng(0).integers(0, 256, (64, size, size, 3), np.uint8)
    sides: dict[str, Callable[[], object]] = {
        "eager": lambda: eager.logits(images[:1]),
        "onnx": lambda: plain.logits(images[:1]),
    }
    one = measure(sides, arguments.blocks)
    sides = {"eager": lambda: eager.logits(images), "onnx": lambda: plain.logits(images)}
    many = measure({**sides, "int8": lambda: small.logits(images)}, arguments.blocks)
    certificate = read_record(arguments.exported / "certificate.json", {})
    lost = next(each for each in certificate["files"] if each["precision"] == "int8")["measured"]["lost_points"]
    models = {"onnx": arguments.exported / "model.onnx", "run": arguments.run}
    starts = {name: cold(model, arguments.image, arguments.blocks) for name, model in models.items()}
    ratios: dict[str, tuple[Any, Any, float | None]] = {
        "onnx_over_eager_one": (one["eager"], one["onnx"], 1.7),
        "onnx_over_eager_64": (many["eager"], many["onnx"], None),
        "int8_over_fp32_64": (many["onnx"], many["int8"], 1.4),
    }
    found: dict[str, Any] = {
        "load": os.getloadavg()[0],
        "ms_one": {name: 1000 * each for name, (each, _) in one.items()},
        "ms_64": {name: 1000 * each for name, (each, _) in many.items()},
        "ratios_of_medians": {name: slow[0] / fast[0] for name, (slow, fast, _) in ratios.items()},
        "ratios_of_least": {name: slow[1] / fast[1] for name, (slow, fast, _) in ratios.items()},
        "lost_points": lost,
        "cold_s": {name: each["seconds"] for name, each in starts.items()},
        "cold_processor_s": {name: each["processor"] for name, each in starts.items()},
    }
    for what in ("ms_one", "ms_64"):
        print_row(what, *(f"{name} {each:.2f}" for name, each in found[what].items()), width=16, first=12)
    for name, (_, _, goal) in ratios.items():
        median, least = found["ratios_of_medians"][name], found["ratios_of_least"][name]
        print_row(name, f"{median:.2f} of medians", f"{least:.2f} of the least", width=20)
        if goal:
            print_goal(name, median, "≥", goal)
    print_goal("accuracy lost by 8 bits", lost, "≤", GOAL_LOST_POINTS, " points")
    for name, goal in GOAL_COLD_S.items():
        worked = f"{found['cold_processor_s'][name]:.2f} s of a processor"
        print_goal(f"cold start from {name}, {worked}", found["cold_s"][name], "≤", goal, " s")
    write_record(arguments.json, found)


def measure(sides: dict[str, Callable[[], object]], blocks: int) -> dict[str, tuple[float, float]]:
    """Median and least seconds of each side; a busy neighbour weighs less on the least."""
    taken = in_turns({name: seconds_of(call) for name, call in sides.items()}, blocks, block=BLOCK)
    return {name: (median, min(taken[name])) for name, median in medians(taken).items()}


def cold(model: Path, image: Path, rounds: int) -> dict[str, float]:
    """Median seconds, and median seconds of processor time, of `foveate predict` on one image."""
    # As an installed package has it: without byte code, every start would compile Foveate's own modules.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, *FOVEATE, "predict", str(model), str(image)]
    taken: dict[str, list[float]] = {"seconds": [], "processor": []}
    for _ in range(rounds + 1):
        began, before = time.perf_counter(), os.times()
        subprocess.run(command, check=True, capture_output=True, env=environment)
        after = os.times()
        taken["seconds"].append(time.perf_counter() - began)
        taken["processor"].append(sum(after[2:4]) - sum(before[2:4]))
    return medians({name: values[1:] for name, values in taken.items()})  # the first start writes the byte code


if __name__ == "__main__":
    main()
