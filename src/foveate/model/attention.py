"""Attention in a feature map, over positions or channels: one class per kind, usable in anyone's network."""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Drawn(nn.Module):
    """A module that draws the weights of the convolutions in it, in the order in which they were made."""

    def draw_weights(self, generator: torch.Generator) -> None:
        """Draw PyTorch's default initial weights and biases; a module within this one draws its own."""
        for layer in self.children():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_uniform_(layer.weight, a=5**0.5, generator=generator)
                if layer.bias is not None:
                    bound = layer.weight[0].numel() ** -0.5
                    nn.init.uniform_(layer.bias, -bound, bound, generator=generator)


class LuongAttention2d(nn.Module):
    """Dot-product self-attention over all H·W positions of a feature map, without parameters.

    query = key = value = the features themselves: scores are plain dot products, neither scaled nor projected,
    a softmax over positions weighs the values, and nothing is added back (Luong et al. 2015, "dot" score).

    Shape: [B, C, H, W] → [B, C, H, W].

    Args:
        channels: not needed, as there are no parameters.
    """

    def __init__(self, channels: int | None = None) -> None:  # noqa: ARG002 (as every kind is made)
        super().__init__()

    def forward(self, features: Tensor) -> Tensor:
        """Replace every position by the mean of all positions, weighted by its attention."""
        tokens = _tokens(features).unsqueeze(1)  # [B, 1, H·W, C]: one head
        return _positions(F.scaled_dot_product_attention(tokens, tokens, tokens, scale=1.0), features)

    def attention_weights(self, features: Tensor) -> Tensor:
        """How much each position looks at each other: [B, C, H, W] → [B, H·W, H·W]; each row sums to 1."""
        tokens = _tokens(features)
        return torch.softmax(tokens @ tokens.transpose(1, 2), dim=-1)

    def attention_map(self, features: Tensor) -> Tensor:
        """How much each position is looked at, on average over those that look: [B, C, H, W] → [B, H, W]."""
        tokens = _tokens(features)
        return _looked_at(tokens, tokens, 1.0, features)


class LuongRowAttention2d(nn.Module):
    """The paper's attention: as `LuongAttention2d`, but each position attends only within its own row.

    That is what Keras' `Attention` layer does with a (batch, height, width, channels) tensor: it attends
    over the last axis but one, the width, and treats the height as a batch axis.

    Shape: [B, C, H, W] → [B, C, H, W].

    Args:
        channels: not needed, as there are no parameters.
    """

    def __init__(self, channels: int | None = None) -> None:  # noqa: ARG002 (as every kind is made)
        super().__init__()

    def forward(self, features: Tensor) -> Tensor:
        """Replace every position by the mean of its row, weighted by its attention."""
        rows = features.permute(0, 2, 3, 1)  # [B, H, W, C]: the height in the place of heads
        attended = F.scaled_dot_product_attention(rows, rows, rows, scale=1.0)
        return attended.permute(0, 3, 1, 2)

    def attention_weights(self, features: Tensor) -> Tensor:
        """How much each position looks at each other of its row: [B, C, H, W] → [B, H, W, W]; rows sum to 1."""
        rows = features.permute(0, 2, 3, 1)  # [B, H, W, C]
        return torch.softmax(rows @ rows.transpose(2, 3), dim=-1)

    def attention_map(self, features: Tensor) -> Tensor:
        """How much each position is looked at by its row, on average: [B, C, H, W] → [B, H, W].

        Every row has the same sum, so the map does not say which row matters.
        """
        return self.attention_weights(features).mean(2)


class LuongScaledAttention2d(_Drawn):
    """Self-attention over all H·W positions with learned scores: Luong's "general" score, of low rank, scaled.

    The score of two positions is qᵀk / √d for learned projections q and k of the features to d channels, that is
    Luong et al.'s (2015) qᵀWk with W of rank d, scaled as in Vaswani et al. (2017). The values are the features.
    Where plain dot products mostly find a position most like itself, these can look elsewhere.

    Shape: [B, channels, H, W] → [B, channels, H, W].
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        _check_positive(channels=channels)
        rank = max(16, channels // 8)
        self.query = nn.Conv2d(channels, rank, 1, bias=False)
        self.key = nn.Conv2d(channels, rank, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Replace every position by the mean of all positions, weighted by its attention."""
        query, key, value = (
            _tokens(each).unsqueeze(1) for each in (self.query(features), self.key(features), features)
        )
        attended = F.scaled_dot_product_attention(query, key, value)  # [B, 1, H·W, C]
        return _positions(attended, features)

    def attention_weights(self, features: Tensor) -> Tensor:
        """How much each position looks at each other: [B, C, H, W] → [B, H·W, H·W]; each row sums to 1."""
        query, key = _tokens(self.query(features)), _tokens(self.key(features))
        return torch.softmax(query @ key.transpose(1, 2) / query.shape[-1] ** 0.5, dim=-1)

    def attention_map(self, features: Tensor) -> Tensor:
        """How much each position is looked at, on average over those that look: [B, C, H, W] → [B, H, W]."""
        query, key = _tokens(self.query(features)), _tokens(self.key(features))
        return _looked_at(query, key, query.shape[-1] ** -0.5, features)


