import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

import foveate
from foveate.config import (
    DEFAULT_PRESET,
    Config,
    check_keywords,
    check_setting,
    preset_names,
    resolve_config,
    setting_path,
    setting_value,
)
from foveate.errors import ConfigError
from foveate.keywords import Settings
from foveate.settings import EARLIER_NAMES


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_valid_and_says_its_name(name: str) -> None:
    assert resolve_config(name).preset == name


def test_paper_has_the_papers_figures() -> None:
    config = resolve_config("paper")
    assert (config.train.epochs, config.train.batch, config.data.size) == (45, 32, 32)
    assert (config.train.lr, config.train.weight_decay, config.train.epsilon) == (1e-3, 4e-3, 1e-7)
    assert (config.train.keep, config.train.patience, config.data.val_fraction) == ("last", None, 0.2)
    assert (config.augment.shift, config.augment.rotation, config.augment.zoom) == (0.1, 15, 0.1)


def test_leaf_names_are_unique_so_that_a_leaf_alone_names_a_setting() -> None:
    leaves = [
        leaf
        for field in Config.model_fields.values()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        for leaf in field.annotation.model_fields
    ]
    assert len(leaves) == len(set(leaves))


def test_a_file_comes_over_the_preset_and_settings_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("preset: paper\nepochs: 7\ntrain:\n  batch: 8\naugment.zoom: 0.3\n")
    config = resolve_config(file=file, settings={"epochs": 9, "train.lr": 0.5, "patience": None})
    assert config.preset == "paper"
    assert (config.train.epochs, config.train.batch, config.train.lr) == (9, 8, 0.5)
    assert config.augment.zoom == 0.3
    assert resolve_config("small", file=file).preset == "small"
    assert resolve_config().preset == DEFAULT_PRESET


@pytest.mark.parametrize("settings", [{"lr": 1, "train.lr": 2}, {"train": {"lr": 1}, "train.lr": 2}])
def test_a_setting_in_two_spellings_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"the setting train\.lr is given twice: remove one of them"):
        resolve_config(settings=settings)


@pytest.mark.parametrize("settings", [{"epochs": True}, {"lr": False}, {"patience": True}])
def test_true_is_no_number(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"is a number, and not (true|false)"):
        resolve_config(settings=settings)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("preset", "preset is not a setting: give it as --preset"),
        ("data_dir", "data_dir is not a setting: give it as --data-dir"),
        (
            "model.stages.0.filters",
            "model.stages.0.filters: a list is replaced as a whole: give it as --set stages=[…]",
        ),
        ("stages.1", "stages.1: a list is replaced as a whole: give it as --set stages=[…]"),
        ("train", "train is a section of settings: give each by itself, as in --set train.NAME=VALUE"),
    ],
)
def test_what_is_given_by_a_flag_or_by_its_parts_is_said(name: str, line: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(line)}$"):
        setting_value(name, "1")


