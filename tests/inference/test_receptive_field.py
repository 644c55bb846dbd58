import numpy as np
import pytest
import torch
from torch import nn

from foveate.inference.receptive_field import effective_field, effective_side
from foveate.model.blocks import AttentionStage
from foveate.model.network import AttentionCNN


def linear(*kernels: torch.Tensor) -> AttentionCNN:
    """Convolutions of one channel with these kernels and nothing else, of three colours alike."""
    layers = nn.Sequential(nn.Conv2d(3, 1, 1, bias=False))
    nn.init.ones_(layers[0].weight)
    for kernel in kernels:
        layer = nn.Conv2d(1, 1, len(kernel), padding="same", bias=False)
        layer.weight.data[0, 0] = kernel
        layers.append(layer)
    return AttentionCNN(nn.Identity(), layers, nn.Sequential(AttentionStage(nn.Identity())), nn.Identity())


def pictures(count: int = 3, size: int = 21) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


def test_of_linear_convolutions_it_is_their_kernels_convolved() -> None:
    kernels = [torch.randn(3, 3, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
    expected = np.zeros((21, 21))
    for i, j in np.ndindex(3, 3):  # of two kernels, all their pairs of entries
        expected[8 + i : 11 + i, 8 + j : 11 + j] += float(kernels[0][i, j]) * kernels[1].numpy()
    field = effective_field(linear(*kernels), pictures())
    np.testing.assert_allclose(field, 3 * abs(expected), atol=1e-6)  # three colours


@pytest.mark.parametrize(("depth", "theory"), [(1, 3), (3, 7), (9, 19)])
def test_of_uniform_kernels_it_is_a_bell_narrower_than_the_theory(depth: int, theory: int) -> None:
    field = effective_field(linear(*[torch.ones(3, 3)] * depth), pictures(1))
    row = np.array([1.0])
    for _ in range(depth):
        row = np.convolve(row, np.ones(3))
    bell = np.pad(np.outer(row, row), (21 - theory) // 2)
    np.testing.assert_allclose(field, 3 * bell, rtol=1e-5)
    side = effective_side(field)
    assert side == pytest.approx((bell > 0.0455 * bell.max()).sum() ** 0.5)
    assert side < theory if depth > 1 else side == theory


def test_colours_do_not_cancel_and_images_are_averaged() -> None:
    network = linear(torch.ones(1, 1))
    network.stem[0].weight.data[0, :, 0, 0] = torch.tensor([1.0, -1.0, 2.0])
    field = effective_field(network, pictures(5))
    assert field[10, 10] == 4
    assert field.sum() == 4
    assert effective_side(field) == 1


def test_the_network_is_left_as_it_was() -> None:
    network = linear(torch.ones(3, 3)).train()
    with torch.inference_mode(False), torch.no_grad():
        effective_field(network, pictures())
    assert network.training
    assert all(each.grad is None for each in network.parameters())
