"""Temperature, prediction sets and the threshold of what is unlike, against their definitions."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy.special import log_softmax, logsumexp, softmax

from foveate.confidence import (
    FEWEST_IMAGES,
    MAX_SCORES,
    Confidence,
    Unlike,
    conformal_scores,
    energy,
    fit_confidence,
    fit_temperature,
    too_few_told,
)
from foveate.metrics import point_metrics


def drawn(seed: int, n: int, k: int = 4, *, spread: float = 2.0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits [n, k], and labels drawn by their probabilities."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, spread, (n, k))
    labels = (np.cumsum(softmax(logits, axis=1), axis=1) < rng.random((n, 1))).sum(axis=1)
    return logits, np.minimum(labels, k - 1)


@given(seed=st.integers(0, 999), k=st.integers(2, 6), temperature=st.floats(0.1, 9))
@settings(max_examples=30)
def test_probabilities_and_energy_are_those_of_scipy(seed: int, k: int, temperature: float) -> None:
    logits, _ = drawn(seed, 7, k, spread=200)
    found = Confidence(temperature=temperature).probabilities(logits.astype(np.float32))
    np.testing.assert_allclose(found, softmax(logits.astype(np.float32).astype(float) / temperature, axis=1), 1e-9)
    np.testing.assert_allclose(energy(logits), -logsumexp(logits, axis=1))


def test_a_score_is_the_sum_of_what_is_likelier() -> None:
    probabilities = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.1, 0.2, 0.7]])
    np.testing.assert_allclose(conformal_scores(probabilities, np.array([1, 2, 0])), [0.5, 0, 0.9])


@pytest.mark.parametrize(
    ("coverage", "members"), [(0.1, "a"), (0.25, "a"), (0.5, "ab"), (0.75, "abc"), (0.76, "abc"), (0.99, "abc")]
)
def test_sets_grow_with_the_coverage_until_they_hold_all_classes(coverage: float, members: str) -> None:
    # ⌈(3 + 1) · coverage⌉ is the place of the quantile among three scores; the fourth is not there.
    confidence = Confidence(scores=(0.4, 0.6, 0.9))
    (found,) = confidence.sets(np.array([[0.5, 0.35, 0.15]]), coverage)
    assert "".join(np.array(list("abc"))[found]) == members


def test_the_likeliest_class_is_always_in_the_set() -> None:
    assert Confidence(scores=(0.0,) * 99).sets(np.array([[0.2, 0.8]]), 0.5).tolist() == [[False, True]]


@pytest.mark.parametrize("coverage", [0.0, 1.0, -1.0, float("nan")])
def test_no_share_is_no_coverage(coverage: float) -> None:
    with pytest.raises(ValueError, match="above 0 and below 1"):
        Confidence(scores=(0.5,)).sets(np.eye(2), coverage)
    with pytest.raises(ValueError, match="held out"):
        Confidence().sets(np.eye(2), 0.5)


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_the_coverage_is_kept_on_average_over_calibration_draws(coverage: float) -> None:
    """The mean over draws is at least the coverage; randomisation left out, it lies above it."""
    held = []
    for seed in range(60):
        logits, labels = drawn(seed, 2 * 100 + 1000, 6, spread=1.5)
        confidence = fit_confidence(2 * logits[:200], labels[:200], seed=seed)  # overconfident logits
        chosen = confidence.sets(confidence.probabilities(2 * logits[200:]), coverage)
        held.append(chosen[np.arange(1000), labels[200:]].mean())
    standard_error = np.std(held) / np.sqrt(len(held))
    assert np.mean(held) >= coverage - 2 * standard_error
    assert np.mean(held) <= coverage + 0.02  # and not by giving more classes than that takes


def test_the_halves_that_temperature_and_sets_are_fitted_on_are_apart() -> None:
    logits, labels = drawn(0, 400)
    confidence = fit_confidence(logits, labels, seed=3)
    shuffled = np.random.default_rng(3).permutation(400)
    assert confidence.temperature == fit_temperature(logits[shuffled[:200]], labels[shuffled[:200]])
    other = shuffled[200:]
    scaled = softmax(logits[other] / confidence.temperature, axis=1)
    np.testing.assert_allclose(confidence.scores, np.sort(conformal_scores(scaled, labels[other])))


def test_one_in_a_hundred_validation_images_is_unlike() -> None:
    logits, labels = drawn(1, 1000)
    found = fit_confidence(logits, labels, seed=0).is_unlike(logits)
    assert found is not None
    assert found.sum() == 10 - 1  # what lies above the quantile, and not at it
    assert energy(logits)[found].min() > energy(logits)[~found].max()


def test_of_few_images_no_more_is_fitted_than_they_can_bear() -> None:
    logits, labels = drawn(2, FEWEST_IMAGES)
    for images in (1, 13, FEWEST_IMAGES - 1):
        few = fit_confidence(logits[:images], labels[:images], seed=0)
        assert few == Confidence(images=images)
        assert few.is_unlike(logits) is None
        assert few.told == too_few_told(images)
    enough = fit_confidence(logits, labels, seed=0)
    assert None not in (enough.temperature, enough.scores, enough.unlike)
    assert enough.told is None
    assert too_few_told(FEWEST_IMAGES) is None
    assert len(fit_confidence(*drawn(3, 2 * MAX_SCORES + 10), seed=0).scores or ()) == MAX_SCORES


def test_what_a_model_cannot_say_of_its_confidence_is_told_with_what_would_do() -> None:
    assert too_few_told(13) == (
        "13 held-out images are too few to fit confidence on: probabilities are not calibrated, there are no "
        "prediction sets, and no image is called unlike; 100 images would do"
    )
    assert str(too_few_told(1)).startswith("1 held-out image is too few")
    assert str(Confidence().told).startswith("no image was held out")
    assert "earlier version" in str(Confidence(temperature=0.6).told)
    old = Confidence(temperature=0.582, scores=(0.1,) * 7)
    assert str(old.told).startswith("confidence was fitted on about 13 images: ")
    assert old.probabilities(np.array([[0.582, 0.0]])) == pytest.approx(softmax([[1.0, 0.0]], axis=1))


@given(scores=st.integers(1, 120), coverage=st.floats(0.05, 0.99))
@settings(max_examples=100)
def test_a_coverage_is_told_exactly_where_every_set_holds_all_classes(scores: int, coverage: float) -> None:
    confidence = Confidence(scores=(0.0,) * scores)
    every = bool(confidence.sets(np.array([[0.6, 0.4]]), coverage).all())
    assert (confidence.coverage_told(coverage) is not None) == every


def test_a_coverage_that_takes_more_images_says_how_many() -> None:
    told = str(Confidence(scores=(0.5,) * 7).coverage_told(0.9))
    assert "every set holds all classes, as sets were fitted on 7 images only; it takes 9, and twice" in told
    assert Confidence(scores=(0.5,) * 9).coverage_told(0.9) is None


def test_a_temperature_of_the_fewest_images_does_little_harm_and_one_of_half_as_many_does() -> None:
    """Why `FEWEST_IMAGES` is what it is: a network that is calibrated, and right on 91 % of two classes."""

    def harm(images: int) -> float:
        generator, found = np.random.default_rng(1), []
        for _ in range(100):
            logits = generator.normal(0, 4, (images + 1500, 2))
            sure = softmax(logits, axis=1)
            labels = (generator.random(len(logits)) > sure[:, 0]).astype(np.int64)
            temperature = fit_temperature(logits[:images], labels[:images])
            for divided, sign in ((temperature, 1), (1.0, -1)):
                logs = log_softmax(logits[images:] / divided, axis=1)
                found.append(-sign * logs[np.arange(1500), labels[images:]].mean())
        return 2 * float(np.mean(found))

    assert harm(FEWEST_IMAGES // 2) < 0.03
    assert harm(FEWEST_IMAGES // 4) > 0.05


@pytest.mark.parametrize(
    "damage",
    [
        {"temperature": 0.0},
        {"temperature": float("nan")},
        {"temperature": "1"},
        {"scores": [0.5, 0.4]},
        {"scores": [-0.1]},
        {"scores": [1.5]},
        {"scores": [float("nan")]},
        {"scores": [0.5] * (MAX_SCORES + 1)},
        {"unlike": {"threshold": float("inf"), "images": 100}},
        {"unlike": {"threshold": -3.0}},
        {"more": 1},
    ],
)
def test_what_cannot_have_been_fitted_is_refused(damage: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Confidence.model_validate(damage)


def test_it_comes_back_from_json_as_it_was() -> None:
    confidence = fit_confidence(*drawn(4, 300), seed=0, grouped=True)
    assert Confidence.model_validate(json.loads(json.dumps(confidence.model_dump(mode="json")))) == confidence
    assert isinstance(confidence.unlike, Unlike)


class TestFitTemperature:
    @given(temperature=st.floats(0.2, 5), seed=st.integers(0, 99))
    @settings(max_examples=20)
    def test_it_finds_the_temperature_that_labels_were_drawn_at(self, temperature: float, seed: int) -> None:
        rng = np.random.default_rng(seed)
        logits = rng.normal(0, 2, (20_000, 4))
        labels = (np.cumsum(softmax(logits, axis=1), axis=1) < rng.random((20_000, 1))).sum(axis=1)
        assert fit_temperature(temperature * logits, labels) == pytest.approx(temperature, rel=0.08)

    def test_nothing_near_it_has_less_loss_and_no_prediction_changes(self) -> None:
        logits, labels = drawn(3, 500)
        found = fit_temperature(logits, labels)
        n = len(logits)

        def loss(temperature: float) -> float:
            logs = log_softmax(logits / temperature, axis=1)
            return float(-logs[np.arange(n), labels].sum() + (-logs.mean(axis=1)).min())

        for other in (0.99 * found, 1.01 * found, 1.0):
            assert loss(other) >= loss(found)
        assert point_metrics(logits / found, labels)["accuracy"] == point_metrics(logits, labels)["accuracy"]

    def test_of_few_images_and_large_logits_it_is_hardly_moved(self) -> None:
        """A network that is calibrated and very sure: an unknown label of each image would make it 2.4."""
        generator, found = np.random.default_rng(0), []
        for _ in range(30):
            logits = 20 * generator.standard_normal((100, 10))
            labels = (softmax(logits, axis=1).cumsum(axis=1) > generator.random((100, 1))).argmax(axis=1)
            found.append(fit_temperature(logits, labels))
        assert 0.9 < np.exp(np.log(found).mean()) < 1.9

    @pytest.mark.parametrize("sureness", [0.5, 10, 100])
    def test_of_images_that_are_all_right_it_is_as_sure_as_their_number_allows(self, sureness: float) -> None:
        logits = sureness * np.tile(np.eye(3), (96, 1))
        scaled = softmax(logits / fit_temperature(logits, np.arange(288) % 3), axis=1)
        assert scaled.max(axis=1) == pytest.approx(1 - 2 / 3 / 289, abs=1e-4)
