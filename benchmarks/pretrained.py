"""Presets on a backbone that knows ImageNet, on a folder of photographs: out of fold, so that every image counts.

All images of the folder, whatever their split, are drawn into stratified folds by each seed. Each image is
predicted by a network that was trained on the other folds, as by `train --folds`. Shown: accuracy over all
images, its mean over seeds and its deviation, the log-loss, and CPU seconds for one fold; then each arm minus the
first, with the interval over seeds and images by which `foveate compare` judges. The twins of an arm with
attention are arms too. `--each 20 50 100` gives the curve over the number of training images of a class.
**Peer:** scikit-learn's logistic regression on the same features, by hand, as the recipe that anyone would write.

    python benchmarks/pretrained.py FOLDER --arms photos photos-head,head=attention_pool --seeds 0 1 2 --json FILE
"""

import itertools
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from foveate.comparison.arms import parse_arm
from foveate.comparison.pooling import Family, pooled_spread
from foveate.comparison.statistics import compare, conclude, spread_of
from foveate.config import Config
from foveate.data.dataset import Dataset, load_dataset
from foveate.inference.network import pick_device
from foveate.training.device import DeviceData, prepare_process
from foveate.training.features import features_of
from foveate.training.fit import Fit
from foveate.training.settings import resolve_settings
from harness import begin, command_line, print_row, read_record, write_record

ARMS = [
    "photos",
    "photos-head",
    "photos-head,head=mean_max",
    "photos-head,head=attention_pool",
    "photos-head,attention=luong_scaled,attention_mode=residual",
    "photos-tuned",
]


def main() -> None:
    """Predict all images out of fold, by each arm and seed, and print the table."""
    parser = command_line(
        __doc__, arms=(ARMS, "of `foveate compare`"), seeds=[0, 1, 2, 3, 4], folds=5, device="cpu"
    )
    parser.add_argument("folder", type=Path, help="<class>/… or {train,val}/<class>/…")
    parser.add_argument("--each", type=int, nargs="+", default=[None], help="training images of each class; all")
    parser.add_argument("--by-hand", action="store_true", help="scikit-learn on the features as well")
    arguments = begin(parser)
    rows: list[dict[str, Any]] = read_record(arguments.json, [])
    arms = [*arguments.arms, *(["by hand"] if arguments.by_hand else [])]
    for arm in arms:
        config = parse_arm("photos" if arm == "by hand" else arm, {"device": arguments.device}).config
        prepare_process(config)
        dataset = load_dataset(str(arguments.folder), config.data, for_training=False)
        for seed, each in itertools.product(arguments.seeds, arguments.each):
            key = {"arm": arm, "seed": seed, "folds": arguments.folds, "images": len(dataset.labels), "each": each}
            if any(all(row.get(name) == value for name, value in key.items()) for row in rows):
                continue
            measured = by_hand if arm == "by hand" else out_of_fold
            rows.append({**key, **measured(config.replacing(seed=seed), dataset, arguments.folds, each)})
            write_record(arguments.json, rows)
            print(f"{arm}, {each or 'all'} a class, seed {seed}: {rows[-1]['accuracy']:.4f}", flush=True)
    print_row("arm", "a class", "accuracy", "deviation", "log-loss", "CPU s", width=10, first=64)
    for arm, each in itertools.product(arms, arguments.each):
        own = [row for row in rows if row["arm"] == arm and row.get("each") == each]
        accuracies = [row["accuracy"] for row in own]
        deviation = statistics.stdev(accuracies) if len(own) > 1 else float("nan")
        print_row(
            arm,
            each or "all",
            f"{statistics.mean(accuracies):.4f}",
            f"{deviation:.4f}",
            f"{statistics.mean(row['loss'] for row in own):.4f}",
            f"{statistics.mean(row['cpu_s_a_fold'] for row in own):.1f}",
            width=10,
            first=64,
        )
    for each in arguments.each:
        print_differences(rows, arms, arguments.seeds, each)


