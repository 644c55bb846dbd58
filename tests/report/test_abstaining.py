"""What confidence is worth, against counts made image by image; and how the page shows it."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from foveate.confidence import Confidence
from foveate.report.abstaining import THRESHOLDS, Abstaining, abstaining
from foveate.report.html import render
from foveate.report.run_page import RunPage, run_page
from foveate.report.run_plots import threshold_curves

NAMES = ("a", "b", "never")


def drawn(images: int = 200, classes: int = 3) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Probabilities of images of which none is of the last class."""
    rng = np.random.default_rng(0)
    labels = rng.integers(classes - 1, size=images)
    logits = rng.normal(size=(images, classes))
    logits[np.arange(images), labels] += 1.5
    powers = np.exp(logits)
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32), labels


@pytest.fixture(scope="module")
def measured() -> Abstaining:
    return abstaining(*drawn(), NAMES, Confidence(), split="validation")


def test_precision_and_recall_are_those_of_the_predictions_that_are_given(measured: Abstaining) -> None:
    probabilities, labels = drawn()
    top, predicted = probabilities.max(axis=1), probabilities.argmax(axis=1)
    for at in (0, 50, 70, 95):
        for index, found in enumerate(measured.classes):
            given = (predicted == index) & (top >= THRESHOLDS[at])
            right = (given & (labels == index)).sum()
            precision = right / given.sum() if given.any() else np.nan
            recall = right / (labels == index).sum() if (labels == index).any() else np.nan
            np.testing.assert_allclose([found.precision[at], found.recall[at]], [precision, recall])


def test_the_surest_are_answered_first(measured: Abstaining) -> None:
    probabilities, labels = drawn()
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    right = (probabilities.argmax(axis=1) == labels)[order]
    for found in measured.answered:
        assert found.images == round(found.share * 200)
        assert found.accuracy == pytest.approx(right[: found.images].mean())
        assert (probabilities.max(axis=1) >= found.threshold).sum() == found.images
        assert found.interval[0] < found.accuracy < found.interval[1] or found.accuracy in (0, 1)


def test_the_thresholds_on_the_page_answer_as_many_images_of_a_sure_network(run: Callable[..., RunPage]) -> None:
    top = 1 - np.geomspace(5e-6, 0.4, 200)
    probabilities, labels = np.stack([top, 1 - top], axis=1).astype(np.float32), np.zeros(200, np.int64)
    measured = abstaining(probabilities, labels, NAMES[:2], Confidence(), split="validation")
    page = render(run_page(run(NAMES[:2], abstaining=measured)))
    table = page.partition('aria-label="Accuracy by the share that is answered"')[2].partition("</table>")[0]
    for found in measured.answered:
        shown = np.format_float_positional(found.threshold, min_digits=3)
        assert shown in table
        assert (top >= float(shown)).sum() == found.images


def test_where_all_are_as_sure_as_can_be_the_threshold_still_answers_them() -> None:
    probabilities = np.tile(np.float32([1, 0]), (50, 1))
    for found in abstaining(probabilities, np.zeros(50, np.int64), NAMES[:2], Confidence(), split="test").answered:
        assert found.threshold == (0.999 if found.images == 50 else 0.999999)


def test_a_class_has_a_panel_and_of_many_those_of_the_lowest_recall(measured: Abstaining) -> None:
    panels = threshold_curves(measured.classes).axes
    assert [axes.get_title() for axes in panels] == list(NAMES)
    np.testing.assert_allclose(panels[0].get_lines()[1].get_ydata(), measured.classes[0].recall[::3])
    many = abstaining(*drawn(2000, 40), [f"class {index}" for index in range(40)], Confidence(), split="test")
    figure = threshold_curves(many.classes)
    lowest = min(many.classes[:-1], key=lambda each: each.recall[0])
    assert lowest.name == figure.axes[0].get_title()
    assert figure.legends[0].get_title().get_text() == "The 12 of 40 classes with the lowest recall"


def test_the_page_shows_the_plot_beside_its_table(run: Callable[..., RunPage], measured: Abstaining) -> None:
    page = run_page(run(NAMES, abstaining=measured))
    assert "thresholds" in [plot.name for plot in page.plots]
    html = render(page)
    assert "Precision and recall over the threshold" in html
    assert 'aria-label="Precision and recall by threshold"' in html
    assert "≥ 0.95" in html
    section = html.partition('id="abstaining"')[2].partition("</section>")[0]
    assert "None" not in section
    assert "nan" not in section
