"""The plots of a study: how trials learned, what they were, what mattered, who worked when."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from foveate.report.plots import BLUE, INK, LINE, MUTED, ORANGE, new_axes, shorten, styled

__all__ = ["importance_bars", "parallel_coordinates", "rung_curves", "worker_timeline"]

_MOST_NAMED = 8
"""Values of a knob that are written at its axis."""


def rung_curves(trials: Sequence[Mapping[str, Any]], rungs: Sequence[int], best: int | None) -> Figure:
    """Accuracy over epochs, a line a trial; dotted where rungs are; the best trial's line stands out."""
    with styled():
        figure, axes = new_axes(3.6)
        for epochs in rungs:
            axes.axvline(epochs, color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
        for trial in sorted(trials, key=lambda trial: trial["number"] == best):
            points = [(row["epoch"], row["rank_accuracy"]) for row in trial["rows"]]
            if points:
                winner = trial["number"] == best
                axes.plot(
                    *zip(*points, strict=True),
                    color=ORANGE if winner else BLUE,
                    linewidth=2.2 if winner else 1,
                    alpha=1 if winner else 0.45,
                    marker="o",
                    markersize=3.5 if winner else 2,
                    label=f"trial {best}, the best" if winner else None,
                )
        axes.set(xlabel="Epoch", ylabel="Accuracy on the ranking images")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if any(trial["number"] == best and trial["rows"] for trial in trials):
            axes.legend(loc="lower right")
    return figure


def parallel_coordinates(
    trials: Sequence[Mapping[str, Any]], knobs: Mapping[str, Sequence[Any]], best: int | None
) -> Figure:
    """A line a trial, through its value of each knob to its score; the better, the stronger.

    Args:
        knobs: by name the values they can have, in order; or of a number its lowest and highest, and whether its
            axis is logarithmic, as `(low, high, log)` in a tuple.
    """
    names = [*knobs, "accuracy"]
    scored = sorted((trial for trial in trials if trial["score"] is not None), key=lambda trial: trial["score"])
    scores = [trial["score"] for trial in scored] or [0.0]
    low, high = min(scores), max(*scores, min(scores) + 1e-9)
    with styled():
        figure, axes = new_axes(4.2)
        figure.set_figwidth(max(5.4, 0.95 * len(names)))
        for place in range(len(names)):
            axes.axvline(place, color=LINE, linewidth=1)
        for rank, trial in enumerate(scored):
            heights = [_height(knobs[name], trial["settings"].get(name)) for name in knobs]
            heights.append((trial["score"] - low) / (high - low))
            winner = trial["number"] == best
            axes.plot(
                range(len(names)),
                heights,
                color=ORANGE if winner else BLUE,
                linewidth=2.2 if winner else 1,
                alpha=1 if winner else 0.12 + 0.6 * rank / len(scored),
                marker="o",
                markersize=2.5,
                zorder=3 if winner else 2,
            )
        for place, name in enumerate(knobs):
            for height, text in _ticks(knobs[name]):
                axes.text(place + 0.04, height, text, size=7, color=MUTED, va="center", clip_on=False)
        for height, score in ((0, low), (1, high)):
            axes.text(len(names) - 0.96, height, f"{100 * score:.1f} %", size=7, color=MUTED, va="center")
        axes.set_xticks(
            range(len(names)), [shorten(name, 16) for name in names], rotation=30, ha="right", color=INK
        )
        axes.set(yticks=[], xlim=(-0.2, len(names) - 0.4), ylim=(-0.15, 1.08))
        axes.spines[:].set_visible(False)
        axes.grid(visible=False)
    return figure


def importance_bars(importance: Sequence[tuple[str, float]]) -> Figure:
    """How much of what is explained each knob explains, the most first."""
    with styled():
        figure, axes = new_axes(0.9 + 0.3 * max(len(importance), 2))
        names, values = [name for name, _ in importance], [value for _, value in importance]
        axes.barh(range(len(names)), values, height=0.6, color=BLUE)
        axes.set_yticks(range(len(names)), [shorten(name) for name in names])
        axes.set(
            xlim=(0, max([*values, 0.01]) * 1.1), ylim=(len(names) - 0.5, -0.5), xlabel="Share of the importance"
        )
        axes.grid(visible=False, axis="y")
    return figure


def worker_timeline(trials: Sequence[Mapping[str, Any]]) -> Figure:
    """What each worker did when: a bar a job, the stronger the higher its rung; failed jobs in vermilion."""
    jobs = [job for trial in trials for job in trial["jobs"]]
    slots = sorted({job["slot"] for job in jobs})
    rungs = max((job["rung"] for job in jobs), default=0)
    with styled():
        figure, axes = new_axes(1.0 + 0.36 * max(len(slots), 2))
        for job in jobs:
            span = [(job["began"], max(job["ended"] - job["began"], 1e-3))]
            alpha = 0.4 + 0.6 * job["rung"] / max(rungs, 1)
            axes.broken_barh(
                span,
                (job["slot"] - 0.35, 0.7),
                color=ORANGE if job["failed"] else BLUE,
                alpha=alpha,
                edgecolor="white",
                linewidth=0.3,
            )
        axes.set_yticks(slots, [str(slot + 1) for slot in slots])
        axes.set(xlabel="Seconds since the study began", ylabel="Worker", ylim=(max(slots, default=0) + 0.6, -0.6))
        axes.grid(visible=False, axis="y")
    return figure


def _height(values: Sequence[Any], value: Any) -> float:
    """Where a value lies on its axis, 0…1; below it where the trial has no such knob."""
    if value is None:
        return -0.1
    if not isinstance(values, tuple):
        return list(values).index(value) / max(len(values) - 1, 1)
    low, high, log = values
    if low == high:
        return 0.0
    if log:
        low, high, value = np.log([low, high, value])
    return float((value - low) / (high - low))


def _ticks(values: Sequence[Any]) -> Sequence[tuple[float, str]]:
    if isinstance(values, tuple):
        low, high, _ = values
        return [(0, f"{low:g}")] + ([(1, f"{high:g}")] if high != low else [])
    if len(values) > _MOST_NAMED:
        values = [values[0], values[-1]]
        return [(0, _named(values[0])), (1, _named(values[1]))]
    return [(_height(list(values), value), _named(value)) for value in values]


def _named(value: Any) -> str:
    text = "×".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return shorten(text, 14)
