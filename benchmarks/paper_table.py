"""Figure 4.1 of the paper for every run of a comparison, on the split that it is judged on.

The networks are those that `foveate compare` trained; each metric has its 95 % interval, and the confusion matrix
is in the record. With attention, the accuracy with the attention ablated, too. **Peer:** the paper.

    foveate compare cifar10 --arm paper --seeds 3 --no-controls --final --name paper-attention
    python benchmarks/paper_table.py runs/compare/paper-attention --json FILE
"""

import dataclasses
from pathlib import Path
from typing import Any

from harness import begin, command_line, print_row, write_record

# isort: split
import torch

import foveate
from foveate.checkpoint import load_model
from foveate.evaluation import Scores, score, score_ablation
from foveate.inference.network import pick_device
from foveate.report.run_results import PAPER_TABLE
from foveate.training.device import DeviceData
from foveate.workflows.campaign import load_data_again
from foveate.workflows.request import NullDisplay


def main() -> None:
    """Measure each run that has ended, and print its column beside the paper's."""
    parser = command_line(__doc__, "device")
    parser.add_argument("comparison", type=Path)
    arguments = begin(parser)
    comparison = foveate.open_comparison(arguments.comparison)
    experiment, config, split = comparison.experiment, comparison.config, comparison.split
    base = config.arms[0].config.replacing(device=arguments.device)
    _, dataset, _ = load_data_again("compare", config, base, comparison.path, NullDisplay())
    data = DeviceData.load(dataset, pick_device(arguments.device))
    rows: list[dict[str, Any]] = []
    for run in experiment.runs:
        if experiment.result(run) is None:
            continue
        arm = config.arms[run.arm]
        model = load_model(experiment.place(run) / "weights.safetensors", device=data.device).model
        report = score(*data.logits(model, split, arm.config), dataset.class_names)
        row: dict[str, Any] = {"arm": arm.name, "seed": run.seed, "training_images": config.subsets[run.subset]}
        row |= {field.name: getattr(report, field.name) for field in dataclasses.fields(Scores)}
        row["confusion_matrix"] = report.confusion_matrix
        if arm.config.model.attention != "none":
            with model.without_attention():
                ablated = score_ablation(*data.logits(model, split, arm.config))
            row["attention ablated"] = dataclasses.asdict(ablated)
        rows.append(row)
    show(rows)
    told = torch.cuda.get_device_name(data.device) if data.device.type == "cuda" else str(data.device)
    precisions = sorted({arm.config.train.precision for arm in config.arms})
    what = {"comparison": comparison.path.name, "split": split, "class_names": list(dataset.class_names)}
    what |= {"device": told, "torch": torch.__version__, "precision": precisions}
    write_record(arguments.json, {**what, "runs": rows})


def show(rows: list[dict[str, Any]]) -> None:
    """A row for each run, a column for each metric of figure 4.1 with its interval; the paper's is the first."""
    print_row("", *PAPER_TABLE, width=28, first=0)
    print_row("", *(f"{published:.3f}" for published, _ in PAPER_TABLE.values()), "  the paper", width=28, first=0)
    for row in rows:
        cells = (
            f"{row[name]:.3f} [{row['intervals'][name][0]:.3f}, {row['intervals'][name][1]:.3f}]"
            for name in PAPER_TABLE
        )
        print_row("", *cells, f"  {row['arm']}, seed {row['seed']}", width=28, first=0)


if __name__ == "__main__":
    main()
