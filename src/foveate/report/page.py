"""Everything a run has to say, as plain data, to one self-contained HTML page and its plots."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from foveate.files import write_atomically
from foveate.report import plots

__all__ = ["Mistake", "RunPage", "most_confident_mistakes", "render", "write_report"]

TABLE_4_1 = (
    ("Loss (categorical cross-entropy)", 0.467, "loss"),
    ("Accuracy", 0.854, "accuracy"),
    ("Precision (thresholded, micro)", 0.900, "thresholded_micro_precision"),
    ("Recall (thresholded, micro)", 0.823, "thresholded_micro_recall"),
    ("F1 (macro)", 0.855, "macro_f1"),
)
"""The paper's results, and which of our metrics each is: Keras' are thresholded at .5 and micro-averaged."""

METRICS = {
    "accuracy": "Accuracy",
    "loss": "Loss (cross-entropy, nats)",
    "macro_precision": "Precision, macro over argmax",
    "macro_recall": "Recall, macro over argmax",
    "macro_f1": "F1, macro over argmax",
    "thresholded_micro_precision": "Precision, thresholded micro (Keras)",
    "thresholded_micro_recall": "Recall, thresholded micro (Keras)",
    "thresholded_micro_f1": "F1, thresholded micro (Keras)",
    "expected_calibration_error": "Expected calibration error",
}
SPLITS = {"validation": "Validation", "test": "Test", "all": "All images"}
_MOST_BAD = 50


@dataclass(frozen=True)
class Mistake:
    """An image whose class was predicted wrongly, and how sure the model was of it."""

    pixels: NDArray[np.uint8]
    """[H, W, 3]."""
    id: str
    true: str
    predicted: str
    confidence: float


@dataclass(frozen=True)
class RunPage:
    """What the page of one run shows. `reports` holds `evaluation.Report.to_dict()` by split."""

    title: str
    command: str
    dataset: str
    size: int
    """Side of the images the network sees, in pixels."""
    counts: Mapping[str, Mapping[str, int]]
    """Images by split and class."""
    reports: Mapping[str, Mapping[str, Any]]
    shown: str
    """The split of `reports` whose plots and mistakes are shown."""
    settings: Mapping[str, Any]
    environment: Mapping[str, Any]
    layers: Sequence[tuple[str, str, str, int]]
    """Name, type, output shape and parameters of each layer."""
    params: tuple[int, int, int]
    """In all, trainable, not trainable."""
    history: Sequence[Mapping[str, float | None]] = ()
    timing: Mapping[str, Any] = field(default_factory=dict)
    kept_epoch: int | None = None
    """The epoch whose weights are the result, where it need not be the last."""
    mistakes: Sequence[Mistake] = ()
    bad: Sequence[tuple[str, str]] = ()
    """Name and reason of every image that cannot be read."""
    notes: Sequence[str] = ()
    test_openings: Sequence[Mapping[str, str]] = ()
    paper: bool = False
    """Whether this is the paper's experiment, whose results then stand beside."""


def most_confident_mistakes(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """Indices of up to `count` wrong predictions, the surest first.

    Args:
        probabilities: [N, K].
        labels: [N].
    """
    wrong = np.flatnonzero(probabilities.argmax(1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(1), kind="stable")][:count]


def render(page: RunPage, figures: Mapping[str, Figure] | None = None) -> str:
    """The page as HTML that needs nothing from outside itself."""
    figures = _figures(page) if figures is None else figures
    return _TEMPLATES.get_template("run.html").render(
        page=page,
        report=page.reports[page.shown],
        metrics=METRICS,
        splits=SPLITS,
        table_4_1=TABLE_4_1,
        most_bad=_MOST_BAD,
        svg={name: Markup(plots.to_svg(figure)) for name, figure in figures.items()},  # noqa: S704 (our own)
    )


def write_report(page: RunPage, folder: Path) -> None:
    """Write `report.html`, and each of its plots as a PNG beside it.

    Raises:
        OutputError: when they cannot be written.
    """
    figures = _figures(page)
    for name, figure in figures.items():
        write_atomically(folder / f"{name}.png", plots.to_png(figure))
    write_atomically(folder / "report.html", render(page, figures))


def _figures(page: RunPage) -> dict[str, Figure]:
    report = page.reports[page.shown]
    figures = {
        "confusion_matrix": plots.confusion_matrix(report),
        "reliability": plots.reliability_diagram(report),
        "per_class": plots.per_class_bars(report),
    }
    if page.history:
        figures["accuracy"] = plots.accuracy_curves(page.history, page.kept_epoch)
        figures["loss"] = plots.loss_curves(page.history, page.kept_epoch)
    return figures


def _png(pixels: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode()


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


_TEMPLATES = Environment(
    loader=PackageLoader("foveate.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {
    "png": _png,
    "percent": _percent,
    "duration": _duration,
}
