"""Everything a study's page shows, as plain data, to one HTML file that loads nothing from anywhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from foveate.report import study_plots
from foveate.report.html import flat, render_template, write_page

__all__ = ["StudyPage", "write_study_report"]


@dataclass(frozen=True, kw_only=True)
class StudyPage:
    """A study as its page shows it."""

    title: str
    subtitle: str
    trials: Sequence[Mapping[str, Any]]
    """With `number`, `settings`, `state`, `score`, `epochs`, `bracket`, `rung`, `rows`, `jobs` and `reason`."""
    brackets: Sequence[Sequence[tuple[int, int]]]
    """The plan: (trials, epochs) of every rung."""
    knobs: Mapping[str, Sequence[Any]]
    """As `study_plots.parallel_coordinates` takes them."""
    importance: Sequence[tuple[str, float]]
    best: int | None
    seconds: float
    """That it ran."""
    worked: float
    """Of that, the share that workers had a job."""
    epochs: int
    settings: Mapping[str, Any]
    environment: Mapping[str, Any]
    train: str
    """The command that trains the winner."""


def write_study_report(page: StudyPage, folder: Path) -> Path:
    """Write study.html and its plots as PNG into `folder`, which exists; returns the page's path.

    Raises:
        OutputError: when a file cannot be written.
    """
    figures = _figures(page)
    ranked = sorted(
        page.trials, key=lambda trial: (trial["number"] != page.best, -trial["epochs"], -(trial["score"] or 0))
    )
    html = render_template(
        "study.html",
        figures,
        page=page,
        best=next((trial for trial in page.trials if trial["number"] == page.best), None),
        ranked=ranked,
        settings=flat(page.settings),
        environment=flat(page.environment),
    )
    return write_page(folder / "study.html", html, figures)


def _figures(page: StudyPage) -> dict[str, Figure]:
    """By the name of their PNG."""
    rungs = sorted({epochs for bracket in page.brackets for _, epochs in bracket})
    figures = {
        "rung_curves": study_plots.rung_curves(page.trials, rungs, page.best),
        "parallel_coordinates": study_plots.parallel_coordinates(page.trials, page.knobs, page.best),
        "worker_timeline": study_plots.worker_timeline(page.trials),
    }
    if page.importance:
        figures["knob_importance"] = study_plots.importance_bars(page.importance)
    return figures
