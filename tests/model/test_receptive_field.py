from typing import Any

import pytest
import torch
from torch import Tensor, nn

from foveate.config import resolve_config
from foveate.model.attention_kinds import ATTENTION, register_attention
from foveate.model.build import build_model
from foveate.model.layers import layer_table
from foveate.model.receptive_field import Sight, receptive_field, sight

STAGES = [{"filters": 8, "kernels": [3, 3]}, {"filters": 12, "kernels": [3], "dilation": 2, "pool": 1}]


def seen(size: int = 48, **settings: Any) -> Sight:
    config = resolve_config("small", settings={"head": "mean", "stages": STAGES, **settings})
    return sight(build_model(config.model, num_classes=3, size=size), size)


@pytest.mark.parametrize(
    ("layers", "side", "jump"),
    [
        ([], 1, 1),
        ([nn.Conv2d(1, 1, 3)], 3, 1),
        ([nn.Conv2d(1, 1, 3), nn.ReLU(), nn.Conv2d(1, 1, 3, dilation=4)], 11, 1),
        ([nn.MaxPool2d(2), nn.Conv2d(1, 1, 5, stride=3)], 10, 6),
        ([nn.Conv2d(1, 1, (1, 7))], 7, 1),
    ],
)
def test_the_side_is_that_of_the_formula(layers: list[nn.Module], side: int, jump: int) -> None:
    assert receptive_field(layers) == (side, jump)


def test_vgg_16_sees_212_pixels_as_published() -> None:  # Araujo, Norris and Sim 2019, table 1
    layers: list[nn.Module] = []
    for convolutions in (2, 2, 3, 3, 3):
        layers += [nn.Conv2d(1, 1, 3) for _ in range(convolutions)] + [nn.MaxPool2d(2)]
    assert receptive_field(layers) == (212, 32)


def test_resnet_18_sees_435_pixels_without_its_shortcuts() -> None:
    config = resolve_config("photos", settings={"backbone": "resnet18", "weights": None, "optimizer": "adamw"})
    assert sight(build_model(config.model, num_classes=3, size=64), 64) == Sight(64, 435)


@pytest.mark.parametrize("block", ["plain", "normed"])
@pytest.mark.parametrize("dilation", [1, 3])
def test_it_is_the_square_that_a_gradient_fills(block: str, dilation: int) -> None:
    stages = [
        {"filters": 4, "kernels": [3, 3], "dilation": dilation},
        {"filters": 4, "kernels": [5, 3], "pool": 1},
    ]
    config = resolve_config("minute", settings={"stages": stages, "block": block, "attention": "none"})
    network = build_model(config.model, num_classes=3, size=64).eval()
    side = sight(network, 64).convolutions
    for module in network.modules():  # every path counts: no weight is negative, and each pool is a mean
        if isinstance(module, nn.Conv2d):
            nn.init.ones_(module.weight)
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d):
                setattr(module, name, nn.AvgPool2d(child.kernel_size))
    pixels = torch.full((1, 3, 64, 64), 200.0, requires_grad=True)
    centre = network.features(pixels)[0, :, 15, 15].sum()
    (gradient,) = torch.autograd.grad(centre, pixels)
    reached = gradient[0].abs().sum(0) > 0
    assert side < 64
    assert (int(reached.any(0).sum()), int(reached.any(1).sum()), int(reached.sum())) == (side, side, side**2)


def test_attention_reaches_as_far_as_its_kind_does() -> None:
    reaches = {kind: seen(attention=kind, attention_stage=1).reach for kind in ATTENTION if kind != "none"}
    assert reaches.pop("luong_row") == (6, 48)
    assert reaches.pop("residual_mask") in [(side, side) for side in range(7, 48)]
    assert set(reaches.values()) == {(48, 48)}


def test_it_is_of_the_kind_whatever_its_gate() -> None:
    assert seen(attention="luong", attention_mode="residual").reach == (48, 48)


def test_what_the_attention_is_given_is_told_apart_from_all_convolutions() -> None:
    assert seen(attention="none") == Sight(48, 14)
    assert seen(attention="luong", attention_stage=1) == Sight(48, 14, 6, (48, 48))
    assert seen(attention="luong", attention_stage=2) == Sight(48, 14, 14, (48, 48))
    assert seen(attention="none", head="attention_pool") == Sight(48, 14, 14, (48, 48))


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (Sight(32, 22), "The convolutions see 22 px."),
        (Sight(32, 40), "The convolutions see all 32 px."),
        (Sight(32, 22, 22, (24, 24)), "Attention can reach 24 px; the convolutions before it see 22 px."),
        (
            Sight(32, 50, 22, (22, 32)),
            "Attention can reach all 32 px along the width and 22 px along the height; the convolutions before it "
            "see 22 px, and all convolutions together all 32 px.",
        ),
        (Sight(32, 22, 10), "The convolutions see 22 px."),
    ],
)
def test_it_is_told_in_a_sentence(what: Sight, words: str) -> None:
    assert what.words == words


class Blind(nn.Module):
    """Gives nothing of what it gets."""

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, maps: Tensor) -> Tensor:
        return torch.zeros_like(maps)


def test_a_custom_attention_without_a_gradient_has_no_reach() -> None:
    assert seen(attention=register_attention(Blind), attention_stage=1) == Sight(48, 14, 6, None)


class Sized(nn.Module):
    """Takes maps of one side alone."""

    side = 24

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, maps: Tensor) -> Tensor:
        if maps.shape[-1] != self.side:
            raise ValueError(f"{self.side} is its side")
        return self.scale * maps + maps.mean((2, 3), keepdim=True)


@pytest.mark.parametrize(("size", "reach"), [(48, None), (32, (32, 32)), (31, (31, 31))])
def test_a_custom_attention_of_one_side_is_asked_at_that_side_and_else_has_no_reach(
    size: int, reach: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sized, "side", size // 2)
    assert seen(size, attention=register_attention(Sized), attention_stage=1).reach == reach


def test_the_table_of_layers_says_it_of_a_network_of_ours() -> None:
    config = resolve_config("minute").model
    assert layer_table(build_model(config, num_classes=10, size=32), 32).sight == Sight(32, 51, 23, (32, 32))
