"""The page of a comparison: it tells every verdict, loads nothing, and takes any comparison there can be."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from foveate.comparison.arms import Arm, Cost
from foveate.comparison.experiment import ArmSummary, ComparisonConfig, Finding, Pair
from foveate.comparison.statistics import Difference, Verdict
from foveate.config import resolve_config
from foveate.report.comparison_page import Failure, comparison_page
from foveate.report.html import write_page
from foveate.report.verdicts import ComparedArm, ComparedPair, plan_in_words, spread_in_words, verdict_in_words

MakePage = Callable[..., str]
DIFFERENCE = Difference(
    mean=0.012, images=500, per_seed=(0.01, 0.014), sd=0.003, image_variance=0.0, mcnemar=(0.0002, 0.049)
)
VERDICT = Verdict("helps", (0.004, 0.02), (-0.01, 0.03), 0.005, 0.95, None)
CANNOT_TELL = replace(VERDICT, answer="cannot tell")
WANTED = {"seeds_wanted": 2, "next_seed": 2}


def finding(**changes: Any) -> Finding:
    whole = Finding(Pair(1, 0), None, (0, 1), DIFFERENCE, VERDICT, seeds_needed=7)
    return replace(whole, **changes)


def pair(**changes: Any) -> ComparedPair:
    found = finding(**changes)
    return ComparedPair(
        arm="minute<b>",
        other="minute,attention=none",
        labels=("minute<b>", "minute,attention=none"),
        subset=found.subset,
        seeds=found.seeds,
        difference=found.difference,
        verdict=found.verdict,
        words=verdict_in_words(found, **WANTED),
        plan=plan_in_words(found),
    )


def arm(name: str, matched: Mapping[str, str] = MappingProxyType({}), **changes: Any) -> ComparedArm:
    summary = ArmSummary(
        arm=0,
        subset=None,
        seeds=(0, 1),
        accuracies=(0.86, 0.87),
        without_attention=None,
        gates=(),
        cost=Cost(parameters=12345, training_flops=6_700_000),
        ms_per_image=0.5,
    )
    return ComparedArm(name, name, matched, replace(summary, **changes))


ARMS = [arm("minute,attention=none"), arm("minute<b>", without_attention=0.84, gates=(-0.4, 0.9))]


def config(**changes: Any) -> ComparisonConfig:
    arms = [Arm(name=name, config=resolve_config(settings={"size": 32})) for name in ("a", "b")]
    values = {"data": "/data/cifar10", "data_dir": None, "fingerprint": "f", "num_classes": 10, "arms": arms}
    return ComparisonConfig(**{**values, "seeds": 3, **changes})


@pytest.fixture
def make(tmp_path: Path) -> MakePage:
    """Writes the page, and gives its HTML."""

    def make(**changes: Any) -> str:
        values: dict[str, Any] = {
            "title": "compare", "split": "validation", "config": config(), "arms": ARMS, "pairs": [pair()],
            "failures": [Failure("minute<b>", 2, None, "TrainingError: <i>nan</i>")],
            "environment": {"python": "3"}, "opening": "foveate compare --resume runs/compare/compare --final",
        }  # fmt: skip
        return write_page(comparison_page(**{**values, **changes}), tmp_path / "compare.html").read_text()

    return make


def test_it_tells_verdicts_arms_tests_and_the_command(make: MakePage, tmp_path: Path) -> None:
    html = make()
    for told in (
        "Helps: +1.20 points.", "+0.40 to +2.00", "-1.00 to +3.00", "86.50 ± 0.71", "84.00", "-0.4 to +0.9",
        "12,345", "0.049", "foveate compare --resume runs/compare/compare --final", "3 seeds",
    ):  # fmt: skip
        assert told in html, told
    assert "minute&lt;b&gt;" in html
    assert "minute<b>" not in html
    assert "<i>nan" not in html
    assert {path.name for path in tmp_path.iterdir()} == {"compare.html", "differences.png", "accuracies.png"}


def test_it_loads_nothing(make: MakePage, tmp_path: Path) -> None:
    html = make()
    assert "http://" not in html.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    assert "<script" not in html


def test_of_the_test_split_no_command_is_told(make: MakePage, tmp_path: Path) -> None:
    assert "--final" not in make(split="test")


def test_several_sizes_make_a_curve(make: MakePage, tmp_path: Path) -> None:
    arms = [*ARMS, arm("minute<b>", subset=500)]
    html = make(config=config(subsets=(500, None)), pairs=[pair(subset=500), pair()], arms=arms)
    assert "With fewer images" in html
    assert (tmp_path / "data_size.png").exists()


@pytest.mark.parametrize(
    ("verdict", "difference", "words"),
    [
        (None, None, "No seed has a result of both."),
        ({"answer": "no difference"}, {"mean": -0.0012}, "No difference larger than 0.5 points (-0.12 points)."),
        ({"answer": "hurts"}, {"mean": -0.02}, "Hurts: -2.00 points."),
        (
            {"answer": "cannot tell", "seeds": 1234},
            {},
            "Inconclusive: +1.20 points; about 1,234 new seeds would decide, "
            "in a separate comparison (--first-seed 2).",
        ),
        (
            {"answer": "cannot tell", "interval": None},
            {},
            "Inconclusive: +1.20 points, from one seed, which has no interval.",
        ),
    ],
)
def test_a_verdict_is_a_sentence(verdict: Any, difference: Any, words: str) -> None:
    changed = finding(
        verdict=None if verdict is None else replace(VERDICT, **verdict),
        difference=None if difference is None else replace(DIFFERENCE, **difference),
    )
    assert verdict_in_words(changed, **WANTED) == words


def test_a_pair_that_lost_seeds_says_so() -> None:
    assert verdict_in_words(finding(), seeds_wanted=5, next_seed=5) == (
        "Helps: +1.20 points over the 2 of 5 seeds in which both came to an end."
    )


def test_arms_that_no_image_tells_apart_are_said_to_be_alike() -> None:
    alike = finding(verdict=CANNOT_TELL, difference=replace(DIFFERENCE, mean=0.0, alike=True))
    assert "both right on the same images in every seed: what differs may have no effect" in verdict_in_words(
        alike, **WANTED
    )


def test_the_number_of_training_images_is_told(make: MakePage, tmp_path: Path) -> None:
    arms = [arm("a", subset=500), arm("b", subset=500)]
    html = make(config=config(subsets=(500,)), pairs=[pair(subset=500)], arms=arms)
    assert "trained on 500 images" in html
    assert "Training images" in html
    assert not (tmp_path / "data_size.png").exists()


def test_more_seeds_than_are_looked_for_are_said_to_be_more() -> None:
    words = verdict_in_words(finding(verdict=CANNOT_TELL), **WANTED)
    assert words.endswith("; not even thousands of seeds would decide.")


def test_a_pilot_is_called_no_evidence(make: MakePage) -> None:
    html = make(config=config(pilot=True), spread=spread_in_words(2))
    assert "7 (2 pilot seeds spread by 0.30 points)" in html
    assert "the true spread is 0.45 to 32 times that of 2 seeds" in html
    assert "Helps" not in html
    assert "no evidence" in html
    assert "--final" not in html


def test_a_control_says_what_it_is_matched_in(make: MakePage) -> None:
    assert "a control, matched in parameters; FLOPs" in make(
        arms=[*ARMS, arm("wide", {"a": "parameters", "b": "FLOPs", "c": "parameters"})]
    )


def test_where_no_run_ended_there_is_a_page_all_the_same(make: MakePage) -> None:
    none = {"seeds": (), "accuracies": (), "ms_per_image": None}
    pairs = [pair(difference=None, verdict=None, seeds=())]
    assert "No run has ended" in make(arms=[arm("a", **none), arm("b", **none)], pairs=pairs)


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_a_browser_shows_it_without_overflow_network_or_faint_text(
    make: MakePage, tmp_path: Path, look: Callable[[Path, int, str], None], width: int, scheme: str
) -> None:
    make(config=config(subsets=(500, None)), pairs=[pair(subset=500), pair()], arms=[*ARMS, arm("b", subset=500)])
    look(tmp_path / "compare.html", width, scheme)
