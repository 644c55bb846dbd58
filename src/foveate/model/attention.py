"""Attention over the positions of a feature map: one class per kind, usable in anyone's network."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveate.config import AttentionKind

__all__ = ["ATTENTION", "GatedResidual", "LuongAttention2d", "LuongRowAttention2d", "LuongScaledAttention2d"]


class LuongAttention2d(nn.Module):
    """Dot-product self-attention over all H·W positions of a feature map, without parameters.

    query = key = value = the features themselves: scores are plain dot products, neither scaled nor projected,
    a softmax over positions weighs the values, and nothing is added back (Luong et al. 2015, "dot" score).

    Shape: [B, C, H, W] → [B, C, H, W].
    """

    def forward(self, features: Tensor) -> Tensor:
        """Replace every position by the mean of all positions, weighted by its attention."""
        tokens = _tokens(features).unsqueeze(1)  # [B, 1, H·W, C]: one head
        return _positions(F.scaled_dot_product_attention(tokens, tokens, tokens, scale=1.0), features)

    def attention_weights(self, features: Tensor) -> Tensor:
        """How much each position looks at each other: [B, C, H, W] → [B, H·W, H·W]; each row sums to 1."""
        tokens = _tokens(features)
        return torch.softmax(tokens @ tokens.transpose(1, 2), dim=-1)


class LuongRowAttention2d(nn.Module):
    """The paper's attention: as `LuongAttention2d`, but each position attends only within its own row.

    That is what Keras' `Attention` layer does with a (batch, height, width, channels) tensor: it attends
    over the last axis but one, the width, and treats the height as a batch axis.

    Shape: [B, C, H, W] → [B, C, H, W].
    """

    def forward(self, features: Tensor) -> Tensor:
        """Replace every position by the mean of its row, weighted by its attention."""
        rows = features.permute(0, 2, 3, 1)  # [B, H, W, C]: the height in the place of heads
        attended = F.scaled_dot_product_attention(rows, rows, rows, scale=1.0)
        return attended.permute(0, 3, 1, 2)

    def attention_weights(self, features: Tensor) -> Tensor:
        """How much each position looks at each other of its row: [B, C, H, W] → [B, H, W, W]; rows sum to 1."""
        rows = features.permute(0, 2, 3, 1)  # [B, H, W, C]
        return torch.softmax(rows @ rows.transpose(2, 3), dim=-1)


class LuongScaledAttention2d(nn.Module):
    """Self-attention over all H·W positions with learned scores: Luong's "general" score, of low rank, scaled.

    The score of two positions is qᵀk / √d for learned projections q and k of the features to d channels, that is
    Luong et al.'s (2015) qᵀWk with W of rank d, scaled as in Vaswani et al. (2017). The values are the features.
    Where plain dot products mostly find a position most like itself, these can look elsewhere.

    Shape: [B, channels, H, W] → [B, channels, H, W].
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        rank = max(16, channels // 8)
        self.query = nn.Conv2d(channels, rank, 1, bias=False)
        self.key = nn.Conv2d(channels, rank, 1, bias=False)

    def init_weights(self, generator: torch.Generator) -> None:
        """Draw PyTorch's default initial weights."""
        for projection in (self.query, self.key):
            nn.init.kaiming_uniform_(projection.weight, a=5**0.5, generator=generator)

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


def _tokens(features: Tensor) -> Tensor:
    """[B, C, H, W] → [B, H·W, C], without a copy where the memory is channels_last."""
    return features.permute(0, 2, 3, 1).flatten(1, 2)


def _positions(tokens: Tensor, like: Tensor) -> Tensor:
    """[…, H·W, C] → `like`'s [B, C, H, W], in channels_last memory."""
    batch, channels, height, width = like.shape
    return tokens.reshape(batch, height, width, channels).permute(0, 3, 1, 2)


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


ATTENTION: Mapping[AttentionKind, Callable[[int], nn.Module]] = {
    "none": lambda _: nn.Identity(),
    "luong": lambda _: LuongAttention2d(),
    "luong_row": lambda _: LuongRowAttention2d(),
    "luong_scaled": LuongScaledAttention2d,
}
"""What makes the attention of each kind for a number of channels."""
