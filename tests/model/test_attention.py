from collections.abc import Callable
from functools import partial
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from foveate.model.attention import (
    AugmentedConv2d,
    ConvBlockAttention2d,
    EfficientChannelAttention2d,
    GatedResidual,
    LuongAttention2d,
    LuongRowAttention2d,
    LuongScaledAttention2d,
    MultiHeadAttention2d,
    ResidualMask2d,
    SqueezeExcitation2d,
)
from foveate.model.attention_kinds import ATTENTION
from foveate.settings import AttentionKind

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 6), st.integers(1, 6))


def features(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def drawn(module: nn.Module, seed: int = 0) -> nn.Module:
    """With initial weights, drawn as a network draws them."""
    for part in module.modules():
        if hasattr(part, "draw_weights"):
            part.draw_weights(torch.Generator().manual_seed(seed))
    return module


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def array(parameter: Tensor) -> np.ndarray:
    return parameter.detach().double().numpy()


def attend(queries: np.ndarray, keys: np.ndarray, values: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """Luong's dot score by its definition, one position at a time."""
    out = np.zeros_like(values)
    for i, query in enumerate(queries):
        scores = np.array([float(np.dot(query, key)) * scale for key in keys])
        weights = np.exp(scores - scores.max())
        out[i] = (weights / weights.sum()) @ values
    return out


def test_the_table_holds_exactly_the_kinds_that_settings_may_name() -> None:
    assert set(ATTENTION) == set(get_args(AttentionKind))


@settings(max_examples=25)
@given(SHAPES)
def test_luong_equals_its_definition_over_all_positions(shape: tuple[int, int, int, int]) -> None:
    images = features(shape)
    got = LuongAttention2d()(images)
    assert got.shape == images.shape
    for image, attended in zip(images.double().numpy(), got.numpy(), strict=True):
        tokens = image.reshape(shape[1], -1).T
        np.testing.assert_allclose(attended.reshape(shape[1], -1).T, attend(tokens, tokens, tokens), atol=1e-5)


@settings(max_examples=25)
@given(SHAPES)
def test_luong_row_equals_its_definition_within_each_row(shape: tuple[int, int, int, int]) -> None:
    images = features(shape)
    got = LuongRowAttention2d()(images)
    assert got.shape == images.shape
    for image, attended in zip(images.double().numpy(), got.numpy(), strict=True):
        for row in range(shape[2]):
            tokens = image[:, row].T
            np.testing.assert_allclose(attended[:, row].T, attend(tokens, tokens, tokens), atol=1e-5)


@settings(max_examples=25)
@given(SHAPES, st.integers(0, 99))
def test_luong_scaled_equals_its_definition_with_projected_scores(
    shape: tuple[int, int, int, int], seed: int
) -> None:
    images, module = features(shape, seed), LuongScaledAttention2d(shape[1])
    module.draw_weights(torch.Generator().manual_seed(seed))
    project_q, project_k = (
        conv.weight.detach().double().numpy()[:, :, 0, 0] for conv in (module.query, module.key)
    )
    assert len(project_q) == 16  # of 128 channels or fewer
    got = module(images).detach()
    assert got.shape == images.shape
    for image, attended in zip(images.double().numpy(), got.numpy(), strict=True):
        tokens = image.reshape(shape[1], -1).T
        expected = attend(tokens @ project_q.T, tokens @ project_k.T, tokens, scale=16**-0.5)
        np.testing.assert_allclose(attended.reshape(shape[1], -1).T, expected, atol=1e-5)


@pytest.mark.parametrize("kind", get_args(AttentionKind))
def test_every_kind_is_made_by_its_channels_and_takes_a_batch_of_none(kind: AttentionKind) -> None:
    module = ATTENTION[kind](20).eval()
    assert module(torch.zeros(0, 20, 5, 3)).shape == (0, 20, 5, 3)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: MultiHeadAttention2d(8, num_heads=0), "num_heads=0: give 1 or more"),
        (lambda: MultiHeadAttention2d(8, key_channels=0), "key_channels=0: give 1 or more"),
        (lambda: MultiHeadAttention2d(8, reach=0), "reach=0: give 1 or more"),
        (lambda: SqueezeExcitation2d(8, reduction=0), "reduction=0: give 1 or more"),
        (lambda: ConvBlockAttention2d(8, reduction=-1), "reduction=-1: give 1 or more"),
        (lambda: AugmentedConv2d(8, share=-0.5), "share=-0.5: give a share of the channels between 0 and 1"),
        *((partial(kind, 0), "channels=0: give 1 or more") for kind in (
            LuongScaledAttention2d, MultiHeadAttention2d, AugmentedConv2d, SqueezeExcitation2d,
            EfficientChannelAttention2d, ConvBlockAttention2d, ResidualMask2d,
        )),
    ],
)  # fmt: skip
def test_what_no_layer_can_have_is_refused(make: Callable[[], nn.Module], told: str) -> None:
    with pytest.raises(ValueError, match=f"^{told}$"):
        make()


