"""The blocks of backbones: convolutions with their normalisation, and the residual blocks made of them."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's `same` padding: a side s becomes ⌈s / stride⌉.

    What is padded depends on the input's side; where it is an odd number of rows, the last side gets one more. An
    even side with stride 2 is so padded at its end alone (kernel 3), where PyTorch's padding is symmetric.

    Shape: [B, in_channels, H, W] → [B, out_channels, ⌈H / stride⌉, ⌈W / stride⌉].
    """

    def forward(self, maps: Tensor) -> Tensor:  # noqa: D102 (as nn.Conv2d)
        (above, below), (left, right) = (self._padding(each, side) for each, side in enumerate(maps.shape[-2:]))
        if above == below and left == right:  # without a copy
            return F.conv2d(maps, self.weight, self.bias, self.stride, (above, left), self.dilation, self.groups)
        padded = F.pad(maps, (left, right, above, below))
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)

    def _padding(self, axis: int, side: int) -> tuple[int, int]:
        kernel, stride = self.kernel_size[axis], self.stride[axis]
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        return total // 2, total - total // 2


def centred_conv(in_channels: int, out_channels: int, kernel: int, **settings: int | bool) -> nn.Conv2d:
    """A convolution with as much padding on either side: PyTorch's way."""
    return nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, **settings)  # type: ignore[arg-type]


class ConvNorm(nn.Module):
    """A convolution without bias, batch normalisation, and an activation.

    Shape: [B, in_channels, H, W] → [B, out_channels, h, w], as `conv` makes it.

    Args:
        conv: makes the convolution.
        norm: makes a normalisation, given the number of channels.
        activation: makes one.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        conv: Callable[..., nn.Conv2d],
        norm: Callable[[int], nn.BatchNorm2d],
        activation: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        self.conv = conv(in_channels, out_channels, kernel, stride=stride, groups=groups, bias=False)
        self.norm: nn.Module = norm(out_channels)
        self.activation = activation()

    def draw_weights(self, generator: torch.Generator) -> None:
        """Draw initial weights by the outputs that each weight reaches (He et al. 2015, arXiv 1502.01852)."""
        fan_out = self.conv.weight[0, 0].numel() * self.conv.out_channels // self.conv.groups
        nn.init.normal_(self.conv.weight, std=(2 / fan_out) ** 0.5, generator=generator)

    def forward(self, maps: Tensor) -> Tensor:
        """Convolve, normalise, activate."""
        output: Tensor = self.activation(self.norm(self.conv(maps)))
        return output


class InvertedResidual(nn.Module):
    """Widen by 1×1, filter each channel by itself, narrow by 1×1; with a skip where the shape stays.

    MobileNetV2's block (Sandler et al. 2018, arXiv 1801.04381), of which EfficientNet is made (Tan & Le 2019,
    arXiv 1905.11946); the lite family has no squeeze and excitation.

    Shape: [B, in_channels, H, W] → [B, out_channels, ⌈H / stride⌉, ⌈W / stride⌉].

    Args:
        expansion: how many times as many channels the filters see; 1: the first 1×1 is left out.
        layer: makes a `ConvNorm`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int,
        stride: int,
        expansion: int,
        layer: Callable[..., ConvNorm],
    ) -> None:
        super().__init__()
        wide = in_channels * expansion
        self.expand = layer(in_channels, wide, 1) if expansion > 1 else nn.Identity()
        self.depthwise = layer(wide, wide, kernel, stride=stride, groups=wide)
        self.project = layer(wide, out_channels, 1, activation=nn.Identity)
        self.skips = stride == 1 and in_channels == out_channels

    def forward(self, maps: Tensor) -> Tensor:
        """One block."""
        output: Tensor = self.project(self.depthwise(self.expand(maps)))
        return output + maps if self.skips else output


class BasicBlock(nn.Module):
    """Two 3×3 convolutions, and a skip over both: by 1×1 where the shape changes.

    Of ResNet-18 and -34 (He et al. 2016, arXiv 1512.03385).

    Shape: [B, in_channels, H, W] → [B, out_channels, ⌈H / stride⌉, ⌈W / stride⌉].

    Args:
        layer: makes a `ConvNorm`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int, layer: Callable[..., ConvNorm]
    ) -> None:
        super().__init__()
        self.first = layer(in_channels, out_channels, 3, stride=stride)
        self.second = layer(out_channels, out_channels, 3, activation=nn.Identity)
        same = stride == 1 and in_channels == out_channels
        self.shortcut = (
            nn.Identity() if same else layer(in_channels, out_channels, 1, stride=stride, activation=nn.Identity)
        )
        self.activation = nn.ReLU(inplace=True)

    def forward(self, maps: Tensor) -> Tensor:
        """One block."""
        output: Tensor = self.activation(self.second(self.first(maps)) + self.shortcut(maps))
        return output