@given(epochs=st.integers(1, 500), lr=st.floats(1e-6, 1), kind=st.sampled_from(["none", "luong"]))
def test_resolved_settings_are_read_back_as_they_were(epochs: int, lr: float, kind: str) -> None:
    config = resolve_config("paper", settings={"epochs": epochs, "lr": lr, "attention": kind})
    assert Config.model_validate(config.model_dump(mode="json")) == config
    assert config.replacing(seed=3).train.seed == 3
    assert config.replacing(seed=3).replacing(seed=config.train.seed) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epoch": 3}, "unknown setting 'epoch'; did you mean 'epochs'"),
        ({"train.epocs": 3}, "unknown setting 'train.epocs'; did you mean 'epochs'"),
        ({"train": {"bach": 3}}, "unknown setting 'train.bach'; did you mean 'batch'"),
        ({"model.epochs": 3}, "unknown setting 'model.epochs'"),
        ({"train": 3}, "train is a section"),
        ({"epochs": 0}, r"train\.epochs=0: input should be greater than or equal to 1"),
        ({"epochs": "many"}, r"train\.epochs='many'"),
        ({"lr": float("nan")}, r"train\.lr=nan"),
        ({"size": 15}, r"data\.size=15"),
        ({"size": 385}, r"data\.size=385"),
        ({"fit": "stretch"}, r"data\.fit='stretch'"),
        ({"crop_scale": 0}, r"augment\.crop_scale=0"),
        ({"batch": 0}, r"train\.batch=0"),
        ({"batch": 10**9}, r"train\.batch=1000000000"),
        (
            {"attention": "loung"},
            r"model\.attention='loung': input should be 'none', 'luong_row', .*; did you mean 'luong'\?",
        ),
        ({"attention_stage": 3}, "there are 2 stages"),
        ({"epochs": 3, "images_seen": 100}, r"epochs or train\.images_seen says how long.*: both are given"),
        ({"epochs": None}, r"epochs or train\.images_seen says how long.*: none is given"),
        ({"images_seen": 0}, r"train\.images_seen=0"),
        (
            {"block": "normed", "stages": [{"filters": 4, "kernels": [3]}]},
            r"two kernels at least.*kernels: \[3, 3\]",
        ),
        ({"resize_until": 0.5}, r"train\.resize_until=0\.5: model\.head='dense' takes one size only"),
        ({"whiten": 6}, r"model\.whiten=6"),
        ({"tta_views": 2}, r"train\.tta_views=2: input should be 1 or 6"),
        ({"optimizer": "adam"}, r"train\.optimizer='adam': input should be 'adamw', 'sgd', 'muon' or 'logistic_"),
        ({"family": "crops"}, r"augment\.family='crops': input should be 'affine', 'crop' or 'resized_crop'"),
        ({"momentum": 1}, r"train\.momentum=1"),
        ({"resize_scale": 0}, r"train\.resize_scale=0"),
        ({"micro_batch": 0}, r"train\.micro_batch=0"),
        ({"label_smoothing": 1}, r"train\.label_smoothing=1"),
        ({"stages": []}, r"model\.stages: give one stage at least, or a backbone"),
        ({"val_fraction": 1}, r"data\.val_fraction=1"),
        ({"zzz": 1}, r"unknown setting 'zzz'; the most similar of \d\d are (\w+, ){4}\w+$"),
        ({"pretrained": 1}, "unknown setting 'pretrained'; did you mean 'weights'"),
        ({"learning_rate": 1}, "unknown setting 'learning_rate'; did you mean 'lr'"),
        ({"image_size": 32}, "did you mean 'size'"),
        ({"lr": "x" * 5000}, "x{79}…: it must be a number"),
    ],
)
def test_a_wrong_setting_is_one_line_with_the_fix(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        resolve_config("small", settings=settings)
    assert "\n" not in str(error.value)


def test_a_length_in_one_unit_takes_the_place_of_one_in_the_other(tmp_path: Path) -> None:
    def lengths(**given: Any) -> tuple[int | None, int | None]:
        train = resolve_config(**given).train
        return train.epochs, train.images_seen

    assert lengths(preset="small", settings={"images_seen": 500}) == (None, 500)
    assert lengths(preset="minute", settings={"epochs": 2}) == (2, None)
    file = tmp_path / "settings.yaml"
    file.write_text("preset: small\ntrain: {images_seen: 700}\n")
    assert lengths(file=file) == (None, 700)
    assert lengths(file=file, settings={"train.epochs": 4}) == (4, None)
    assert lengths(file=file, settings={"seed": 4}) == (None, 700)
    config = resolve_config("minute")
    assert config.replacing(epochs=3).train.images_seen is None
    assert config.replacing(epochs=3).replacing(images_seen=9).train.epochs is None
    # As a run's own settings are: one of the two is there, and null.
    file.write_text(yaml.safe_dump(config.replacing(epochs=3).model_dump(mode="json")))
    assert lengths(file=file) == (3, None)
    assert lengths(file=file, settings={"images_seen": 9}) == (None, 9)


def test_another_optimizer_comes_with_its_own_rates_but_those_given(tmp_path: Path) -> None:
    def rates(preset: str, file: Path | None = None, **settings: Any) -> tuple[float, ...]:
        train = resolve_config(preset, file, settings).train
        return train.lr, train.head_lr, train.momentum, train.weight_decay

    assert rates("small", optimizer="sgd") == (1e-3, 1e-3, 0.9, 5e-7)
    assert rates("small", optimizer="muon") == (0.05, 1e-3, 0.6, 5e-7)
    assert rates("small", optimizer="adamw") == rates("small")
    assert rates("minute", optimizer="adamw")[::3] == (1e-3, 4e-3)
    assert rates("minute", optimizer="sgd") == (1e-3, 0.67, 0.9, 5e-7)
    assert rates("minute", optimizer="sgd", lr=0.15, momentum=0.6) == (0.15, 0.67, 0.6, 5e-7)
    file = tmp_path / "sgd.yaml"
    file.write_text("optimizer: sgd\nlr: 0.002\n")
    assert rates("small", file) == (2e-3, 1e-3, 0.9, 5e-7)
    assert rates("small", file, batch=64) == (2e-3, 1e-3, 0.9, 5e-7)
    assert rates("small", file, optimizer="adamw")[::3] == (1e-3, 4e-3)
    replaced = resolve_config("minute").replacing(optimizer="sgd", momentum=0.85).train
    assert (replaced.lr, replaced.momentum) == (1e-3, 0.85)


@pytest.mark.parametrize("name", [name for name in preset_names() if name.endswith("-twin")])
def test_a_twin_differs_from_its_base_in_attention_alone(name: str) -> None:
    twin, base = resolve_config(name), resolve_config(name.removesuffix("-twin"))
    assert base.model.attention != "none"
    assert twin.model.attention == "none"
    assert twin.replacing(attention=base.model.attention).model_copy(update={"preset": base.preset}) == base


def test_small_classes_count_more_once_and_not_twice() -> None:
    both = {"class_weights": "balanced", "sampler": "balanced"}
    with pytest.raises(ConfigError, match=r"both make small classes count more.* give one of them"):
        resolve_config("minute", settings=both)
    with pytest.raises(ConfigError, match=r"is for training by steps.* give class_weights=balanced"):
        resolve_config("photos", settings={"sampler": "balanced"})
    for wrong in ([1, 0], [], "balance", 1, [True], [1, float("inf")], {"a": 1}):
        with pytest.raises(ConfigError, match=r"train\.class_weights=.*'balanced', or a number above zero"):
            resolve_config("minute", settings={"class_weights": wrong})
    assert resolve_config("minute", settings={"class_weights": [1, 2]}).train.class_weights == (1, 2)


def test_there_is_a_twin_of_every_preset_with_a_gate() -> None:
    gated = {name for name in preset_names() if resolve_config(name).model.attention_mode == "residual"}
    assert gated
    bases = {name for name in gated if not name.endswith("-twin")}
    assert gated - bases == {f"{name}-twin" for name in bases}


def test_a_preset_lies_over_the_one_it_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    presets = tmp_path / "presets"
    presets.mkdir()
    (presets / "small.yaml").write_text(
        "model: {stages: [{filters: 4}], hidden: 8}\ntrain: {epochs: 5, batch: 16}\n"
    )
    (presets / "over.yaml").write_text("preset: small\nmodel: {hidden: 9}\ntrain: {images_seen: 70}\n")
    (presets / "again.yaml").write_text("preset: over\ntrain: {batch: 17}\n")
    monkeypatch.setattr("foveate.config.resources.files", lambda _: tmp_path)
    assert preset_names() == ("again", "over", "small")
    config = resolve_config("again")
    assert (config.preset, config.model.hidden, config.model.stages[0].filters) == ("again", 9, 4)
    assert (config.train.epochs, config.train.images_seen, config.train.batch) == (None, 70, 17)
    (presets / "lost.yaml").write_text("preset: smal\n")
    with pytest.raises(ConfigError, match="unknown preset 'smal'; did you mean 'small'"):
        resolve_config("lost")


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown preset 'papr'; did you mean 'paper'"):
        resolve_config("papr")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a\n- b\n", "must hold settings as `key: value`"),
        (b"a: [1\n", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
        (b"!!python/object/apply:os.system ['true']\n", "is not YAML"),
        (b"epocs: 3\n", "did you mean 'epochs'"),
        (b"preset: [paper]\n", "unknown preset"),
        (b"preset: ''\n", "unknown preset ''"),
        (b"lr: 1\nlr: 2\n", "the key 'lr' occurs twice"),
        (b"lr: 2001-13-45\n", r"train\.lr='2001-13-45': it must be a number"),
        (b"lr: !!float x\n", "is not YAML: could not convert"),
        (b"epochs: " + b"9" * 5000, "is not YAML"),
        (b"[" * 5000, "is not YAML: it is nested"),
        (b"1: 2\n", "must hold settings as `key: value`"),
        (b"\xef\xbb\xbfepocs: 3\n", "did you mean 'epochs'"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as error:
        resolve_config(file=file)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*none\.yaml: No such file"):
        resolve_config(file=tmp_path / "none.yaml")


@pytest.mark.parametrize("text", ["!!float x", "9" * 5000, "[" * 5000, "{a: 1, a: 2}", "&a [*a]", "\0", "{"])
def test_a_value_that_is_not_yaml_is_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match="the value is not YAML") as error:
        setting_value("lr", text)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_a_file_that_is_no_file_is_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (tmp_path / "pipe.yaml", tmp_path, Path("/dev/zero")):
        with pytest.raises(ConfigError, match="not a regular file"):
            resolve_config(file=path)


def test_settings_are_frozen() -> None:
    config = resolve_config()
    with pytest.raises(ValueError, match="frozen"):
        config.train.epochs = 3  # type: ignore[misc]


def test_neither_settings_nor_the_help_import_torch() -> None:
    code = "import sys, foveate, foveate.cli; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stages": [{"filters": 1}] * 33}, "stages.*at most 32"),
        ({"stages": [{"filters": 1, "kernels": [1] * 17}]}, "kernels.*at most 16"),
        ({"attention": "custom:a b"}, "after 'custom:' comes the name of a class"),
        ({"attention": "custom:"}, "after 'custom:' comes the name of a class"),
        ({"attention": "custom:" + "a" * 300}, "at most 300 characters"),
    ],
)
def test_a_network_of_no_sensible_length_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_config("small", settings=settings)