def test_the_rank_of_learned_scores_grows_with_the_channels() -> None:
    assert LuongScaledAttention2d(256).query.weight.shape == (32, 256, 1, 1)


def test_a_row_does_not_see_other_rows_but_luong_sees_all() -> None:
    images = features((1, 4, 3, 5))
    changed = images.clone()
    changed[:, :, 2] += 1
    row, whole = LuongRowAttention2d(), LuongAttention2d()
    torch.testing.assert_close(row(images)[:, :, :2], row(changed)[:, :, :2])
    assert not torch.allclose(whole(images)[:, :, :2], whole(changed)[:, :, :2])


KINDS = [kind for kind in get_args(AttentionKind) if kind != "none"]
OVER_FEATURES: list[AttentionKind] = ["luong", "luong_row", "luong_scaled"]
"""Kinds whose output is a mean of the features themselves, weighted by `attention_weights`."""


@pytest.mark.parametrize("kind", OVER_FEATURES)
def test_asked_weights_are_those_that_were_used(kind: AttentionKind) -> None:
    module = ATTENTION[kind](5)
    images = features((2, 5, 4, 3))
    weights = module.attention_weights(images)
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    values = images.permute(0, 2, 3, 1) if kind == "luong_row" else images.flatten(2).transpose(1, 2)
    attended = (weights @ values).reshape(2, 4, 3, 5).permute(0, 3, 1, 2)
    torch.testing.assert_close(module(images), attended, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_a_map_of_the_positions(kind: AttentionKind) -> None:
    module = drawn(ATTENTION[kind](20)).eval()
    images = features((2, 20, 5, 4))
    found = module.attention_map(images)
    assert found.shape == (2, 5, 4)
    assert (found >= 0).all()
    torch.testing.assert_close(found[1:], module.attention_map(images[1:]))  # each image has its own


@pytest.mark.parametrize("kind", OVER_FEATURES)
def test_a_map_is_the_mean_of_the_weights_over_those_that_look(kind: AttentionKind) -> None:
    module, images = drawn(ATTENTION[kind](5)), features((2, 5, 40, 30))  # more positions than are taken at once
    weights = module.attention_weights(images)
    expected = weights.mean(-2).reshape(2, 40, 30)
    torch.testing.assert_close(module.attention_map(images), expected)


def test_the_map_of_channels_shows_where_the_weighted_ones_are_active() -> None:
    module, images = drawn(SqueezeExcitation2d(6)), torch.zeros(1, 6, 2, 2)
    images[0, 2, 0, 1] = -3.0
    weights = module.attention_weights(images)[0, :, 0, 0]
    expected = torch.zeros(1, 2, 2)
    expected[0, 0, 1] = 3 * weights[2] / weights.sum()
    torch.testing.assert_close(module.attention_map(images), expected)


def test_the_map_of_a_mask_is_what_positions_are_scaled_by() -> None:
    module, images = drawn(ConvBlockAttention2d(6)), features((1, 6, 4, 4))
    scaled = module(images) / module._weighed(images)
    torch.testing.assert_close(module.attention_map(images), scaled.mean(1))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_definition(kind: AttentionKind) -> None:
    images = features((2, 3, 3, 4)).double().requires_grad_()
    module = drawn(ATTENTION[kind](3)).double()
    assert torch.autograd.gradcheck(module, (images,))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("luong", "luong_row")])
def test_every_parameter_gets_a_gradient(kind: AttentionKind) -> None:
    module = drawn(ATTENTION[kind](64))
    (module(features((4, 64, 5, 4))) * features((4, 64, 5, 4), seed=1)).sum().backward()
    learned = [parameter for parameter in module.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None and bool((parameter.grad != 0).any()) for parameter in learned)


@pytest.mark.parametrize("kind", get_args(AttentionKind))
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_any_kind_serves_in_anyones_network(kind: AttentionKind, memory_format: torch.memory_format) -> None:
    network = nn.Sequential(nn.Conv2d(3, 6, 3), ATTENTION[kind](6), nn.Conv2d(6, 2, 3))
    images = features((2, 3, 9, 8)).to(memory_format=memory_format)
    network(images).sum().backward()
    learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
    assert all(bool(p.grad is not None and p.grad.isfinite().all()) for p in learned)


