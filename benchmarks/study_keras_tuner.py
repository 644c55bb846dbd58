"""A live study against KerasTuner 1.4.8 itself: the same space, images, epochs and brackets, in one process each.

The paper's network at a small size, figure 3.2's nine knobs with few values each, on a subset of CIFAR-10 without
augmentation, AdamW at Keras' settings, early stopping on validation loss after 5 epochs. **Peer:**
`keras_tuner.Hyperband` with Keras on PyTorch. Ours runs once by its formula and semantics, and once as it is by
default, in as many seconds as KerasTuner took. Takes turns; both have the same threads. Told: epochs trained,
seconds, the best validation accuracy as each tells it, and two accuracies on images that neither saw (validation
images the subset leaves out): of the winner's network as the study leaves it, and of the winner's settings trained
anew by Foveate, for all epochs, with three seeds.
"""

import functools
import json
import os
import statistics
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import begin, command_line, prepare, print_row, write_record

os.environ["KERAS_BACKEND"] = "torch"

import numpy as np
import torch
import yaml

import foveate
from foveate.checkpoint import load_model
from foveate.data.dataset import Dataset, load_dataset
from foveate.data.loader import Loader
from foveate.inference.network import collect_logits
from foveate.metrics import point_metrics
from foveate.settings import DataConfig
from foveate.training.device import EVAL_BATCH_SIZE, DeviceData
from foveate.training.fit import Fit
from foveate.training.settings import resolve_settings
from foveate.tuning.space import read_space
from foveate.tuning.trial import study_dataset

FACTOR, PATIENCE, BATCH = 3, 5, 32
SIDES, POOLS = [3, 5], [2, 3]
FILTERS, HIDDEN = {"low": 16, "high": 48, "step": 16}, {"low": 32, "high": 128, "step": 32}
SPACE = {
    "preset": "paper",
    "settings": {"monitor": "loss", "patience": PATIENCE, "batch": BATCH}
    | dict.fromkeys(("flip", "shift", "rotation", "zoom"), 0),
    "hyperparameters": {
        "f1": {"type": "int", **FILTERS, "sets": "model.stages.0.filters"},
        "ks1": {"type": "choice", "values": SIDES, "sets": "model.stages.0.kernels.0"},
        "ks2": {"type": "choice", "values": SIDES, "sets": "model.stages.0.kernels.1"},
        "ps1": {"type": "choice", "values": POOLS, "sets": "model.stages.0.pool"},
        "f2": {"type": "int", **FILTERS, "sets": "model.stages.1.filters"},
        "ks3": {"type": "choice", "values": SIDES, "sets": "model.stages.1.kernels.0"},
        "ks4": {"type": "choice", "values": SIDES, "sets": "model.stages.1.kernels.1"},
        "ps2": {"type": "choice", "values": POOLS, "sets": "model.stages.1.pool"},
        "hidden": {"type": "int", **HIDDEN},
    },
}