@pytest.mark.parametrize(("earlier", "now"), EARLIER_NAMES.items())
def test_a_setting_of_an_earlier_version_keeps_working_under_its_earlier_name(earlier: str, now: str) -> None:
    value = {"alternate": True, "extra": ["erase"], "passes": 3, "views": 6}[earlier]
    path = setting_path(now)
    section = path.partition(".")[0]
    expected = resolve_config("small", settings={now: value})
    for named in ({earlier: value}, {f"{section}.{earlier}": value}, {section: {earlier: value}}):
        assert resolve_config("small", settings=named) == expected
    stored = expected.model_dump(mode="json")
    stored[section][earlier] = stored[section].pop(now)
    assert Config.model_validate(stored) == expected
    assert setting_path(earlier) == path
    check_setting(f"{section}.{earlier}")
    for twice in ({earlier: value, path: value}, {section: {earlier: value, now: value}}):
        with pytest.raises(ConfigError, match="given twice"):
            resolve_config("small", settings=twice)


def test_every_setting_is_a_typed_keyword() -> None:
    leaves = {
        leaf
        for field in Config.model_fields.values()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        for leaf in field.annotation.model_fields
    }
    assert set(Settings.__annotations__) == leaves


@pytest.mark.parametrize("name", ["lr", "train.schedule", "gradient_clip"])
def test_settings_of_steps_are_refused_where_no_step_is_taken(name: str) -> None:
    value = {"lr": 0.1, "train.schedule": "linear", "gradient_clip": 1.0}[name]
    leaf = name.removeprefix("train.")
    with pytest.raises(ConfigError, match=f"^{leaf} is for training by steps, and preset photos fits"):
        resolve_config("photos", settings={name: value})
    assert resolve_config("photos-head", settings={name: value})


