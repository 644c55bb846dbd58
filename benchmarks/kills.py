"""Kill training at random moments, resume it, and compare with the run that was never killed, bit for bit.

Each life of a process ends by SIGKILL at a moment drawn uniformly from its first seconds: while it imports, loads
data, trains, validates, saves, measures or writes the report. Killed runs are resumed until they end by
themselves; then weights, optimizer, generators, history and metrics must equal those of the unkilled run.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from foveate.checkpoint import load_tensors

STAGES = "[{filters: 8, kernels: [3], pool: 2}, {filters: 12, kernels: [3], pool: 3, dropout: 0.25}]"
SETTINGS = [
    "--preset",
    "small",
    "--epochs",
    "6",
    "--seed",
    "3",
    "--set",
    "save_every_s=0",
    "--set",
    f"stages={STAGES}",
]


def main() -> None:
    """Run the campaign; exit code 1 when a resumed run differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--longest", type=float, default=8.0, help="seconds a process lives at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    draws = random.Random(arguments.seed)  # noqa: S311 (moments, not secrets)
    began, kills, runs, differing = time.monotonic(), 0, 0, []
    where: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        live(root, "train", "digits", "--name", "unkilled", *SETTINGS)
        expected = contents(root / "runs" / "train" / "unkilled")
        while kills < arguments.kills:
            name = f"killed-{runs}"
            run = root / "runs" / "train" / name
            ended = False
            while not ended:
                started = (run / "run.json").exists()
                command = ["--resume", f"runs/train/{name}"] if started else ["digits", "--name", name, *SETTINGS]
                spare = draws.uniform(0, arguments.longest) if kills < arguments.kills else None
                ended = live(root, "train", *command, spare=spare)
                if not ended:
                    kills += 1
                    where[moment(run)] += 1
            runs += 1
            found = contents(run)
            differing += [f"{name}: {key}" for key in expected if found.get(key) != expected[key]]
            print(f"{kills} kills, {runs} runs, {len(differing)} differences", flush=True)
    result = {
        "kills": kills,
        "runs": runs,
        "differences": differing,
        "killed": dict(where.most_common()),
        "minutes": round((time.monotonic() - began) / 60, 1),
    }
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(bool(differing))


def live(root: Path, *command: str, spare: float | None = None) -> bool:
    """Run `foveate`; kill it after `spare` seconds. Whether it ended by itself."""
    code = "from foveate.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *command], cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        _, errors = process.communicate(timeout=spare)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return False
    if process.returncode:
        sys.exit(f"foveate {' '.join(command)} failed: {errors.decode()}")
    return True


def moment(run: Path) -> str:
    """Roughly what the run was doing when it was killed."""
    if not (run / "run.json").exists():
        return "before the run began"
    if list(run.rglob(".*.tmp")):
        return "while writing a file"
    _, meta = load_tensors(run / "weights" / "last" / "state.safetensors")
    if meta["training"]["epoch"] > 6:
        return "measuring and reporting"
    return "between epochs or loading" if meta["training"]["step"] == 0 else "within an epoch"


def contents(run: Path) -> dict[str, bytes]:
    """All that must be equal: every tensor, the header but for times, and the text files."""
    found = {name: (run / name).read_bytes() for name in ("results.csv", "metrics.json", "predictions.parquet")}
    for name in ("weights/best.safetensors", "weights/last/state.safetensors"):
        tensors, meta = load_tensors(run / name)
        for row in meta.get("training", {}).get("history", []):
            del row["seconds"], row["images_per_s"]
        found[f"{name} header"] = json.dumps(meta).encode()
        found |= {f"{name} {key}": tensor.numpy().tobytes() for key, tensor in tensors.items()}
    return found


if __name__ == "__main__":
    main()
