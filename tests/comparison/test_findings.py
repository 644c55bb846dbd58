"""What verdicts and plans say in words."""

from dataclasses import replace
from typing import Any

import pytest

from foveate.comparison.findings import Pair, PairFinding
from foveate.comparison.planning import Plan
from foveate.comparison.pooling import Spread
from foveate.comparison.statistics import Difference, Verdict


def finding(difference: Any = (), verdict: Any = (), **changes: Any) -> PairFinding:
    """Of two seeds that both gained about a point; the changes are those of its parts, None where it has none."""
    known = Difference(0.012, 400, (0.01, 0.014), 0.003, 0.0, (0.0002, 0.049))
    said = Verdict("helps", (0.004, 0.02), (-0.01, 0.03), 0.005, 0.95, None)
    values: dict[str, Any] = {
        "pair": Pair(1, 0), "subset": None, "seeds": (0, 1), "other_seeds": (0, 1), "spread": Spread(0.003, 1),
        "plan": Plan(7, 9, 0.0052), "arm": "minute", "other": "plain",
        "difference": None if difference is None else replace(known, **dict(difference)),
        "verdict": None if verdict is None else replace(said, **dict(verdict)),
        "labels": ("minute", "plain"), "seeds_wanted": 2, "next_seed": 2,
    }  # fmt: skip
    return PairFinding(**{**values, **changes})


@pytest.mark.parametrize(
    ("verdict", "difference", "words"),
    [
        (None, None, "No seed has a result of both."),
        ({"answer": "no difference"}, {"mean": -0.0012}, "No difference larger than 0.5 points (-0.12 points)."),
        ({"answer": "hurts"}, {"mean": -0.02}, "Hurts: -2.00 points."),
        (
            {"answer": "inconclusive", "seeds": 1234, "seeds_alike": 1234},
            {},
            "Inconclusive: +1.20 points; about 1,234 new seeds would decide, "
            "in a separate comparison (--first-seed 2).",
        ),
        (
            {"answer": "inconclusive", "seeds": None, "seeds_alike": 4},
            {"mean": 0.3955},
            "Inconclusive: +39.55 points; about 4 new seeds would decide if they differ by as much as these do, "
            "in a separate comparison (--first-seed 2).",
        ),
        (
            {"answer": "inconclusive", "seeds": 2000, "seeds_alike": 4},
            {"mean": 0.1},
            "Inconclusive: +10.00 points; about 4 new seeds would decide if they differ by as much as these do, "
            "and 2,000 whatever they differ by, in a separate comparison (--first-seed 2).",
        ),
        (
            {"answer": "inconclusive", "interval": None},
            {},
            "Inconclusive: +1.20 points, from one seed, which has no interval.",
        ),
    ],
)
def test_a_verdict_is_a_sentence(verdict: Any, difference: Any, words: str) -> None:
    assert finding(difference, verdict).words == words


def test_a_pair_that_lost_seeds_says_so() -> None:
    assert finding(seeds_wanted=5).words == (
        "Helps: +1.20 points over the 2 of 5 seeds in which both came to an end."
    )


def test_arms_that_no_image_tells_apart_are_said_to_be_alike() -> None:
    words = finding({"mean": 0.0, "alike": True}, {"answer": "inconclusive"}).words
    assert "both right on the same images in every seed: what differs may have no effect" in words


def test_more_seeds_than_are_looked_for_are_said_to_be_more() -> None:
    words = finding(verdict={"answer": "inconclusive"}).words
    assert words.endswith("; not even thousands of seeds would decide.")


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ({"small": True}, "Helps, by less than 0.5 points: +1.20 points."),
        ({"answer": "hurts", "small": True}, "Hurts, by less than 0.5 points: +1.20 points."),
        (
            {"answer": "inconclusive", "on_these_images": "helps", "seeds": 12, "seeds_alike": 12},
            "Inconclusive: +1.20 points; on these images it helps; about 12 new seeds would decide, "
            "in a separate comparison (--first-seed 2).",
        ),
        (
            {"answer": "inconclusive", "on_these_images": "no difference", "images": 9100},
            "Inconclusive: +1.20 points; on these images no difference larger than 0.5 points; no number of seeds "
            "would decide a difference like this one on 400 images: it takes more than 9,100 images.",
        ),
        (
            {"answer": "no difference", "on_these_images": "hurts"},
            "No difference larger than 0.5 points (+1.20 points); on these images it hurts.",
        ),
        (
            {"answer": "no difference", "on_these_images": "no difference"},
            "No difference larger than 0.5 points (+1.20 points).",
        ),
    ],
)
def test_what_holds_on_these_images_alone_is_said_so(verdict: Any, words: str) -> None:
    assert finding(verdict=verdict).words == words


def test_too_few_groups_are_said_to_be_too_few() -> None:
    words = finding({"groups": 40}, {"answer": "inconclusive", "images": 900}).words
    assert words.endswith(
        "; no number of seeds would decide a difference like this one on 40 groups: it takes more than 900 groups."
    )


def test_arms_with_seeds_of_their_own_are_told_no_first_seed() -> None:
    words = finding(verdict={"answer": "inconclusive", "seeds": 12, "seeds_alike": 12}, next_seed=None).words
    assert words.endswith("about 12 new seeds would decide, in a separate comparison.")


def test_a_title_names_both_and_the_number_of_images() -> None:
    assert finding().title == "minute minus plain"
    assert finding(subset=1500).title == "minute minus plain (1,500 images)"


SPREAD = "(the spread from seed to seed was 0.30 points, and is taken as 0.52)"


@pytest.mark.parametrize(
    ("changes", "plan"),
    [
        (
            {},
            f"7 seeds to see a difference of 0.5 points, 9 seeds to say that there is none {SPREAD}",
        ),
        (
            {"plan": Plan(7, None, 0.0052)},
            f"7 seeds to see a difference of 0.5 points, no number of seeds to say that there is none {SPREAD}",
        ),
        ({"plan": None}, "unknown: at least two seeds of both arms must have ended"),
    ],
)
def test_a_plan_says_how_many_seeds(changes: Any, plan: str) -> None:
    assert finding(**changes).plan_words == plan
