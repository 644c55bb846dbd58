"""Plain data to matplotlib figures, as PNG for files and as SVG that follows the page's theme."""

import contextlib
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

__all__ = [
    "BLUE",
    "INK",
    "LINE",
    "MUTED",
    "ORANGE",
    "accuracy_curves",
    "confusion_matrix",
    "loss_curves",
    "new_axes",
    "per_class_bars",
    "reliability_diagram",
    "shorten",
    "styled",
    "to_png",
    "to_svg",
]

# Blue and vermilion of Okabe and Ito's palette, told apart under every common colour blindness.
INK, MUTED, LINE, BLUE, ORANGE = "#1c2530", "#5d6875", "#d8dee6", "#0072b2", "#d55e00"
# In the page each colour is a CSS variable, so that one SVG serves light and dark.
_VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", BLUE: "blue", ORANGE: "orange"}

_FONT = "DejaVu Sans"  # comes with matplotlib: figures are the same everywhere
_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": LINE,
    "axes.grid": True,
    "axes.labelcolor": MUTED,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": "sans-serif",
    "font.sans-serif": [_FONT],
    "font.size": 9.5,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "savefig.facecolor": "white",
    "svg.fonttype": "none",
    "svg.hashsalt": "foveate",
    "text.color": INK,
    "text.parse_math": False,  # a class may be called "$5"
    "xtick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.color": MUTED,
    "ytick.major.size": 0,
}
_WIDTH = 5.4  # inches: at a phone's width the 9.5 pt letters are still read
_MOST_CLASSES_WITH_NUMBERS = 20
_MOST_CLASSES_WITH_NAMES = 40
_MOST_BARS = 20


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Foveate's style for all that is drawn inside."""
    # Names in a script that matplotlib's font lacks are boxes in the PNG; the page's fonts draw them.
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def shorten(name: str, length: int = 22) -> str:
    """`name` on one line of at most `length` characters; the end stays, where long names tend to differ."""
    flat = " ".join(name.split())
    end = length // 3
    return flat if len(flat) <= length else f"{flat[: length - 1 - end]}…{flat[-end:]}"


def accuracy_curves(history: Sequence[Mapping[str, Any]], best_epoch: int | None = None) -> Figure:
    """Accuracy of training and validation over epochs: figure 4.2 of the paper."""
    return _curves(history, "accuracy", "Accuracy", best_epoch)


def loss_curves(history: Sequence[Mapping[str, Any]], best_epoch: int | None = None) -> Figure:
    """Loss of training and validation over epochs: figure 4.3 of the paper."""
    return _curves(history, "loss", "Loss (cross-entropy, nats)", best_epoch)


