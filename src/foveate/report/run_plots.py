"""The plots of a run: its curves, its errors, its calibration, and what its confidence is worth."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from foveate.evaluation import Report
from foveate.report.abstaining import THRESHOLDS, ClassCurves
from foveate.report.plots import (
    BLUE,
    DOTTED,
    INK,
    LINE,
    MUTED,
    ORANGE,
    WIDTH,
    new_axes,
    rows_axes,
    shorten,
    styled,
)
from foveate.training.state import EpochResult

_MOST_CLASSES_WITH_NUMBERS = 20
_MOST_CLASSES_WITH_NAMES = 40
_MOST_BARS = 20
_MOST_PANELS, _PANELS_ACROSS = 12, 3


def accuracy_curves(history: Sequence[EpochResult], best_epoch: int | None = None) -> Figure:
    """Accuracy of training and validation over epochs: figure 4.2 of the paper."""
    return _curves(history, "accuracy", "Accuracy", best_epoch)


def loss_curves(history: Sequence[EpochResult], best_epoch: int | None = None) -> Figure:
    """Loss of training and validation over epochs: figure 4.3 of the paper."""
    return _curves(history, "loss", "Loss (cross-entropy, nats)", best_epoch)


@styled()
def _curves(history: Sequence[EpochResult], metric: str, label: str, best_epoch: int | None) -> Figure:
    figure, axes = new_axes(3.3)
    marker = "o" if len(history) <= 12 else None
    for prefix, name, colour in (("train", "training", BLUE), ("val", "validation", ORANGE)):
        points = [(row.epoch, getattr(row, f"{prefix}_{metric}")) for row in history]
        measured = [(epoch, value) for epoch, value in points if value is not None]
        if measured:
            axes.plot(*zip(*measured, strict=True), color=colour, marker=marker, markersize=4, label=name)
    if best_epoch is not None:
        axes.axvline(best_epoch, label="best epoch", **DOTTED)
    axes.set(xlabel="Epoch", ylabel=label, xlim=(0.5, max([row.epoch for row in history], default=1) + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.legend(loc="best")
    return figure


@styled()
def confusion_matrix(report: Report) -> Figure:
    """Shares of each true class (rows) by predicted class; counts are written where they fit.

    Blue is right, vermilion wrong, so that a strong diagonal cannot hide the errors: each colour is as
    strong as the share relative to the largest of its kind.
    """
    counts = np.asarray(report.confusion_matrix, dtype=np.float64)
    classes = len(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    right = np.eye(classes, dtype=bool)
    largest_error = max(shares[~right].max(), 1e-9)
    # Transparent where zero, so that the theme's background shows, and at once visible above it. Vermilion
    # ends at 0.75, where dark and light numbers are still readable.
    alpha = np.where(right, 0.2 + 0.8 * shares, 0.05 + 0.7 * shares / largest_error) * (counts > 0)
    pixels = np.where(right[..., None], mpl.colors.to_rgb(BLUE), mpl.colors.to_rgb(ORANGE))
    figure, axes = new_axes(5.2)
    axes.imshow(np.dstack([pixels, alpha]), interpolation="none")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    if classes <= _MOST_CLASSES_WITH_NUMBERS:
        size = min(10, 100 / classes)
        for row, column in zip(*counts.nonzero(), strict=True):
            colour = "white" if alpha[row, column] > 0.8 else INK
            text = f"{counts[row, column]:.0f}"
            axes.text(column, row, text, ha="center", va="center", size=size, color=colour)
    axes.set(xlabel="Predicted class", ylabel="True class", xticks=[], yticks=[])
    if classes <= _MOST_CLASSES_WITH_NAMES:
        names = [shorten(name, 14) for name in report.class_names]
        size = min(9.5, 200 / classes)
        rotation = 90 if classes * max(map(len, names)) > 48 else 0
        axes.set_xticks(range(classes), names, rotation=rotation, size=size)
        axes.set_yticks(range(classes), names, size=size)
    return figure


@styled()
def reliability_diagram(report: Report) -> Figure:
    """Accuracy against confidence in bins (dots; Guo et al. 2017); bars: how many images each bin holds."""
    bins = [one for one in report.reliability if one.count]
    confidence, accuracy = [one.confidence for one in bins], [one.accuracy for one in bins]
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    axes.plot([0, 1], [0, 1], label="perfectly calibrated", **DOTTED)
    axes.vlines(confidence, confidence, accuracy, color=ORANGE, linewidth=5, alpha=0.35)
    axes.plot(confidence, accuracy, color=BLUE, marker="o", markersize=5, label="this model")
    axes.set(xlim=(0, 1), ylim=(-0.02, 1.02), ylabel="Accuracy")
    axes.legend(loc="best")
    middles = [(one.low + one.high) / 2 for one in bins]
    below.bar(middles, [one.count for one in bins], width=(bins[0].high - bins[0].low) * 0.86, color=BLUE)
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    below.tick_params(axis="x", pad=6)  # else the 0 of this axis touches the 0 of the other
    below.set(xlabel="Confidence of the predicted class", ylabel="Images")
    return figure


@styled()
def per_class_bars(report: Report) -> Figure:
    """Recall and precision of each class with 95 % intervals, lowest F1 first; of many classes the 20 lowest."""
    ranked = sorted(report.per_class.items(), key=lambda item: (item[1].f1 or 0.0, item[0]))
    shown = ranked[:_MOST_BARS]
    positions = np.arange(len(shown), dtype=np.float64)
    inches = 0.4 if len(shown) <= 12 else 0.3
    figure, axes = rows_axes([shorten(name) for name, _ in shown], "", inches=inches, above=1.4)
    for offset, metric, colour in ((-0.19, "recall", BLUE), (0.19, "precision", ORANGE)):
        values = np.array([getattr(scores, metric) or 0.0 for _, scores in shown])
        bounds = [scores.intervals[metric] or [0, 0] for _, scores in shown]
        # An undefined value has no interval: a bar and a whisker of length zero.
        errors = np.abs(np.array(bounds).T - values)
        axes.barh(positions + offset, values, height=0.34, color=colour, label=metric)
        axes.errorbar(values, positions + offset, xerr=errors, fmt="none", ecolor=INK, elinewidth=1, capsize=1.5)
    axes.set(xlim=(0, 1))
    title = f"The {len(shown)} lowest of {len(ranked)} classes" if len(ranked) > len(shown) else None
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=2, title=title)
    return figure


@styled()
def risk_coverage(
    shares: NDArray[np.float64], accuracy: NDArray[np.float64], interval: NDArray[np.float64]
) -> Figure:
    """Accuracy on the surest share of the images, over that share (Geifman and El-Yaniv 2017, figure 1)."""
    figure, axes = new_axes(3.3)
    axes.fill_between(shares, *interval, color=LINE, linewidth=0)
    axes.plot(shares, accuracy, color=BLUE)
    axes.axhline(accuracy[-1], **DOTTED)
    axes.set(xlabel="Share of the images that is answered, the surest", ylabel="Accuracy on it", xlim=(0, 1))
    return figure


@styled()
def threshold_curves(classes: Sequence[ClassCurves]) -> Figure:
    """Precision and recall of each class over the lowest probability that is answered, a panel a class.

    Of many classes those are shown whose recall is lowest where everything is answered.
    """
    shown = list(classes)
    if len(shown) > _MOST_PANELS:
        shown = sorted(shown, key=lambda each: np.nan_to_num(each.recall[0], nan=2))[:_MOST_PANELS]
    down = -(-len(shown) // _PANELS_ACROSS)
    figure = Figure(figsize=(WIDTH, 0.9 + 1.25 * down), layout="constrained")
    panels = list(figure.subplots(down, _PANELS_ACROSS, sharex=True, sharey=True, squeeze=False).flat)
    for axes, each in zip(panels, shown, strict=False):  # from 0 to 0.99: a third of the points keeps pages small
        axes.plot(THRESHOLDS[::3], each.precision[::3], color=ORANGE, linewidth=1.4, label="precision")
        axes.plot(THRESHOLDS[::3], each.recall[::3], color=BLUE, linewidth=1.4, label="recall")
        axes.set(xlim=(0, 1), ylim=(-0.03, 1.03), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        axes.set_title(shorten(each.name, 20), size=8, color=INK)
        axes.tick_params(labelsize=7)
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    title = (
        f"The {len(shown)} of {len(classes)} classes with the lowest recall" if len(classes) > len(shown) else None
    )
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, title=title)
    figure.supxlabel("Lowest probability that is answered", size=9.5, color=MUTED)
    return figure
