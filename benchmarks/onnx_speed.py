"""An exported network under ONNX Runtime: against eager PyTorch, 8 bits against 32, and from a cold start.

The peer is the network as it was trained, in eager PyTorch on the CPU, in channels_last memory. The sides of a
ratio take turns in one process, so that what else the machine does falls on both; a cold start is a process.

    python benchmarks/onnx_speed.py RUN EXPORTED IMAGE      # EXPORTED made by `foveate export RUN --int8`
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does it

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

GOAL_ONE = 1.7
GOAL_INT8 = 1.4
GOAL_LOST_POINTS = 0.3
GOAL_COLD_S = {"onnx": 1.0, "run": 4.0}
COLD = "from foveate.cli import main; main()"


BLOCK = 10


def in_turns(sides: Mapping[str, Callable[[], object]], blocks: int) -> dict[str, tuple[float, float]]:
    """Median and least seconds of each side, which take turns in blocks; the first runs of one do not count."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(blocks):
        for name, run in sides.items():
            for number in range(BLOCK):
                began = time.perf_counter()
                run()
                if number >= BLOCK // 5:
                    taken[name].append(time.perf_counter() - began)
    return {name: (statistics.median(each), min(each)) for name, each in taken.items()}


def cold(model: Path, image: Path, rounds: int) -> tuple[float, float]:
    """Median seconds, and median seconds of processor time, of `foveate predict` on one image."""
    # As an installed package has it: without byte code, every start would compile Foveate's own modules.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", COLD, "predict", str(model), str(image)]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    taken, worked = [], []
    for _ in range(rounds):
        began, before = time.perf_counter(), os.times()
        subprocess.run(command, check=True, capture_output=True, env=environment)
        taken.append(time.perf_counter() - began)
        after = os.times()
        worked.append(after.children_user - before.children_user + after.children_system - before.children_system)
    return statistics.median(taken), statistics.median(worked)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("exported", type=Path, help="folder made of it by `foveate export --int8`")
    parser.add_argument("image", type=Path, help="an image file, for the cold start")
    parser.add_argument("--blocks", type=int, default=12, help=f"of {BLOCK} runs each")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    from foveate.inference.network import NetworkEngine
    from foveate.inference.onnx import OnnxEngine

    eager = NetworkEngine.load(arguments.run)
    plain, small = (OnnxEngine(arguments.exported / name) for name in ("model.onnx", "model-int8.onnx"))
    size = eager.about.size
    images = np.random.default_rng(0).integers(0, 256, (64, size, size, 3), np.uint8)
    one = in_turns(
        {"eager": lambda: eager.logits(images[:1]), "onnx": lambda: plain.logits(images[:1])}, arguments.blocks
    )
    many = in_turns(
        {
            "eager": lambda: eager.logits(images),
            "onnx": lambda: plain.logits(images),
            "int8": lambda: small.logits(images),
        },
        arguments.blocks,
    )
    certificate = json.loads((arguments.exported / "certificate.json").read_text())
    lost = next(each for each in certificate["files"] if each["precision"] == "int8")["measured"]["lost_points"]
    starts = {
        name: cold(model, arguments.image, arguments.blocks)
        for name, model in (("onnx", arguments.exported / "model.onnx"), ("run", arguments.run))
    }
    ratios = {
        "onnx_over_eager_one": (one["eager"], one["onnx"], GOAL_ONE),
        "onnx_over_eager_64": (many["eager"], many["onnx"], None),
        "int8_over_fp32_64": (many["onnx"], many["int8"], GOAL_INT8),
    }
    found: dict[str, Any] = {
        "load": os.getloadavg()[0],
        "ms_one": {name: 1000 * each for name, (each, _) in one.items()},
        "ms_64": {name: 1000 * each for name, (each, _) in many.items()},
        "ratios_of_medians": {name: slow[0] / fast[0] for name, (slow, fast, _) in ratios.items()},
        "ratios_of_least": {name: slow[1] / fast[1] for name, (slow, fast, _) in ratios.items()},
        "lost_points": lost,
        "cold_s": {name: each for name, (each, _) in starts.items()},
        "cold_processor_s": {name: each for name, (_, each) in starts.items()},
    }
    print(f"load {found['load']:.1f}")
    print(f"one image: {', '.join(f'{name} {each:.2f} ms' for name, each in found['ms_one'].items())}")
    print(f"64 images: {', '.join(f'{name} {each:.1f} ms' for name, each in found['ms_64'].items())}")
    for name, (_, _, goal) in ratios.items():
        median, least = found["ratios_of_medians"][name], found["ratios_of_least"][name]
        print(f"{name}: {median:.2f} of medians, {least:.2f} of the least{f' (goal {goal})' if goal else ''}")
    print(f"accuracy lost by 8 bits: {lost:.2f} points (at most {GOAL_LOST_POINTS})")
    for name, (each, worked) in starts.items():
        print(f"cold start from {name}: {each:.2f} s, {worked:.2f} s of a processor (at most {GOAL_COLD_S[name]})")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
