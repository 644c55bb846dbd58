"""One training step of the paper's model: Foveate against Keras on TensorFlow, and against the matrix product.

Both sides do the same work on the same machine: forward, cross-entropy, backward and AdamW on one resident batch
of fixed random uint8 images, with the accuracy counted as well. Each measurement is a fresh process, and they take
turns. Keras runs in one of two speeds by the process, so the fastest of its processes stands against our median.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

GOAL_RATIO = 1.15
GOAL_SHARE = 0.85
GOAL_AUGMENT = 0.10

HERE = Path(__file__).resolve().parent
KERAS_VENV = HERE.parent / ".venvs" / "keras-tensorflow"
# TensorFlow's build without CUDA exists for x86 on Linux and Windows alone; elsewhere the plain one is without.
TENSORFLOW = (
    "tensorflow-cpu"
    if platform.machine() in {"x86_64", "AMD64"} and platform.system() != "Darwin"
    else "tensorflow"
)
KERAS_REQUIREMENTS = (TENSORFLOW, "keras==3.15.*")

Measurement = dict[str, Any]


def main() -> None:
    """Measure in turns, print the table, and write the figures where asked."""
    arguments = parse_arguments()
    peer = install_keras() if arguments.peer == "keras" else None
    load = os.getloadavg()[0]
    ours: list[Measurement] = []
    keras: list[Measurement] = []
    for number in range(1, arguments.rounds + 1):
        ours.append(measure(sys.executable, "train_step_foveate.py", arguments))
        report(number, "foveate", ours[-1])
        if peer:
            keras.append(measure(str(peer), "train_step_keras.py", arguments))
            report(number, "keras", keras[-1])
    summary = summarize(ours, keras)
    show(summary, arguments, load)
    if arguments.json:
        record = {
            "settings": {key: str(value) for key, value in vars(arguments).items()},
            "machine": {"processor": platform.processor(), "cores": os.cpu_count(), "load_before": load},
            "summary": summary,
            "foveate": ours,
            "keras": keras,
        }
        arguments.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64, help="images in a step (default 64)")
    parser.add_argument("--rounds", type=int, default=5, help="fresh processes of each side (default 5)")
    parser.add_argument("--seconds", type=float, default=30, help="training in each process (default 30)")
    parser.add_argument("--threads", type=int, help="CPU threads of both sides (default: each library's choice)")
    parser.add_argument("--peer", choices=["keras", "none"], default="keras", help="whom to measure against")
    parser.add_argument("--augment", action="store_true", help="with the paper's augmentation, and its share")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    return parser.parse_args()


def install_keras() -> Path:
    """The interpreter of a virtual environment with Keras on TensorFlow, made now if it is not there."""
    python = KERAS_VENV / ("Scripts" if os.name == "nt" else "bin") / "python"
    stamp, wanted = KERAS_VENV / "requirements.txt", "\n".join(KERAS_REQUIREMENTS)
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        print(f"installing {' and '.join(KERAS_REQUIREMENTS)} into {KERAS_VENV} (minutes)", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(KERAS_VENV)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *KERAS_REQUIREMENTS], check=True)
        stamp.write_text(wanted, encoding="utf-8")
    return python


def measure(python: str, script: str, arguments: argparse.Namespace) -> Measurement:
    """What a fresh process of `script` measures: a JSON object, its last line."""
    command = [python, str(HERE / script), "--batch", str(arguments.batch), "--seconds", str(arguments.seconds)]
    if arguments.threads:
        command += ["--threads", str(arguments.threads)]
    if arguments.augment and script == "train_step_foveate.py":
        command.append("--augment")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{script} failed with exit code {done.returncode}:\n{done.stderr}")
    result: Measurement = json.loads(done.stdout.splitlines()[-1])
    return result


def rate(measurement: Measurement) -> float:
    """A process' images per second: the median of its steps."""
    return float(statistics.median(measurement["images_per_s"]))


def report(number: int, side: str, measurement: Measurement) -> None:
    """A line for each process as it ends, so that the two speeds of Keras can be seen."""
    print(f"round {number}  {side:<8}{rate(measurement):7.1f} images/s", flush=True)


def summarize(ours: list[Measurement], keras: list[Measurement]) -> dict[str, float | None]:
    """The figures that the goals are about."""
    gflop = ours[0]["gflop_per_image"]
    matmuls = [{name: max(rates) for name, rates in each["matmul_gflop_per_s"].items()} for each in ours]
    shares = [rate(each) * gflop / max(best.values()) for each, best in zip(ours, matmuls, strict=True)]
    median = statistics.median(map(rate, ours))
    fastest_keras = max(map(rate, keras)) if keras else None
    augment = [each["augment_share"] for each in ours if each["augment_share"] is not None]
    return {
        "gflop_per_image": gflop,
        "foveate_images_per_s": median,
        "foveate_gflop_per_s": median * gflop,
        "keras_images_per_s": fastest_keras,
        "ratio_to_keras": median / fastest_keras if fastest_keras else None,
        "torch_mm_gflop_per_s": statistics.median(best["torch.mm"] for best in matmuls),
        "matmul_gflop_per_s": statistics.median(max(best.values()) for best in matmuls),
        "share_of_matmul": statistics.median(shares),
        "augment_share": statistics.median(augment) if augment else None,
    }


def show(summary: dict[str, float | None], arguments: argparse.Namespace, load: float) -> None:
    """The table, with each goal and whether it is reached."""
    print(
        f"\npaper model, batch {arguments.batch}, {summary['gflop_per_image']:.3f} GFLOP an image; "
        f"the machine's load before was {load:.1f}"
    )
    gflop = summary["gflop_per_image"] or 0.0
    keras = summary["keras_images_per_s"]
    rows = [
        ("Foveate, median process", summary["foveate_images_per_s"], summary["foveate_gflop_per_s"]),
        ("Keras on TensorFlow, fastest process", keras, keras * gflop if keras else None),
        ("fp32 matrix product, torch.mm", None, summary["torch_mm_gflop_per_s"]),
        ("fp32 matrix product, the faster of torch.mm and oneDNN", None, summary["matmul_gflop_per_s"]),
    ]
    print(f"{'':56}{'images/s':>10}{'GFLOP/s':>10}")
    for name, images, flops in rows:
        if images or flops:
            print(f"{name:56}{f'{images:.1f}' if images else '':>10}{f'{flops:.0f}' if flops else '':>10}")
    goals = [
        ("Foveate / Keras", summary["ratio_to_keras"], GOAL_RATIO, True),
        ("Foveate / matrix product", summary["share_of_matmul"], GOAL_SHARE, True),
        ("augmentation's share of a step", summary["augment_share"], GOAL_AUGMENT, False),
    ]
    for name, value, goal, at_least in goals:
        if value is not None:
            reached = value >= goal if at_least else value < goal
            sign, verdict = "≥" if at_least else "<", "reached" if reached else "NOT reached"
            print(f"{name:56}{value:10.2f}   goal {sign} {goal:.2f}: {verdict}")


if __name__ == "__main__":
    main()
