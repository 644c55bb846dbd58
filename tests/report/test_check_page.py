"""The page of a check: which classes its chart shows."""

import pytest

from foveate.report.check_page import check_page
from foveate.report.html import render


@pytest.mark.usefixtures("drawn_plots")
@pytest.mark.parametrize(("classes", "title"), [
    (40, "Images of every class"), (100, "Images of the 20 largest and the 20 smallest of 100 classes"),
])  # fmt: skip
def test_classes_that_the_chart_leaves_out_are_told(classes: int, title: str) -> None:
    counts = {"all": {f"class-{number:03}": 1 + number % 3 for number in range(classes)}}
    page = render(check_page(title="c", subtitle="s", counts=counts, findings=[], pictures={}, sheet={}))
    assert title in page
    assert ">1.5<" not in page  # there is no half image
    assert ">2<" in page
