"""The bounds of an export: what keeps them and what goes beyond."""

import numpy as np
import pytest

from foveate.exporting.proof import MARGIN, prove, score_of


def outputs(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    logits = logits.astype(np.float32)
    return logits, logits, logits.max(axis=1)


def test_a_file_that_gives_the_same_passes() -> None:
    logits, labels = np.eye(3)[[0, 1, 2, 0]], np.array([0, 1, 2, 1])
    for precision in ("fp32", "int8"):
        found = prove(precision, outputs(logits), outputs(logits), labels)
        assert found.passed
        assert found.equal_classes == 1
        assert found.lost_points == 0
        assert found.score == score_of(logits.astype(np.float32), labels)
        assert found.score.accuracy == 0.75
        assert found.largest_difference.logits == 0


def test_one_other_class_beyond_the_margin_fails_a_file_of_32_bits() -> None:
    logits, labels = np.tile([1.0, 0.0], (1000, 1)), np.zeros(1000, int)
    other = logits.copy()
    other[7] = [0.0, 1.0]
    found = prove("fp32", outputs(logits), outputs(other), labels)
    assert not found.passed
    assert found.unequal_beyond_margin == 1
    assert found.equal_classes == 0.999
    assert found.largest_difference.logits == 1


@pytest.mark.parametrize(("gap", "passed"), [(0.5 * MARGIN, True), (2 * MARGIN, False)])
def test_two_classes_that_are_as_likely_may_change_their_order(gap: float, passed: bool) -> None:
    logits, labels = np.array([[gap, 0.0, -5.0]]), np.array([0])
    assert prove("fp32", outputs(logits), outputs(logits[:, [1, 0, 2]]), labels).passed is passed


@pytest.mark.parametrize(
    ("lost", "gained", "passed"),
    [
        (50, 0, True),  # exactly .5 points
        (60, 0, False),
        (300, 240, False),  # .6 points, and 2 standard errors are .46
        (900, 840, True),  # .6 points, but 2 standard errors are .83
        (0, 500, True),
    ],
)
def test_eight_bits_fail_where_they_lose_half_a_point_and_two_standard_errors(
    lost: int, gained: int, passed: bool
) -> None:
    labels = np.zeros(10_000, int)
    logits, other = np.tile([1.0, 0.0], (10_000, 1)), np.tile([1.0, 0.0], (10_000, 1))
    other[:lost] = [0.0, 1.0]
    logits[lost : lost + gained] = [0.0, 1.0]
    found = prove("int8", outputs(logits), outputs(other), labels)
    assert found.passed is passed
    assert found.lost_points == pytest.approx((lost - gained) / 100)
    if lost == 300:
        each = np.r_[np.ones(lost), -np.ones(gained), np.zeros(10_000 - lost - gained)]
        assert found.standard_error_points == pytest.approx(each.std(ddof=1))


def test_one_image_has_no_standard_error() -> None:
    logits = np.array([[1.0, 0.0]])
    found = prove("int8", outputs(logits), outputs(logits[:, ::-1]), np.array([0]))
    assert not found.passed
    assert found.standard_error_points == 0


@pytest.mark.parametrize(("images", "most"), [(27, 100 / 9), (300, 1.0), (10_000, 0.03)])
def test_few_images_do_not_exclude_a_loss(images: int, most: float) -> None:
    logits = np.tile([1.0, 0.0], (images, 1))
    found = prove("int8", outputs(logits), outputs(logits), np.zeros(images, int))
    assert found.passed
    assert found.most_lost_points == pytest.approx(most)
