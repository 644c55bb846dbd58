"""The style of all figures; as PNG for files, and as SVG that follows the page's theme."""

import contextlib
import io
import re
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

# Blue and vermilion of Okabe and Ito's palette, told apart under every common colour blindness.
INK, MUTED, LINE, BLUE, ORANGE = "#1c2530", "#5d6875", "#d8dee6", "#0072b2", "#d55e00"
# In the page each colour is a CSS variable, so that one SVG serves light and dark.
_VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", BLUE: "blue", ORANGE: "orange"}
DOTTED: dict[str, Any] = {"color": MUTED, "linewidth": 1, "linestyle": (0, (2, 3))}
"""A line to compare with."""

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
WIDTH = 5.4  # inches: at a phone's width the 9.5 pt letters are still read


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Foveate's style for all that is drawn inside; also a decorator of what draws."""
    # What no font of this machine draws is a box in the PNG, which the page says; the page's fonts may draw it.
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def shorten(name: str, length: int = 22) -> str:
    """`name` on one line of at most `length` characters; the end stays, where long names tend to differ."""
    flat = " ".join(name.split())
    end = length // 3
    return flat if len(flat) <= length else f"{flat[: length - 1 - end]}…{flat[-end:]}"


def new_axes(height: float) -> tuple[Figure, Axes]:
    """A figure of the pages' width, and `height` inches."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def rows_axes(names: Sequence[str], label: str, *, inches: float, above: float = 1.0) -> tuple[Figure, Axes]:
    """A figure with a row under each name, `inches` high, the first at the top; `label` is that of the x axis."""
    figure, axes = new_axes(above + inches * len(names))
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel=label, ylim=(len(names) - 0.5, -0.5))
    axes.grid(visible=False, axis="y")
    return figure, axes


def is_long(figure: Figure) -> bool:
    """Whether it is so much wider than others that a phone shows it at its own size, to be scrolled."""
    return bool(figure.get_figwidth() > WIDTH)


def has_boxes(figure: Figure) -> bool:
    """Whether it has letters that no font of this machine can draw."""
    return bool(_fonts(_foreign_letters(figure))[1])


def _foreign_letters(figure: Figure) -> frozenset[int]:
    """Letters that matplotlib's own font lacks."""
    for axes in figure.axes:
        axes.get_xticklabels(), axes.get_yticklabels()  # else they have no text before they are drawn
    texts = "".join(text.get_text() for text in figure.findobj(Text))
    shown = {ord(letter) for letter in set(texts) if unicodedata.category(letter) not in ("Cc", "Cf", "Mn")}
    return frozenset(shown - _letters(font_manager.findfont(_FONT)))


@cache
def _letters(path: str) -> frozenset[int]:
    return frozenset(font_manager.get_font(path).get_charmap())


@cache
def _fonts(letters: frozenset[int]) -> tuple[tuple[str, ...], frozenset[int]]:
    """Families of this machine that draw `letters`, and the letters that none of them draws."""
    families: list[str] = []
    for font in font_manager.fontManager.ttflist if letters else ():
        if font.name.startswith("Last Resort"):  # comes with matplotlib, and has a box for every letter
            continue
        with contextlib.suppress(OSError, RuntimeError):  # a font that was removed, or is damaged
            if drawn := letters & _letters(font.fname):
                families.append(font.name)
                letters -= drawn
    return tuple(families), letters


def to_png(figure: Figure) -> bytes:
    """The figure on white, at a resolution for slides and papers; the same bytes each time."""
    buffer = io.BytesIO()
    with styled():
        _lay_out(figure)
        figure.savefig(buffer, format="png", dpi=180, metadata={"Software": None})
    return buffer.getvalue()


def _lay_out(figure: Figure) -> None:
    """Give the parts of a figure their fonts and places, once for both formats.

    With an engine of layout each of them would lay it out again, and draw it once more for that.
    """
    if (engine := figure.get_layout_engine()) is not None:
        if families := _fonts(_foreign_letters(figure))[0]:
            for text in figure.findobj(Text):
                text.set_fontfamily([_FONT, *families])  # a list for which each letter is looked up in turn
        engine.execute(figure)
        figure.set_layout_engine(None)


def to_svg(figure: Figure) -> str:
    """The figure as an `<svg>` element without background; its colours and font are the page's, where set."""
    buffer = io.StringIO()
    with styled():
        _lay_out(figure)
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    # Names like figure_1 would occur once per figure of the page; nothing refers to them.
    svg = re.sub(r' id="[\w.]+_\d+"', "", svg)
    svg = re.sub(rf"'{_FONT}'(?:, [^;\"]*)?", "var(--font, sans-serif)", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable}, {colour})")
    return svg