class MultiHeadAttention2d(_Drawn):
    """Multi-head self-attention over all H·W positions, with learned relative positions.

    Queries, keys and values are projections of the features, the heads' outputs are projected once more (Vaswani
    et al. 2017). To a score comes the query's product with a learned vector for the offset in height, and one for
    that in width (Bello et al. 2019, section 3.1), offsets beyond `reach` being clipped (Shaw et al. 2018,
    section 3.2), so that maps of any size are taken.

    Shape: [B, channels, H, W] → [B, value_channels, H, W].

    Args:
        key_channels, value_channels: over all heads; None: `channels`.
        num_heads: None: one for every 32 channels of the keys, and one at least.
        reach: positions that are told apart on either side.

    Raises:
        ValueError: for fewer than one of them, and for heads that do not divide the channels.
    """

    def __init__(
        self,
        channels: int,
        *,
        key_channels: int | None = None,
        value_channels: int | None = None,
        num_heads: int | None = None,
        reach: int = 15,
    ) -> None:
        super().__init__()
        keys = channels if key_channels is None else key_channels
        values = channels if value_channels is None else value_channels
        _check_positive(channels=channels, key_channels=keys, value_channels=values, reach=reach)
        if num_heads is None:
            num_heads = next(n for n in range(max(1, keys // 32), 0, -1) if not (keys % n or values % n))
        _check_positive(num_heads=num_heads)
        self.num_heads = num_heads
        if keys % self.num_heads or values % self.num_heads:
            raise ValueError(
                f"num_heads={self.num_heads} must divide key_channels={keys}, value_channels={values}"
            )
        self.reach = reach
        self.query = nn.Conv2d(channels, keys, 1, bias=False)
        self.key = nn.Conv2d(channels, keys, 1, bias=False)
        self.value = nn.Conv2d(channels, values, 1, bias=False)
        self.out = nn.Conv2d(values, values, 1, bias=False)
        # The vectors of the offsets, as what they are: projections of a query.
        self.rel_height = nn.Conv2d(keys // self.num_heads, 2 * reach + 1, 1, bias=False)
        self.of_width = nn.Conv2d(keys // self.num_heads, 2 * reach + 1, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Replace every position by what its heads gather from all positions."""
        values = self.value(features)
        query, key, value = (self._heads(each) for each in (self.query(features), self.key(features), values))
        bias = self._relative(query, *features.shape[2:])
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)  # [B, heads, H·W, d]
        # Copied: an exporter may assume other strides for `attended` than the fused kernel gives it.
        joined = attended.transpose(1, 2).clone(memory_format=torch.contiguous_format).flatten(2)
        output: Tensor = self.out(_positions(joined, values))
        return output

    def attention_weights(self, features: Tensor) -> Tensor:
        """How much each position looks at each other, in each head: [B, C, H, W] → [B, heads, H·W, H·W]."""
        query, key = self._heads(self.query(features)), self._heads(self.key(features))
        scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
        return torch.softmax(scores + self._relative(query, *features.shape[2:]), dim=-1)

    def attention_map(self, features: Tensor) -> Tensor:
        """How much each position is looked at, on average over heads and those that look: → [B, H, W]."""
        looked_at = self.attention_weights(features).mean((1, 2))  # [B, H·W]
        return looked_at.view(len(features), *features.shape[2:])

    def _heads(self, features: Tensor) -> Tensor:
        """[B, heads·d, H, W] → [B, heads, H·W, d]."""
        tokens = _tokens(features)
        width = tokens.shape[2] // self.num_heads
        return tokens.reshape(*tokens.shape[:2], self.num_heads, width).transpose(1, 2)

    def _relative(self, query: Tensor, height: int, width: int) -> Tensor:
        """The part of the scores that depends on positions: [B, heads, H·W, d] → [B, heads, H·W, H·W]."""
        grid = (
            query.reshape(*query.shape[:2], height, width, query.shape[-1]) / query.shape[-1] ** 0.5
        )  # [B, heads, H, W, d]
        by_height = torch.einsum("nhijd,iyd->nhijy", grid, self._between(self.rel_height, height))
        by_width = torch.einsum("nhijd,jxd->nhijx", grid, self._between(self.of_width, width))
        return (by_height.unsqueeze(-1) + by_width.unsqueeze(-2)).flatten(4).flatten(2, 3)

    def _between(self, offsets: nn.Conv2d, side: int) -> Tensor:
        """The vectors of the offsets from each place of a side to each: [side, side, d]."""
        places = torch.arange(side, device=offsets.weight.device)
        apart = (places[None, :] - places[:, None]).clamp(-self.reach, self.reach)
        between: Tensor = offsets.weight.flatten(1)[apart + self.reach]
        return between


class AugmentedConv2d(_Drawn):
    """Attention-augmented convolution: some channels by a 3×3 convolution, the others by multi-head attention.

    Bello et al. 2019 ("Attention augmented convolutional networks"), equation 5, with relative positions; κ = υ,
    a fifth, rounded to whole heads. Theirs takes the place of a convolution and is normalised after it, with 20
    channels of keys a head at least; here it comes after a stage, as all kinds do: its convolution is one more.

    Shape: [B, channels, H, W] → [B, channels, H, W].
    """

    def __init__(self, channels: int, *, share: float = 0.2) -> None:
        super().__init__()
        _check_positive(channels=channels)
        if not 0 < share < 1:
            raise ValueError(f"share={share}: give a share of the channels between 0 and 1")
        num_heads = 4 if channels >= 32 else 1
        attended = max(1, round(share * channels / num_heads)) * num_heads
        if attended >= channels:
            raise ValueError(f"channels={channels}: attention takes {attended} of them; use more")
        self.conv = nn.Conv2d(channels, channels - attended, 3, padding=1, bias=False)
        self.attention = MultiHeadAttention2d(
            channels, key_channels=attended, value_channels=attended, num_heads=num_heads
        )

    def forward(self, features: Tensor) -> Tensor:
        """The convolved channels, then the attended ones."""
        return torch.cat([self.conv(features), self.attention(features)], dim=1)

    def attention_map(self, features: Tensor) -> Tensor:
        """How much the attended channels look at each position: [B, C, H, W] → [B, H, W]."""
        attended: Tensor = self.attention.attention_map(features)
        return attended


class _ChannelWeights(_Drawn):
    """Scales each channel by the weight, 0…1, that `attention_weights` gives it.

    Shape: [B, channels, H, W] → [B, channels, H, W].
    """

    def forward(self, features: Tensor) -> Tensor:
        """Scale each channel by its weight."""
        return features * self.attention_weights(features)

    def attention_weights(self, features: Tensor) -> Tensor:
        """The weight of each channel: [B, C, H, W] → [B, C, 1, 1]."""
        raise NotImplementedError

    def attention_map(self, features: Tensor) -> Tensor:
        """The mean of the features' magnitudes over channels, by their weights: [B, C, H, W] → [B, H, W]."""
        weights = self.attention_weights(features)
        return (weights * features.abs()).sum(1) / weights.sum(1)


class SqueezeExcitation2d(_ChannelWeights):
    """Weighs channels by a small network over their means.

    Hu et al. 2018 ("Squeeze-and-excitation networks"), equations 2 to 4, with their reduction of 16; here both
    layers have biases.

    Shape: [B, channels, H, W] → [B, channels, H, W].
    """

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        _check_positive(channels=channels, reduction=reduction)
        self.squeeze = nn.Conv2d(channels, max(1, channels // reduction), 1)
        self.excite = nn.Conv2d(max(1, channels // reduction), channels, 1)

    def attention_weights(self, features: Tensor) -> Tensor:
        """The weight of each channel, 0…1: [B, C, H, W] → [B, C, 1, 1]."""
        means = features.mean((2, 3), keepdim=True)  # [B, C, 1, 1]
        return torch.sigmoid(self.excite(F.relu(self.squeeze(means))))


class EfficientChannelAttention2d(_ChannelWeights):
    """Weighs channels by a convolution along their means: each looks at its neighbours alone.

    Wang et al. 2020 ("ECA-Net"), equation 5; the kernel's length is that of their equation 12 (γ = 2, b = 1).

    Shape: [B, channels, H, W] → [B, channels, H, W].
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        _check_positive(channels=channels)
        length = int((math.log2(channels) + 1) / 2) | 1  # the next odd number
        self.conv = nn.Conv2d(1, 1, (1, length), padding=(0, length // 2), bias=False)

    def attention_weights(self, features: Tensor) -> Tensor:
        """The weight of each channel, 0…1: [B, C, H, W] → [B, C, 1, 1]."""
        means = features.mean((2, 3))[:, None, None]  # [B, 1, 1, C]
        return torch.sigmoid(self.conv(means)).view(*features.shape[:2], 1, 1)


class ConvBlockAttention2d(_Drawn):
    """CBAM: weighs channels by their means and maxima, then positions by those over channels.

    Woo et al. 2018 ("CBAM: Convolutional block attention module"), equations 2 and 3: reduction 16, a 7×7 kernel;
    the perceptron over channels has biases.

    Shape: [B, channels, H, W] → [B, channels, H, W].
    """

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        _check_positive(channels=channels, reduction=reduction)
        self.squeeze = nn.Conv2d(channels, max(1, channels // reduction), 1)
        self.excite = nn.Conv2d(max(1, channels // reduction), channels, 1)
        self.spatial = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Scale each channel, then each position, by its weight, 0…1."""
        weighed = self._weighed(features)
        return weighed * self._mask(weighed)

    def attention_map(self, features: Tensor) -> Tensor:
        """The weight of each position, 0…1: [B, C, H, W] → [B, H, W]."""
        return self._mask(self._weighed(features))[:, 0]

    def _weighed(self, features: Tensor) -> Tensor:
        """The features, each channel scaled by its weight: [B, C, H, W]."""
        both = features.mean((2, 3), keepdim=True), features.amax((2, 3), keepdim=True)  # [B, C, 1, 1]
        return features * torch.sigmoid(sum(self.excite(F.relu(self.squeeze(each))) for each in both))

    def _mask(self, weighed: Tensor) -> Tensor:
        """The weights of the positions: [B, C, H, W] → [B, 1, H, W]."""
        over = torch.cat([weighed.mean(1, keepdim=True), weighed.amax(1, keepdim=True)], dim=1)  # [B, 2, H, W]
        return torch.sigmoid(self.spatial(over))


class ResidualMask2d(_Drawn):
    """Weighs every value by one plus a mask, 0…1, that sees the map at half its size.

    Wang et al. 2017 ("Residual attention network for image classification"), equation 3 and figure 2 with one
    step down and up, and a convolution in place of residual units; the trunk is the stage before it. As the sides
    are halved and rounded up, `torch.export` takes it for one size of the map alone.

    Shape: [B, channels, H, W] → [B, channels, H, W].
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        _check_positive(channels=channels)
        self.below = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.norm.weight.requires_grad_(False)  # the mask's own weights scale as well
        self.mask = nn.Conv2d(channels, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Strengthen what the mask is open for."""
        return features * (1 + self.attention_weights(features))

    def attention_map(self, features: Tensor) -> Tensor:
        """The mask's mean over channels, 0…1: [B, C, H, W] → [B, H, W]."""
        return self.attention_weights(features).mean(1)

    def attention_weights(self, features: Tensor) -> Tensor:
        """The mask, 0…1: [B, C, H, W] → [B, C, H, W]."""
        below = F.relu(self.norm(self.below(F.max_pool2d(features, 2, ceil_mode=True))))
        risen = F.interpolate(below, features.shape[2:], mode="bilinear", align_corners=False)
        return torch.sigmoid(self.mask(risen))


def _check_positive(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name}={number}: give 1 or more")


def _tokens(features: Tensor) -> Tensor:
    """[B, C, H, W] → [B, H·W, C], without a copy where the memory is channels_last."""
    return features.permute(0, 2, 3, 1).flatten(1, 2)


def _positions(tokens: Tensor, like: Tensor) -> Tensor:
    """[…, H·W, C] → `like`'s [B, C, H, W], in channels_last memory."""
    batch, channels, height, width = like.shape
    return tokens.reshape(batch, height, width, channels).permute(0, 3, 1, 2)


def _looked_at(query: Tensor, key: Tensor, scale: float, like: Tensor) -> Tensor:
    """The mean over queries of their attention, of queries and keys [B, H·W, d]: → [B, H, W] of `like`.

    A thousand queries at a time: the weights of all pairs of positions of a large map take gigabytes.
    """
    total = sum(
        torch.softmax(scale * some @ key.transpose(1, 2), dim=-1).sum(1) for some in query.split(1024, dim=1)
    )
    return (cast("Tensor", total) / query.shape[1]).view(len(like), *like.shape[2:])


class GatedResidual(nn.Module):
    """Adds what `attention` gives to its input, times a learned gate that begins at zero.

    A network so begins as the one without attention, and a gate that stays at zero says that it still is
    (ReZero, Bachlechner et al. 2020, arXiv 2003.04887).

    Shape: as `attention`'s, which must keep its input's shape.
    """

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        """Add the attention, as far as the gate is open."""
        output: Tensor = features + self.gate * self.attention(features)
        return output
