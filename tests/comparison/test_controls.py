"""Controls cost what they are said to cost, and so does every network."""

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from foveate.comparison.arms import Arm, parse_arm
from foveate.comparison.controls import matched_controls, network_cost
from foveate.errors import ConfigError
from foveate.model import attention_kinds
from foveate.model.build import build_model
from foveate.model.layers import layer_table
from foveate.settings import AttentionKind


class Looking(torch.nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features * (1 + 0 * features.mean().item())


class TestCost:
    def test_parameters_and_operations_of_a_network_that_can_be_counted_by_hand(self) -> None:
        arm = parse_arm(
            "small,attention=none,stages=[{filters: 4, kernels: [3], pool: 2}],hidden=8,attention_stage=1", {}
        )
        cost = network_cost(arm.config, num_classes=10, size=16)
        kernels, hidden, classes = 3 * 3 * 3 * 4, 8 * 8 * 4 * 8, 8 * 10
        assert cost.parameters == (kernels + 4) + 2 * 4 + (hidden + 8) + (classes + 10)
        forward = 2 * (16 * 16 * kernels + hidden + classes)
        # Twice that backward, but nothing goes back through the images.
        assert cost.training_flops == 3 * forward - 2 * 16 * 16 * kernels

    def test_small_images_at_first_are_counted_as_such(self) -> None:
        flops = [
            network_cost(
                parse_arm(f"minute,resize_until={until}", {}).config, num_classes=10, size=32
            ).training_flops
            for until in (0, 1, 0.5)
        ]
        assert 0.5 < flops[1] / flops[0] < 0.6  # 24 px in place of 32
        assert flops[2] == pytest.approx((flops[0] + flops[1]) / 2, abs=1)

    def test_a_module_that_looks_at_values_is_counted_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(attention_kinds, "_REGISTERED", {})
        name = attention_kinds.register_attention(Looking)
        own, none = (parse_arm(f"minute,attention={kind}", {}).config for kind in (name, "none"))
        assert (
            network_cost(own, num_classes=10, size=32).parameters
            == network_cost(none, num_classes=10, size=32).parameters + 1
        )

    def test_attention_is_counted(self) -> None:
        none, luong = (
            network_cost(parse_arm(f"minute,attention={kind}", {}).config, num_classes=10, size=32)
            for kind in ("none", "luong")
        )
        assert luong.parameters == none.parameters + 1  # the gate
        assert luong.training_flops > none.training_flops


def within(arm: Arm, control: Arm, classes: int, size: int) -> tuple[float, float]:
    own, of = (network_cost(each.config, num_classes=classes, size=size) for each in (control, arm))
    return own.parameters / of.parameters - 1, own.training_flops / of.training_flops - 1


def check(control: Arm, parameters: float, flops: float) -> None:
    (matched,) = control.matched.values()
    assert matched
    assert "parameters" not in matched or abs(parameters) <= 0.01
    assert "FLOPs" not in matched or abs(flops) <= 0.02


class TestControls:
    @pytest.mark.parametrize(
        ("preset", "kind"),
        [
            *(
                ("small", kind)
                for kind in ("luong_scaled", "multi_head", "augmented_conv", "residual_mask", "cbam")
            ),
            pytest.param("minute", "augmented_conv", marks=pytest.mark.slow),
        ],
    )
    def test_one_costs_the_arms_parameters_and_one_its_operations(self, preset: str, kind: str) -> None:
        arm, plain = parse_arm(f"{preset},attention={kind}", {}), parse_arm(f"{preset},attention=none", {})
        controls = matched_controls([arm], plain, num_classes=10, size=32)
        for control in controls:
            parameters, flops = within(arm, control, 10, 32)
            assert control.config.model.attention == "none"
            assert [*control.matched] == [arm.name]
            check(control, parameters, flops)
        own = within(arm, plain, 10, 32)
        assert " and ".join(control.matched[arm.name] for control in controls) == " and ".join(
            name
            for name, off, most in zip(("parameters", "FLOPs"), own, (0.01, 0.02), strict=True)
            if abs(off) > most
        )

    @pytest.mark.parametrize(
        ("preset", "kind"),
        [
            *(("minute", kind) for kind in ("luong_row", "cbam", "augmented_conv", "residual_mask")),
            ("small", "residual_mask"),
        ],
    )
    def test_of_narrow_networks(self, preset: str, kind: str) -> None:
        narrow = "stages=[{filters: 8, kernels: [3, 3]}, {filters: 16, kernels: [3, 3]}],attention_stage=1"
        arm, plain = (parse_arm(f"{preset},{narrow},attention={each}", {}) for each in (kind, "none"))
        for control in matched_controls([arm], plain, num_classes=10, size=32):
            check(control, *within(arm, control, 10, 32))

    def test_one_that_costs_both_is_enough(self) -> None:
        arm, plain = parse_arm("minute,attention=multi_head", {}), parse_arm("minute,attention=none", {})
        (control,) = matched_controls([arm], plain, num_classes=10, size=32)
        assert control.matched == {arm.name: "parameters and FLOPs"}

    def test_one_that_is_the_same_for_two_arms_is_made_once(self) -> None:
        arms = [parse_arm(f"minute,attention=multi_head{more}", {}) for more in ("", ",lr=0.1", ",batch=100")]
        plain = parse_arm("minute,attention=none", {})
        (control,) = matched_controls(arms, plain, num_classes=10, size=32)
        assert control.matched == {arm.name: "parameters and FLOPs" for arm in arms}
        told = " and ".join(f"of {arm.name}" for arm in arms)
        assert control.name == f"{plain.name}, with the parameters and FLOPs {told}"

    def test_an_arm_that_costs_the_same_has_none(self) -> None:
        arm, plain = parse_arm("minute,attention=none,lr=0.1", {}), parse_arm("minute,attention=none", {})
        assert matched_controls([arm], plain, num_classes=10, size=32) == []

    @pytest.mark.slow
    @given(classes=st.integers(2, 200), size=st.sampled_from([16, 32, 48]))
    @settings(max_examples=2)
    def test_of_any_classes_and_size(self, classes: int, size: int) -> None:
        arm, plain = parse_arm("small,attention=multi_head", {}), parse_arm("small,attention=none", {})
        for control in matched_controls([arm], plain, num_classes=classes, size=size):
            parameters, flops = within(arm, control, classes, size)
            check(control, parameters, flops)

    def test_of_those_within_reach_it_is_the_least_changed(self) -> None:
        """All stages are scaled alike, and only then changed as little as it takes."""
        arm, plain = parse_arm("small,attention=augmented_conv", {}), parse_arm("small,attention=none", {})
        control = matched_controls([arm], plain, num_classes=10, size=16)[0]
        filters = [stage.filters for stage in control.config.model.stages]
        assert max(abs(one / other - 1) for one, other in zip(filters, (16, 48), strict=True)) < 0.07

    def test_of_a_backbone_with_a_head_alone_there_are_none(self) -> None:
        arms = [parse_arm(f"photos-head,head={head}", {}) for head in ("mean", "attention_pool")]
        assert matched_controls(arms[1:], arms[0], num_classes=2, size=64) == []

    def test_where_no_width_fits_it_says_so(self) -> None:
        tiny = "minute,stages=[{filters: 1, kernels: [3, 3]}],attention_stage=1"
        arm, plain = parse_arm(f"{tiny},attention=multi_head", {}), parse_arm(f"{tiny},attention=none", {})
        with pytest.raises(ConfigError, match="--no-controls"):
            matched_controls([arm], plain, num_classes=2, size=16)


def test_the_cost_is_that_of_a_network_that_computes() -> None:
    for kind in get_args(AttentionKind):
        config = parse_arm(f"small,attention={kind}", {}).config
        network = build_model(config.model, num_classes=7, size=20)
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            network(torch.zeros(2, 3, 20, 20, dtype=torch.uint8)).sum().backward()
        cost = network_cost(config, num_classes=7, size=20)
        assert cost.training_flops == counter.get_total_flops() // 2
        assert cost.parameters == layer_table(network, 20).trainable
