import pytest
import torch
from torch import nn

from foveate.model.blocks import ConvBlock, DenseHead, Normalize, keras_init


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
    block = ConvBlock(3, 8, kernels=(3, 5, 1), pool=3, norm_momentum=0.01, attention=nn.Identity(), dropout=0.5)
    assert block(torch.rand(2, 3, 16, 17)).shape == (2, 8, 5, 5)
    assert sum(isinstance(layer, nn.Conv2d) for layer in block.convs) == 3


def test_batch_normalisation_is_keras_where_the_momentum_is_its_complement() -> None:
    norm = ConvBlock(3, 8, kernels=(3,), pool=2, norm_momentum=0.01, attention=nn.Identity(), dropout=0).norm
    assert (norm.eps, norm.momentum) == (1e-3, 0.01)
    norm.train()(torch.full((4, 8, 2, 2), 10.0))
    torch.testing.assert_close(norm.running_mean, torch.full((8,), 0.1))  # .99 · 0 + .01 · 10


def test_attention_comes_after_the_pool_and_before_the_dropout() -> None:
    class Seen(nn.Module):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            self.shape = features.shape
            return torch.zeros_like(features)

    seen = Seen()
    block = ConvBlock(3, 8, kernels=(3,), pool=2, norm_momentum=0.01, attention=seen, dropout=0.25)
    assert not block(torch.rand(1, 3, 8, 8)).any()
    assert seen.shape == (1, 8, 4, 4)


def test_head_drops_out_only_in_training() -> None:
    head = DenseHead(12, 64, 3, dropout=0.5)
    features = torch.rand(5, 3, 2, 2)
    torch.testing.assert_close(head.eval()(features), head(features))
    head.train()
    assert not torch.equal(head(features), head(features))


@pytest.mark.parametrize(
    ("layer", "fan_in", "fan_out"),
    [(nn.Conv2d(16, 32, 5), 16 * 25, 32 * 25), (nn.Linear(300, 200), 300, 200)],
)
def test_weights_are_glorot_uniform_with_zero_bias(layer: nn.Module, fan_in: int, fan_out: int) -> None:
    keras_init(layer, torch.Generator().manual_seed(1))
    limit = (6 / (fan_in + fan_out)) ** 0.5
    weight = layer.weight.detach()
    assert weight.abs().max() <= limit
    assert weight.abs().max() > 0.98 * limit
    assert abs(float(weight.mean())) < 0.02 * limit
    assert weight.std().item() == pytest.approx(limit / 3**0.5, rel=0.03)
    assert not layer.bias.any()
