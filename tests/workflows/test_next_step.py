"""What is said to try next."""

from pathlib import Path
from typing import Any

import pytest

from foveate.config import resolve_config
from foveate.workflows.next_step import next_step

RUN = Path("runs/train/mine")


def report(low: float, n: int = 200) -> dict[str, Any]:
    return {"n": n, "intervals": {"accuracy": [low, min(1.0, low + 0.1)]}}


@pytest.mark.parametrize(
    ("preset", "settings", "n", "begins"),
    [
        ("minute", {}, 200, "train with --preset fast, which on CIFAR-10 gave 90.3 % in place of 86.2"),
        (
            "minute",
            {"images_seen": 33_750},
            200,
            "train with a longer --time: the preset minute shows 88,000 images, this run has shown 33,750",
        ),
        ("minute", {"epochs": 10}, 200, "train with --preset fast"),
        ("fast", {}, 200, "train with --preset strong"),
        ("small", {}, 200, "train with --preset minute"),
        ("photos", {}, 200, "train with --preset photos-tuned"),
        ("photos", {}, 40, "foveate explain runs/train/mine"),
        ("best", {}, 200, "foveate explain runs/train/mine"),
    ],
)
def test_what_comes_next_follows_from_what_was_done(
    preset: str, settings: dict[str, Any], n: int, begins: str
) -> None:
    assert next_step(RUN, resolve_config(preset, settings=settings), report(0.7, n)).startswith(begins)


def test_a_network_that_is_good_is_used() -> None:
    assert next_step(RUN, resolve_config("minute"), report(0.97)).startswith("foveate predict runs/train/mine ")


def test_uneven_classes_are_seen_to_first_even_where_accuracy_is_high() -> None:
    uneven = {"per_class": {"a": {"support": 190}, "b": {"support": 10}}}
    found = report(0.97) | uneven
    found["intervals"] |= {"macro_recall": [0.6, 0.7]}
    assert next_step(RUN, resolve_config("minute"), found).startswith(
        "train with --set class_weights=balanced, which counts all"
    )
    for settings in ({"class_weights": "balanced"}, {"sampler": "balanced"}):
        config = resolve_config("minute", settings=settings)
        assert next_step(RUN, config, found).startswith("foveate predict")


def test_a_preset_of_another_version_has_no_length_that_is_known() -> None:
    config = resolve_config("minute").model_copy(update={"preset": "gone"})
    assert next_step(RUN, config, report(0.7)).startswith("foveate explain")