def main() -> None:
    """Run the studies in turns; print the table and write the figures where asked."""
    options: dict[str, Any] = {"subset": (2000, "images of training and validation together")}
    options |= {"rounds": (3, "seeds, each with a study of each side"), "max_epochs": 9}
    options |= {"size": (32, "pixels of a side"), "anew": (3, "seeds of a winner's settings trained anew")}
    options |= {"workers": (int, "of our studies; 0: this process (default: as `foveate tune` does)")}
    parser = command_line(__doc__, "data", threads=torch.get_num_threads(), **options)
    arguments = begin(parser)
    prepare(arguments.threads)  # for both sides
    whole = load_dataset(arguments.data, DataConfig(size=arguments.size), data_dir=arguments.data_dir)
    rows = []
    for seed in range(arguments.rounds):
        theirs = kerastuner(arguments, whole, seed)
        as_theirs = ours(arguments, whole, seed, semantics="kerastuner", formula="kerastuner", factor=FACTOR)
        in_its_time = ours(arguments, whole, seed, time_s=theirs["seconds"])
        for who, row in (
            ("KerasTuner", theirs),
            ("ours, its semantics", as_theirs),
            ("ours, in as long", in_its_time),
        ):
            row["retrained"] = trained_anew(arguments, whole, row["winner"])
            rows.append({"who": who, "seed": seed, **row})
            print(rows[-1], file=sys.stderr, flush=True)
    heads = ("trials", "epochs", "seconds", "s/epoch", "best, told", "unseen", "retrained")
    print_row("", *heads, first=24)
    for who in dict.fromkeys(row["who"] for row in rows):
        own = [row for row in rows if row["who"] == who]
        middle = {key: statistics.median(row[key] for row in own) for key in ("trials", "epochs", "seconds")}
        pace = statistics.median(row["seconds"] / row["epochs"] for row in own)
        shares = (
            f"{100 * statistics.mean(row[key] for row in own):.1f} %" for key in ("told", "worth", "retrained")
        )
        cells = (f"{middle['trials']:.0f}", f"{middle['epochs']:.0f}", f"{middle['seconds']:.1f}", f"{pace:.2f}")
        print_row(who, *cells, *shares, first=24)
    write_record(arguments.json, {"subset": arguments.subset, "threads": arguments.threads, "rows": rows})


