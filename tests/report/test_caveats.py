"""Lines on how little some figures tell."""

import pytest

from foveate.report.caveats import few_images_told, uneven_told


@pytest.mark.parametrize(
    ("images", "told"),
    [
        ({"a": 200, "b": 20}, True),
        ({"a": 199, "b": 20}, False),
        ({"a": 3, "b": 0, "c": 40}, True),
        ({"a": 40, "b": 0}, False),
        ({}, False),
    ],
)
def test_classes_are_uneven_from_ten_times_the_images_on(images: dict[str, int], told: bool) -> None:
    line = uneven_told(images)
    assert (line is not None) is told
    if line is not None:
        assert "class_weights=balanced" in line
        assert "class_weights" not in str(uneven_told(images, balanced=True))
        assert line.startswith(
            ("a has 200 of these images, and b has 20:", "c has 40 of these images, and a has 3:")
        )


def test_few_validation_images_are_told_and_others_are_not() -> None:
    told = few_images_told("validation", 13, [0.578, 0.973], 5)
    assert told.startswith("13 validation images tell only that the accuracy is between 57.8% and 97.3%: ")
    assert "±" not in told
    assert "--folds 2," in few_images_told("validation", 80, [0.8, 0.93], 2)
    told = few_images_told("validation", 80, [0.8, 0.93], 0)  # none can be drawn
    assert told is not None
    assert told.startswith("80 validation images tell only")
    assert "--folds" not in told
    assert few_images_told("validation", 800, [0.86, 0.9], 5) is None
    assert few_images_told("test", 80, [0.8, 0.93], 5) is None
    told = few_images_told("out-of-fold", 4, [0.301, 0.987], 5)
    assert told == "4 images tell only that the accuracy is between 30.1% and 98.7%: only more images tell more"
    assert few_images_told("out-of-fold", 800, [0.86, 0.9], 5) is None
