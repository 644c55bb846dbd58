"""CIFAR-10 from its Parquet shards: the time to load it, cold and cached, and the memory it takes to train on it.

The cost of verifying the cache is the difference between two rows: cached, where the file of the pixels is known
by its identity; and cached with that forgotten, where its pixels are hashed.

Each measurement is a fresh process. Cold means that Foveate's cache is empty, not that the system's page cache is.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

GOAL_COLD_S = 10.0
GOAL_CACHED_S = 1.0
GOAL_RSS_GB = 1.2


def load(arguments: argparse.Namespace) -> dict[str, Any]:
    """Import and load, apart."""
    began = time.perf_counter()
    from foveate.config import resolve_config
    from foveate.data.dataset import load_dataset

    imported = time.perf_counter()
    dataset = load_dataset(arguments.data, resolve_config("paper").data, data_dir=arguments.data_dir)
    loaded = time.perf_counter()
    if ".parquet#" not in dataset.ids[0]:
        sys.exit(f"{arguments.data} was not read from Parquet shards: name their folder by --data-dir")
    return {"images": len(dataset.images), "import_s": imported - began, "load_s": loaded - imported}


def train(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train the paper's model, and take the highest resident memory until then."""
    from bounded import train_steps

    train_steps(
        arguments.data, arguments.steps, preset="paper", data_dir=arguments.data_dir, device="cpu", batch=32
    )
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kibibytes elsewhere
    return {"rss_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9}


def in_fresh_process(stage: str, cache: Path) -> dict[str, Any]:
    """What a fresh process of this script measures of one stage: its last line."""
    environment = {**os.environ, "FOVEATE_CACHE": str(cache)}
    command = [sys.executable, __file__, *sys.argv[1:], "--stage", stage]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{stage} failed with exit code {done.returncode}:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def compare(arguments: argparse.Namespace) -> None:
    """Run the stages in turns and print the table."""
    cold, cached, hashed = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds):
            cache = Path(folder) / str(number)
            cold.append(in_fresh_process("load", cache))
            cached.append(in_fresh_process("load", cache))
            for known in cache.rglob("verified.json"):
                known.unlink()
            hashed.append(in_fresh_process("load", cache))
        trained = in_fresh_process("train", Path(folder) / "0")
    print(f"{cold[0]['images']} images, medians of {arguments.rounds} processes, load {os.getloadavg()[0]:.1f}")
    rows = [
        ("import", statistics.median(each["import_s"] for each in cached), None, "s"),
        ("load, cold", statistics.median(each["load_s"] for each in cold), GOAL_COLD_S, "s"),
        ("load, cached", statistics.median(each["load_s"] for each in cached), GOAL_CACHED_S, "s"),
        ("load, cached, pixels hashed", statistics.median(each["load_s"] for each in hashed), None, "s"),
        (f"peak memory of {arguments.steps} paper steps", trained["rss_gb"], GOAL_RSS_GB, "GB"),
    ]
    for name, value, goal, unit in rows:
        verdict = "" if goal is None else f"goal ≤ {goal:g}: {'reached' if value <= goal else 'NOT reached'}"
        print(f"{name:36}{value:8.2f} {unit:3} {verdict}".rstrip())
    if arguments.json:
        record = {"cold": cold, "cached": cached, "hashed": hashed, "train": trained}
        arguments.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """The whole comparison, or one stage of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10", help="the data set (default cifar10)")
    parser.add_argument("--data-dir", type=Path, help="where it lies (default $FOVEATE_DATA)")
    parser.add_argument("--rounds", type=int, default=5, help="fresh processes, cold and cached (default 5)")
    parser.add_argument("--steps", type=int, default=50, help="steps to train for the memory (default 50)")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    parser.add_argument("--stage", choices=["load", "train"], help="measure this stage alone, in this process")
    arguments = parser.parse_args()
    if arguments.data == "cifar10" and not (arguments.data_dir or os.environ.get("FOVEATE_DATA")):
        # Foveate would download it otherwise: the binary version, and over a network nobody asked for.
        sys.exit("name the folder of CIFAR-10's Parquet shards by --data-dir or $FOVEATE_DATA")
    if arguments.stage is None:
        compare(arguments)
    else:
        print(json.dumps(load(arguments) if arguments.stage == "load" else train(arguments)))


if __name__ == "__main__":
    main()
