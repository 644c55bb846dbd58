"""Arms: what is written is what is trained."""

import pytest

from foveate.comparison.arms import (
    Arm,
    check_different,
    check_same_data,
    judged,
    order_arms,
    parse_arm,
    short_labels,
)
from foveate.errors import ConfigError


class TestParse:
    def test_a_preset_and_settings_over_what_is_common(self) -> None:
        arm = parse_arm("minute, lr=0.2, attention = none", {"threads": 3, "lr": 0.7})
        assert arm.name == "minute, lr=0.2, attention = none"
        assert (arm.config.preset, arm.config.train.lr, arm.config.train.threads) == ("minute", 0.2, 3)
        assert arm.config.model.attention == "none"

    def test_its_own_length_takes_the_place_of_the_common_one(self) -> None:
        train = parse_arm("minute,images_seen=700", {"epochs": 3}).config.train
        assert (train.epochs, train.images_seen) == (None, 700)

    def test_what_goes_together_need_not_go_alone(self) -> None:
        arm = parse_arm("small,head=pooled", {"resize_until": 0.5})
        assert (arm.config.model.head, arm.config.train.resize_until) == ("pooled", 0.5)

    def test_commas_within_brackets_belong_to_the_value(self) -> None:
        arm = parse_arm("minute,stages=[{filters: 4, kernels: [3, 3]}],attention_stage=1,batch=7", {})
        assert [stage.kernels for stage in arm.config.model.stages] == [(3, 3)]
        assert arm.config.train.batch == 7

    def test_a_preset_that_takes_no_steps(self) -> None:
        assert parse_arm("photos", {"threads": 1, "class_weights": "balanced"}).config.train.threads == 1
        with pytest.raises(ConfigError, match="lr is for training by steps"):
            parse_arm("photos,lr=0.2", {})

    def test_an_arm_can_have_seeds_of_its_own(self) -> None:
        arm = parse_arm("minute,seeds=100+,lr=0.2", {})
        assert (arm.first_seed, arm.config.train.seed, arm.config.train.lr) == (100, 0, 0.2)
        assert parse_arm("minute", {}).first_seed is None

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("minute,seeds=100", "write it once, as seeds=100+"),
            ("minute,seeds=-1+", "write it once, as seeds=100+"),
            ("minute,seeds=1+,seeds=9+", "write it once, as seeds=100+"),
            (",lr=1", "begin it with a preset"),
            ("minut", "unknown preset 'minut'; did you mean 'minute'?"),
            ("minute,attenton=none", "unknown setting 'attenton'; did you mean 'attention'?"),
            ("minute,none", "'none' is no KEY=VALUE"),
            ("minute,lr=[", "the value of lr is not YAML"),
            ("minute,seed=3", "by --seeds and --first-seed"),
            ("minute,attention=loung", "model.attention='loung'"),
            ("minute,lr=1,train.lr=2", "train.lr is given twice"),
        ],
    )
    def test_what_is_wrong_is_one_line(self, text: str, message: str) -> None:
        with pytest.raises(ConfigError) as error:
            parse_arm(text, {})
        assert message in str(error.value)
        assert "\n" not in str(error.value)


def test_arms_that_see_other_data_are_refused_by_the_name_of_the_setting() -> None:
    for setting in ("size=24", "split_seed=3", "threads=1"):
        with pytest.raises(ConfigError, match=f"differ in {setting.partition('=')[0]} "):
            check_same_data([parse_arm("minute", {"threads": 2}), parse_arm(f"minute,{setting}", {"threads": 2})])
    check_same_data([parse_arm("minute,lr=1", {}), parse_arm("minute,attention=none", {})])


@pytest.mark.parametrize(
    "same", ["minute", "minute,patience=3", "minute,tta_views=6", "minute,attention=luong_scaled"]
)
def test_arms_that_would_train_alike_are_refused(same: str) -> None:
    arms = [parse_arm(text, {}) for text in ("minute", same)]
    with pytest.raises(ConfigError, match="are the same"):
        check_different([arm.model_copy(update={"config": judged(arm.config)}) for arm in arms], 0, 5)


def test_an_arm_may_be_there_again_with_seeds_that_none_shares() -> None:
    arms = [parse_arm(text, {}) for text in ("minute", "minute,seeds=5+")]
    check_different(arms, 0, 5)
    with pytest.raises(ConfigError, match=r"give it other seeds, as in minute,seeds=105\+"):
        check_different(arms, 0, 6)
    with pytest.raises(ConfigError, match="are the same"):
        check_different(arms, 9, 5)


def test_the_reference_is_the_one_arm_without_attention_else_the_first() -> None:
    def ordered(*texts: str) -> list[str]:
        return [arm.name for arm in order_arms([parse_arm(text, {}) for text in texts], {})]

    assert ordered("minute", "minute,attention=none", "fast")[0] == "minute,attention=none"
    assert ordered("minute", "fast") == ["minute", "fast"]
    assert ordered("minute,attention=eca") == ["minute,attention=none", "minute,attention=eca"]


def test_a_short_label_is_what_an_arm_has_of_its_own() -> None:
    common = "attention_mode=residual,stages=[{filters: 8}, {filters: 8}]"
    arms = [parse_arm(f"small,{each}{common}", {}) for each in ("attention=eca,", "attention=none,", "")]
    control = Arm(name="a control", config=arms[1].config, matched={arms[0].name: "FLOPs"})
    assert short_labels([*arms, control]) == [
        "attention=eca",
        "attention=none",
        "small,attention_mode=residual,stages=[{filte…, {filters: 8}]",
        "control of attention=eca, FLOPs",
    ]
    presets = [parse_arm(each, {}) for each in ("small,lr=1", "minute,lr=1")]
    assert short_labels(presets) == ["small,lr=1", "minute,lr=1"]


def test_a_preset_alone_never_stands_for_an_arm_with_other_settings() -> None:
    for texts, labels in (
        (("minute,attention=none", "minute,attention=none,lr=1"), ["minute,attention=none", "lr=1"]),
        (("minute", "minute,lr=1"), ["minute", "lr=1"]),
        (("small", "minute"), ["small", "minute"]),
    ):
        assert short_labels([parse_arm(text, {}) for text in texts]) == labels


def test_labels_are_short_and_each_another_however_long_the_settings_are() -> None:
    stages = (
        "stages=[{filters: 32, kernels: [3, 3]}, {filters: %d, kernels: [3, 3]}, {filters: 128, kernels: [3, 3]}]"
    )
    texts = ("minute", f"minute,{stages % 64}", f"minute,{stages % 96}")
    labels = short_labels([parse_arm(text, {}) for text in texts])
    assert len(set(labels)) == 3
    assert max(map(len, labels)) < 45
    assert labels[0] == "minute"
    assert labels[1].startswith("stages=[{filte")
    assert labels[2].endswith("(arm 3)")
