"""The parts a network is made of. Each part with weights draws its own, by `draw_weights`."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveate.settings import Activation

ACTIVATION: Mapping[Activation, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "gelu": nn.GELU,
    "silu": lambda: nn.SiLU(inplace=True),
}

_LEAST_VARIANCE = 0.01
"""Of whitened patches in a direction, about, which it must have to get a filter."""


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
        # On the CPU even where the network is being outlined on the meta device: arithmetic there makes torch
        # import its compiler, which takes seconds and 80 MB.
        deviation = torch.tensor([value or 1.0 for value in std], device="cpu").view(-1, 1, 1)
        self.register_buffer("scale", 1 / (255 * deviation))
        self.register_buffer("offset", torch.tensor(mean, device="cpu").view(-1, 1, 1) / deviation)

    def forward(self, images: Tensor) -> Tensor:
        """Scale and centre the pixels."""
        return images.float() * self.scale - self.offset


class WhiteningConv2d(nn.Conv2d):
    """A fixed convolution that whitens k×k patches, and gives each result with both signs.

    Whitened patches have uncorrelated entries of unit variance: the filters are the eigenvectors of the
    patches' covariance over the roots of their eigenvalues (PCA whitening). With both signs the activation
    after it loses nothing. Directions in which the patches do not vary, as the colours of grey images, have no
    filter: the others take their places in turn, as the next batch normalisation would blow up what is zero.

    A frozen whitening layer is tysam-code's idea (hlb-CIFAR10, 2023), described in Jordan, "94% on CIFAR-10 in
    3.29 Seconds on a Single GPU", arXiv 2404.00498, section 3.1.

    Shape: [B, C, H, W] → [B, 2·C·k·k, H - k + 1, W - k + 1].

    Args:
        kernel: the side k of a patch.
        epsilon: added to the eigenvalues, so that directions without variation are not blown up.
    """

    def __init__(self, in_channels: int, kernel: int, *, epsilon: float = 5e-4) -> None:
        patch = in_channels * kernel * kernel
        super().__init__(in_channels, 2 * patch, kernel, bias=False)
        self.weight.requires_grad_(False)
        self.epsilon = epsilon

    def draw_weights(self, generator: torch.Generator) -> None:  # noqa: ARG002 (nothing is drawn)
        """Give back the patches' entries, until `fit`."""
        entries = torch.eye(self.weight[0].numel()).view(-1, *self.weight.shape[1:])
        self.weight.data.copy_(torch.cat([entries, -entries]))

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> None:
        """Take the filters from the patches of images, in batches [B, C, H, W] on the network's scale."""
        size = self.weight[0].numel()
        moments, count = torch.zeros(size, size, dtype=torch.float64), 0
        for images in batches:
            patches = F.unfold(images, self.kernel_size).transpose(1, 2).flatten(0, 1).double()  # [P, C·k·k]
            moments, count = moments + patches.T @ patches, count + len(patches)
        # About zero, not about the patches' mean: the images are centred, and the layer has no bias.
        values, vectors = torch.linalg.eigh(moments / count)
        filters = (vectors / (values.clamp(min=0) + self.epsilon).sqrt()).T
        varies = values > _LEAST_VARIANCE * self.epsilon
        if varies.any():
            most_first = filters[varies].flip(0)
            places = torch.arange(int((~varies).sum()), device=values.device) % len(most_first)
            filters[~varies] = most_first[places]
        filters = filters.view(-1, *self.weight.shape[1:])
        self.weight.copy_(torch.cat([filters, -filters]))


