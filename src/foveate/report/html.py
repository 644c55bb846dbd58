"""Templates to HTML, and how figures are written in them."""

import base64
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure

from foveate.files import write_atomically
from foveate.report.plots import to_png, to_svg

__all__ = ["duration", "flat", "render_template", "write_page"]


def render_template(name: str, figures: Mapping[str, Figure], **values: Any) -> str:
    """A page of the folder `templates`, with `figures` as SVG in it.

    It is the same text for the same data, and what comes from users is escaped.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("foveate.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": _percent,
        "metric": _metric,
        "interval": _interval,
        "duration": duration,
        "data_uri": lambda png: "data:image/png;base64," + base64.b64encode(png).decode(),
    }
    drawn = {name: to_svg(figure) for name, figure in figures.items()}
    return environment.get_template(name).render(figures=drawn, **values)


def write_page(path: Path, html: str, figures: Mapping[str, Figure]) -> Path:
    """Write a page, and beside it its figures as PNG; returns its path.

    Raises:
        OutputError: when a file cannot be written.
    """
    for name, figure in figures.items():
        write_atomically(path.with_name(f"{name}.png"), to_png(figure))
    write_atomically(path, html)
    return path


_PERCENT = "\N{NO-BREAK SPACE}%"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}{_PERCENT}"


def _metric(value: float, key: str) -> str:
    """A loss is no share of anything; every other metric is."""
    return f"{value:.3f}" if key == "loss" else _percent(value)


def _interval(bounds: Sequence[float], key: str) -> str:
    low, high = (_metric(bound, key).removesuffix(_PERCENT) for bound in bounds)
    return f"{low}–{high}"


def duration(seconds: float) -> str:
    """In the units that fit."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as rows of dotted name and text; mappings in a list are numbered from 1."""

    def rows(name: str, value: Any) -> list[tuple[str, str]]:
        if isinstance(value, Mapping):
            return flat(value, f"{name}.")
        if isinstance(value, Sequence) and not isinstance(value, str):
            if any(isinstance(item, Mapping) for item in value):
                return flat({str(number): item for number, item in enumerate(value, 1)}, f"{name}.")
            return [(name, ", ".join(map(str, value)))]
        # By identity: 1 == True, but a seed of 1 is not "yes".
        words = {id(None): "–", id(True): "yes", id(False): "no"}
        return [(name, words.get(id(value), str(value)))]

    return list(chain.from_iterable(rows(f"{prefix}{key}", value) for key, value in values.items()))
