"""Where attention helps: its gain over how far the label's evidence lies beyond the receptive field.

Networks are trained on the data set `cue`, in which a cue at the left says which of two digits is to be read, and
judged by the last epoch on 2,000 validation images. What varies is how far the cue is, how far the convolutions
before the attention see, and how the network may look further: not at all, by attention, or by dilated
convolutions, whose width is chosen for the FLOPs of the attention's network. Pairs share seed, pictures and order.

    nice -n 19 python benchmarks/context_map.py --json docs/records/context_map.json
    python benchmarks/context_map.py --json docs/records/context_map.json --runs 0 --plot docs/images/context.png

The first trains what the record lacks, seed after seed, and may be stopped at any time: what is lost is the run
of each of the `--workers`. The second trains nothing, and makes table and figure of what is there.
"""

import math
import multiprocessing
import os
import sys
import tempfile
import time
from bisect import bisect_left
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any, cast

from harness import begin, command_line, machine, prepare, print_row, read_record, write_record

# isort: split

import numpy as np
import torch

from foveate.comparison.controls import network_cost
from foveate.config import Config, resolve_config
from foveate.data.cue import CUE_SIDE, DIGIT_SIDE
from foveate.data.dataset import load_dataset
from foveate.inference.network import pick_device
from foveate.inference.receptive_field import effective_field, effective_side
from foveate.model.network import AttentionCNN
from foveate.model.receptive_field import sight
from foveate.settings import DataConfig
from foveate.training.device import DeviceData
from foveate.training.fit import Fit

KERNELS = {"1×1": [1, 1], "3×3": [3, 1], "two 3×3": [3, 3]}
"""Of the second stage, after which the attention stands, and of the third: convolutions see 15, 27 or 51 px."""
WIDTH = 64
"""Filters of the second and the third stage."""
GATE_LR = 0.05
"""Ten times the preset's: at .005 the gate of `luong_scaled` stayed shut in 30,000 images (.10, and no gain)."""
KINDS = ("luong_scaled", "luong", "multi_head")
IN_PLACE = "luong_scaled, in place"
ARMS: dict[str, dict[str, Any]] = {
    "none": {"attention": "none"},
    "dilated": {"attention": "none"},
    **{kind: {"attention": kind, "attention_mode": "residual"} for kind in KINDS},
    **{f"{kind}, in place": {"attention": kind, "attention_mode": "replace"} for kind in KINDS},
    "squeeze_excitation, in place": {"attention": "squeeze_excitation", "attention_mode": "replace"},
    "luong_scaled, slow gate": {"attention": "luong_scaled", "attention_mode": "residual", "gate_lr": 0.005},
}
"""A kind alone is added to its input, times a gate that begins at zero; in place of it, it has no gate.
A slow gate has the preset's rate."""
CROSSED = ("none", "luong_scaled", "dilated")
GRADIENTS = 16
CUELESS = 55
"""Accuracy of who reads both digits and does not know which is meant, in %: they are alike in a tenth."""
WIDER = (CUE_SIDE + DIGIT_SIDE) // 2
"""By how many pixels cue and digit together are wider than their distance."""


@dataclass(frozen=True)
class Cell:
    """A network and a data set."""

    size: int
    distance: int
    kernels: str
    arm: str

    def __str__(self) -> str:
        return f"{self.size}, {self.distance}, {self.kernels}, {self.arm}"


PARTS = {
    "crossed": [
        Cell(32, distance, kernels, arm) for distance in (6, 14, 22) for kernels in KERNELS for arm in CROSSED
    ],
    "kinds": [Cell(32, distance, "3×3", arm) for distance in (14, 22) for arm in ARMS],
    "large": [Cell(64, distance, "3×3", arm) for distance in (14, 28, 56) for arm in CROSSED],
}
"""What is run; a cell of two parts is run once."""


def main() -> None:
    """Train what is missing, and tell what is there."""
    parser = command_line(
        __doc__,
        "set",
        seeds=(5, "networks of each cell"),
        first_seed=0,
        images_seen=(30_000, "length of each run in training images"),
        parts=(list(PARTS), "which parts of the map"),
        only=(str, "only cells that begin so, as in '32, 14, 3×3'"),
        runs=(int, "train so many networks at most (default: all)"),
        plot=(Path, "file for the figure, .png or .svg"),
        threads=1,
        workers=(1, "processes that train side by side"),
        device="cpu",
    )
    options = begin(parser)
    record: dict[str, Any] = read_record(options.json, {})
    runs: list[dict[str, Any]] = [{"set": []} | run for run in record.get("runs", [])]
    recipe = {"images_seen": options.images_seen, "set": options.set}
    missing = [
        (cell, seed, own)
        for cell, seed in planned(options.parts, range(options.first_seed, options.first_seed + options.seeds))
        if not options.only or str(cell).startswith(options.only)
        for own in [{**asdict(cell), "seed": seed, **recipe}]
        if not any(own.items() <= run.items() for run in runs)
    ]
    with ProcessPoolExecutor(options.workers, multiprocessing.get_context("spawn")) as pool:
        begun = {
            pool.submit(
                measured, cell, seed, options.images_seen, options.device, options.threads, options.set
            ): own
            for cell, seed, own in missing[: options.runs]
        }
        try:
            for done in as_completed(begun):
                runs.append({**begun[done], **done.result()})
                print(runs[-1], file=sys.stderr, flush=True)
                write_record(options.json, {"runs": runs})
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    alike = [run for run in runs if recipe.items() <= run.items()]
    print_table(alike)
    if options.plot:
        draw(alike, options.plot)


