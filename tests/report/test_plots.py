import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

from foveate.report import plots, run_plots
from foveate.training.measured import Measured

Scored = Callable[..., Measured]
PLOTS = (run_plots.confusion_matrix, run_plots.reliability_diagram, run_plots.per_class_bars)


@pytest.mark.parametrize("plot", PLOTS)
@pytest.mark.parametrize("classes", [2, 10, 45, 200])
def test_any_number_of_classes_is_drawn(plot: Callable[[Measured], Figure], classes: int, scored: Scored) -> None:
    figure = plot(scored(tuple(f"class {index}" for index in range(classes))))
    assert "<svg" in plots.to_svg(figure)
    assert Image.open(io.BytesIO(plots.to_png(figure))).width > 500


@pytest.mark.parametrize("plot", PLOTS)
def test_nasty_names_are_drawn_as_they_are(
    plot: Callable[[Measured], Figure], nasty: tuple[str, ...], scored: Scored
) -> None:
    svg = plots.to_svg(plot(scored(nasty)))
    assert "<script" not in svg
    assert "x" * 30 not in svg
    plots.to_png(plot(scored(nasty)))


def make_font(path: Path, letters: str) -> None:
    """A font of squares."""
    pen = TTGlyphPen(None)
    for place, point in enumerate([(0, 0), (0, 500), (500, 500), (500, 0)]):
        (pen.lineTo if place else pen.moveTo)(point)
    pen.closePath()
    names = [".notdef", *(f"letter{number}" for number in range(len(letters)))]
    font = FontBuilder(1000)
    font.setupGlyphOrder(names)
    font.setupCharacterMap({ord(letter): name for letter, name in zip(letters, names[1:], strict=True)})
    font.setupGlyf(dict.fromkeys(names, pen.glyph()))
    font.setupHorizontalMetrics(dict.fromkeys(names, (600, 0)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(path)


def test_letters_that_matplotlibs_font_lacks_are_drawn_by_another_or_said_to_be_boxes(
    tmp_path: Path, scored: Scored, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw() -> Figure:
        return run_plots.per_class_bars(scored(("\u732b", "caf\u00e9", "\u0642\u0637")))

    assert not plots.has_boxes(run_plots.per_class_bars(scored()))
    known = [font for font in font_manager.fontManager.ttflist if "DejaVu" in font.name]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", known)
    plots._fonts.cache_clear()
    assert plots.has_boxes(draw())
    boxes = plots.to_png(draw())
    make_font(tmp_path / "squares.ttf", "\u732b")
    entry = font_manager.ttfFontProperty(font_manager.get_font(tmp_path / "squares.ttf"))
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [*known, entry])
    plots._fonts.cache_clear()
    assert not plots.has_boxes(draw())
    assert plots.to_png(draw()) != boxes
    svg = plots.to_svg(draw())
    assert "Squares" not in svg
    assert "var(--font" in svg
    plots._fonts.cache_clear()


def test_names_are_shortened_to_one_line() -> None:
    assert plots.shorten("two\nlines  here") == "two lines here"
    assert plots.shorten("begin" + "x" * 200 + "end", 10) == "beginx…end"


@pytest.mark.parametrize("plot", [run_plots.accuracy_curves, run_plots.loss_curves])
@pytest.mark.parametrize("count", [1, 12, 45])
def test_curves_show_both_splits_or_training_alone(plot: Any, count: int, epochs: Any) -> None:
    both = plots.to_svg(plot(epochs(count), 1))
    assert "validation" in both
    assert "best epoch" in both
    alone = plots.to_svg(plot(epochs(count, validated=lambda _: False)))
    assert "validation" not in alone
    assert "training" in alone


def test_curves_hold_the_values(epochs: Any) -> None:
    history = epochs(20, validated=lambda epoch: epoch % 2 == 0)
    lines = run_plots.accuracy_curves(history).axes[0].get_lines()
    np.testing.assert_allclose(lines[0].get_ydata(), [row.train_accuracy for row in history])
    assert list(lines[1].get_xdata()) == list(range(2, 21, 2))


def test_bars_are_recall_and_precision_with_the_lowest_f1_first(scored: Scored) -> None:
    report = scored()
    ranked = sorted(report.per_class, key=lambda name: report.per_class[name].f1)
    axes = run_plots.per_class_bars(report).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ranked
    widths = [bar.get_width() for bar in axes.patches]
    expected = [getattr(report.per_class[name], metric) for metric in ("recall", "precision") for name in ranked]
    np.testing.assert_allclose(widths, expected)


def test_of_many_classes_the_lowest_are_shown_and_that_is_said(scored: Scored) -> None:
    svg = plots.to_svg(run_plots.per_class_bars(scored(tuple(f"c{index}" for index in range(200)))))
    assert "The 20 lowest of 200 classes" in svg


def test_the_matrix_writes_its_counts_where_they_fit(scored: Scored) -> None:
    report = scored()
    texts = [text.get_text() for text in run_plots.confusion_matrix(report).axes[0].texts]
    assert texts == [str(count) for row in report.confusion_matrix for count in row if count]
    assert not run_plots.confusion_matrix(scored(tuple(f"c{index}" for index in range(45)))).axes[0].texts


def test_a_perfect_model_and_a_class_never_predicted_are_drawn(scored: Scored) -> None:
    for skill in (50.0, -50.0):
        for plot in PLOTS:
            plots.to_svg(plot(scored(skill=skill, images=40)))


def test_the_zeros_of_two_axes_stand_apart(scored: Scored) -> None:
    figure = run_plots.reliability_diagram(scored())
    figure.draw_without_rendering()
    below = figure.axes[1]
    across, up = (axis.get_major_ticks()[0].label1 for axis in (below.xaxis, below.yaxis))
    assert across.get_text() == "0.0"
    assert up.get_text() == "0"
    assert not across.get_window_extent().overlaps(up.get_window_extent())


@pytest.mark.parametrize("plot", PLOTS)
def test_the_same_data_are_the_same_bytes(plot: Any, scored: Scored) -> None:
    assert plots.to_png(plot(scored())) == plots.to_png(plot(scored()))
    assert plots.to_svg(plot(scored())) == plots.to_svg(plot(scored()))


def test_a_figure_is_laid_out_once_and_drawn_once_in_each_format(
    scored: Scored, monkeypatch: pytest.MonkeyPatch
) -> None:
    laid_out, drawn = [], []
    execute, draw = ConstrainedLayoutEngine.execute, Figure.draw
    monkeypatch.setattr(ConstrainedLayoutEngine, "execute", lambda *given: (laid_out.append(1), execute(*given)))
    monkeypatch.setattr(Figure, "draw", lambda *given: (drawn.append(1), draw(*given)))
    figure = run_plots.per_class_bars(scored())
    assert plots.to_svg(figure) != plots.to_svg(run_plots.confusion_matrix(scored()))
    laid_out.clear(), drawn.clear()
    plots.to_png(figure)
    assert (len(laid_out), len(drawn)) == (0, 1)
    plots.to_svg(run_plots.per_class_bars(scored()))
    assert (len(laid_out), len(drawn)) == (1, 2)


def test_svg_takes_the_pages_colours_and_has_neither_ids_twice_nor_outside_parts(scored: Scored) -> None:
    svgs = [plots.to_svg(plot(scored())) for plot in PLOTS]
    for svg in svgs:
        assert svg.startswith("<svg")
        assert "var(--muted" in svg
        assert not re.search(r"(?<!, )#0072b2", svg)
        assert "<?xml" not in svg
        links = re.findall(r'(?:href|src)="([^"]*)"', svg)
        assert all(link.startswith(("#", "data:")) for link in links)
    ids = [name for svg in svgs for name in re.findall(r' id="([^"]*)"', svg)]
    assert len(ids) == len(set(ids))
