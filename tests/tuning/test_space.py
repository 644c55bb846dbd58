"""Spaces: what they declare, what is drawn from them, and how a draw becomes a run's settings."""

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from foveate.config import packaged_names, resolve_config
from foveate.errors import ConfigError
from foveate.tuning.space import Space, random_draws, read_space


def any_draw(_: Mapping[str, Any]) -> bool:
    return True


def space_of(tmp_path: Path, **declared: Any) -> Space:
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump({"preset": "minute", "hyperparameters": declared}))
    return read_space(str(path))


class TestInThePackage:
    def test_paper_is_figure_3_2(self) -> None:
        space = read_space("paper")
        first = {
            name: [getattr(each, "low", None), getattr(each, "high", None), getattr(each, "step", None)]
            for name, each in space.hyperparameters.items()
        }
        assert first["f1"] == first["f2"] == [16, 512, 16]
        assert first["hidden"] == [32, 1024, 32]
        assert {
            name: space.hyperparameters[name].values for name in ("ks1", "ks2", "ks3", "ks4")
        } == dict.fromkeys(("ks1", "ks2", "ks3", "ks4"), (3, 5))
        assert len(space.hyperparameters) == 9
        config = space.base(epochs=30)
        assert (config.train.monitor, config.train.patience, config.preset) == ("loss", 5, "paper")

    def test_the_papers_own_model_is_a_trial_of_paper(self) -> None:
        space = read_space("paper")
        settings = {"f1": 64, "ks1": 3, "ks2": 3, "ps1": 2, "f2": 256, "ks3": 5, "ks4": 5, "ps2": 3, "hidden": 512}
        assert space.apply(space.base(), settings).model == resolve_config("paper").model

    @pytest.mark.parametrize("name", packaged_names("spaces"))
    def test_every_draw_is_within_its_bounds_and_a_config(self, name: str) -> None:
        space = read_space(name)
        base = space.base(epochs=9)
        for settings in itertools.islice(random_draws(space, 3, any_draw), 200):
            space.apply(base, settings)
            for key, value in settings.items():
                each = space.hyperparameters[key]
                if each.type == "choice":
                    assert value in each.values
                else:
                    assert isinstance(value, int | float)
                    assert each.low <= value <= each.high


class TestDraws:
    def test_a_seed_gives_the_same_and_no_two_alike(self) -> None:
        space = read_space("default")
        first = list(itertools.islice(random_draws(space, 1, any_draw), 100))
        assert first == list(itertools.islice(random_draws(space, 1, any_draw), 100))
        assert first != list(itertools.islice(random_draws(space, 2, any_draw), 100))
        assert len({json.dumps(settings) for settings in first}) == 100

    def test_all_of_a_small_space_are_drawn_and_then_it_ends(self, tmp_path: Path) -> None:
        space = space_of(tmp_path, batch={"type": "int", "low": 10, "high": 40, "step": 10})
        assert sorted(each["batch"] for each in random_draws(space, 0, any_draw)) == [10, 20, 30, 40]

    def test_what_cannot_be_used_is_not_drawn(self, tmp_path: Path) -> None:
        space = space_of(tmp_path, batch={"type": "int", "low": 1, "high": 4})
        usable = [each["batch"] for each in random_draws(space, 0, lambda settings: settings["batch"] % 2 == 0)]
        assert sorted(usable) == [2, 4]

    def test_a_conditional_hyperparameter_is_there_only_then_and_moves_no_other(self, tmp_path: Path) -> None:
        declared = {
            "attention": {"type": "choice", "values": ["none", "luong"]},
            "attention_stage": {"type": "int", "low": 1, "high": 3, "when": {"attention": ["luong"]}},
            "lr": {"type": "float", "low": 0.01, "high": 1, "log": True},
        }
        space = space_of(tmp_path, **declared)
        always = space_of(tmp_path, **{**declared, "attention_stage": {"type": "int", "low": 1, "high": 3}})
        for settings, other in itertools.islice(
            zip(random_draws(space, 0, any_draw), random_draws(always, 0, any_draw), strict=True), 50
        ):
            assert ("attention_stage" in settings) == (settings["attention"] == "luong")
            assert {**other, **settings} == other

    @given(seed=st.integers(0, 2**32))
    def test_logarithmic_ranges_are_drawn_by_their_logarithm(self, seed: int) -> None:
        space = Space.model_validate(
            {
                "preset": "minute",
                "hyperparameters": {
                    "lr": {"type": "float", "low": 1e-4, "high": 1, "log": True},
                    "batch": {"type": "int", "low": 1, "high": 1000, "log": True},
                },
            }
        )
        generator = np.random.default_rng(seed)
        draws = [space.draw(generator) for _ in range(400)]
        assert 130 < sum(each["lr"] < 1e-2 for each in draws) < 270  # type: ignore[operator]
        assert 130 < sum(each["batch"] < 32 for each in draws) < 270  # type: ignore[operator]
        assert all(1 <= each["batch"] <= 1000 for each in draws)  # type: ignore[operator]


