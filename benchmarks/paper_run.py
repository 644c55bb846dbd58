"""The paper's experiment as it was: 45 epochs on CIFAR-10, some seeds, each tested once; figure 4.1 beside it."""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import foveate
from foveate.report.run_results import PAPER_TABLE


def main() -> None:
    """Train, open each run's test split once, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--data-dir", type=Path, help="where cifar10 lies (else $FOVEATE_DATA)")
    parser.add_argument("--settings", type=json.loads, default={}, help='JSON over the preset, as {"epochs": 1}')
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in arguments.seeds:
        run = foveate.train(
            "cifar10",
            preset="paper",
            seed=seed,
            device=arguments.device,
            runs=arguments.runs,
            data_dir=arguments.data_dir,
            **arguments.settings,
        )
        test = foveate.evaluate(run, final=True).metrics["test"]
        timing = run.folder.read_timing()
        rows.append(
            {
                "seed": seed,
                "epochs": timing["epochs"],
                "train_s": timing["train_s"],
                "images_per_s": timing["images_per_s"],
                "device": run.folder.read_environment()["device"],
                "test": {name: test[name] for name in PAPER_TABLE},
                "intervals": {name: test["intervals"][name] for name in PAPER_TABLE},
            }
        )
        print(f"seed {seed}: accuracy {test['accuracy']:.4f} after {timing['train_s']:.0f} s", flush=True)
    print(f"\n{'metric':<30}{'paper':>8}{'mean':>8}{'lowest':>9}{'highest':>9}")
    for name, (published, _) in PAPER_TABLE.items():
        values = [row["test"][name] for row in rows]
        print(f"{name:<30}{published:8.3f}{statistics.mean(values):8.3f}{min(values):9.3f}{max(values):9.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
