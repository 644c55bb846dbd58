"""Heads that pool feature maps over positions, and classify what is left by one linear layer."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn


class MeanPool(nn.Module):
    """The mean over all positions.

    Shape: [B, C, H, W] → [B, C].
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_features = channels

    def forward(self, maps: Tensor) -> Tensor:
        """The mean of each channel."""
        return maps.mean((2, 3))


class MeanMaxPool(nn.Module):
    """The mean and the maximum over all positions, side by side.

    Shape: [B, C, H, W] → [B, 2·C].
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_features = 2 * channels

    def forward(self, maps: Tensor) -> Tensor:
        """The mean of each channel, followed by the maximum of each."""
        return torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], dim=1)


class AttentionPool(nn.Module):
    """A mean over positions, weighted by how well each agrees with a learned query.

    The weights are softmax(q·x / √C) over positions, as in the attention-based pooling of Ilse, Tomczak and
    Welling (2018, arXiv 1802.04712), without its hidden layer. The query begins at zero, so that training begins
    at the plain mean and each step away from it is one that the loss asked for.

    Shape: [B, C, H, W] → [B, C].
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(channels))
        self.out_features = channels

    def forward(self, maps: Tensor) -> Tensor:
        """The weighted mean of each channel."""
        return (maps * self.attention_map(maps)[:, None]).sum((2, 3))

    def attention_map(self, maps: Tensor) -> Tensor:
        """The weights of the positions, [B, H, W]; they sum to 1."""
        scores = torch.einsum("bchw,c->bhw", maps, self.query) / self.out_features**0.5
        weights: Tensor = scores.flatten(1).softmax(dim=1).view_as(scores)
        return weights


POOLING: Mapping[str, Callable[[int], nn.Module]] = {
    "mean": MeanPool,
    "mean_max": MeanMaxPool,
    "attention_pool": AttentionPool,
}
"""From the number of channels to a pooling, by the name of the head."""


class LinearHead(nn.Module):
    """A pooling over positions and a linear classifier with a bias.

    Its weights begin at zero, as those of a convex problem may: the first logits are equal for all classes.

    Shape: [B, C, H, W] → [B, num_classes] logits.
    """

    def __init__(self, pool: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.pool = pool
        self.classifier = nn.Linear(int(pool.out_features), num_classes)  # type: ignore[arg-type]

    def draw_weights(self, generator: torch.Generator) -> None:  # noqa: ARG002
        """Begin at zero; nothing is drawn."""
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Logits of each class."""
        logits: Tensor = self.classifier(self.pool(features))
        return logits
