"""The page of a certificate: what was proved, and what was not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foveate.exporting.proof import BOUNDS, Certificate
from foveate.report.export_page import export_page
from foveate.report.html import render


def rendered(certificate: dict[str, Any], reasons: dict[str, str]) -> str:
    return render(export_page(Certificate.model_validate(certificate), reasons))


def certificate(
    name: str = "run", *, proved: bool = True, passed: bool = True, held: bool | None = True
) -> dict[str, Any]:
    measured = {
        "largest_difference": {"logits": 5.7e-06, "probabilities": 1.8e-06, "unlike": 5.7e-06},
        "equal_classes": 0.9852,
        "unequal_beyond_margin": 148,
        "score": {"accuracy": 0.8577, "interval": [0.8507, 0.8644]},
        "lost_points": 0.27,
        "standard_error_points": 0.11,
        "most_lost_points": 1.5,
        "passed": passed,
    }
    return {
        "model": name,
        "weights": "0" * 64,
        "classes": 10,
        "size": 32,
        "date": "2026-11-26",
        "proved": proved,
        "passed": passed,
        "data": {
            "name": name,
            "split": "validation",
            "images": 10_000,
            "fingerprint": "1" * 64,
            "held_out": held,
            "calibrated_on": "512 train images",
        }
        if proved
        else None,
        "torch": {"accuracy": 0.8604, "interval": [0.8535, 0.8671]} if proved else None,
        "files": [
            {
                "name": f"{precision}.onnx",
                "precision": precision,
                "bytes": 2_117_619,
                "sha256": "2" * 64,
                "bound": bound,
                "measured": measured if proved else None,
            }
            for precision, bound in BOUNDS.items()
        ],
        "versions": {"torch": "2.13.0"},
    }


def test_it_tells_the_figures_and_the_bounds() -> None:
    text = rendered(certificate(), {})
    for told in ("Proved", "10,000 validation images", "98.52 %", "0.27 points", "5.7e-06", *BOUNDS.values()):
        assert told in text
    assert "not trained on these images" in text
    assert "It is not known" in rendered(certificate(held=None), {})
    assert "also trained on these images" in rendered(certificate(held=False), {})


def test_what_the_images_leave_open_of_8_bit_numbers_is_told_before_all_else() -> None:
    text = rendered(certificate(), {})
    told = (
        "148 of 10,000 answers changed. The loss of accuracy may be as large as 1.5 points; 10,000 images are too"
    )
    assert text.count(told) == 1  # of the file in 8-bit numbers alone
    assert "Proved; what int8.onnx loses is not known well" in text
    assert "int8.onnx: not shown to be beyond its bound" in text
    sure = certificate()
    sure["files"][1]["measured"] = {**sure["files"][1]["measured"], "most_lost_points": 0.4}
    assert told not in rendered(sure, {})
    assert "is not known well" not in rendered(sure, {})


def test_a_failure_says_why_and_that_no_model_was_written() -> None:
    text = rendered(certificate(passed=False), {"int8.onnx": "1.20 points of accuracy are lost"})
    assert "Failed: no model was written" in text
    assert "1.20 points of accuracy are lost" in text
    assert "beyond its bound" in text


def test_what_is_unproved_says_so() -> None:
    assert "Unproved" in rendered(certificate(proved=False), {})


@pytest.mark.browser
@pytest.mark.parametrize("kind", ["proved", "failed", "unproved"])
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_browser_shows_it_without_overflow_network_or_faint_text(
    kind: str,
    width: int,
    scheme: str,
    tmp_path: Path,
    look: Callable[[Path, int, str], None],
    nasty: tuple[str, ...],
) -> None:
    name = " ".join(nasty).replace("\n", " ")
    path = tmp_path / "certificate.html"
    told = certificate(name, proved=kind != "unproved", passed=kind != "failed")
    path.write_text(rendered(told, {"int8.onnx": name} if kind == "failed" else {}))
    look(path, width, scheme)
