"""Which score says best that an image is unlike those that a network was trained on.

Three scores, of a preset trained on CIFAR-10: the largest probability, the energy of the logits, and the distance
of the features before the classifier from the nearest class (Mahalanobis, one covariance for all classes, of 5,000
training images). Each is judged by AUROC of validation images against others. One is chosen by `digits` and noise;
the pairs that the choice did not see are a class that is left out of training, and photographs.

    python benchmarks/unlike.py --photographs FOLDER --json FILE
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

import foveate
from foveate.confidence import UNLIKE_SHARE, energy
from foveate.data.dataset import Dataset, load_dataset
from foveate.data.decode import decode_file
from foveate.data.listing import list_images
from foveate.inference.network import NetworkEngine
from foveate.preprocessing import Preprocessing
from foveate.settings import DataConfig
from harness import begin, command_line, print_row, write_record

SIZE, TRAINED_ON, SHRINKAGE = 32, 5000, 0.01
CHOSEN_BY = ("digits", "noise")

Scores = dict[str, NDArray[np.float64]]


def main() -> None:
    """Train with all classes and without one, measure every pair, and print the table."""
    photographs = (Path, "a folder of images of other things")
    options = {"left_out": ("dog", "the class that is left out of training"), "photographs": photographs}
    arguments = begin(command_line(__doc__, "data", "seed", "set", preset="minute", **options))
    data = load_dataset(arguments.data, DataConfig(size=SIZE), data_dir=arguments.data_dir)
    random = np.random.default_rng(arguments.seed)
    noise = random.integers(0, 256, (2000, SIZE, SIZE, 3), dtype=np.uint8)
    others = {"digits": digits(), "noise": noise}
    if arguments.photographs:
        paths, _ = list_images([arguments.photographs])
        others["photographs"] = np.stack([decode_file(Path(path), Preprocessing(SIZE)) for path in paths])
    settings = dict(item.split("=", 1) for item in arguments.set)
    common = {"preset": arguments.preset, "seed": arguments.seed, **settings}
    rows = []
    with tempfile.TemporaryDirectory() as name:
        whole = save_splits(data, Path(name) / "whole.npz")
        scored = scores_of(foveate.train(whole, runs=Path(name) / "runs", **common), data)
        known = scored(data.images[data.splits["validation"]])
        for what, images in others.items():
            rows += compared(what, known, scored(images))
        index = data.class_names.index(arguments.left_out)
        part = save_splits(data, Path(name) / "part.npz", without=index)
        scored = scores_of(foveate.train(part, runs=Path(name) / "runs", **common), data, without=index)
        validation = data.splits["validation"]
        own = data.labels[validation] == index
        what = f"{arguments.left_out}, left out of training"
        rows += compared(what, scored(data.images[validation[~own]]), scored(data.images[validation[own]]))
    print_row("unlike", "score", "AUROC", "called unlike", width=20)
    for row in rows:
        print_row(row["unlike"], row["score"], f"{row['auroc']:.3f}", f"{row['flagged']:.1%}", width=20)
    means = {
        score: np.mean([row["auroc"] for row in rows if row["score"] == score and row["unlike"] in CHOSEN_BY])
        for score in dict.fromkeys(row["score"] for row in rows)
    }
    print(f"chosen by {' and '.join(CHOSEN_BY)}: {max(means, key=lambda score: means[score])}")
    write_record(arguments.json, rows)


def digits() -> NDArray[np.uint8]:
    """Handwritten digits as RGB images."""
    scaled = (load_digits().images * 255 / 16).astype(np.uint8)
    larger = (Image.fromarray(each).resize((SIZE, SIZE), Image.Resampling.BILINEAR) for each in scaled)
    return np.stack([np.asarray(each.convert("RGB")) for each in larger])


def save_splits(data: Dataset, path: Path, without: int | None = None) -> Path:
    """Save training and validation images as a data set, perhaps without a class."""
    arrays: dict[str, Any] = {}
    for split, short in (("train", "train"), ("validation", "val")):
        indices = data.splits[split]
        chosen = indices if without is None else indices[data.labels[indices] != without]
        labels = data.labels[chosen]
        arrays[f"x_{short}"] = data.images[chosen]
        arrays[f"y_{short}"] = labels if without is None else labels - (labels > without)
    np.savez(path, **arrays)
    return path


def scores_of(
    run: foveate.Run, data: Dataset, without: int | None = None
) -> Callable[[NDArray[np.uint8]], Scores]:
    """All scores of a run's network, by name; the higher, the less alike."""
    engine = NetworkEngine(run.checkpoint())
    train = data.splits["train"]
    if without is not None:
        train = train[data.labels[train] != without]
    some = np.sort(np.random.default_rng(0).permutation(train)[:TRAINED_ON])
    _, features = logits_and_features(engine, data.images[some])
    labels = data.labels[some]
    means = np.stack([features[labels == label].mean(axis=0) for label in np.unique(labels)])
    centred = features - means[np.searchsorted(np.unique(labels), labels)]
    covariance = centred.T @ centred / len(centred)
    covariance += SHRINKAGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    root = np.linalg.cholesky(np.linalg.inv(covariance))

    def scores(images: NDArray[np.uint8]) -> Scores:
        logits, features = logits_and_features(engine, images)
        distances = (((features[:, None] - means) @ root) ** 2).sum(axis=-1).min(axis=1)
        top = -(np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1) ** -1.0)
        return {"largest probability": top, "energy": energy(logits), "distance": distances}

    return scores


def logits_and_features(
    engine: NetworkEngine, images: NDArray[np.uint8]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The logits of images, and the features that the classifier is given."""
    features: list[torch.Tensor] = []
    hook = engine.network.head.classifier.register_forward_pre_hook(lambda _, given: features.append(given[0]))
    try:
        logits = [engine.logits(images[at : at + 250]) for at in range(0, len(images), 250)]
    finally:
        hook.remove()
    return np.concatenate(logits).astype(np.float64), torch.cat(features).double().numpy()


def compared(what: str, alike: Scores, unlike: Scores) -> list[dict[str, Any]]:
    """A row for each score."""
    rows = []
    for score, known in alike.items():
        others = unlike[score]
        truth = np.r_[np.zeros(len(known)), np.ones(len(others))]
        threshold = np.quantile(known, 1 - UNLIKE_SHARE, method="higher")
        row = {"unlike": what, "score": score, "images": len(others)}
        row["auroc"] = float(roc_auc_score(truth, np.r_[known, others]))
        row["flagged"] = float((others > threshold).mean())
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
