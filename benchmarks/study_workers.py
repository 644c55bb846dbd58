"""Epochs per hour of one study by one worker of one thread, two of one thread, one of two threads, and by Ray.

The study is the same each time: a space of the fast presets on a subset of CIFAR-10, brackets side by side. Takes
turns, in rounds, and every study must end with the same table but the one of two threads, whose sums differ.
**Peer:** one worker of one thread. Goals: two workers of one thread at least 1.8 times its epochs per hour; Ray
within 10 % of the same number of local workers (its start of some seconds is told apart).
"""

import json
import statistics
import sys
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

from harness import FOVEATE, begin, command_line, print_row, run_python, write_record

WAYS: dict[str, list[str]] = {
    "one worker, one thread": ["--workers", "1", "--threads", "1"],
    "two workers, one thread each": ["--workers", "2", "--threads", "1"],
    "one worker, two threads": ["--workers", "1", "--threads", "2"],
    "Ray, two of one thread": ["--ray", "local", "--workers", "2", "--threads", "1"],
}


def main() -> None:
    """Run the study each way in turns; print the table and write the figures where asked."""
    parser = command_line(__doc__, "data", "set", rounds=3, max_epochs=9, subset=3000)
    parser.add_argument("--ways", nargs="*", choices=list(WAYS), default=list(WAYS))
    arguments = begin(parser)
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds):
            for way in arguments.ways:
                runs.append({"way": way, "round": number, **study(arguments, Path(folder), way, number)})
                print(f"{way}: {runs[-1]['seconds']:.1f} s", file=sys.stderr, flush=True)
    tables = {run["table"] for run in runs if "two threads" not in run["way"]}
    print_row("", "epochs/hour", "times", "outside of jobs, s", width=20, first=32)
    base = statistics.median(rate(run) for run in runs if run["way"] == arguments.ways[0])
    for way in arguments.ways:
        own = [run for run in runs if run["way"] == way]
        median = statistics.median(map(rate, own))
        rest = statistics.median(run["whole_s"] - run["seconds"] for run in own)
        print_row(way, f"{median:,.0f}", f"{median / base:.2f}", f"{rest:.1f}", width=20, first=32)
    print("the same table each time" if len(tables) == 1 else f"{len(tables)} DIFFERENT TABLES")
    record = {"subset": arguments.subset, "max_epochs": arguments.max_epochs, "tables": len(tables), "runs": runs}
    write_record(arguments.json, record)


def study(arguments: Namespace, folder: Path, way: str, number: int) -> dict[str, Any]:
    """One study: epochs, seconds from its first job's begin to its last one's end, and of the whole process."""
    name = f"{list(WAYS).index(way)}-{number}"
    words = ["tune", arguments.data, "--max-epochs", str(arguments.max_epochs), "--subset", str(arguments.subset)]
    words += ["--search", "lr", "--search", "label_smoothing", "--runs", str(folder), "--name", name, *WAYS[way]]
    words += [word for setting in arguments.set for word in ("--set", setting)]
    words += ["--data-dir", str(arguments.data_dir)] if arguments.data_dir else []
    whole, _ = run_python(*FOVEATE, *words)
    place = folder / "tune" / name
    lines = (place / "journal.jsonl").read_text(encoding="utf-8").splitlines()
    told = [entry for entry in (json.loads(line.partition(" ")[2]) for line in lines) if entry["event"] == "told"]
    seconds = max(entry["time"]["ended"] for entry in told) - min(entry["time"]["began"] for entry in told)
    epochs = sum(len(entry["rows"]) for entry in told)
    table = (place / "tune_results.csv").read_text(encoding="utf-8")
    return {"epochs": epochs, "seconds": seconds, "whole_s": whole, "table": table}


def rate(run: dict[str, Any]) -> float:
    """Epochs per hour."""
    return 3600 * float(run["epochs"]) / float(run["seconds"])


if __name__ == "__main__":
    main()
