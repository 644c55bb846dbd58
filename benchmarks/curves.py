"""Learning curves of many configurations of a space, recorded once, for `regret.py` to replay.

Every configuration is trained to the last epoch by the tuner's own trial, on a subset of CIFAR-10's training
images; each epoch is measured on the halves that stop and that rank, and the last one also on the validation
images that the subset leaves out, which is what the configuration is worth. The test split is never opened.

    python benchmarks/curves.py --configurations 64 --json curves.json
"""

import argparse
import json
import os
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

from foveate.checkpoint import load_model
from foveate.data.dataset import Dataset, load_dataset
from foveate.data.loader import Loader
from foveate.errors import FoveateError
from foveate.evaluation import point_metrics
from foveate.inference.network import collect_logits
from foveate.training.device import EVAL_BATCH_SIZE, prepare_process
from foveate.training.settings import resolve_settings
from foveate.tuning.space import random_draws, read_space
from foveate.tuning.trial import TrialJob, study_dataset, train_trial, usable_in

KEPT = ("epoch", "val_accuracy", "rank_accuracy", "seconds")


def main() -> None:
    """Train each configuration, keep it as it ends, and go on from what was kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--data-dir", type=Path, help="where it lies (default $FOVEATE_DATA)")
    parser.add_argument("--space", default="default")
    parser.add_argument("--configurations", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--subset", type=int, default=6000, help="images of training and validation together")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--json", type=Path, required=True, help="file that keeps each as it ends, and is gone on from"
    )
    arguments = parser.parse_args()
    space = read_space(arguments.space)
    base = space.base(epochs=arguments.epochs, threads=arguments.threads, device="cpu")
    prepare_process(base)
    whole = load_dataset(arguments.data, base.data, data_dir=arguments.data_dir)
    dataset = study_dataset(whole, arguments.subset, base.data.split_seed)
    base = resolve_settings(base, dataset)
    left = np.setdiff1d(
        whole.splits["validation"], np.concatenate([dataset.splits["validation"], dataset.splits["rank"]])
    )
    record: dict[str, Any] = {"runs": []}
    if arguments.json.exists():
        record = json.loads(arguments.json.read_text(encoding="utf-8"))
    record |= {
        "space": arguments.space,
        "epochs": arguments.epochs,
        "subset": arguments.subset,
        "images": {**{name: len(indices) for name, indices in dataset.splits.items()}, "worth": len(left)},
    }

    draws = random_draws(space, arguments.seed, usable_in(space, base, dataset))
    for number, settings in enumerate(islice(draws, arguments.configurations)):
        if number < len(record["runs"]):
            continue
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            job = TrialJob(
                config=space.apply(base, settings),
                dataset=whole.location,
                data_dir=None,
                fingerprint=whole.fingerprint,
                subset=arguments.subset,
                folder=folder,
                from_epoch=0,
                to_epoch=arguments.epochs,
                semantics="foveate",
            )
            run: dict[str, Any] = {"settings": settings}
            try:
                run["rows"] = [{name: row[name] for name in KEPT} for row in train_trial(job, dataset)]
                run["worth"] = worth_of(Path(folder) / "state.safetensors", whole, left)
            except FoveateError as error:
                run["failed"] = str(error)
        record["runs"].append(run)
        arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(
            f"{number}: {run.get('worth', 0):.2%} in {time.monotonic() - began:.0f} s  {settings}", file=sys.stderr
        )


def worth_of(checkpoint: Path, whole: Dataset, indices: np.ndarray[Any, Any]) -> float:
    """The accuracy of a trained network on images that neither stopped nor ranked it."""
    model = load_model(checkpoint).model
    loader = Loader(torch.from_numpy(whole.images), torch.from_numpy(whole.labels), indices, EVAL_BATCH_SIZE)
    logits = collect_logits(model, loader, device=torch.device("cpu"), label="worth")
    return float(point_metrics(*logits)["accuracy"])


if __name__ == "__main__":
    main()