class TestApply:
    def test_multiples_wildcards_and_lists(self, tmp_path: Path) -> None:
        space = space_of(
            tmp_path,
            width={
                "type": "int",
                "low": 8,
                "high": 8,
                "sets": {"model.stages.0.filters": 1, "model.stages.1.filters": 2.5},
            },
            depth={"type": "choice", "values": [[3, 3, 3]], "sets": "model.stages.*.kernels"},
        )
        config = space.apply(space.base(), space.draw(np.random.default_rng(0)))
        assert [stage.filters for stage in config.model.stages] == [8, 20, 128]
        assert all(stage.kernels == (3, 3, 3) for stage in config.model.stages)
        assert config.train == space.base().train

    def test_the_older_name_of_its_key_is_read(self) -> None:
        declared = {"lr": {"type": "float", "low": 0.1, "high": 1.0}}
        older = Space.model_validate({"preset": "minute", "knobs": declared})
        assert older == Space.model_validate({"preset": "minute", "hyperparameters": declared})
        with pytest.raises(ValueError, match="knobs"):
            Space.model_validate({"preset": "minute", "knobs": declared, "hyperparameters": declared})

    def test_some_hyperparameters_alone(self) -> None:
        assert list(read_space("default").restricted(["width", "lr"]).hyperparameters) == ["lr", "width"]
        kinds = read_space("default").restricted(["attention_stage", "attention"])
        assert list(kinds.hyperparameters) == [
            "attention",
            "attention_stage",
        ]  # in the space's order: conditions hold
        with pytest.raises(ConfigError, match="'attention', which is not declared before it"):
            read_space("default").restricted(["attention_stage"])
        with pytest.raises(ConfigError, match=r"unknown hyperparameter 'widht'; did you mean 'width'\?"):
            read_space("default").restricted(["widht"])