def print_differences(rows: list[dict[str, Any]], arms: list[str], seeds: list[int], each: int | None) -> None:
    """Each arm minus the first, in points, with the interval over seeds and images of all together at 95 %."""
    wrong = {(row["arm"], row["seed"]): row["wrong"] for row in rows if row.get("each") == each and "wrong" in row}
    known = [arm for arm in arms if all((arm, seed) in wrong for seed in seeds)]
    if known[:1] != arms[:1] or len(known) < 2 or len(seeds) < 2:
        return
    right = np.ones((len(known), len(seeds), next(row["images"] for row in rows)), bool)
    for (place, arm), (turn, seed) in itertools.product(enumerate(known), enumerate(seeds)):
        right[place, turn, wrong[arm, seed]] = False
    family = Family("blocks", tuple((place, 0) for place in range(1, len(known))), len(known))
    pooled = pooled_spread(right.mean(2), blocks=True)
    for place, arm in enumerate(known[1:], start=1):
        difference = compare(right[place], right[0])
        verdict = conclude(difference, family, spread_of(difference, family, pooled), delta=0.005)
        assert verdict.image_interval is not None
        low, high = (100 * end for end in verdict.image_interval)
        told = f"{100 * difference.mean:+.2f} [{low:+.2f}, {high:+.2f}]"
        print(f"{arm} minus {arms[0]}, {each or 'all'} a class: {told}")


def out_of_fold(config: Config, dataset: Dataset, folds: int, each: int | None) -> dict[str, Any]:
    """What networks of `config` come to on images that they were not trained on."""
    data = DeviceData.load(dataset, pick_device(config.train.device))
    logits = np.zeros((len(dataset.labels), len(dataset.class_names)), np.float32)
    began, kept = time.process_time(), 0
    for rest, held_out in drawn(dataset, folds, config.train.seed, each):
        part = data.with_splits({"train": rest})
        resolved = resolve_settings(config, part.dataset)
        fit = Fit(resolved, part, holds_out=True)
        for _ in fit.epochs():
            pass
        kept += fit.told is not None
        asked = data.with_splits({"held out": held_out})
        logits[held_out], _ = asked.logits(fit.state.model, "held out", resolved)
    cpu_s = (time.process_time() - began) / folds
    return {**scored(logits, dataset, cpu_s), "regression_kept": kept}


def by_hand(config: Config, dataset: Dataset, folds: int, each: int | None) -> dict[str, Any]:
    """The same by scikit-learn alone, at its own default strength."""
    every = np.flatnonzero(usable(dataset))
    data = DeviceData.load(dataset, pick_device(config.train.device)).with_splits({"train": every})
    resolved = resolve_settings(config, data.dataset)
    began = time.process_time()
    maps = features_of(Fit(resolved, data).state.model, data, resolved, lambda each, **_: each).images
    vectors = np.zeros((len(dataset.labels), maps.shape[-1]), np.float32)
    vectors[every] = maps.float().mean((1, 2)).numpy()
    logits = np.zeros((len(dataset.labels), len(dataset.class_names)), np.float32)
    for rest, held_out in drawn(dataset, folds, config.train.seed, each):
        fitted = LogisticRegression(max_iter=1000).fit(vectors[rest], dataset.labels[rest])
        logits[held_out] = fitted.predict_log_proba(vectors[held_out])
    return scored(logits, dataset, (time.process_time() - began) / folds)


def drawn(dataset: Dataset, folds: int, seed: int, each: int | None) -> list[tuple[np.ndarray, np.ndarray]]:
    """Indices of the images to train on, `each` of every class where given, and of those held out, by fold."""
    every = np.flatnonzero(usable(dataset))
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    parts = splitter.split(every, dataset.labels[every])
    return [(some(every[rest], dataset.labels, each, seed), every[held_out]) for rest, held_out in parts]


def some(indices: np.ndarray, labels: np.ndarray, each: int | None, seed: int) -> np.ndarray:
    """`each` of the indices of every class, drawn with a seed; None: all. More of them contain fewer."""
    if each is None:
        return indices
    shuffled = np.random.default_rng(seed).permutation(indices)
    return np.sort(np.concatenate([shuffled[labels[shuffled] == label][:each] for label in np.unique(labels)]))


def usable(dataset: Dataset) -> np.ndarray:
    """Which images could be read."""
    good = np.zeros(len(dataset.labels), bool)
    good[np.concatenate(list(dataset.splits.values()))] = True
    return good


def scored(logits: np.ndarray, dataset: Dataset, cpu_s: float) -> dict[str, Any]:
    """Accuracy and log-loss over all images, and the CPU seconds of a fold."""
    every = np.flatnonzero(usable(dataset))
    logs = log_softmax(logits[every].astype(np.float64), axis=1)
    labels = dataset.labels[every]
    right = logs.argmax(1) == labels
    return {
        "accuracy": float(right.mean()),
        "wrong": every[~right].tolist(),
        "loss": float(-logs[np.arange(len(labels)), labels].mean()),
        "cpu_s_a_fold": cpu_s,
    }


if __name__ == "__main__":
    main()
