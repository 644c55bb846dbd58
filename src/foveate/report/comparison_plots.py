"""The plots of a comparison: differences with their intervals, every run, and the curve of data size."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from foveate.report.plots import BLUE, INK, LINE, MUTED, ORANGE, new_axes, shorten, styled

__all__ = ["accuracies", "differences", "over_data_size"]

_LINE_INCHES = 0.62


def differences(findings: Sequence[Mapping[str, Any]], delta: float) -> Figure:
    """A line a pair: its seeds as dots, the interval over seeds thick, that over images too thin, ±δ shaded."""
    with styled():
        figure, axes = new_axes(1.1 + _LINE_INCHES * len(findings))
        axes.axvspan(-100 * delta, 100 * delta, color=LINE, alpha=0.5, linewidth=0)
        axes.axvline(0, color=MUTED, linewidth=1)
        for place, finding in enumerate(findings):
            difference, verdict = finding["difference"], finding["verdict"]
            colour = ORANGE if verdict["answer"] in ("helps", "hurts") else BLUE
            seeds = 100 * np.array(difference["per_seed"])
            axes.plot(seeds, np.full(len(seeds), place + 0.24), "o", color=MUTED, markersize=3, alpha=0.6)
            for interval, width in ((verdict["image_interval"], 1.2), (verdict["interval"], 4)):
                if interval is not None:
                    axes.plot([100 * each for each in interval], [place, place], color=colour, linewidth=width)
            axes.plot(100 * difference["mean"], place, "o", color=INK, markersize=6)
        names = [_named(finding) for finding in findings]
        axes.set_yticks(range(len(findings)), names, color=INK)
        axes.set(xlabel="Difference in accuracy, points", ylim=(len(findings) - 0.5, -0.5))
        axes.grid(visible=False, axis="y")
    return figure


def accuracies(arms: Sequence[Mapping[str, Any]]) -> Figure:
    """Every run as a dot, a line an arm; the mean as a bar; runs of one seed are joined."""
    with styled():
        figure, axes = new_axes(1.1 + 0.45 * len(arms))
        for subset in dict.fromkeys(arm["subset"] for arm in arms):
            rows = [
                (place, dict(zip(arm["seeds"], arm["accuracies"], strict=True)))
                for place, arm in enumerate(arms)
                if arm["subset"] == subset
            ]
            for seed in sorted({seed for _, runs in rows for seed in runs}):
                points = [(100 * runs[seed], place) for place, runs in rows if seed in runs]
                axes.plot(*zip(*points, strict=True), color=LINE, linewidth=0.8, zorder=1)
        for place, arm in enumerate(arms):
            values = 100 * np.array(arm["accuracies"])
            axes.plot(values, np.full(len(values), place), "o", color=BLUE, markersize=4, alpha=0.6)
            axes.plot([values.mean()] * 2, [place - 0.28, place + 0.28], color=INK, linewidth=2)
        names = [
            shorten(arm["label"], 34) + ("" if arm["subset"] is None else f", {arm['subset']:,}") for arm in arms
        ]
        axes.set_yticks(range(len(arms)), names, color=INK)
        axes.set(xlabel="Accuracy, %", ylim=(len(arms) - 0.5, -0.5))
        axes.grid(visible=False, axis="y")
    return figure


def over_data_size(findings: Sequence[Mapping[str, Any]], delta: float) -> Figure:
    """The difference of each pair over the number of training images, with its interval."""
    with styled():
        pairs = list(dict.fromkeys((finding["arm"], finding["other"]) for finding in findings))
        figure, axes = new_axes(3.2 + 0.32 * len(pairs))
        sizes = sorted({finding["subset"] for finding in findings if finding["subset"] is not None})
        places = {size: place for place, size in enumerate([*sizes, None])}
        axes.axhspan(-100 * delta, 100 * delta, color=LINE, alpha=0.5, linewidth=0)
        axes.axhline(0, color=MUTED, linewidth=1)
        for number, pair in enumerate(pairs):
            own = [each for each in findings if (each["arm"], each["other"]) == pair]
            own.sort(key=lambda each: places[each["subset"]])
            shift = 0.12 * (number - (len(pairs) - 1) / 2)
            across = [places[each["subset"]] + shift for each in own]
            colour = (BLUE, ORANGE, INK, MUTED)[number % 4]
            means = [100 * each["difference"]["mean"] for each in own]
            mark = "osD^v"[number // 4 % 5]
            axes.plot(
                across,
                means,
                f"{mark}-",
                color=colour,
                linewidth=1.2,
                label=_named(own[0], sized=False).replace("\n", " "),
            )
            for place, each in zip(across, own, strict=True):
                if (interval := each["verdict"]["interval"]) is not None:
                    axes.plot([place, place], [100 * bound for bound in interval], color=colour, linewidth=2.5)
        used = [size for size in places if any(finding["subset"] == size for finding in findings)]
        axes.set_xticks([places[size] for size in used], ["all" if size is None else f"{size:,}" for size in used])
        axes.set(xlabel="Training images", ylabel="Difference, points")
        figure.legend(loc="outside lower left", fontsize=8)
    return figure


def _named(finding: Mapping[str, Any], *, sized: bool = True) -> str:
    size = f"\n{finding['subset']:,} images" if sized and finding["subset"] is not None else ""
    arm, other = (shorten(label, 34) for label in finding["labels"])
    return f"{arm}\nless {other}{size}"