class EvenKernelConv2d(nn.Conv2d):
    """A convolution whose kernel has an even side, and whose output the size of its input.

    Of an odd number of zeros one more is to the right and below, as with torch's `padding="same"`, which warns of
    the copy that this takes.

    Shape: [B, in_channels, H, W] → [B, out_channels, H, W].
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, dilation: int) -> None:
        super().__init__(
            in_channels, out_channels, kernel, padding=dilation * (kernel - 1) // 2, dilation=dilation
        )

    def forward(self, features: Tensor) -> Tensor:  # noqa: D102 (as nn.Conv2d)
        return super().forward(F.pad(features, (0, 1, 0, 1)))


class ConvBlock(nn.Module):
    """Convolutions with an activation, then batch normalisation, max pooling, attention, dropout (figure 3.1).

    Shape: [B, in_channels, H, W] → [B, out_channels, H // pool, W // pool].

    Args:
        kernels: side of each convolution's kernel, in order; padding keeps the size.
        dilation: positions from one entry of a kernel to the next (Yu and Koltun 2016, arXiv 1511.07122).
        pool: side and stride of the pooling; what does not fill a window is dropped (Keras' `valid`).
        norm: makes one, given the number of channels; None: no normalisation.
        activation: makes one.
        attention: what comes after the pooling.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernels: Sequence[int],
        dilation: int = 1,
        pool: int,
        norm: Callable[..., nn.BatchNorm2d] | None,
        activation: Callable[[], nn.Module],
        attention: nn.Module,
        dropout: float,
    ) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * len(kernels)
        self.convs = nn.Sequential()
        for kernel, width in zip(kernels, widths, strict=False):
            if dilation * (kernel - 1) % 2:
                self.convs.append(EvenKernelConv2d(width, out_channels, kernel, dilation=dilation))
            else:
                self.convs.append(nn.Conv2d(width, out_channels, kernel, padding="same", dilation=dilation))
            self.convs.append(activation())
        self.norm = norm(out_channels, eps=1e-3) if norm else nn.Identity()
        self.pool = nn.MaxPool2d(pool)
        self.attention = attention
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def draw_weights(self, generator: torch.Generator) -> None:
        """Draw Keras' initial weights."""
        _keras_init(self.convs, generator)

    def forward(self, features: Tensor) -> Tensor:
        """One block of the diagram."""
        output: Tensor = self.dropout(self.attention(self.pool(self.norm(self.convs(features)))))
        return output


class NormedBlock(nn.Module):
    """Convolutions, each normalised, pooled after the first; from three on with a skip over the others.

    The block of Jordan's airbench (arXiv 2404.00498, section 3): convolutions without bias that begin as the
    identity on as many channels as come in, and batch normalisation without a scale.

    Shape: [B, in_channels, H, W] → [B, out_channels, H // pool, W // pool].

    Args:
        kernels: as in `ConvBlock`; two at least.
        dilation, pool, norm, activation, attention, dropout: as in `ConvBlock`. Without `norm` the convolutions
            have biases.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernels: Sequence[int],
        dilation: int = 1,
        pool: int,
        norm: Callable[..., nn.BatchNorm2d] | None,
        activation: Callable[[], nn.Module],
        attention: nn.Module,
        dropout: float,
    ) -> None:
        super().__init__()

        def conv(width: int, kernel: int) -> nn.Conv2d:
            return nn.Conv2d(width, out_channels, kernel, padding="same", dilation=dilation, bias=norm is None)

        def normalisation() -> nn.Module:
            if norm is None:
                return nn.Identity()
            layer = norm(out_channels)
            layer.weight.requires_grad_(False)  # the next convolution's own scale makes it redundant
            return layer

        first, *others = kernels
        self.reduce = nn.Sequential(conv(in_channels, first), nn.MaxPool2d(pool), normalisation(), activation())
        self.refine = nn.Sequential()
        for position, kernel in enumerate(others):
            self.refine.extend([conv(out_channels, kernel), normalisation()])
            if position < len(others) - 1:
                self.refine.append(activation())
        self.skips = len(others) > 1
        self.activation = activation()
        self.attention = attention
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def draw_weights(self, generator: torch.Generator) -> None:
        """Draw PyTorch's default initial weights, over which comes the identity on the channels that come in."""
        for module in (*self.reduce, *self.refine):
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=5**0.5, generator=generator)
                nn.init.dirac_(module.weight.data[: module.in_channels])
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Halve the side, refine, attend."""
        reduced = self.reduce(features)
        refined = self.refine(reduced)
        if self.skips:
            refined = refined + reduced
        output: Tensor = self.dropout(self.attention(self.activation(refined)))
        return output


class AttentionStage(nn.Module):
    """Attention alone, as the stage that comes after a backbone.

    Shape: [B, C, H, W] → [B, C, H, W].
    """

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, features: Tensor) -> Tensor:
        """What the attention makes of the feature maps."""
        output: Tensor = self.attention(features)
        return output


class DenseHead(nn.Module):
    """Flatten, one hidden dense layer with an activation, dropout, and the classifier.

    Shape: [B, C, H, W] → [B, num_classes] logits.
    """

    def __init__(
        self, in_features: int, hidden: int, num_classes: int, *, activation: nn.Module, dropout: float
    ) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.dense = nn.Linear(in_features, hidden)
        self.activation = activation
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.classifier = nn.Linear(hidden, num_classes)

    def draw_weights(self, generator: torch.Generator) -> None:
        """Draw Keras' initial weights."""
        _keras_init(self, generator)

    def forward(self, features: Tensor) -> Tensor:
        """Logits of each class."""
        logits: Tensor = self.classifier(self.dropout(self.activation(self.dense(self.flatten(features)))))
        return logits


class PooledHead(nn.Module):
    """The maximum over all positions, and a classifier without bias, scaled by one over its inputs.

    It takes feature maps of any side. Scale and initial weights are those of Jordan's airbench.

    Shape: [B, C, H, W] → [B, num_classes] logits.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(in_channels, num_classes, bias=False)

    def draw_weights(self, generator: torch.Generator) -> None:
        """Draw weights of unit standard deviation."""
        weight = self.classifier.weight
        nn.init.kaiming_uniform_(weight, a=5**0.5, generator=generator)
        weight.data /= weight.data.std()

    def forward(self, features: Tensor) -> Tensor:
        """Logits of each class."""
        # The same value: torch before 2.13 has no ONNX for adaptive pooling, which trains twice as fast.
        exporting = torch.compiler.is_exporting()
        pooled = features.amax((2, 3), keepdim=True) if exporting else self.pool(features)
        logits: Tensor = self.classifier(self.flatten(pooled)) / self.classifier.in_features
        return logits


def _keras_init(module: nn.Module, generator: torch.Generator) -> None:
    """Keras' initial weights: Glorot uniform kernels and zero biases (Glorot & Bengio 2010)."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
