"""The plots of a study: how trials learned, what they were, what mattered, who worked when."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from foveate.report.plots import BLUE, DOTTED, INK, LINE, MUTED, ORANGE, new_axes, rows_axes, shorten, styled
from foveate.tuning.hyperparameters import Hyperparameter
from foveate.tuning.trials import Trial

_MOST_NAMED = 8
"""Values of a hyperparameter that are written at its axis."""


def value_text(value: Any) -> str:
    """A value of a hyperparameter, as a table or an axis names it."""
    if isinstance(value, list | tuple):
        return "×".join(map(str, value))
    return "null" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


@styled()
def rung_curves(trials: Sequence[Trial], rungs: Sequence[int], best: int | None, metric: str) -> Figure:
    """The metric over epochs, a line a trial; dotted where rungs are; the best trial's line stands out."""
    figure, axes = new_axes(3.6)
    for epochs in rungs:
        axes.axvline(epochs, **DOTTED)
    for trial in sorted(trials, key=lambda trial: trial.number == best):
        style: dict[str, Any] = {"color": BLUE, "linewidth": 1, "alpha": 0.45, "markersize": 2}
        if trial.number == best:
            style = {"color": ORANGE, "linewidth": 2.2, "markersize": 3.5, "label": f"trial {best}, the best"}
        for schedule in trial.schedules:
            points = [(row["epoch"], row["rank_accuracy"]) for row in schedule]
            (line,) = axes.plot(*zip(*points, strict=True), marker="o", **style)
            if style.pop("label", None):
                axes.legend(handles=[line], loc="lower right")
    axes.set(xlabel="Epoch", ylabel=f"{metric.capitalize()} on the ranking images")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure


@styled()
def parallel_coordinates(
    trials: Sequence[Trial], hyperparameters: Mapping[str, Hyperparameter], best: int | None, metric: str
) -> Figure:
    """A line a trial, through its value of each hyperparameter to its score; the better, the stronger.

    Below an axis lie trials that do not have the hyperparameter.
    """
    names = [*(shorten(name, 16) for name in hyperparameters), metric]
    scored = sorted((trial.score, trial.number, trial) for trial in trials if trial.score is not None)
    scores = [score for score, _, _ in scored] or [0.0]
    low, high = scores[0], max(scores[-1], scores[0] + 1e-9)
    figure, axes = new_axes(4.2)
    figure.set_figwidth(max(5.4, 0.95 * len(names)))
    for place in range(len(names)):
        axes.axvline(place, color=LINE, linewidth=1)
    for rank, (score, number, trial) in enumerate(scored):
        heights = [
            _height(axis, trial.settings[name]) if name in trial.settings else -0.1
            for name, axis in hyperparameters.items()
        ]
        style: dict[str, Any] = {
            "color": BLUE,
            "linewidth": 1,
            "alpha": 0.12 + 0.6 * rank / len(scored),
            "zorder": 2,
        }
        if number == best:
            style = {"color": ORANGE, "linewidth": 2.2, "zorder": 3}
        axes.plot(range(len(names)), [*heights, (score - low) / (high - low)], marker="o", markersize=2.5, **style)
    ticks = [(place + 0.04, *tick) for place, axis in enumerate(hyperparameters.values()) for tick in _ticks(axis)]
    ticks += [(len(names) - 0.96, end, f"{100 * score:.1f} %") for end, score in ((0, low), (1, high))]
    for across, height, text in ticks:
        axes.text(across, height, text, size=7, color=MUTED, va="center", clip_on=False)
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right", color=INK)
    axes.set(yticks=[], xlim=(-0.2, len(names) - 0.4), ylim=(-0.15, 1.08))
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    return figure


def _height(axis: Hyperparameter, value: Any) -> float:
    """Where a value lies on its axis, 0…1."""
    if axis.type == "choice":
        return axis.values.index(value) / max(len(axis.values) - 1, 1)
    low, high = axis.low, axis.high
    if low == high:
        return 0.0
    if axis.log:
        low, high, value = np.log([low, high, value])
    return float((value - low) / (high - low))


def _ticks(axis: Hyperparameter) -> list[tuple[float, str]]:
    """Heights that are named; of many values the first and the last."""
    if axis.type != "choice":
        return [(_height(axis, value), f"{value:g}") for value in dict.fromkeys((axis.low, axis.high))]
    values = axis.values if len(axis.values) <= _MOST_NAMED else (axis.values[0], axis.values[-1])
    return [(_height(axis, value), shorten(value_text(value), 14)) for value in values]


@styled()
def importance_bars(importance: Sequence[tuple[str, float]]) -> Figure:
    """How much of what is explained each hyperparameter explains, the most first."""
    names, values = [shorten(name) for name, _ in importance], [value for _, value in importance]
    figure, axes = rows_axes(names, "Share of the importance", inches=0.3)
    axes.barh(range(len(names)), values, height=0.6, color=BLUE)
    axes.set_xlim(0, max([*values, 0.01]) * 1.1)
    return figure


@styled()
def worker_timeline(trials: Sequence[Trial]) -> Figure:
    """A timeline of the workers: one bar for each job, darker for higher rungs; failed jobs in vermilion."""
    jobs = [job for trial in trials for job in trial.jobs]
    workers = [str(slot + 1) for slot in range(max((job["slot"] + 1 for job in jobs), default=1))]
    highest = max((job["rung"] for job in jobs), default=0) or 1
    figure, axes = rows_axes(workers, "Seconds since the study began", inches=0.36, above=1.2)
    for job in jobs:
        axes.broken_barh(
            [(job["began"], max(job["ended"] - job["began"], 1e-3))],
            (job["slot"] - 0.35, 0.7),
            color=ORANGE if job["failed"] else BLUE,
            alpha=0.4 + 0.6 * job["rung"] / highest,
            edgecolor="white",
            linewidth=0.3,
        )
    axes.set_ylabel("Worker")
    return figure
