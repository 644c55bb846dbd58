"""Samplers: the order in which trials are asked for decides nothing, and what was good is drawn more often."""

import math
import statistics
from collections.abc import Mapping
from typing import Any

import pytest

from foveate.errors import ConfigError
from foveate.tuning.samplers import RandomSampler, TpeSampler
from foveate.tuning.space import Space

SPACE = Space.model_validate(
    {
        "preset": "minute",
        "hyperparameters": {
            "lr": {"type": "float", "low": 0.01, "high": 1.0, "log": True},
            "batch": {"type": "int", "low": 50, "high": 500, "step": 50},
            "attention": {"type": "choice", "values": ["none", "luong"]},
            "attention_stage": {"type": "choice", "values": [1, 2, 3], "when": {"attention": ["luong"]}},
        },
    }
)


def usable(_: Mapping[str, Any]) -> bool:
    return True


@pytest.mark.parametrize("kind", [RandomSampler, TpeSampler])
def test_without_scores_a_trial_has_its_own_draw_whoever_asks_first(kind: Any) -> None:
    first, second = kind(SPACE, 5, usable), kind(SPACE, 5, usable)
    forward = [first(trial, {}, {}) for trial in range(6)]
    assert forward == [second(trial, {}, {}) for trial in reversed(range(6))][::-1]
    assert kind(SPACE, 6, usable)(0, {}, {}) != forward[0]


def test_random_ends_with_the_space() -> None:
    small = Space.model_validate(
        {"preset": "minute", "hyperparameters": {"batch": {"type": "int", "low": 1, "high": 3}}}
    )
    sampler = RandomSampler(small, 0, usable)
    assert sampler(3, {}, {}) is None
    assert sampler(2, {}, {}) is not None


def test_tpe_draws_near_what_was_good_and_the_same_for_the_same() -> None:
    def score(each: Mapping[str, Any]) -> float:
        return (each["attention"] == "luong") - abs(math.log10(each["lr"] / 0.4))

    sampler = TpeSampler(SPACE, 0, usable)
    settings = {trial: sampler(trial, {}, {}) or {} for trial in range(30)}
    seen = {(trial, 9): score(each) for trial, each in settings.items()}
    drawn = [sampler(trial, seen, settings) or {} for trial in range(30, 50)]
    assert drawn == [TpeSampler(SPACE, 0, usable)(trial, seen, settings) for trial in range(30, 50)]
    assert all(each not in settings.values() for each in drawn)
    assert sum(each["attention"] == "luong" for each in drawn) >= 14
    assert statistics.median(map(score, drawn)) > statistics.quantiles(seen.values(), n=4)[2]
    assert all(("attention_stage" in each) == (each["attention"] == "luong") for each in drawn)


def test_tpe_models_the_most_epochs_with_enough_scores() -> None:
    sampler = TpeSampler(SPACE, 0, usable)
    settings = {trial: sampler(trial, {}, {}) or {} for trial in range(30)}
    early = {(trial, 1): float(each["lr"] < 0.1) for trial, each in settings.items()}  # type: ignore[operator]
    late = {(trial, 9): float(settings[trial]["lr"] > 0.1) for trial in range(20)}  # type: ignore[operator]
    few = {(trial, 27): None for trial in range(10)}
    drawn = [sampler(trial, {**early, **late, **few}, settings) or {} for trial in range(30, 50)]
    assert sum(each["lr"] > 0.1 for each in drawn) >= 14  # type: ignore[operator]


def test_tpe_draws_nothing_unusable() -> None:
    sampler = TpeSampler(SPACE, 0, lambda settings: settings["attention"] == "none")
    settings = {trial: sampler(trial, {}, {}) or {} for trial in range(10)}
    seen = {(trial, 9): 1.0 for trial in settings}
    assert all((sampler(trial, seen, settings) or {})["attention"] == "none" for trial in range(10, 20))


def test_without_optuna_tpe_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(ConfigError, match=r'pip install "foveate\[optuna\]"'):
        TpeSampler(SPACE, 0, usable)


def test_tpe_draws_no_two_alike_and_ends_with_the_space() -> None:
    small = Space.model_validate(
        {"preset": "minute", "hyperparameters": {"batch": {"type": "int", "low": 1, "high": 6}}}
    )
    sampler = TpeSampler(small, 0, usable)
    settings: dict[int, Mapping[str, Any]] = {trial: sampler(trial, {}, {}) or {} for trial in range(3)}
    seen = {(trial, 9): float(trial) for trial in settings}
    while (drawn := sampler(len(settings), seen, settings)) is not None:
        settings[len(settings)] = drawn
    assert sorted(each["batch"] for each in settings.values()) == [1, 2, 3, 4, 5, 6]


def test_tpe_draws_steps_as_they_are_drawn_at_random() -> None:
    declared = {"label_smoothing": {"type": "float", "low": 0.0, "high": 0.3, "step": 0.05}}
    small = Space.model_validate({"preset": "minute", "hyperparameters": declared})
    sampler = TpeSampler(small, 0, usable)
    settings: dict[int, Mapping[str, Any]] = {trial: sampler(trial, {}, {}) or {} for trial in range(3)}
    seen = {(trial, 9): float(trial) for trial in settings}
    while (drawn := sampler(len(settings), seen, settings)) is not None:
        settings[len(settings)] = drawn
    drawn_values = sorted(each["label_smoothing"] for each in settings.values())
    assert drawn_values == [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3]
