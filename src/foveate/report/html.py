"""Pages to HTML that loads nothing, and how figures are written in them."""

import base64
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveate.files import write_atomically
from foveate.report.plots import has_boxes, is_long, to_png, to_svg
from foveate.report.sections import Page, breakable, prose


def render(page: Page) -> str:
    """The page as HTML that needs no script, no other file and no network; the same text for the same data.

    What comes from users is escaped.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("foveate.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[[Any], Any]] = {
        "svg": to_svg,
        "is_long": is_long,
        "data_uri": lambda png: "data:image/png;base64," + base64.b64encode(png).decode(),
        "kind": lambda body: type(body).__name__,
        "breakable": breakable,
        "prose": prose,
    }
    environment.filters |= filters
    boxed = [f"{plot.name}.png" for plot in page.plots if has_boxes(plot.figure)]
    return environment.get_template("base.html").render(page=page, boxed=boxed)


def write_page(page: Page, path: Path) -> Path:
    """Write a page, and beside it its plots as PNG; returns its path.

    Raises:
        OutputError: when a file cannot be written.
    """
    html = render(page)
    for plot in page.plots:
        write_atomically(path.with_name(f"{plot.name}.png"), to_png(plot.figure))
    write_atomically(path, html)
    return path


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Pixels [H, W, 3] as a file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    return buffer.getvalue()


_PERCENT = "\N{NO-BREAK SPACE}%"


def percent(share: float | None) -> str:
    """A share of 1; a dash where there is none."""
    return "–" if share is None or np.isnan(share) else f"{100 * share:.1f}{_PERCENT}"


def metric(value: float, key: str) -> str:
    """A metric in words: a loss as a number, every other one in per cent."""
    return f"{value:.3f}" if key == "loss" else percent(value)


def interval(bounds: Sequence[float], key: str = "") -> str:
    """The ends of an interval of a metric."""
    low, high = (metric(bound, key).removesuffix(_PERCENT) for bound in bounds)
    return f"{low}–{high}"


def sentence(text: str) -> str:
    """A line of the terminal as a sentence of a page."""
    return f"{text[:1].upper()}{text[1:]}."


def duration(seconds: float) -> str:
    """A duration in the units that fit."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"
