"""The page of a comparison: it tells every verdict, loads nothing, and takes any comparison there can be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foveate.report.comparison_page import ComparisonPage, write_comparison_report

MakePage = Callable[..., ComparisonPage]


def finding(answer: str = "helps", **changes: Any) -> dict[str, Any]:
    verdict = {
        "answer": answer, "interval": (0.004, 0.02), "image_interval": (-0.01, 0.03), "delta": 0.005,
        "level": 0.95, "seeds": None,
    }  # fmt: skip
    difference = {
        "mean": 0.012,
        "per_seed": (0.01, 0.014),
        "sd": 0.003,
        "mcnemar": (0.0002, 0.049),
        "alike": False,
    }
    return {
        "arm": "minute<b>", "other": "minute,attention=none", "subset": None, "seeds": (0, 1),
        "difference": difference, "verdict": verdict, "labels": ["minute<b>", "minute,attention=none"],
        "words": f"{answer.capitalize()}: +1.20 points.", "plan": "7 (2 pilot seeds spread by 0.30 points)",
        **changes,
    }  # fmt: skip


def arm(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": name, "label": name, "matched": {}, "subset": None, "seeds": (0, 1),
        "accuracies": (0.86, 0.87), "without_attention": None, "gates": (),
        "cost": {"parameters": 12345, "training_flops": 6_700_000}, "ms_per_image": 0.5, **changes,
    }  # fmt: skip


@pytest.fixture
def make() -> MakePage:
    def make(**changes: Any) -> ComparisonPage:
        values: dict[str, Any] = {
            "title": "compare", "split": "validation",
            "arms": [arm("minute,attention=none"), arm("minute<b>", without_attention=0.84, gates=(-0.4, 0.9))],
            "findings": [finding()], "failed": [("minute<b>", 2, None, "TrainingError: <i>nan</i>")],
            "settings": {"seeds": 3, "data": "/data/cifar10", "delta": 0.005, "alpha": 0.05, "subsets": [None],
                         "pilot": False},
            "environment": {"python": "3"}, "test": "foveate compare --resume runs/compare/compare --final",
        }  # fmt: skip
        return ComparisonPage(**{**values, **changes})

    return make


def test_it_tells_verdicts_arms_tests_and_the_command(make: MakePage, tmp_path: Path) -> None:
    html = write_comparison_report(make(), tmp_path).read_text()
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
    html = write_comparison_report(make(), tmp_path).read_text()
    assert "http://" not in html.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    assert "<script" not in html


def test_of_the_test_split_no_command_is_told(make: MakePage, tmp_path: Path) -> None:
    assert "--final" not in write_comparison_report(make(split="test"), tmp_path).read_text()


def test_several_sizes_make_a_curve(make: MakePage, tmp_path: Path) -> None:
    settings = {**make().settings, "subsets": [500, None]}
    findings, arms = [finding(subset=500), finding()], [*make().arms, arm("minute<b>", subset=500)]
    html = write_comparison_report(make(settings=settings, findings=findings, arms=arms), tmp_path).read_text()
    assert "With fewer images" in html
    assert (tmp_path / "data_size.png").exists()


def test_the_number_of_training_images_is_told(make: MakePage, tmp_path: Path) -> None:
    settings = {**make().settings, "subsets": [500]}
    page = make(
        settings=settings, findings=[finding(subset=500)], arms=[arm("a", subset=500), arm("b", subset=500)]
    )
    html = write_comparison_report(page, tmp_path).read_text()
    assert "trained on 500 images" in html
    assert "Training images" in html
    assert not (tmp_path / "data_size.png").exists()


def test_a_pilot_is_called_no_evidence(make: MakePage, tmp_path: Path) -> None:
    settings = {**make().settings, "pilot": True}
    html = write_comparison_report(
        make(settings=settings, spread="the true spread is 0.4 to 32 times"), tmp_path
    ).read_text()
    assert "7 (2 pilot seeds spread by 0.30 points)" in html
    assert "the true spread is 0.4 to 32 times" in html
    assert "Helps" not in html
    assert "no evidence" in html
    assert "--final" not in html


def test_where_no_run_ended_there_is_a_page_all_the_same(make: MakePage, tmp_path: Path) -> None:
    none = {"seeds": (), "accuracies": (), "ms_per_image": None}
    page = make(
        arms=[arm("a", **none), arm("b", **none)],
        findings=[finding(difference=None, verdict=None, seeds=())],
    )
    assert "No run has ended" in write_comparison_report(page, tmp_path).read_text()
