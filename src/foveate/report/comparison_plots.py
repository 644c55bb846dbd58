"""The plots of a comparison: differences with their intervals, every run, and the curve of data size."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from foveate.comparison.findings import PairFinding
from foveate.comparison.outcomes import ArmSummary
from foveate.report.plots import BLUE, INK, LINE, MUTED, ORANGE, new_axes, rows_axes, shorten, styled


@styled()
def differences(pairs: Sequence[PairFinding], delta: float) -> Figure:
    """A line a pair: its seeds as dots, the interval over seeds thick, that over images too thin, ±δ shaded."""
    names = [_named(pair) + (f"\n{pair.subset:,} images" if pair.subset is not None else "") for pair in pairs]
    figure, axes = rows_axes(names, "Difference in accuracy, points", inches=0.62, above=1.1)
    axes.axvspan(-100 * delta, 100 * delta, color=LINE, alpha=0.5, linewidth=0)
    axes.axvline(0, color=MUTED, linewidth=1)
    for place, pair in enumerate(pairs):
        if (difference := pair.difference) is None or (verdict := pair.verdict) is None:
            continue
        colour = ORANGE if verdict.answer in ("helps", "hurts") else BLUE
        seeds = 100 * np.array(difference.per_seed)
        axes.plot(seeds, np.full(len(seeds), place + 0.24), "o", color=MUTED, markersize=3, alpha=0.6)
        for interval, width in ((verdict.image_interval, 1.2), (verdict.interval, 4)):
            if interval is not None:
                axes.plot([100 * each for each in interval], [place, place], color=colour, linewidth=width)
        axes.plot(100 * difference.mean, place, "o", color=INK, markersize=6)
    return figure


@styled()
def accuracies(arms: Sequence[tuple[str, ArmSummary]]) -> Figure:
    """Every run as a dot, a line an arm, which has a label; the mean as a bar; runs of one seed are joined."""
    names = [shorten(label, 34) + (f", {each.subset:,}" if each.subset else "") for label, each in arms]
    figure, axes = rows_axes(names, "Accuracy, %", inches=0.45, above=1.1)
    joined: dict[tuple[int | None, int], list[tuple[float, int]]] = {}
    for place, (_, each) in enumerate(arms):
        values = 100 * np.array(each.accuracies)
        axes.plot(values, np.full(len(values), place), "o", color=BLUE, markersize=4, alpha=0.6)
        axes.plot([values.mean()] * 2, [place - 0.28, place + 0.28], color=INK, linewidth=2)
        for seed, value in zip(each.seeds, values, strict=True):
            joined.setdefault((each.subset, seed), []).append((value, place))
    for points in joined.values():
        axes.plot(*zip(*points, strict=True), color=LINE, linewidth=0.8, zorder=1)
    return figure


@styled()
def over_data_size(pairs: Sequence[PairFinding], delta: float) -> Figure:
    """The difference of each pair over the number of training images, with its interval."""
    curves: dict[tuple[str, str], list[PairFinding]] = {}
    for pair in pairs:
        curves.setdefault((pair.arm, pair.other), []).append(pair)
    sizes = sorted({pair.subset for pair in pairs}, key=lambda size: (size is None, size or 0))
    figure, axes = new_axes(3.2 + 0.32 * len(curves))
    axes.axhspan(-100 * delta, 100 * delta, color=LINE, alpha=0.5, linewidth=0)
    axes.axhline(0, color=MUTED, linewidth=1)
    for number, curve in enumerate(curves.values()):
        curve.sort(key=lambda pair: sizes.index(pair.subset))
        shift = 0.12 * (number - (len(curves) - 1) / 2)
        across = [sizes.index(pair.subset) + shift for pair in curve]
        colour, mark = (BLUE, ORANGE, INK, MUTED)[number % 4], "osD^v"[number // 4 % 5]
        means = [100 * pair.difference.mean for pair in curve if pair.difference]
        label = _named(curve[0]).replace("\n", " ")
        axes.plot(across, means, f"{mark}-", color=colour, linewidth=1.2, label=label)
        for place, pair in zip(across, curve, strict=True):
            if pair.verdict and (interval := pair.verdict.judging):
                axes.plot([place] * 2, [100 * end for end in interval], color=colour, linewidth=2.5)
    axes.set_xticks(range(len(sizes)), ["all" if size is None else f"{size:,}" for size in sizes])
    axes.set(xlabel="Training images", ylabel="Difference, points")
    figure.legend(loc="outside lower left", fontsize=8)
    return figure


def _named(pair: PairFinding) -> str:
    arm, other = (shorten(label, 34) for label in pair.labels)
    return f"{arm}\nminus {other}"
