"""One training step of the paper's model: Foveate against Keras on TensorFlow, and against the matrix product.

Both sides do the same work on the same machine: forward, cross-entropy, backward and AdamW on one resident batch
of fixed random uint8 images, with the accuracy counted as well. Each measurement is a fresh process, and they take
turns. Keras runs in one of two speeds by the process, so the fastest of its processes stands against our median.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from argparse import Namespace
from typing import Any

from harness import (
    HERE,
    begin,
    command_line,
    machine,
    measure_apart,
    prepare,
    print_goal,
    print_row,
    run_python,
    write_record,
)

GOAL_RATIO, GOAL_SHARE, GOAL_AUGMENT = 1.15, 0.85, 0.10
KERAS_VENV = HERE.parent / ".venvs" / "keras-tensorflow"
# TensorFlow's build without CUDA exists for x86 on Linux and Windows alone; elsewhere the plain one is without.
ON_X86 = platform.machine() in {"x86_64", "AMD64"} and platform.system() != "Darwin"
KERAS_REQUIREMENTS = ("tensorflow-cpu" if ON_X86 else "tensorflow", "keras==3.15.*")

Measurement = dict[str, Any]


def main() -> None:
    """Measure both sides in turns and print the table."""
    parser = command_line(
        __doc__,
        "threads",
        batch=(64, "images in a step"),
        rounds=(5, "fresh processes of each side"),
        seconds=(30.0, "of training in each process"),
        augment=(False, "with the paper's augmentation, and its share of a step"),
        ours=(False, "measure our side alone, in this process"),
    )
    parser.add_argument("--peer", choices=["keras", "none"], default="keras", help="what to measure against")
    arguments = begin(parser)
    if arguments.ours:
        print(json.dumps(measure_ours(arguments)))
        return
    load, keras_python = os.getloadavg()[0], install_keras() if arguments.peer == "keras" else None
    ours: list[Measurement] = []
    keras: list[Measurement] = []
    for number in range(1, arguments.rounds + 1):
        ours.append(measure_apart(__file__, *sys.argv[1:], "--ours"))
        print(f"round {number}  foveate {rate(ours[-1]):7.1f} images/s", flush=True)
        if keras_python:
            keras.append(measure_keras(keras_python, arguments.batch, arguments.seconds, arguments.threads))
            print(f"round {number}  keras   {rate(keras[-1]):7.1f} images/s", flush=True)
    summary = summarize(ours, keras)
    show(summary, arguments.batch)
    record = {
        "settings": {key: str(value) for key, value in vars(arguments).items() if key not in ("json", "ours")},
        "machine": {**machine(), "load_before": load},
        "summary": summary,
        "foveate": ours,
        "keras": keras,
    }
    write_record(arguments.json, record)


def measure_ours(arguments: Namespace) -> Measurement:
    """The product's own loop over one resident batch, between two measurements of the matrix product."""
    prepare(arguments.threads)
    import torch

    from foveate.config import resolve_config
    from foveate.data.augment import build_augment
    from rates import CLASSES, matmul_gflop_per_s, noise, training_rates

    config = resolve_config("paper", settings={"batch": arguments.batch, "device": "cpu", "flip": 0.5})
    product, augment_seconds = build_augment(config.augment, CLASSES), []

    def augment(images: torch.Tensor, labels: torch.Tensor, *more: Any) -> tuple[torch.Tensor, torch.Tensor]:
        if not arguments.augment:
            return images, labels
        began = time.perf_counter()
        augmented = product(images, labels, *more)
        augment_seconds.append(time.perf_counter() - began)
        return augmented

    batch = noise(arguments.batch, 32, torch.device("cpu"))
    before = matmul_gflop_per_s(arguments.seconds / 10)
    images_per_s, gflop_per_image = training_rates(config, *batch, arguments.seconds, augment)
    after = matmul_gflop_per_s(arguments.seconds / 10)
    step_seconds = sum(arguments.batch / each for each in images_per_s)
    counted = augment_seconds[-len(images_per_s) :]
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "images_per_s": images_per_s,
        "gflop_per_image": gflop_per_image,
        "matmul_gflop_per_s": {name: [before[name], after[name]] for name in before},
        "augment_share": sum(counted) / step_seconds if arguments.augment else None,
    }