def planned(parts: list[str], seeds: range) -> Iterator[tuple[Cell, int]]:
    """All runs, one seed of every cell after the other, so that what is there is complete wherever it stops."""
    cells = dict.fromkeys(cell for part in parts for cell in PARTS[part])
    for seed in seeds:
        for cell in cells:
            yield cell, seed


def settings(cell: Cell, more: tuple[str, ...] = (), width: int = WIDTH) -> Config:
    """The settings of a cell's network, whose third stage has `width` filters, and `more` as `--set` has them."""
    dilated, kernels = cell.arm == "dilated", KERNELS[cell.kernels]
    stages = [
        {"filters": 32, "kernels": [3, 3]},
        {"filters": WIDTH, "kernels": kernels},
        # Two kernels of 3, with a position between their entries, reach 24 px either way, and leave no gap.
        {"filters": width, "kernels": [3, 3] if dilated else kernels, "dilation": 1 + dilated},
    ]
    recipe = {
        "resize_until": 0.0,  # on the preset's smaller first images no distance is what it is called
        "label_smoothing": 0.0, "augmentation": False, "passes_per_epoch": 1, "batch": 125, "precision": "fp32",
    }  # fmt: skip
    given = dict(each.split("=", 1) for each in more)
    own = {"stages": stages, "gate_lr": GATE_LR, **ARMS[cell.arm], **given}
    return resolve_config("minute", settings={**recipe, **own})


@cache
def matched(cell: Cell, more: tuple[str, ...]) -> Config:
    """The settings of a cell's network; of the dilated one, as wide as takes the FLOPs of attention's."""
    if cell.arm != "dilated":
        return settings(cell, more)
    goal = flops(settings(replace(cell, arm="luong_scaled"), more), cell.size)
    widths = range(8, 2 * WIDTH)
    place = bisect_left(widths, goal, key=lambda width: flops(settings(cell, more, width), cell.size))
    near = [settings(cell, more, width) for width in widths[max(0, place - 1) : place + 1]]
    return min(near, key=lambda each: abs(flops(each, cell.size) - goal))


def flops(config: Config, size: int) -> int:
    """Operations of training on an image."""
    return network_cost(config, num_classes=10, size=size).training_flops


@lru_cache(maxsize=1)
def pictures(size: int, distance: int, seed: int, device: torch.device) -> DeviceData:
    """The data set, drawn anew, and kept out of the user's cache."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FOVEATE_CACHE"] = folder
        dataset = load_dataset(f"cue:size={size},distance={distance},seed={seed}", DataConfig())
        return DeviceData.load(dataset, device)


def measured(
    cell: Cell, seed: int, images_seen: int, device: str, threads: int, more: list[str]
) -> dict[str, Any]:
    """Train a network, and measure it on the validation images."""
    prepare(threads)
    data, config = pictures(cell.size, cell.distance, seed, pick_device(device)), matched(cell, tuple(more))
    config = config.replacing(seed=seed, images_seen=images_seen, threads=threads, device=device)
    began = time.perf_counter()
    training = data.with_splits({"train": data.dataset.splits["train"]})
    fit = Fit(config, training)
    for _ in fit.epochs():
        pass
    seconds = time.perf_counter() - began
    model = cast("AttentionCNN", fit.state.model).eval()

    def accuracy() -> float:
        logits, labels = data.logits(model, "validation", config)
        return float((logits.argmax(1) == labels).mean())

    rows = data.dataset.splits["validation"][:GRADIENTS]
    images = torch.from_numpy(np.ascontiguousarray(data.dataset.images[rows])).permute(0, 3, 1, 2).to(data.device)
    seen = sight(model, cell.size)
    found = {
        "accuracy": accuracy(),
        "images": len(data.dataset.splits["validation"]),
        "convolutions": seen.convolutions,
        "reach": seen.reach,
        "effective": round(effective_side(effective_field(model, images)), 1),
        "gate": model.gate,
        "flops": flops(config, cell.size),
        "parameters": sum(each.numel() for each in model.parameters() if each.requires_grad),
        "seconds": round(seconds, 1),
        "device": described(data.device),
    }
    if config.model.has_attention:
        with model.without_attention():
            found["accuracy_without_attention"] = accuracy()
            found["effective_without_attention"] = round(effective_side(effective_field(model, images)), 1)
    return found


def described(device: torch.device) -> str:
    """The model of a GPU or of the processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(machine()["processor"])