def test_scores_too_large_for_exp_stay_finite() -> None:
    images = features((1, 64, 4, 4)) * 1e3
    for kind in KINDS:
        module = ATTENTION[kind](64)
        assert module(images).isfinite().all()
        if hasattr(module, "attention_weights"):
            assert module.attention_weights(images).isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_residual_begins_as_the_identity_and_its_gate_gets_a_gradient(kind: AttentionKind) -> None:
    images = features((2, 5, 4, 3))
    module = GatedResidual(ATTENTION[kind](5))
    assert torch.equal(module(images), images)
    (module(images) * features((2, 5, 4, 3), seed=1)).sum().backward()
    assert module.gate.grad is not None
    expected = (module.attention(images) * features((2, 5, 4, 3), seed=1)).sum()
    torch.testing.assert_close(module.gate.grad, expected.detach())
    assert module.gate.grad.abs() > 1e-3
    with torch.no_grad():
        module.gate.fill_(0.5)
        torch.testing.assert_close(module(images), images + 0.5 * module.attention(images))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", KINDS)
def test_the_memory_format_changes_nothing(kind: AttentionKind, memory_format: torch.memory_format) -> None:
    module, images = ATTENTION[kind](6), features((2, 6, 4, 5))
    torch.testing.assert_close(module(images.to(memory_format=memory_format)), module(images))