def test_a_further_keyword_that_is_a_setting_or_unknown_is_told_how_to_be_given() -> None:
    check_keywords(["alpha", "subsets"], {"alpha": 0.1})
    for further, told in (
        ({"threads": 1}, r"^threads is a setting: give settings=\{'threads': 1\}$"),
        ({"extra": ["mixup"]}, r"^extra is a setting: give settings=\{'extra': \['mixup'\]\}$"),
        ({"subset": [5]}, r"^there is no argument 'subset'; did you mean 'subsets'\?$"),
        ({"thread": 1}, r"^there is no argument 'thread'; did you mean 'threads'\?$"),
        ({"nothing_like_it": 1}, r"^there is no argument 'nothing_like_it'$"),
    ):
        with pytest.raises(ConfigError, match=told):
            check_keywords(["alpha", "subsets"], further)


def test_the_functions_with_further_keywords_refuse_them_before_they_begin(tmp_path: Path) -> None:
    for refused in (
        lambda: foveate.compare("digits", ["minute"], threads=1, runs=tmp_path),
        lambda: foveate.plan_comparison("digits", ["minute"], threads=1, runs=tmp_path),
        lambda: foveate.tune("digits", threads=1, runs=tmp_path),
    ):
        with pytest.raises(ConfigError, match=r"threads is a setting: give settings=\{'threads': 1\}"):
            refused()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [None, False])
def test_no_attention_has_a_name(value: object) -> None:
    with pytest.raises(ConfigError, match=f"attention={value}: for a network without attention write 'none'$"):
        resolve_config(settings={"attention": value})
