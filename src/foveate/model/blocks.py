"""The parts a network is made of."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["ConvBlock", "DenseHead", "Normalize", "keras_init"]


class Normalize(nn.Module):
    """Pixels 0…255 to the network's scale: (pixel / 255 - mean) / std per channel.

    Shape: [B, C, H, W], uint8 or floating → [B, C, H, W] float32.

    Args:
        mean: per channel, on the scale 0…1.
        std: per channel, on the scale 0…1; a channel without variation may have 0, which counts as 1.
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        deviation = torch.tensor([value or 1.0 for value in std]).view(-1, 1, 1)
        self.register_buffer("scale", 1 / (255 * deviation))
        self.register_buffer("offset", torch.tensor(mean).view(-1, 1, 1) / deviation)

    def forward(self, images: Tensor) -> Tensor:
        """Scale and centre the pixels."""
        return images.float() * self.scale - self.offset


class ConvBlock(nn.Module):
    """Convolutions with ReLU, then batch normalisation, max pooling, attention and dropout (figure 3.1).

    Shape: [B, in_channels, H, W] → [B, out_channels, H // pool, W // pool].

    Args:
        kernels: side of each convolution's kernel, in order; padding keeps the size.
        pool: side and stride of the pooling; what does not fill a window is dropped (Keras' `valid`).
        norm_momentum: share of each batch in the running statistics; Keras' momentum .99 is 0.01 here.
        attention: what comes after the pooling.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernels: Sequence[int],
        pool: int,
        norm_momentum: float,
        attention: nn.Module,
        dropout: float,
    ) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * len(kernels)
        self.convs = nn.Sequential()
        for kernel, width in zip(kernels, widths, strict=False):
            self.convs.append(nn.Conv2d(width, out_channels, kernel, padding="same"))
            self.convs.append(nn.ReLU(inplace=True))
        self.norm = nn.BatchNorm2d(out_channels, eps=1e-3, momentum=norm_momentum)
        self.pool = nn.MaxPool2d(pool)
        self.attention = attention
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """One block of the diagram."""
        output: Tensor = self.dropout(self.attention(self.pool(self.norm(self.convs(features)))))
        return output


class DenseHead(nn.Module):
    """Flatten, one hidden dense layer with ReLU, dropout, and the classifier.

    Shape: [B, C, H, W] → [B, num_classes] logits.
    """

    def __init__(self, in_features: int, hidden: int, num_classes: int, *, dropout: float) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.dense = nn.Linear(in_features, hidden)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.classifier = nn.Linear(hidden, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Logits of each class."""
        logits: Tensor = self.classifier(self.dropout(self.relu(self.dense(self.flatten(features)))))
        return logits


def keras_init(network: nn.Module, generator: torch.Generator) -> None:
    """Keras' initial weights: Glorot uniform kernels and zero biases (Glorot & Bengio 2010)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
