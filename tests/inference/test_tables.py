"""What a person reads of predictions on the screen."""

import io
from typing import Any

import numpy as np
import pytest

from foveate.inference.predictor import Prediction
from foveate.inference.tables import Columns, write_text

CLASSES = ("ant", "bee", "cat")
READ = Prediction(
    "a.jpg", label="bee", probability=0.625, probabilities=np.array([0.125, 0.625, 0.25]), unlike=False
)


@pytest.mark.parametrize(
    ("asked", "others"),
    [
        ({}, ""),
        ({"top": 2}, "   25.00% cat"),
        ({"top": 9}, "   25.00% cat   12.50% ant"),
        ({"every": True}, "   25.00% cat   12.50% ant"),
        ({"every": True, "top": 2}, "   25.00% cat   12.50% ant"),
    ],
)
def test_a_line_has_the_classes_that_were_asked_for_the_likeliest_first(asked: Any, others: str) -> None:
    columns, shown = Columns(CLASSES, **asked), io.StringIO()
    unread = Prediction("b.jpg", reason="truncated")
    write_text(shown, columns, map(columns.row, (READ, unread)))
    assert shown.getvalue() == f" 62.50%  bee{others}  a.jpg\n      -  unreadable  b.jpg: truncated\n"
