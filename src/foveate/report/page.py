"""Everything a run's page shows, as plain data, to one HTML file that loads nothing from anywhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from foveate.inference.faithfulness import CONTROLS, NAMES
from foveate.model.build import LayerTable
from foveate.report import plots
from foveate.report.abstaining import Abstaining, risk_coverage
from foveate.report.html import flat, render_template, write_page

__all__ = ["DatasetSummary", "Mistake", "RunPage", "most_confident_mistakes", "render", "write_report"]

METRICS = (
    ("loss", "Loss", "mean cross-entropy in nats"),
    ("accuracy", "Accuracy", "share of images whose highest score is the right class"),
    ("macro_precision", "Precision", "mean over classes of the argmax’s precision"),
    ("macro_recall", "Recall", "mean over classes of the argmax’s recall"),
    ("macro_f1", "F1", "mean over classes of the argmax’s F1"),
    ("thresholded_micro_precision", "Precision", "of all class scores above 0.5, those of the right class"),
    ("thresholded_micro_recall", "Recall", "images whose right class scores above 0.5"),
    ("thresholded_micro_f1", "F1", "harmonic mean of these two"),
    ("expected_calibration_error", "Calibration error", "expected, 15 equal-width bins of confidence"),
)
"""Every metric of a report: its key, its name, what it is."""

PAPER_TABLE = {
    "loss": (0.467, None),
    "accuracy": (0.854, (0.847, 0.861)),
    "thresholded_micro_precision": (0.900, None),
    "thresholded_micro_recall": (0.823, None),
    "macro_f1": (0.855, None),
}
"""Figure 4.1 of the paper, 10,000 test images; the interval is Wilson's and ours, the paper gives none."""

MOST_LISTED = 100
"""Rows of a list that may be as long as the data set (bad images, groups); the count is always whole."""


@dataclass(frozen=True)
class Mistake:
    """An image the model was wrong about: `png` as the model saw it, `confidence` in `predicted`, 0…1."""

    png: bytes
    id: str
    true: str
    predicted: str
    confidence: float


@dataclass(frozen=True)
class DatasetSummary:
    """What was learned from: images per split and class, and the side in pixels the model sees."""

    name: str
    size: int
    counts: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, kw_only=True)
class RunPage:
    """A run as its page shows it. What is left at its default is left out of the page."""

    title: str
    subtitle: str
    dataset: DatasetSummary
    reports: Mapping[str, Mapping[str, Any]]
    """`evaluation.Report.to_dict()` by split, only where measured; at least one."""
    history: Sequence[Mapping[str, Any]] = ()
    """Rows of results.csv; `val_*` are None where nothing was held out."""
    best_epoch: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    timing: Mapping[str, float] = field(default_factory=dict)
    """`train_s`, `images_per_s`, `epochs`."""
    layers: LayerTable | None = None
    attention: str = ""
    mistakes: Sequence[Mistake] = ()
    bad: Sequence[tuple[str, str]] = ()
    """(id, reason) of images left out; the page lists the first of them."""
    notes: Sequence[str] = ()
    test_openings: Sequence[Mapping[str, str]] = ()
    """`time` and `command` of every look at the test split."""
    abstaining: Abstaining | None = None
    explained: Any = None
    """`run_page.Explained`, where the run was explained."""
    paper: bool = False
    """The paper's preset on its data set: its figures stand beside the run's."""
    command: str = ""

    @property
    def lead(self) -> str:
        """The split that headlines and plots show: test where it was opened, else validation."""
        return min(self.reports, key=lambda split: {"test": 0, "validation": 1}.get(split, 2))


def most_confident_mistakes(
    probabilities: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], count: int
) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Indices of the `count` wrong predictions of highest confidence, the highest first; fewer if there are fewer.

    `probabilities` is [N, K], `labels` [N]; equals keep the order of the images.
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    confidence = probabilities[wrong].max(axis=1)
    return wrong[np.argsort(-confidence, kind="stable")[:count]]


def render(page: RunPage) -> str:
    """The page as HTML that needs no script, no other file and no network; the same text for the same data."""
    return _render(page, _figures(page))


def write_report(page: RunPage, folder: Path) -> Path:
    """Write report.html and its plots as PNG into `folder`, which exists; returns the page's path.

    Raises:
        OutputError: when a file cannot be written.
    """
    figures = _figures(page)
    return write_page(folder / "report.html", _render(page, figures), figures)


def _figures(page: RunPage) -> dict[str, Figure]:
    """By the name of their PNG."""
    report = page.reports[page.lead]
    figures = {
        "confusion_matrix": plots.confusion_matrix(report),
        "reliability": plots.reliability_diagram(report),
        "per_class": plots.per_class_bars(report),
    }
    if page.abstaining:
        figures["risk_coverage"] = risk_coverage(page.abstaining)
    if page.history:
        figures["accuracy"] = plots.accuracy_curves(page.history, page.best_epoch)
        figures["loss"] = plots.loss_curves(page.history, page.best_epoch)
    return figures


def _render(page: RunPage, figures: Mapping[str, Figure]) -> str:
    return render_template(
        "report.html",
        figures,
        page=page,
        lead=page.reports[page.lead],
        reports=dict(sorted(page.reports.items(), key=lambda item: item[0] != page.lead)),
        metrics=METRICS,
        paper_table=PAPER_TABLE if page.paper else {},
        confused=_confused_pairs(page.reports[page.lead]),
        settings=flat(page.settings),
        environment=flat(page.environment),
        most_listed=MOST_LISTED,
        names=NAMES,
        controls=CONTROLS,
    )


def _confused_pairs(report: Mapping[str, Any], most: int = 8) -> list[dict[str, Any]]:
    """The largest cells off the diagonal of the confusion matrix, largest count first."""
    names, matrix = report["class_names"], np.array(report["confusion_matrix"])
    supports = matrix.sum(axis=1)
    np.fill_diagonal(matrix, 0)
    order = np.argsort(-matrix, axis=None, kind="stable")[:most]
    cells = zip(*np.unravel_index(order, matrix.shape), strict=True)
    return [
        {
            "true": names[row],
            "predicted": names[column],
            "count": int(matrix[row, column]),
            "share": float(matrix[row, column] / supports[row]),
        }
        for row, column in cells
        if matrix[row, column]
    ]