class TestMultiHead:
    @pytest.mark.parametrize("channels", [4, 96])
    def test_without_positions_it_is_pytorchs_own(self, channels: int) -> None:
        module = drawn(MultiHeadAttention2d(channels, num_heads=2))
        theirs = nn.MultiheadAttention(channels, 2, bias=False, batch_first=True)
        with torch.no_grad():
            for offsets in (module.rel_height, module.of_width):
                offsets.weight.zero_()
            joined = torch.cat([each.weight.flatten(1) for each in (module.query, module.key, module.value)])
            theirs.in_proj_weight.copy_(joined)
            theirs.out_proj.weight.copy_(module.out.weight.flatten(1))
        images = features((2, channels, 3, 5))
        tokens = images.flatten(2).transpose(1, 2)
        expected, weights = theirs(tokens, tokens, tokens, average_attn_weights=False)
        torch.testing.assert_close(module(images), expected.transpose(1, 2).view_as(images), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(module.attention_weights(images), weights, atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("reach", [1, 15])
    def test_positions_are_by_their_definition(self, reach: int) -> None:
        """Score by score: (q·k + q·r_height + q·r_width) / √d, offsets clipped."""
        channels, height, width, heads = 6, 3, 4, 2
        module = drawn(MultiHeadAttention2d(channels, num_heads=heads, reach=reach))
        image = features((1, channels, height, width))
        tokens = array(image)[0].reshape(channels, -1).T
        query, key, value = (
            tokens @ array(conv.weight)[:, :, 0, 0].T for conv in (module.query, module.key, module.value)
        )
        by_height, by_width = (array(conv.weight)[:, :, 0, 0] for conv in (module.rel_height, module.of_width))
        size = channels // heads
        gathered = np.zeros_like(value)
        for head in range(heads):
            own = slice(head * size, (head + 1) * size)
            for i in range(height * width):
                scores = np.zeros(height * width)
                for j in range(height * width):
                    down = np.clip(j // width - i // width, -reach, reach) + reach
                    right = np.clip(j % width - i % width, -reach, reach) + reach
                    scores[j] = query[i, own] @ (key[j, own] + by_height[down] + by_width[right]) / size**0.5
                weights = np.exp(scores - scores.max())
                gathered[i, own] = weights @ value[:, own] / weights.sum()
        expected = (gathered @ array(module.out.weight)[:, :, 0, 0].T).T.reshape(channels, height, width)
        np.testing.assert_allclose(array(module(image))[0], expected, atol=1e-5)

    def test_heads_must_divide_the_channels(self) -> None:
        with pytest.raises(ValueError, match="num_heads=4 must divide"):
            MultiHeadAttention2d(6, num_heads=4)
        assert MultiHeadAttention2d(128).num_heads == 4
        assert MultiHeadAttention2d(100).num_heads == 2  # three would not divide them


@pytest.mark.parametrize(("channels", "attended"), [(3, 1), (64, 12), (128, 24)])
def test_an_augmented_convolution_is_the_two_side_by_side(channels: int, attended: int) -> None:
    module = drawn(AugmentedConv2d(channels))
    assert isinstance(module, AugmentedConv2d)
    images = features((2, channels, 5, 4))
    convolved = torch.nn.functional.conv2d(images, module.conv.weight, padding=1)
    assert convolved.shape[1] == channels - attended
    torch.testing.assert_close(module(images), torch.cat([convolved, module.attention(images)], 1))
    with pytest.raises(ValueError, match="channels=1"):
        AugmentedConv2d(1)


@pytest.mark.parametrize("channels", [1, 5, 40])
def test_squeeze_and_excitation_is_its_definition(channels: int) -> None:
    module = drawn(SqueezeExcitation2d(channels))
    squeeze, excite = module.squeeze, module.excite
    for image in features((3, channels, 4, 3)):
        means = array(image).mean((1, 2))
        hidden = np.maximum(array(squeeze.weight)[:, :, 0, 0] @ means + array(squeeze.bias), 0)
        weights = sigmoid(array(excite.weight)[:, :, 0, 0] @ hidden + array(excite.bias))
        got = array(module(image[None]))[0]
        np.testing.assert_allclose(got, array(image) * weights[:, None, None], atol=1e-6)
    assert squeeze.out_channels == max(1, channels // 16)


@pytest.mark.parametrize(("channels", "length"), [(1, 1), (8, 3), (64, 3), (128, 5), (512, 5)])
def test_efficient_channel_attention_is_its_definition(channels: int, length: int) -> None:
    module = drawn(EfficientChannelAttention2d(channels))
    kernel = array(module.conv.weight).ravel()
    assert len(kernel) == length
    image = features((1, channels, 4, 3))
    means = np.pad(array(image)[0].mean((1, 2)), length // 2)
    weights = sigmoid(np.array([kernel @ means[c : c + length] for c in range(channels)]))
    np.testing.assert_allclose(array(module(image))[0], array(image)[0] * weights[:, None, None], atol=1e-6)


@pytest.mark.parametrize("channels", [1, 20])
def test_cbam_is_its_definition(channels: int) -> None:
    module = drawn(ConvBlockAttention2d(channels))
    squeeze, excite, spatial = module.squeeze, module.excite, array(module.spatial.weight)[0]
    image = array(features((1, channels, 4, 6)))[0]

    def perceptron(values: np.ndarray) -> np.ndarray:
        hidden = np.maximum(array(squeeze.weight)[:, :, 0, 0] @ values + array(squeeze.bias), 0)
        return array(excite.weight)[:, :, 0, 0] @ hidden + array(excite.bias)

    weights = sigmoid(perceptron(image.mean((1, 2))) + perceptron(image.max((1, 2))))
    expected = image * weights[:, None, None]
    over = np.pad(np.stack([expected.mean(0), expected.max(0)]), ((0, 0), (3, 3), (3, 3)))
    where = [[(over[:, y : y + 7, x : x + 7] * spatial).sum() for x in range(6)] for y in range(4)]
    expected = expected * sigmoid(np.array(where))
    got = array(module(torch.from_numpy(image).float()[None]))[0]
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_a_residual_mask_is_its_definition() -> None:
    module = drawn(ResidualMask2d(3)).eval()
    with torch.no_grad():
        module.norm.running_mean.copy_(torch.tensor([0.1, -0.2, 0.3]))
        module.norm.running_var.copy_(torch.tensor([0.5, 1.5, 2.0]))
    image = array(features((1, 3, 4, 6)))[0]
    pooled = image.reshape(3, 2, 2, 3, 2).max((2, 4))
    padded = np.pad(pooled, ((0, 0), (1, 1), (1, 1)))
    kernel = array(module.below.weight)
    below = np.array(
        [[[(padded[:, y : y + 3, x : x + 3] * each).sum() for x in range(3)] for y in range(2)] for each in kernel]
    )
    mean, var = array(module.norm.running_mean), array(module.norm.running_var)
    below = np.maximum((below - mean[:, None, None]) / np.sqrt(var + module.norm.eps)[:, None, None], 0)

    def at(place: float, side: int) -> tuple[int, int, float]:
        """Where a pixel of the large map lies between two of the small one."""
        place = min(max((place + 0.5) / 2 - 0.5, 0), side - 1)
        low = min(int(place), side - 1)
        return low, min(low + 1, side - 1), place - low

    risen = np.zeros((3, 4, 6))
    for y in range(4):
        top, bottom, down = at(y, 2)
        for x in range(6):
            left, right, across = at(x, 3)
            above = below[:, top, left] * (1 - across) + below[:, top, right] * across
            under = below[:, bottom, left] * (1 - across) + below[:, bottom, right] * across
            risen[:, y, x] = above * (1 - down) + under * down
    mask = sigmoid(
        np.einsum("oc,chw->ohw", array(module.mask.weight)[:, :, 0, 0], risen)
        + array(module.mask.bias)[:, None, None]
    )
    got = array(module(torch.from_numpy(image).float()[None]))[0]
    np.testing.assert_allclose(got, image * (1 + mask), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_any_kind_takes_maps_of_any_size(kind: AttentionKind) -> None:
    module = drawn(ATTENTION[kind](6)).eval()
    for side in (1, 2, 7, 40):
        assert module(features((2, 6, side, side + 1))).shape == (2, 6, side, side + 1)