def install_keras() -> str:
    """The interpreter of a virtual environment with Keras on TensorFlow, made now if it is not there."""
    python = KERAS_VENV / ("Scripts" if os.name == "nt" else "bin") / "python"
    stamp, wanted = KERAS_VENV / "requirements.txt", "\n".join(KERAS_REQUIREMENTS)
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        print(f"installing {' and '.join(KERAS_REQUIREMENTS)} into {KERAS_VENV} (minutes)", flush=True)
        run_python("-m", "venv", "--clear", KERAS_VENV)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *KERAS_REQUIREMENTS], check=True)
        stamp.write_text(wanted, encoding="utf-8")
    return str(python)


def measure_keras(python: str, batch: int, seconds: float, threads: int | None) -> Measurement:
    """What a fresh process of `train_step_keras.py` measures, by the interpreter that has Keras."""
    words = ["--batch", batch, "--seconds", seconds, *(["--threads", threads] if threads else [])]
    return measure_apart(HERE / "train_step_keras.py", *words, python=python)


def rate(measurement: Measurement) -> float:
    """A process' images per second: the median of its steps."""
    return float(statistics.median(measurement["images_per_s"]))


def summarize(ours: list[Measurement], keras: list[Measurement]) -> dict[str, float | None]:
    """The figures that the goals are about."""
    gflop = ours[0]["gflop_per_image"]
    products = [{name: max(rates) for name, rates in each["matmul_gflop_per_s"].items()} for each in ours]
    shares = [rate(each) * gflop / max(best.values()) for each, best in zip(ours, products, strict=True)]
    median = statistics.median(map(rate, ours))
    fastest_keras = max(map(rate, keras)) if keras else None
    augment = [each["augment_share"] for each in ours if each["augment_share"] is not None]
    return {
        "gflop_per_image": gflop,
        "foveate_images_per_s": median,
        "foveate_gflop_per_s": median * gflop,
        "keras_images_per_s": fastest_keras,
        "ratio_to_keras": median / fastest_keras if fastest_keras else None,
        "torch_mm_gflop_per_s": statistics.median(best["torch.mm"] for best in products),
        "matmul_gflop_per_s": statistics.median(max(best.values()) for best in products),
        "share_of_matmul": statistics.median(shares),
        "augment_share": statistics.median(augment) if augment else None,
    }


def show(summary: dict[str, float | None], batch: int) -> None:
    """The table, and each goal."""
    gflop, keras = summary["gflop_per_image"] or 0.0, summary["keras_images_per_s"]
    print(f"paper model, batch {batch}, {gflop:.3f} GFLOP an image")
    print_row("", "images/s", "GFLOP/s", first=56, width=10)
    for name, images, flops in (
        ("Foveate, median process", summary["foveate_images_per_s"], summary["foveate_gflop_per_s"]),
        ("Keras on TensorFlow, fastest process", keras, keras * gflop if keras else None),
        ("fp32 matrix product, torch.mm", None, summary["torch_mm_gflop_per_s"]),
        ("fp32 matrix product, the faster of torch.mm and oneDNN", None, summary["matmul_gflop_per_s"]),
    ):
        if images or flops:
            cells = (f"{images:.1f}" if images else "", f"{flops:.0f}" if flops else "")
            print_row(name, *cells, first=56, width=10)
    for name, value, sign, goal in (
        ("Foveate / Keras", summary["ratio_to_keras"], "≥", GOAL_RATIO),
        ("Foveate / matrix product", summary["share_of_matmul"], "≥", GOAL_SHARE),
        ("augmentation's share of a step", summary["augment_share"], "<", GOAL_AUGMENT),
    ):
        if value is not None:
            print_goal(name, value, sign, goal)


if __name__ == "__main__":
    main()