def _curves(history: Sequence[Mapping[str, Any]], metric: str, label: str, best_epoch: int | None) -> Figure:
    with styled():
        figure, axes = new_axes(3.3)
        marker = "o" if len(history) <= 12 else None
        for prefix, name, colour in (("train", "training", BLUE), ("val", "validation", ORANGE)):
            points = [(row["epoch"], row.get(f"{prefix}_{metric}")) for row in history]
            measured = [(epoch, value) for epoch, value in points if value is not None]
            if measured:
                axes.plot(*zip(*measured, strict=True), color=colour, marker=marker, markersize=4, label=name)
        if best_epoch is not None:
            axes.axvline(best_epoch, color=MUTED, linewidth=1, linestyle=(0, (2, 3)), label="best epoch")
        axes.set(xlabel="Epoch", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlim(0.5, max([row["epoch"] for row in history], default=1) + 0.5)
        axes.legend(loc="best")
    return figure


def confusion_matrix(report: Mapping[str, Any]) -> Figure:
    """Shares of each true class (rows) by predicted class; counts are written where they fit.

    Blue is right, vermilion wrong, so that a strong diagonal cannot hide the errors: each colour is as
    strong as the share relative to the largest of its kind.
    """
    counts = np.asarray(report["confusion_matrix"], dtype=np.float64)
    classes = len(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    right = np.eye(classes, dtype=bool)
    largest_error = max(shares[~right].max(), 1e-9)
    # Transparent where zero, so that the theme's background shows, and at once visible above it. Vermilion
    # ends at 0.75, where dark and light numbers are still readable.
    alpha = np.where(right, 0.2 + 0.8 * shares, 0.05 + 0.7 * shares / largest_error) * (counts > 0)
    pixels = np.where(right[..., None], mpl.colors.to_rgb(BLUE), mpl.colors.to_rgb(ORANGE))
    names = [shorten(name, 14) for name in report["class_names"]]
    with styled():
        figure, axes = new_axes(5.2)
        axes.imshow(np.dstack([pixels, alpha]), interpolation="none")
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        if classes <= _MOST_CLASSES_WITH_NUMBERS:
            size = min(10, 100 / classes)
            for row, column in np.ndindex(classes, classes):
                if counts[row, column]:
                    colour = "white" if alpha[row, column] > 0.8 else INK
                    text = f"{counts[row, column]:.0f}"
                    axes.text(column, row, text, ha="center", va="center", size=size, color=colour)
        if classes <= _MOST_CLASSES_WITH_NAMES:
            size = min(9.5, 200 / classes)
            turn = 90 if classes * max(map(len, names)) > 48 else 0
            axes.set_xticks(range(classes), names, rotation=turn, size=size)
            axes.set_yticks(range(classes), names, size=size)
        else:
            axes.set(xticks=[], yticks=[])
        axes.set(xlabel="Predicted class", ylabel="True class")
    return figure


def reliability_diagram(report: Mapping[str, Any]) -> Figure:
    """Accuracy against confidence in bins (dots; Guo et al. 2017); bars: how many images each bin holds."""
    bins = [one for one in report["reliability"] if one["count"]]
    with styled():
        figure = Figure(figsize=(_WIDTH, 4.4), layout="constrained")
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (2, 3)), label="perfectly calibrated")
        for one in bins:
            gap = [one["confidence"], one["accuracy"]]
            axes.plot([one["confidence"]] * 2, gap, color=ORANGE, linewidth=5, alpha=0.35)
        axes.plot(
            [one["confidence"] for one in bins],
            [one["accuracy"] for one in bins],
            color=BLUE,
            marker="o",
            markersize=5,
            label="this model",
        )
        axes.set(xlim=(0, 1), ylim=(-0.02, 1.02), ylabel="Accuracy")
        axes.legend(loc="best")
        width = bins[0]["high"] - bins[0]["low"]
        middles = [(one["low"] + one["high"]) / 2 for one in bins]
        below.bar(middles, [one["count"] for one in bins], width=width * 0.86, color=BLUE)
        below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        below.tick_params(axis="x", pad=6)  # else the 0 of this axis touches the 0 of the other
        below.set(xlabel="Confidence of the predicted class", ylabel="Images")
    return figure


def per_class_bars(report: Mapping[str, Any]) -> Figure:
    """Recall and precision of each class with 95 % intervals, lowest F1 first; of many classes the 20 lowest."""
    ranked = sorted(report["per_class"].items(), key=lambda item: (item[1]["f1"] or 0.0, item[0]))
    shown = ranked[:_MOST_BARS]
    positions = np.arange(len(shown), dtype=np.float64)
    with styled():
        figure, axes = new_axes(1.0 + (0.4 if len(shown) <= 12 else 0.3) * max(len(shown), 3))
        for offset, metric, colour in ((-0.19, "recall", BLUE), (0.19, "precision", ORANGE)):
            values = np.array([scores[metric] or 0.0 for _, scores in shown])
            bounds = [scores["intervals"][metric] or [0, 0] for _, scores in shown]
            # An undefined value has no interval: a bar and a whisker of length zero.
            errors = np.abs(np.array(bounds).T - values)
            axes.barh(positions + offset, values, height=0.34, color=colour, label=metric)
            axes.errorbar(
                values, positions + offset, xerr=errors, fmt="none", ecolor=INK, elinewidth=1, capsize=1.5
            )
        axes.set_yticks(positions, [shorten(name) for name, _ in shown])
        axes.set(xlim=(0, 1), ylim=(len(shown) - 0.5, -0.5))
        axes.grid(visible=False, axis="y")
        title = f"The {len(shown)} lowest of {len(ranked)} classes" if len(ranked) > len(shown) else None
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=2, title=title)
    return figure


def new_axes(height: float) -> tuple[Figure, Axes]:
    """A figure of the pages' width, and `height` inches."""
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def to_png(figure: Figure) -> bytes:
    """The figure on white, at a resolution for slides and papers; the same bytes each time."""
    buffer = io.BytesIO()
    with styled():
        figure.savefig(buffer, format="png", dpi=180, metadata={"Software": None})
    return buffer.getvalue()


def to_svg(figure: Figure) -> str:
    """The figure as an `<svg>` element without background; its colours and font are the page's, where set."""
    buffer = io.StringIO()
    with styled():
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    # Names like figure_1 would occur once per figure of the page; nothing refers to them.
    svg = re.sub(r' id="[\w.]+_\d+"', "", svg).replace(f"'{_FONT}', sans-serif", "var(--font, sans-serif)")
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable}, {colour})")
    return svg
