"""The paper's experiment as it was: 45 epochs on CIFAR-10, some seeds, each tested once; figure 4.1 beside it."""

import json
import statistics
from pathlib import Path
from typing import Any

import foveate
from foveate.report.run_results import PAPER_TABLE
from harness import begin, command_line, print_row, write_record


def main() -> None:
    """Train, open each run's test split once, and print."""
    runs = (Path("runs"), "folder of the runs")
    parser = command_line(__doc__, "data", seeds=[0, 1, 2], device="auto", runs=runs)
    parser.add_argument("--settings", type=json.loads, default={}, help='JSON over the preset, as {"epochs": 1}')
    arguments = begin(parser)
    place = {"runs": arguments.runs, "data_dir": arguments.data_dir, "device": arguments.device}
    rows: list[dict[str, Any]] = []
    for seed in arguments.seeds:
        run = foveate.train(arguments.data, preset="paper", seed=seed, **place, **arguments.settings)
        test, timing = foveate.evaluate(run, final=True).metrics["test"], run.folder.read_timing()
        row = {"seed": seed, **{key: timing[key] for key in ("epochs", "train_s", "images_per_s")}}
        row |= {"device": run.folder.read_environment()["device"]}
        row |= {"test": {name: test[name] for name in PAPER_TABLE}}
        rows.append({**row, "intervals": {name: test["intervals"][name] for name in PAPER_TABLE}})
        print(f"seed {seed}: accuracy {test['accuracy']:.4f} after {timing['train_s']:.0f} s", flush=True)
    print_row("metric", "paper", "mean", "lowest", "highest", width=9)
    for name, (published, _) in PAPER_TABLE.items():
        values = [row["test"][name] for row in rows]
        figures = (published, statistics.mean(values), min(values), max(values))
        print_row(name, *(f"{each:.3f}" for each in figures), width=9)
    write_record(arguments.json, rows)


if __name__ == "__main__":
    main()
