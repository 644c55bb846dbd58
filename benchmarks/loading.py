"""CIFAR-10 from its Parquet shards: the time to load it, cold and cached, and the memory it takes to train on it.

The cost of verifying the cache is the difference between two rows: cached, where the file of the pixels is known
by its identity; and cached with that forgotten, where its pixels are hashed.

Each measurement is a fresh process. Cold means that Foveate's cache is empty, not that the system's page cache is.
There is no peer.
"""

import json
import os
import resource
import statistics
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from harness import begin, command_line, measure_apart, print_goal, print_row, write_record


def load(arguments: Namespace) -> dict[str, Any]:
    """Seconds of the import and of loading, and how many images there are."""
    began = time.perf_counter()
    from foveate.config import resolve_config
    from foveate.data.dataset import load_dataset

    imported = time.perf_counter()
    dataset = load_dataset(arguments.data, resolve_config("paper").data, data_dir=arguments.data_dir)
    loaded = time.perf_counter()
    if ".parquet#" not in dataset.ids[0]:
        sys.exit(f"{arguments.data} was not read from Parquet shards: name their folder by --data-dir")
    return {"images": len(dataset.images), "import_s": imported - began, "load_s": loaded - imported}


def train(arguments: Namespace) -> dict[str, Any]:
    """The highest resident memory while the paper's model is trained."""
    from rates import train_steps

    settings = {"preset": "paper", "device": "cpu", "batch": arguments.batch}
    train_steps(arguments.data, arguments.steps, data_dir=arguments.data_dir, **settings)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kibibytes elsewhere
    return {"rss_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9}


STAGES = {"load": load, "train": train}


def main() -> None:
    """Measure the stages in fresh processes in turns, or one stage in this process."""
    parser = command_line(
        __doc__,
        "data",
        rounds=(5, "fresh processes for cold and for cached"),
        steps=(50, "of training, for the memory"),
        batch=(32, "images in a step of training"),
    )
    parser.add_argument("--stage", choices=STAGES, help="measure this stage alone, in this process")
    arguments = begin(parser)
    if arguments.data == "cifar10" and not (arguments.data_dir or os.environ.get("FOVEATE_DATA")):
        # Foveate would download it otherwise: the binary version, and over a network nobody asked for.
        sys.exit("name the folder of CIFAR-10's Parquet shards by --data-dir or $FOVEATE_DATA")
    if arguments.stage:
        print(json.dumps(STAGES[arguments.stage](arguments)))
        return
    record: dict[str, Any] = {"cold": [], "cached": [], "hashed": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds):
            cache = Path(folder) / str(number)
            for kind, measured in record.items():
                if kind == "hashed":
                    for known in cache.rglob("verified.json"):
                        known.unlink()
                measured.append(apart("load", cache))
        record["train"] = apart("train", Path(folder) / "0")
    print(f"{record['cold'][0]['images']} images, medians of {arguments.rounds} processes")
    import_s = statistics.median(each["import_s"] for each in record["cached"])
    cold, cached, hashed = (
        statistics.median(each["load_s"] for each in record[kind]) for kind in ("cold", "cached", "hashed")
    )
    print_row("import", f"{import_s:.3f} s", width=11, first=56)
    print_goal("load, cold", cold, "≤", 10, " s")
    print_goal("load, cached", cached, "≤", 1, " s")
    print_row("load, cached, pixels hashed", f"{hashed:.3f} s", width=12, first=56)
    print_goal(f"peak memory of {arguments.steps} paper steps", record["train"]["rss_gb"], "≤", 1.2, " GB")
    write_record(arguments.json, record)


def apart(stage: str, cache: Path) -> dict[str, Any]:
    """What a fresh process of this script measures of one stage."""
    return measure_apart(__file__, *sys.argv[1:], "--stage", stage, FOVEATE_CACHE=str(cache))


if __name__ == "__main__":
    main()
