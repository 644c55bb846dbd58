"""Attention over the positions of a feature map: one class per kind, usable in anyone's network."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveate.config import AttentionKind

__all__ = ["ATTENTION", "LuongAttention2d", "LuongRowAttention2d"]


class LuongAttention2d(nn.Module):
    """Dot-product self-attention over all H·W positions of a feature map, without parameters.

    query = key = value = the features themselves: scores are plain dot products, neither scaled nor projected,
    a softmax over positions weighs the values, and nothing is added back (Luong et al. 2015, "dot" score).

    Shape: [B, C, H, W] → [B, C, H, W].
    """

    def forward(self, features: Tensor) -> Tensor:
        """Replace every position by the mean of all positions, weighted by its attention."""
        tokens = features.flatten(2).transpose(1, 2).unsqueeze(1)  # [B, 1, H·W, C]: one head
        attended = F.scaled_dot_product_attention(tokens, tokens, tokens, scale=1.0)
        return attended.squeeze(1).transpose(1, 2).reshape(features.shape)

    def attention_weights(self, features: Tensor) -> Tensor:
        """How much each position looks at each other: [B, C, H, W] → [B, H·W, H·W]; each row sums to 1."""
        tokens = features.flatten(2).transpose(1, 2)  # [B, H·W, C]
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


ATTENTION: Mapping[AttentionKind, Callable[[], nn.Module]] = {
    "none": nn.Identity,
    "luong": LuongAttention2d,
    "luong_row": LuongRowAttention2d,
}
