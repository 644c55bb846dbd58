"""Complete schedules of many configurations of a space, recorded once, for `regret.py` to replay.

Every configuration is trained by the tuner's own trial with a schedule over each of `--lengths` epochs, on a
subset of the training images. Of each schedule the record has which validation images its last epoch gets right,
and the longest one has every epoch's accuracy on the halves of validation that stop and that rank; its accuracy
on images outside the subset is the configuration's worth. The test split is never opened.

    python benchmarks/curves.py --configurations 60 --json curves.json
"""

import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

from harness import HERE, begin, command_line, read_record, write_record

# isort: split
import numpy as np
import torch

from foveate.checkpoint import load_model
from foveate.config import Config, setting_value
from foveate.data.dataset import Dataset, load_dataset
from foveate.data.loader import Loader
from foveate.errors import FoveateError
from foveate.inference.network import collect_logits
from foveate.training.device import EVAL_BATCH_SIZE, prepare_process
from foveate.training.settings import resolve_settings
from foveate.tuning.space import random_draws, read_space
from foveate.tuning.trial import TrialJob, study_dataset, train_trial, usable_in

KEPT = ("epoch", "val_accuracy", "rank_accuracy", "seconds")
MOST_WORTH = 8_800
"""Images outside the subset on which the worth is measured: a standard error of a third of a point at 90 %."""


def main() -> None:
    """Train each configuration and record it as it ends; those that are recorded are not trained again."""
    parser = command_line(
        __doc__,
        "data",
        "seed",
        "set",
        space="default",
        configurations=60,
        lengths=([1, 3, 9], "epochs of the schedules"),
        subset=(6000, "images of training and validation together"),
        threads=torch.get_num_threads(),
    )
    arguments = begin(parser)
    if arguments.json is None:
        parser.error("--json FILE is needed: it keeps each configuration as it ends")
    lengths = sorted(arguments.lengths)
    given = {
        name: setting_value(name, value) for name, _, value in (each.partition("=") for each in arguments.set)
    }
    space = read_space(arguments.space)
    base = space.base(**given, epochs=lengths[-1], threads=arguments.threads, device="cpu")
    prepare_process(base)
    whole = load_dataset(arguments.data, base.data, data_dir=arguments.data_dir)
    dataset = study_dataset(whole, arguments.subset, base.data.split_seed, halved=True)
    base = resolve_settings(base, dataset)
    left = images_left(whole, dataset)
    record: dict[str, Any] = read_record(arguments.json, {"commit": commit(), "runs": []})
    record |= {"data": arguments.data, "space": arguments.space, "lengths": lengths, "subset": arguments.subset}
    record["settings"] = given | {"passes_per_epoch": base.train.passes_per_epoch}
    record["images"] = {**{name: len(indices) for name, indices in dataset.splits.items()}, "worth": len(left)}
    draws = random_draws(space, arguments.seed, usable_in(space, base, dataset))
    for number, settings in enumerate(islice(draws, arguments.configurations)):
        if number < len(record["runs"]):
            continue
        began = time.monotonic()
        run: dict[str, Any] = {"settings": settings}
        try:
            run |= schedules(space.apply(base, settings), lengths, arguments.subset, whole, dataset, left)
        except FoveateError as error:
            run["failed"] = str(error)
        record["runs"].append(run)
        write_record(arguments.json, record)
        took = f"{run.get('worth', 0):.2%} in {time.monotonic() - began:.0f} s"
        print(f"{number}: {took}  {settings}", file=sys.stderr, flush=True)


def schedules(
    config: Config, lengths: list[int], subset: int, whole: Dataset, dataset: Dataset, left: np.ndarray[Any, Any]
) -> dict[str, Any]:
    """What each schedule of one configuration came to: of a constant rate, each epoch ends one."""
    run: dict[str, Any] = {"schedules": {}}
    judging = np.concatenate([dataset.splits["validation"], dataset.splits["rank"]])
    constant = config.train.schedule == "constant"
    for epochs in lengths[-1:] if constant else lengths:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            job = TrialJob(
                config=config.replacing(epochs=epochs),
                dataset=whole.location,
                data_dir=None,
                fingerprint=whole.fingerprint,
                subset=subset,
                folder=folder,
                from_epoch=0,
                to_epoch=epochs,
                semantics="anew",
                halves_validation=True,
            )
            rows, state = [], Path(folder) / "state.safetensors"
            for row in train_trial(job, dataset):
                rows.append({name: row[name] for name in KEPT})
                if row["epoch"] == epochs or (constant and row["epoch"] in lengths):
                    seconds, bits = time.monotonic() - began, right(state, whole, judging)
                    told = {"seconds": seconds, "right": np.packbits(bits).tobytes().hex()}
                    run["schedules"][row["epoch"]] = told
            if epochs == lengths[-1]:
                run |= {"rows": rows, "worth": float(right(state, whole, left).mean())}
    return run


def right(checkpoint: Path, whole: Dataset, indices: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Which images a trained network gets right: [images], stopping images before ranking ones."""
    model = load_model(checkpoint).model
    loader = Loader(torch.from_numpy(whole.images), torch.from_numpy(whole.labels), indices, EVAL_BATCH_SIZE)
    logits, labels = collect_logits(model, loader, device=torch.device("cpu"), label="worth")
    found: np.ndarray[Any, Any] = logits.argmax(axis=1) == labels
    return found


def images_left(whole: Dataset, dataset: Dataset) -> np.ndarray[Any, Any]:
    """Images that no trial sees, of validation first; test images are not among them."""
    used = np.concatenate(list(dataset.splits.values()))
    unseen = [np.setdiff1d(whole.splits[name], used) for name in ("validation", "train")]
    return np.concatenate(unseen)[:MOST_WORTH]


def commit() -> str:
    """The commit that records the table."""
    words = ["git", "-C", str(HERE), "rev-parse", "--short=10", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    main()
