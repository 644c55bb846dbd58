"""Everything the page of a checked data set shows, as plain data, to one HTML file that loads nothing."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from foveate.report import check_plots
from foveate.report.html import render_template, write_page

__all__ = ["CheckPage", "write_check_report"]


@dataclass(frozen=True, kw_only=True)
class CheckPage:
    """A checked data set as its page shows it."""

    GROUPS_SHOWN: ClassVar[int] = 12
    """Of each finding, with pictures."""
    EACH_SHOWN: ClassVar[int] = 6
    """Of each group."""

    title: str
    subtitle: str
    counts: Mapping[str, Mapping[str, int]]
    """Images by split and class."""
    findings: Sequence[Mapping[str, Any]]
    """With `kind`, `severity`, `text`, `count`, `groups` and `remarks`."""
    pictures: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    """[H, W, 3] by id; what cannot be read has none."""
    sheet: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    """Rows of images [N, H, W, 3], by family of augmentation."""


def write_check_report(page: CheckPage, folder: Path) -> Path:
    """Write check.html and its plots as PNG into `folder`, which exists; returns the page's path.

    Raises:
        OutputError: when a file cannot be written.
    """
    figures: dict[str, Figure] = {"classes": check_plots.class_counts(page.counts)}
    if page.sheet:
        figures["augment"] = check_plots.contact_sheet(page.sheet)
    shown = {finding["kind"]: finding["groups"][: page.GROUPS_SHOWN] for finding in page.findings}
    pngs = {each: _png(pixels) for each, pixels in page.pictures.items()}
    html = render_template("check.html", figures, page=page, shown=shown, pngs=pngs)
    return write_page(folder / "check.html", html, figures)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    return buffer.getvalue()
