"""By how much a winner's score is too good: it is the truth on average, and nothing where nothing is known."""

import numpy as np
import pytest

from foveate.tuning.optimism import optimism


def packed(bits: np.ndarray) -> list[str]:
    return [np.packbits(row).tobytes().hex() for row in bits]


@pytest.mark.parametrize("spread", [0.0, 0.02, 0.2])
def test_on_average_it_is_what_the_best_score_has_over_the_winners_worth(spread: float) -> None:
    """Simulated: nine trials whose worth is known, ranked on 300 images that share their difficulty."""
    generator = np.random.default_rng(0)
    told, true = [], []
    for _ in range(60):
        worth = np.clip(0.8 + spread * generator.standard_normal(9), 0.05, 0.95)
        right = generator.random((9, 300)) < worth[:, None]
        scores = right.mean(axis=1)
        told.append(optimism(packed(right), 300))
        true.append(scores.max() - worth[scores.argmax()])
    assert np.mean(told) == pytest.approx(np.mean(true), abs=0.006)  # three standard errors
    assert (spread == 0.0) == (np.mean(true) > 0.03)


def test_of_one_trial_of_few_images_or_of_too_few_bits_nothing_is_said() -> None:
    two = packed(np.ones((2, 100), bool))
    assert optimism(two, 100) == 0.0
    assert optimism(two[:1], 100) is None
    assert optimism(two, 9) is None
    assert optimism(two, 200) is None


def test_it_is_the_same_each_time() -> None:
    right = packed(np.random.default_rng(0).random((5, 120)) < 0.7)
    assert optimism(right, 120) == optimism(right, 120)
