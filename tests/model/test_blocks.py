import math
import warnings
from functools import partial
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from foveate.model.blocks import (
    ACTIVATION,
    ConvBlock,
    DenseHead,
    Normalize,
    NormedBlock,
    PooledHead,
    WhiteningConv2d,
)
from foveate.settings import Activation

SETTINGS: dict[str, Any] = {
    "kernels": (3, 3),
    "pool": 2,
    "norm": partial(nn.BatchNorm2d, momentum=0.01),
    "activation": nn.ReLU,
    "attention": nn.Identity(),
    "dropout": 0.0,
}


def conv_block(**settings: Any) -> ConvBlock:
    return ConvBlock(3, 8, **{**SETTINGS, **settings})


def normed_block(in_channels: int = 3, out_channels: int = 8, seed: int = 0, **settings: Any) -> NormedBlock:
    block = NormedBlock(in_channels, out_channels, **{**SETTINGS, **settings})
    block.draw_weights(torch.Generator().manual_seed(seed))
    return block


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_table_holds_exactly_the_activations_that_settings_may_name() -> None:
    assert set(ACTIVATION) == set(get_args(Activation))


def test_normalize_takes_uint8_and_floating_pixels_alike() -> None:
    pixels = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    normalize = Normalize((0.5, 0.4, 0.3), (0.2, 0.25, 0.5))
    expected = (pixels.double() / 255 - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor(
        [0.2, 0.25, 0.5]
    ).view(3, 1, 1)
    torch.testing.assert_close(normalize(pixels).double(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(normalize(pixels.float()), normalize(pixels))


def test_normalize_leaves_a_channel_without_variation_finite() -> None:
    assert Normalize((0.5,), (0.0,))(torch.full((1, 1, 2, 2), 128, dtype=torch.uint8)).isfinite().all()


def test_block_keeps_the_size_but_for_the_pool_which_drops_what_does_not_fill_a_window() -> None:
    block = conv_block(kernels=(3, 5, 1), pool=3, dropout=0.5)
    assert block(torch.rand(2, 3, 16, 17)).shape == (2, 8, 5, 5)
    assert sum(isinstance(layer, nn.Conv2d) for layer in block.convs) == 3


@pytest.mark.parametrize("make", [conv_block, normed_block])
def test_a_dilated_block_spreads_its_kernels_and_keeps_the_size(make: Any) -> None:
    block = make(dilation=3, pool=1, norm=None)
    convolutions = [layer for layer in block.modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.dilation for layer in convolutions] == [(3, 3), (3, 3)]
    assert sum(map(torch.numel, block.parameters())) == sum(map(torch.numel, make(norm=None).parameters()))
    first, images = convolutions[0], noise(1, 3, 11, 11)
    assert block(images).shape == (1, 8, 11, 11)
    spread = torch.zeros(8, 3, 7, 7)
    spread[:, :, ::3, ::3] = first.weight.data
    torch.testing.assert_close(first(images), torch.nn.functional.conv2d(images, spread, first.bias, padding=3))


def test_batch_normalisation_is_keras_where_the_momentum_is_its_complement() -> None:
    norm = conv_block(kernels=(3,)).norm
    assert (norm.eps, norm.momentum) == (1e-3, 0.01)
    norm.train()(torch.full((4, 8, 2, 2), 10.0))
    torch.testing.assert_close(norm.running_mean, torch.full((8,), 0.1))  # .99 · 0 + .01 · 10


class Seen(nn.Module):
    """Nothing, and the shape of what came."""

    def forward(self, features: Tensor) -> Tensor:
        self.shape = features.shape
        return torch.zeros_like(features)


@pytest.mark.parametrize("make", [conv_block, normed_block])
def test_attention_comes_after_the_pool_and_before_the_dropout(make: Any) -> None:
    seen = Seen()
    block = make(attention=seen, dropout=0.25)
    assert not block(torch.rand(1, 3, 8, 8)).any()
    assert seen.shape == (1, 8, 4, 4)


@pytest.mark.parametrize("make", [conv_block, normed_block])
def test_a_block_drops_out_only_in_training(make: Any) -> None:
    block, features = make(dropout=0.5), noise(4, 3, 8, 8)
    assert torch.equal(block.eval()(features), block(features))
    assert (block.train()(features) == 0).float().mean() > 0.4


def test_a_dense_head_drops_out_only_in_training() -> None:
    head = DenseHead(12, 64, 3, activation=nn.ReLU(), dropout=0.5)
    features = torch.rand(5, 3, 2, 2)
    torch.testing.assert_close(head.eval()(features), head(features))
    head.train()
    assert not torch.equal(head(features), head(features))


@pytest.mark.parametrize(
    ("part", "name", "fan_in", "fan_out"),
    [
        (ConvBlock(16, 32, **{**SETTINGS, "kernels": (5,)}), "convs.0", 16 * 25, 32 * 25),
        (DenseHead(300, 200, 50, activation=nn.ReLU(), dropout=0), "dense", 300, 200),
        (DenseHead(300, 200, 50, activation=nn.ReLU(), dropout=0), "classifier", 200, 50),
    ],
)
def test_weights_are_glorot_uniform_with_zero_bias(
    part: ConvBlock | DenseHead, name: str, fan_in: int, fan_out: int
) -> None:
    part.draw_weights(torch.Generator().manual_seed(1))
    layer = part.get_submodule(name)
    limit = (6 / (fan_in + fan_out)) ** 0.5
    weight = layer.weight.detach()
    assert weight.abs().max() <= limit
    assert weight.abs().max() > 0.98 * limit
    assert abs(float(weight.mean())) < 0.02 * limit
    assert weight.std().item() == pytest.approx(limit / 3**0.5, rel=0.03)
    assert not layer.bias.any()


def second_moment(patches: np.ndarray) -> np.ndarray:
    """[D, D] of [P, D], one patch at a time."""
    total = np.zeros((patches.shape[1], patches.shape[1]))
    for patch in patches:
        total += np.outer(patch, patch)
    return total / len(patches)


def patches_of(images: np.ndarray, side: int) -> np.ndarray:
    """Every patch [C·k·k] of images [N, C, H, W], one at a time."""
    _, _, height, width = images.shape
    return np.array(
        [
            image[:, row : row + side, column : column + side].ravel()
            for image in images
            for row in range(height - side + 1)
            for column in range(width - side + 1)
        ]
    )


@settings(max_examples=10)
@given(side=st.integers(1, 3), seed=st.integers(0, 99), epsilon=st.sampled_from([5e-4, 0.1]))
def test_whitening_is_its_definition(side: int, seed: int, epsilon: float) -> None:
    # Neighbours are alike, as in photographs, so that the eigenvalues differ by orders of magnitude.
    images = nn.functional.avg_pool2d(noise(6, 3, 12, 12, seed=seed), 3, 1) * 2 + 0.1
    layer = WhiteningConv2d(3, side, epsilon=epsilon)
    layer.fit([images])
    covariance = second_moment(patches_of(images.double().numpy(), side))
    filters = layer.weight.double().numpy().reshape(2 * 3 * side * side, -1)
    half = len(filters) // 2
    np.testing.assert_array_equal(filters[half:], -filters[:half])
    # W^T W is the inverse of the covariance, but for epsilon; with both signs it counts twice.
    inverse = np.linalg.inv(covariance + epsilon * np.eye(half))
    np.testing.assert_allclose(filters.T @ filters, 2 * inverse, rtol=1e-3, atol=1e-3 * np.abs(inverse).max())
    out = layer(images)
    assert out.shape == (6, 2 * half, 12 - 2 - side + 1, 12 - 2 - side + 1)
    values = np.linalg.eigvalsh(covariance)
    whitened = second_moment(patches_of(out[:, :half].double().numpy(), 1))
    np.testing.assert_allclose(whitened, np.diag(values / (values + epsilon)), atol=1e-3)


def test_a_whitening_layer_is_fixed() -> None:
    layer = WhiteningConv2d(3, 2)
    layer.fit([noise(2, 3, 8, 8)])
    assert not layer.weight.requires_grad
    assert layer.bias is None
    before = layer.weight.clone()
    layer.fit([noise(2, 3, 8, 8, seed=1)])
    assert not torch.equal(layer.weight, before)


@settings(max_examples=10)
@given(side=st.integers(1, 3), seed=st.integers(0, 99))
def test_of_grey_images_no_filter_is_idle(side: int, seed: int) -> None:
    grey = nn.functional.avg_pool2d(noise(6, 1, 12, 12, seed=seed), 3, 1).expand(-1, 3, -1, -1).contiguous()
    layer = WhiteningConv2d(3, side)
    layer.fit([grey])
    # Two thirds of the directions are differences of colours, which are nothing, and hold rounding errors.
    assert layer(grey).square().mean((0, 2, 3)).min() > 0.5
    different = {tuple(each.flatten().tolist()) for each in layer.weight}
    assert len(different) == 2 * side * side


@pytest.mark.parametrize("colour", [0.0, 1.0, -3.0])
def test_whitening_images_of_one_colour_blows_nothing_up(colour: float) -> None:
    layer = WhiteningConv2d(3, 2)
    images = torch.full((4, 3, 8, 8), colour)
    layer.fit([images])
    assert layer.weight.isfinite().all()
    assert layer(images).square().mean((0, 2, 3)).max() <= 1 + 1e-3
    # Whatever varies later is enlarged by one over the root of epsilon at most.
    assert torch.linalg.svdvals(layer.weight[:12].flatten(1)).max() <= 5e-4**-0.5 * (1 + 1e-4)


@settings(max_examples=30)
@given(
    in_channels=st.integers(1, 12),
    out_channels=st.integers(1, 12),
    kernels=st.lists(st.sampled_from([1, 3, 5]), min_size=2, max_size=4),
    seed=st.integers(0, 99),
)
def test_a_normed_blocks_convolutions_begin_as_the_identity_on_the_channels_that_come_in(
    in_channels: int, out_channels: int, kernels: list[int], seed: int
) -> None:
    block = normed_block(in_channels, out_channels, seed, kernels=kernels)
    convs = [module for module in block.modules() if isinstance(module, nn.Conv2d)]
    assert [conv.kernel_size[0] for conv in convs] == kernels
    for conv in convs:
        assert conv.bias is None
        features = noise(2, conv.in_channels, 6, 7, seed=seed)
        kept = min(conv.in_channels, out_channels)
        torch.testing.assert_close(conv(features)[:, :kept], features[:, :kept])
        if conv.in_channels < out_channels:
            assert conv.weight[conv.in_channels :].abs().max() > 0


@pytest.mark.parametrize("kernels", [(3, 3), (3, 3, 3), (3, 1, 5, 3)])
def test_a_normed_block_is_its_diagram_with_a_skip_from_three_kernels_on(kernels: tuple[int, ...]) -> None:
    block = normed_block(kernels=kernels, activation=nn.GELU).eval()
    for index, norm in enumerate(module for module in block.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean.copy_(noise(8, seed=index))
        norm.running_var.copy_(noise(8, seed=index).square() + 0.5)
        norm.bias.data.copy_(noise(8, seed=index + 10))
        assert not norm.weight.requires_grad
        assert norm.bias.requires_grad

    convs = [module for module in block.modules() if isinstance(module, nn.Conv2d)]
    norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(convs) == len(norms) == len(kernels)
    gelu, pool = nn.functional.gelu, nn.functional.max_pool2d
    features = noise(2, 3, 9, 8)
    reduced = gelu(norms[0](pool(convs[0](features), 2)))
    refined = reduced
    for index in range(1, len(kernels)):
        refined = norms[index](convs[index](refined))
        if index < len(kernels) - 1:
            refined = gelu(refined)
    expected = gelu(refined + reduced if len(kernels) > 2 else refined)
    torch.testing.assert_close(block(features), expected)
    assert expected.shape == (2, 8, 4, 4)


@pytest.mark.parametrize("side", [1, 2, 5, 13])
def test_a_pooled_head_takes_any_side(side: int) -> None:
    head = PooledHead(6, 4)
    head.draw_weights(torch.Generator().manual_seed(0))
    features = noise(3, 6, side, side + 1)
    expected = features.amax((2, 3)) @ head.classifier.weight.T / 6
    torch.testing.assert_close(head(features), expected)
    assert head.classifier.bias is None
    assert head.classifier.weight.std().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", get_args(Activation))
def test_an_activation_is_its_definition(kind: Activation) -> None:
    x = torch.linspace(-4, 4, 41)
    expected = {
        "relu": [max(each, 0.0) for each in x.tolist()],
        "gelu": [each * (1 + math.erf(each / 2**0.5)) / 2 for each in x.tolist()],
        "silu": [each / (1 + math.exp(-each)) for each in x.tolist()],
    }
    torch.testing.assert_close(ACTIVATION[kind]()(x.clone()), torch.tensor(expected[kind]))


@pytest.mark.parametrize("make", [conv_block, normed_block])
def test_a_block_without_normalisation_has_biases_in_its_place(make: Any) -> None:
    block = make(norm=None)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in block.modules())
    assert all(module.bias is not None for module in block.modules() if isinstance(module, nn.Conv2d))
    features = noise(4, 3, 8, 8)
    torch.testing.assert_close(block.train()(features)[:1], block.eval()(features[:1]))  # no image sees another


def test_a_normed_block_without_normalisation_begins_as_the_identity_too() -> None:
    block = normed_block(norm=None, kernels=(3, 3), activation=nn.Identity, pool=1)
    features = noise(2, 3, 6, 6)
    torch.testing.assert_close(block(features)[:, :3], features)


@pytest.mark.parametrize(("kernel", "dilation"), [(2, 1), (4, 1), (4, 3), (4, 2), (3, 1)])
def test_a_kernel_of_an_even_side_keeps_the_size_as_torch_does_and_without_its_warning(
    kernel: int, dilation: int
) -> None:
    layer = conv_block(kernels=(kernel,), dilation=dilation).convs[0]
    images = torch.rand(2, 3, 9, 8)
    found = layer(images)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = F.conv2d(images, layer.weight, layer.bias, padding="same", dilation=dilation)
    assert torch.equal(found, wanted)