def beyond(run: dict[str, Any], plain: dict[str, Any]) -> int:
    """By how many pixels the width of cue and digit together is more than what the convolutions of `plain` see."""
    return int(run["distance"] + WIDER - plain["convolutions"])


def cells_of(runs: list[dict[str, Any]]) -> Iterator[tuple[Cell, list[dict[str, Any]], list[float], int | None]]:
    """Each cell, its runs, their gains over the plain networks of their seeds in points, and how far `beyond`."""
    names = ("size", "distance", "kernels", "arm")
    by_cell: dict[Cell, list[dict[str, Any]]] = {}
    for run in runs:
        by_cell.setdefault(Cell(*(run[name] for name in names)), []).append(run)
    for cell, own in by_cell.items():
        plain = {run["seed"]: run for run in by_cell.get(Cell(cell.size, cell.distance, cell.kernels, "none"), [])}
        pairs = [(run, plain[run["seed"]]) for run in own if run["seed"] in plain]
        gains = [100 * (run["accuracy"] - other["accuracy"]) for run, other in pairs]
        yield cell, own, gains, beyond(*pairs[0]) if pairs else None


def spread(values: list[float]) -> str:
    """Mean ± standard deviation."""
    if not values:
        return "–"
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def print_table(runs: list[dict[str, Any]]) -> None:
    """Accuracy, gain, and receptive fields, by cell."""
    heads = ("beyond, px", "accuracy, %", "gain, points", "sees, px", "effective", "seeds", "seconds")
    print_row("size, distance, kernels, arm", *heads, width=14, first=60)
    for cell, own, gains, far in sorted(cells_of(runs), key=lambda each: (each[0].size, each[0].distance)):
        print_row(
            str(cell),
            "–" if far is None else far,
            spread([100 * run["accuracy"] for run in own]),
            "" if cell.arm == "none" else spread(gains),
            own[0]["convolutions"],
            spread([run["effective"] for run in own]),
            len(own),
            spread([run["seconds"] for run in own]),
            width=14,
            first=60,
        )


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    """Accuracy over the distance of the cue, in a panel for each receptive field.

    A mark is a network, and a line joins medians: a network finds the cue or does not, and no mean is like any.
    """
    from matplotlib.figure import Figure

    from foveate.files import write_atomically
    from foveate.report.plots import BLUE, DOTTED, LINE, MUTED, ORANGE, styled, to_png, to_svg

    told = {
        "none": ("convolutions alone", MUTED, "o", -0.5),
        "dilated": ("dilated convolutions, of the same FLOPs", ORANGE, "^", 0.0),
        "luong_scaled": ("attention, added through a gate", BLUE, "s", 0.5),
    }
    small = [run for run in runs if run["size"] == 32 and run["arm"] in told]
    distances = sorted({run["distance"] for run in small})
    with styled():
        figure = Figure(figsize=(9, 3.1), layout="constrained")
        panels = figure.subplots(1, len(KERNELS), sharey=True)
        for axes, kernels in zip(panels, KERNELS, strict=True):
            own = [run for run in small if run["kernels"] == kernels]
            for arm, (label, colour, mark, aside) in told.items():
                found = [[100 * run["accuracy"] for run in own if (run["arm"], run["distance"]) == (arm, distance)]
                         for distance in distances]  # fmt: skip
                for distance, values in zip(distances, found, strict=True):
                    axes.plot([distance + aside] * len(values), values, mark, color=colour, ms=5, mew=0)
                middles = [median(values) if values else math.nan for values in found]
                axes.plot(distances, middles, color=colour, lw=1.2)
                axes.plot([], [], mark, color=colour, label=label)
            axes.axhline(CUELESS, **DOTTED)
            sees = next((run["convolutions"] for run in own if run["arm"] == "none"), None)
            if sees is not None:
                # Cue and digit are together wider than what the convolutions see.
                axes.axvspan(min(max(sees - WIDER, distances[0] - 1), distances[-1] + 1), distances[-1] + 1,
                             color=LINE, alpha=0.6, lw=0)  # fmt: skip
                axes.set_title(f"convolutions see {sees} px", fontsize=9.5)
            axes.set(xlabel="distance of the cue, px", xticks=distances, ylim=(5, 103))
            axes.set_xlim(distances[0] - 1, distances[-1] + 1)
        panels[0].set(ylabel="accuracy, %")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
    content = to_svg(figure).encode() if path.suffix == ".svg" else to_png(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)


if __name__ == "__main__":
    main()