class TestBadSpaces:
    def test_an_unknown_name_is_told_the_nearest(self) -> None:
        with pytest.raises(ConfigError, match=r"unknown space 'papre'; did you mean 'paper'\?"):
            read_space("papre")

    @pytest.mark.parametrize(
        ("declared", "told"),
        [
            ({}, "hyperparameters={}: .*at least 1"),
            ({"lr": {"type": "float", "low": 2, "high": 1}}, "low=2.0 is above high=1.0"),
            ({"lr": {"type": "float", "low": 0, "high": 1, "log": True}}, "has no logarithm"),
            ({"lr": {"type": "float", "low": 0.1, "high": 1, "log": True, "step": 0.1}}, "has no step"),
            ({"lr": {"type": "real", "low": 0, "high": 1}}, "hyperparameters.lr"),
            ({"lr": {"type": "choice", "values": []}}, "hyperparameters.lr"),
            ({"learning": {"type": "int", "low": 0, "high": 1}}, "unknown setting 'learning'"),
            ({"x": {"type": "int", "low": 0, "high": 1, "sets": "model.stages.9.filters"}}, "which is not there"),
            ({"x": {"type": "int", "low": 0, "high": 1, "sets": "model.stagse.0"}}, "which is not there"),
            ({"lr": {"type": "int", "low": -1, "high": -1}}, "lr"),
            ({"size": {"type": "int", "low": 16, "high": 32}}, "sets 'data.size': all trials"),
            ({"epochs": {"type": "int", "low": 1, "high": 3}}, "sets 'train.epochs': all trials"),
            (
                {"lr": {"type": "float", "low": 1, "high": 1, "when": {"batch": [1]}}},
                "'batch', which is not declared",
            ),
            ({"batch": {"type": "int", "low": 0, "high": 10**30}}, "batch"),
            ({"batch": {"type": "int", "low": -(10**30), "high": 5, "step": 10**40}}, "batch"),
            ({"lr": {"type": "float", "low": -1e308, "high": 1e308}}, "too far apart"),
            ({"lr": {"type": "float", "low": 0, "high": 1, "step": 1e-300}}, "step=1e-300 is too small"),
            ({"lr": {"type": "float", "low": 0, "high": 1e300, "step": 0.1}}, "step=0.1 is too small"),
            ({"lr": {"type": "float", "low": float("nan"), "high": 1}}, "lr"),
            ({"lr": {"type": "float", "low": 0, "high": float("inf")}}, "lr"),
            ({"lr": {"type": "choice", "values": [float("nan"), 0.1]}}, "lr"),
            ({"lr": {"type": "choice", "values": [0.1] * 10_001}}, "lr"),
            ({"lr": {"type": "choice", "values": [[[0.1]]]}}, "lr"),
            ({"lr": {"type": "choice", "values": {"a": 1}}}, "lr"),
            ({"l\x1br": {"type": "int", "low": 1, "high": 2}}, "hyperparameters"),
            ({"": {"type": "int", "low": 1, "high": 2}}, "hyperparameters"),
            ({f"k{n}": {"type": "int", "low": 1, "high": 2} for n in range(1_001)}, "hyperparameters"),
            ({"x": {"type": "int", "low": 1, "high": 2, "sets": {}}}, "sets"),
            ({"x": {"type": "int", "low": 1, "high": 2, "sets": {"lr": float("inf")}}}, "sets"),
            ({"x": {"type": "int", "low": 1, "high": 2, "sets": {"lr": 1e308}}}, "lr"),
            (
                {"x": {"type": "int", "low": 1, "high": 2, "sets": "model.stages." + "9" * 250}},
                "which is not there",
            ),
            ({"lr": {"type": "float", "low": 0.1, "high": 1, "when": {"lr": [1]}}}, "'lr', which is not declared"),
            (
                {
                    "lr": {"type": "float", "low": 0.1, "high": 1, "when": {"batch": [1]}},
                    "batch": {"type": "int", "low": 1, "high": 2, "when": {"lr": [0.1]}},
                },
                "which is not declared before it",
            ),
            ({"batch": {"type": "int", "low": 1, "high": 2, "when": {"x": []}}}, "when"),
        ],
    )
    def test_is_refused_with_what_is_wrong(self, tmp_path: Path, declared: dict[str, Any], told: str) -> None:
        with pytest.raises(ConfigError, match=told):
            space_of(tmp_path, **declared)

    @pytest.mark.parametrize(
        "text",
        [
            "", "[]", "knobs: 5", "preset: minute", "{" * 5_000, "[" * 100_000, "a: &a [*a]", "\x00", "a: 1\na: 2",
            "preset: [1]\nknobs: {lr: {type: int, low: 1, high: 2}}", "? [1, 2]\n: 3",
            "!!python/object:os.system x",
            "preset: minute\nknobs: {lr: {type: int, low: 2001-13-45, high: 2}}",
            "preset: minute\nknobs: {lr: {type: int, low: !!binary aGVsbG8=, high: 2}}",
            "preset: minute\nsettings: {lr: !!set {a, b}}\nknobs: {batch: {type: int, low: 1, high: 2}}",
            "preset: minute\nsettings: {lr: " + "9" * 5_000 + "}\nknobs: {batch: {type: int, low: 1, high: 2}}",
            "a: &a [x, x, x, x, x, x, x, x, x]\n" + "\n".join(
                f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in itertools.pairwise("abcdefghij")
            ),
        ],
    )  # fmt: skip
    def test_a_hostile_file_is_one_line(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "space.yaml").write_text(text)
        with pytest.raises(ConfigError) as told:
            read_space(str(tmp_path / "space.yaml"))
        assert "space.yaml" in str(told.value)
        assert "\n" not in str(told.value)
        assert len(str(told.value)) < 1_000

    def test_a_wide_range_is_drawn_from_without_a_fault(self) -> None:
        declared = {
            "batch": {"type": "int", "low": -(2**53), "high": 2**53},
            "hidden": {"type": "int", "low": 1, "high": 2**53, "log": True},
            "lr": {"type": "float", "low": 1e-300, "high": 1e300, "log": True},
            "momentum": {"type": "float", "low": -8e307, "high": 8e307},
            "epsilon": {"type": "float", "low": 0, "high": 1, "step": 1e-9},
        }
        space = Space.model_validate({"preset": "minute", "hyperparameters": declared})
        for settings in itertools.islice(random_draws(space, 0, any_draw), 200):
            assert space.contains(settings)

    @pytest.mark.parametrize("name", packaged_names("spaces"))
    def test_a_space_contains_its_draws_and_nothing_else(self, name: str) -> None:
        space = read_space(name)
        for settings in itertools.islice(random_draws(space, 0, any_draw), 100):
            assert space.contains(settings)
            first = next(iter(settings))
            assert not space.contains({**settings, first: 10**9})
            assert not space.contains({**settings, first: None})
            assert not space.contains({**settings, "colour": 1})
            assert not space.contains({name: value for name, value in settings.items() if name != first})

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="cannot read"):
            read_space(str(tmp_path / "none.yaml"))