def parts(whole: Dataset, subset: int) -> tuple[Dataset, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The study's images, all its validation images, and those that it leaves out."""
    dataset = study_dataset(whole, subset, 0, halved=True)
    validation = np.sort(np.concatenate([dataset.splits["validation"], dataset.splits["rank"]]))
    return dataset, validation, np.setdiff1d(whole.splits["validation"], validation)


def space_file(folder: str) -> str:
    """The space, as a file in a folder."""
    path = Path(folder) / "space.yaml"
    path.write_text(yaml.safe_dump(SPACE), encoding="utf-8")
    return str(path)


def trained_anew(arguments: Namespace, whole: Dataset, settings: Mapping[str, Any]) -> float:
    """The accuracy on unseen images of a study's best settings, trained anew for all epochs; a mean of seeds."""
    dataset = study_dataset(whole, arguments.subset, 0, halved=False)
    _, _, left = parts(whole, arguments.subset)
    found = []
    for seed in range(100, 100 + arguments.anew):
        with tempfile.TemporaryDirectory() as folder:
            space = read_space(space_file(folder))
            base = space.base(
                epochs=arguments.max_epochs,
                patience=None,
                threads=arguments.threads,
                seed=seed,
                size=arguments.size,
            )
            config = resolve_settings(space.apply(base.replacing(device="cpu"), settings), dataset)
            fit = Fit(config, DeviceData.load(dataset, torch.device("cpu")))
            for _ in fit.epochs():
                pass
            fit.save_weights(path := Path(folder) / "winner.safetensors")
            found.append(worth_of(path, whole, left))
    return statistics.mean(found)


def ours(arguments: Namespace, whole: Dataset, seed: int, **plan: Any) -> dict[str, Any]:
    """Our study."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        study = foveate.tune(
            arguments.data,
            space=space_file(folder),
            max_epochs=arguments.max_epochs,
            subset=arguments.subset,
            data_dir=arguments.data_dir,
            runs=folder,
            seed=seed,
            workers=arguments.workers,
            **plan,
            settings={"threads": arguments.threads, "device": "cpu", "seed": seed, "size": arguments.size},
        )
        seconds = time.perf_counter() - began
        lines = (study.path / "journal.jsonl").read_text(encoding="utf-8").splitlines()
        entries = [json.loads(line.partition(" ")[2]) for line in lines]
        winner = int(study.best.read_text(encoding="utf-8").split()[2])
        last = {entry["event"]: entry for entry in entries if entry.get("trial") == winner}
        _, _, left = parts(whole, arguments.subset)
        trial = study.path / "trials" / f"{winner:04}"
        # Under KerasTuner's semantics the best epoch's weights are kept too, which its `get_best_models` gives.
        (state,) = list(trial.glob("best-*.safetensors")) or [trial / "state.safetensors"]
        return {
            "trials": len({entry["trial"] for entry in entries if "trial" in entry}),
            "epochs": sum(len(entry["rows"]) for entry in entries if entry["event"] == "told"),
            "seconds": seconds,
            "told": last["told"]["score"],
            "winner": last["asked"]["settings"],
            "worth": worth_of(state, whole, left),
        }


def keras_model(hp: Any, size: int) -> Any:
    """Figure 3.2's network with the hyperparameters that KerasTuner draws, as its user writes it."""
    import keras
    from keras import layers

    x = inputs = keras.Input((size, size, 3), dtype="uint8")
    x = layers.Rescaling(1 / 255)(x)
    for stage in (1, 2):
        filters = hp.Int(f"f{stage}", FILTERS["low"], FILTERS["high"], FILTERS["step"])
        for number in (2 * stage - 1, 2 * stage):
            side = hp.Choice(f"ks{number}", SIDES)
            x = layers.Conv2D(filters, side, padding="same", activation="relu")(x)
        x = layers.BatchNormalization()(x)
        x = layers.MaxPooling2D(hp.Choice(f"ps{stage}", POOLS))(x)
        x = layers.Attention()([x, x]) if stage == 1 else layers.Dropout(0.25)(x)
    x = layers.Dense(hp.Int("hidden", HIDDEN["low"], HIDDEN["high"], HIDDEN["step"]), activation="relu")(
        layers.Flatten()(x)
    )
    model = keras.Model(inputs, layers.Dense(10)(layers.Dropout(0.5)(x)))
    model.compile(
        optimizer=keras.optimizers.AdamW(1e-3, weight_decay=4e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def kerastuner(arguments: Namespace, whole: Dataset, seed: int) -> dict[str, Any]:
    """KerasTuner's study."""
    import keras
    import keras_tuner

    epochs = 0

    class Counting(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: object = None) -> None:  # noqa: ARG002
            nonlocal epochs
            epochs += 1

        def __deepcopy__(self, memo: object) -> "Counting":  # the tuner copies callbacks for every trial
            return self

    dataset, validation, left = parts(whole, arguments.subset)
    sets = {
        name: (whole.images[indices], whole.labels[indices])
        for name, indices in (("train", dataset.splits["train"]), ("validation", validation), ("left", left))
    }
    keras.utils.set_random_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        tuner = keras_tuner.Hyperband(
            functools.partial(keras_model, size=arguments.size),
            objective="val_accuracy",
            max_epochs=arguments.max_epochs,
            factor=FACTOR,
            directory=folder,
            seed=seed,
        )
        tuner.search(
            *sets["train"],
            validation_data=sets["validation"],
            batch_size=BATCH,
            callbacks=[keras.callbacks.EarlyStopping("val_loss", patience=PATIENCE), Counting()],
            verbose=0,
        )
        seconds = time.perf_counter() - began
        trials = tuner.oracle.get_best_trials(1000)
        worth = tuner.get_best_models(1)[0].evaluate(*sets["left"], batch_size=250, verbose=0)[1]
    values = [trial.hyperparameters.values for trial in trials]
    configurations = {str([value for name, value in each.items() if "/" not in name]) for each in values}
    return {
        "trials": len(configurations),
        "epochs": epochs,
        "seconds": seconds,
        "told": float(trials[0].score),
        "winner": {name: value for name, value in values[0].items() if "/" not in name},
        "worth": float(worth),
    }


def worth_of(checkpoint: Path, whole: Dataset, indices: np.ndarray[Any, Any]) -> float:
    """The accuracy of a trained network on images that neither stopped nor ranked it."""
    model = load_model(checkpoint).model
    loader = Loader(torch.from_numpy(whole.images), torch.from_numpy(whole.labels), indices, EVAL_BATCH_SIZE)
    logits = collect_logits(model, loader, device=torch.device("cpu"), label="worth")
    return float(point_metrics(*logits)["accuracy"])


if __name__ == "__main__":
    main()
