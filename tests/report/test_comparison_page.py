"""The page of a comparison: it tells every verdict, loads nothing, and takes any comparison there can be."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from foveate.comparison.arms import Arm
from foveate.comparison.controls import NetworkCost
from foveate.comparison.experiment import ArmRun
from foveate.comparison.findings import Pair, PairFinding
from foveate.comparison.outcomes import ArmSummary, plan_lines, verdict_lines
from foveate.comparison.planning import Plan
from foveate.comparison.pooling import Spread
from foveate.comparison.settings import ComparisonConfig
from foveate.comparison.statistics import Difference, Verdict
from foveate.config import resolve_config
from foveate.report.comparison_page import comparison_page
from foveate.report.html import write_page

MakePage = Callable[..., str]


def finding(**changes: Any) -> PairFinding:
    values: dict[str, Any] = {
        "pair": Pair(1, 0), "subset": None, "seeds": (0, 1),
        "difference": Difference(0.012, 500, (0.01, 0.014), 0.003, 0.0, (0.0002, 0.049), correlation=-0.31),
        "verdict": Verdict("helps", (0.004, 0.02), (-0.01, 0.03), 0.005, 0.95, None, (-0.006, 0.027)),
        "other_seeds": (0, 1), "spread": Spread(0.003, 1), "plan": Plan(7, 9, 0.0052),
        "arm": "minute<b>", "other": "plain", "labels": ("minute<b>", "plain"), "seeds_wanted": 2, "next_seed": 2,
    }  # fmt: skip
    return PairFinding(**{**values, **changes})


def summary(arm: int, **changes: Any) -> ArmSummary:
    values: dict[str, Any] = {
        "arm": arm, "subset": None, "seeds": (0, 1), "accuracies": (0.86, 0.87), "without_attention": None,
        "gates": (), "cost": NetworkCost(parameters=12345, training_flops=6_700_000), "ms_per_image": 0.5,
    }  # fmt: skip
    return ArmSummary(**{**values, **changes})


SUMMARIES = [summary(0), summary(1, without_attention=0.84, gates=(-0.4, 0.9))]


def config(**changes: Any) -> ComparisonConfig:
    settings = resolve_config(settings={"size": 32})
    arms = [
        Arm(name="plain", config=settings),
        Arm(name="minute<b>", config=settings),
        Arm(name="wide", config=settings, matched={"plain": "parameters", "minute<b>": "FLOPs"}),
    ]
    values = {"data": "/data/cifar10", "data_dir": None, "fingerprint": "f", "num_classes": 10, "arms": arms}
    values["rule"] = "blocks"
    return ComparisonConfig(**{**values, "seeds": 3, **changes})


@pytest.fixture
def make(tmp_path: Path) -> MakePage:
    """Writes the page, and gives its HTML."""

    def make(**changes: Any) -> str:
        values: dict[str, Any] = {
            "title": "compare", "split": "validation", "config": config(), "summaries": SUMMARIES,
            "pairs": [finding()],
            "failures": {ArmRun(subset=0, seed=2, arm=1): "TrainingError: <i>nan</i>"},
            "environment": {"python": "3"}, "opening": "foveate compare --resume runs/compare/compare --final",
        }  # fmt: skip
        return write_page(comparison_page(**{**values, **changes}), tmp_path / "compare.html").read_text()

    return make


def test_it_tells_verdicts_arms_tests_and_the_command(make: MakePage, tmp_path: Path) -> None:
    html = make()
    for told in (
        "Helps: +1.20 points.", "+0.40 to +2.00", "-1.00 to +3.00", "86.50 ± 0.71", "84.00", "-0.4 to +0.9",
        "12,345", "0.049", "-0.60 to +2.70", "-0.31", "after the mean effect of each seed is removed",
        "What the interval over seeds alone shows is said to hold on these images", "3 seeds",
        "foveate compare --resume runs/compare/compare --final",
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


def test_of_data_without_a_test_split_nothing_is_told_of_one(make: MakePage) -> None:
    html = make(opening=None)
    assert "test split" not in html
    assert "--final" not in html


@pytest.mark.parametrize("split", ["validation", "test"])
def test_every_opening_of_the_test_split_is_told(make: MakePage, split: str) -> None:
    html = make(split=split, openings=[("2026-01-02", "foveate compare --resume x --final")])
    assert "test split is closed" not in html
    assert "2026-01-02" in html
    assert html.count("foveate compare --resume") == 1
    assert ("the test split was opened, but is not measured to the end" in html) == (split == "validation")


def test_several_sizes_make_a_curve(make: MakePage, tmp_path: Path) -> None:
    html = make(
        config=config(subsets=(500, None)),
        pairs=[finding(subset=500), finding()],
        summaries=[*SUMMARIES, summary(1, subset=500)],
    )
    assert "With fewer images" in html
    assert (tmp_path / "data_size.png").exists()


def test_the_number_of_training_images_is_told(make: MakePage, tmp_path: Path) -> None:
    summaries = [summary(0, subset=500), summary(1, subset=500)]
    html = make(config=config(subsets=(500,)), pairs=[finding(subset=500)], summaries=summaries)
    assert "trained on 500 images" in html
    assert "Training images" in html
    assert not (tmp_path / "data_size.png").exists()


def test_a_pilot_is_called_no_evidence(make: MakePage) -> None:
    html = make(config=config(pilot=True, seeds=2))
    assert "7 seeds to see a difference of 0.5 points, 9 seeds to say that there is none" in html
    assert "an upper bound of it, which holds in 80 % of pilots" in html
    assert "Helps" not in html
    assert "no evidence" in html
    assert "--final" not in html


def test_what_the_network_that_an_arm_starts_from_has_seen_stays_on_the_page(make: MakePage) -> None:
    html = make(config=config(told=("arm minute<b>: the network has seen 3 of the images",)))
    assert "<strong>Arm minute&lt;b&gt;: the network has seen 3 of the images.</strong>" in html


def test_a_comparison_of_an_earlier_version_says_by_which_rule_it_is_judged(make: MakePage) -> None:
    html = make(config=config(rule="seeds"))
    assert "begun by an earlier version of Foveate, and the rule of that version judges it" in html
    assert "-0.60 to +2.70" not in html
    assert "earlier version" not in make()


def test_an_arm_with_seeds_of_its_own_is_told(make: MakePage) -> None:
    whole = config()
    arms = (whole.arms[0], whole.arms[1].model_copy(update={"first_seed": 100}), whole.arms[2])
    html = make(
        config=whole.model_copy(update={"arms": arms}), pairs=[finding(seeds=(100, 101), other_seeds=(0, 1))]
    )
    assert "With seeds of its own: minute&lt;b&gt; (from 100 on)" in html
    assert "101 and 1" in html


def test_a_control_says_what_it_is_matched_in(make: MakePage) -> None:
    assert "a control, matched in parameters; FLOPs" in make(summaries=[*SUMMARIES, summary(2)])


def test_where_no_run_ended_there_is_a_page_all_the_same(make: MakePage) -> None:
    none = {"seeds": (), "accuracies": (), "ms_per_image": None}
    pairs = [finding(difference=None, verdict=None, seeds=())]
    assert "No run has ended" in make(summaries=[summary(0, **none), summary(1, **none)], pairs=pairs)


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1050, "light"), (1280, "light")])
def test_a_browser_shows_it_without_overflow_network_or_faint_text(
    make: MakePage, tmp_path: Path, look: Callable[[Path, int, str], None], width: int, scheme: str
) -> None:
    make()  # with a plot that stands alone
    look(tmp_path / "compare.html", width, scheme)
    pairs = [finding(subset=500), finding()]
    make(config=config(subsets=(500, None)), pairs=pairs, summaries=[*SUMMARIES, summary(1, subset=500)])
    look(tmp_path / "compare.html", width, scheme)


def test_long_settings_stand_once_whole_and_elsewhere_short(make: MakePage) -> None:
    stages = (
        "stages=[{filters: 32, kernels: [3, 3]}, {filters: 128, kernels: [3, 3]}, {filters: 128, dilation: 2}]"
    )
    settings = resolve_config(settings={"size": 32})
    arms = [Arm(name="minute", config=settings), Arm(name=f"minute,{stages}", config=settings)]
    label = "stages=[{filte…, dilation: 2}]"
    html = make(
        config=config(arms=arms), pairs=[finding(arm=arms[1].name, other="minute", labels=(label, "minute"))],
        failures={},
    )  # fmt: skip
    plain = html.replace("<wbr>", "")
    assert plain.count(f"minute,{stages}") == 2  # in the table of arms, and in the settings
    assert plain.count(f">{label}<small>minus minute") == 3  # a verdict, and a test of each seed
    assert "attention=<wbr>" not in html


def test_it_says_of_how_many_images_it_is(make: MakePage) -> None:
    assert "measured on the 500 validation images of cifar10" in make()
    outcome: Any = SimpleNamespace(
        config=config(), failures={}, findings=[finding(), finding(difference=None)], summaries=SUMMARIES,
        experiment=SimpleNamespace(split="validation"),
    )  # fmt: skip
    assert verdict_lines(outcome)[0].startswith("accuracies are of 500 validation images; differences in points [")


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        (40, "The images are of 40 groups, and those of one are alike: intervals for new images count groups"),
        (1, "All images are of one group: what is said of new images holds for others of this group alone"),
        (None, None),
    ],
)
@pytest.mark.parametrize("pilot", [False, True])
def test_it_says_whether_groups_are_counted(
    make: MakePage, groups: int | None, told: str | None, *, pilot: bool
) -> None:
    difference = finding().difference
    assert difference is not None
    of_groups, settings = finding(difference=replace(difference, groups=groups)), config(pilot=pilot)
    outcome: Any = SimpleNamespace(
        config=settings, failures={}, findings=[of_groups], summaries=SUMMARIES,
        experiment=SimpleNamespace(split="validation"),
    )  # fmt: skip
    lines = (plan_lines if pilot else verdict_lines)(outcome)
    html = make(config=settings, pairs=[of_groups])
    if told is None:
        assert "group" not in html + " ".join(lines)
    else:
        assert told in html
        assert any(line.startswith(told[0].lower() + told[1:]) for line in lines)
        assert "It takes every image on its own" in html


def test_an_attention_that_its_networks_hardly_use_is_told_with_what_would_ask_again(make: MakePage) -> None:
    settings = resolve_config("minute", settings={"size": 32})
    arms = [Arm(name="plain", config=settings), Arm(name="gated", config=settings)]
    used = [summary(0), summary(1, without_attention=0.84, gates=(-0.4, 0.9))]
    assert "hardly use" not in make(config=config(arms=arms), summaries=used)
    shut = [summary(0), summary(1, without_attention=0.8646, gates=(0.01, 0.1))]
    text = make(config=config(arms=arms), summaries=shut)
    assert "gated: its networks hardly use their attention: without it, the same weights reach 86.46%" in text
    assert "compare it also with gate_lr=0.05 and with attention_mode=replace." in text
    replaced = resolve_config("paper", settings={"size": 32})
    text = make(config=config(arms=[arms[0], Arm(name="gated", config=replaced)]), summaries=shut)
    assert "what attention could do here." in text
