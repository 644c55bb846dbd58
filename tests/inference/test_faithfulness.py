"""What is measured of maps: against networks of which it is known where they look."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import spearmanr

from foveate.confidence import Confidence
from foveate.inference import faithfulness
from foveate.inference.engine import About
from foveate.inference.faithfulness import (
    Verdict,
    centre_map,
    curve_areas,
    smooth_random_map,
    spearman,
    steps,
    verdict,
)
from foveate.preprocessing import Preprocessing

SIDE = 16


class Corner:
    """Sure of class 1 as far as the upper left quarter of the image is bright."""

    about = About(("dark", "bright"), Preprocessing(SIDE), Confidence(temperature=1.0), "0" * 64)

    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        bright = images[:, : SIDE // 2, : SIDE // 2].astype(np.float32).mean((1, 2, 3))
        return np.stack([np.full(len(images), 4.0, np.float32), bright / 16], axis=1)


@pytest.fixture
def images() -> NDArray[np.uint8]:
    """Bright in the corner, and dark noise elsewhere."""
    found = np.random.default_rng(0).integers(0, 60, (12, SIDE, SIDE, 3), np.uint8)
    found[:, : SIDE // 2, : SIDE // 2] += 190
    return found


def true_map() -> NDArray[np.float32]:
    values = np.zeros((SIDE, SIDE), np.float32)
    values[: SIDE // 2, : SIDE // 2] = 1
    return values


def judged(values: Callable[[NDArray[np.uint8]], NDArray[np.float32]], images: NDArray[np.uint8]) -> Verdict:
    """The verdict on a method that gives these maps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faithfulness, "METHODS", {"occlusion": lambda _, pixels, __: values(pixels)})
        *marks, found = verdict(Corner(), "occlusion", images)
    assert marks == [None] * steps(Corner(), len(images))
    assert found is not None
    return found


def test_a_map_of_what_the_network_uses_is_better_than_those_that_know_nothing(images: NDArray[np.uint8]) -> None:
    found = judged(lambda _: true_map(), images)
    outcomes = {each.control: each.outcome for each in found.against}
    assert outcomes["random"] == "better"
    assert outcomes["centre"] == "better"
    assert outcomes["other"] == "no better"  # all look at the same corner
    assert found.words.startswith(
        "Occlusion is better than an equally smooth random map, no better than the map of"
    )
    assert "coarse: 8 × 8" in found.words
    assert f"These are {len(images)} images only: 30 or more are needed to know" in found.words
    assert "only" not in found.model_copy(update={"images": 30}).words


def test_a_map_of_all_else_is_worse_and_shows_nothing(images: NDArray[np.uint8]) -> None:
    found = judged(lambda _: 1 - true_map(), images)
    assert {each.control: each.outcome for each in found.against}["random"] == "worse"
    shown = "it does not show what the network uses"
    assert f"So over 30 images {shown}." in found.model_copy(update={"images": 30}).words
    assert shown not in found.words  # so few images cannot tell


def test_a_map_of_nothing_is_no_better_than_chance(images: NDArray[np.uint8]) -> None:
    random = np.random.default_rng(5)
    found = judged(lambda _: smooth_random_map(true_map(), random), images)
    assert {each.control: each.outcome for each in found.against}["random"] == "no better"


def test_maps_of_one_value_are_said_to_show_nothing(images: NDArray[np.uint8]) -> None:
    blank = np.zeros((SIDE, SIDE), np.float32)
    found = judged(lambda _: blank, images)
    assert found.blank == len(images)
    assert found.words == "Occlusion shows nothing here: each map has one value everywhere (it has 8 × 8 values)."
    some = judged(lambda pixels: true_map() if (pixels == images[0]).all() else blank, images)
    assert f"{len(images) - 1} of {len(images)} maps have one value everywhere." in some.words


def test_the_areas_are_those_of_the_definition(images: NDArray[np.uint8]) -> None:
    deletion, insertion = curve_areas(Corner(), images[0], 1, true_map(), centre_map(SIDE))
    assert 0 <= deletion < insertion <= 1
    worse = curve_areas(Corner(), images[0], 1, 1 - true_map(), centre_map(SIDE))
    assert worse[0] > deletion
    assert worse[1] < insertion
    # A network that says the same of everything has that probability everywhere.
    constant = Corner()
    constant.logits = lambda given: np.tile(np.float32([0, np.log(3)]), (len(given), 1))  # type: ignore[method-assign]
    assert curve_areas(constant, images[0], 1, true_map(), centre_map(SIDE)) == pytest.approx((0.75, 0.75))


@given(seed=st.integers(0, 999))
@settings(max_examples=20)
def test_rank_correlation_is_scipys(seed: int) -> None:
    one, other = np.random.default_rng(seed).integers(0, 5, (2, 6, 6)).astype(np.float32)
    if one.std() and other.std():
        assert spearman(one, other) == pytest.approx(spearmanr(one.ravel(), other.ravel()).statistic)
    assert spearman(one, np.zeros_like(one)) == 0


@given(seed=st.integers(0, 999))
@settings(max_examples=20)
def test_a_random_map_is_as_smooth_as_the_one_it_is_like(seed: int) -> None:
    random = np.random.default_rng(seed)
    like = centre_map(SIDE)
    found = smooth_random_map(like, random)
    np.testing.assert_allclose(np.abs(np.fft.fft2(found)), np.abs(np.fft.fft2(like)), rtol=1e-3, atol=1e-3)


def test_random_maps_are_not_like_the_one_that_they_are_as_smooth_as() -> None:
    like = centre_map(SIDE)
    maps = (smooth_random_map(like, np.random.default_rng(seed)) for seed in range(200))
    # One by one they may be: a smooth map has few degrees of freedom.
    assert abs(np.mean([spearman(each, like) for each in maps])) < 0.1
