"""How far a network sees: the receptive field of its convolutions in theory, and the reach of its attention."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from foveate.model.attention import GatedResidual
from foveate.model.heads import AttentionPool
from foveate.model.network import AttentionCNN

_MOST_POSITIONS = 16
"""Largest side of a map on which the reach of attention is found out: on one of 200 its weights take gigabytes."""


@dataclass(frozen=True)
class Sight:
    """How far a network sees. Sides of squares in pixels of the input, which may be larger than the image."""

    size: int
    """Side of the images."""
    convolutions: int
    """What a position of the last feature maps sees by convolutions and poolings, attention left out."""
    before_attention: int | None = None
    """What a position of the attention's input sees; None: the network has no attention."""
    reach: tuple[int, int] | None = None
    """Height and width from which attention brings something to a position, the convolutions before it included,
    at most the image; None: the network has no attention, or its reach cannot be determined."""

    @property
    def words(self) -> str:
        """A sentence on attention and convolutions."""
        if self.before_attention is None or self.reach is None:
            return f"The convolutions see {self._told(self.convolutions)}."
        height, width = self.reach
        reach = (
            self._told(height)
            if height == width
            else f"{self._told(width)} along the width and {self._told(height)} along the height"
        )
        all_of_them = (
            f", and all convolutions together {self._told(self.convolutions)}"
            if self.convolutions > self.before_attention and self.before_attention < self.size
            else ""
        )
        before = self._told(self.before_attention)
        return f"Attention can reach {reach}; the convolutions before it see {before}{all_of_them}."

    def _told(self, pixels: int) -> str:
        return f"{pixels} px" if pixels < self.size else f"all {self.size} px"


def receptive_field(layers: Iterable[nn.Module]) -> tuple[int, int]:
    """The side in pixels that one output of a chain of layers depends on, and the pixels from one to the next.

    Each convolution or pooling of kernel k, dilation d and stride s adds (k - 1) · d · j to the side, and makes
    the distance j of neighbours s times as large (Araujo, Norris and Sim 2019, "Computing receptive fields of
    convolutional neural networks"). Where sides differ by axis, the larger one counts.
    """
    side, jump = 1, 1
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            kernel, stride, dilation = (
                max(value) if isinstance(value, tuple) else int(value)
                for value in (layer.kernel_size, layer.stride, layer.dilation)
            )
            side += (kernel - 1) * dilation * jump
            jump *= stride
    return side, jump


def sight(network: AttentionCNN, size: int) -> Sight:
    """How far `network` sees in `size`×`size` images, whatever its weights are."""
    layers = list(_chain(network.stem))
    before: list[nn.Module] | None = None
    attention: nn.Module = nn.Identity()
    for stage in network.stages:
        layers += _chain(stage)
        if not isinstance(stage.attention, nn.Identity):
            attention, before = cast("nn.Module", stage.attention), list(layers)
    convolutions, _ = receptive_field(layers)
    if before is None:
        pooled = isinstance(network.attention, AttentionPool)  # which weighs all positions
        return Sight(size, convolutions, convolutions, (size, size)) if pooled else Sight(size, convolutions)
    seen, jump = receptive_field(before)
    if isinstance(attention, GatedResidual):  # whose gate may be closed
        attention = attention.attention
    channels, side = _given(network, attention, size)
    positions = max(2, min(_MOST_POSITIONS, side))
    spans = _spans(attention, channels, positions)
    if spans is None:
        return Sight(size, convolutions, seen)
    height, width = (size if span == positions else min(size, (span - 1) * jump + seen) for span in spans)
    return Sight(size, convolutions, seen, (height, width))


def _chain(part: nn.Module) -> Iterator[nn.Module]:
    """The layers of the longest way through a part: without its attention, and without shortcuts."""
    for name, child in part.named_children():
        if name not in ("attention", "shortcut"):
            yield child
            yield from _chain(child)


def _given(network: AttentionCNN, attention: nn.Module, size: int) -> tuple[int, int]:
    """Channels and side of the maps that the attention gets of a `size`×`size` image."""
    shapes: list[tuple[int, ...]] = []
    handle = attention.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    device, was_training = next(network.parameters()).device, network.training
    try:
        with torch.no_grad():
            network.eval().features(torch.zeros(1, 3, size, size, dtype=torch.uint8, device=device))
    finally:
        network.train(was_training)
        handle.remove()
    return shapes[0][1], shapes[0][-1]


def _spans(attention: nn.Module, channels: int, side: int) -> tuple[int, int] | None:
    """From how many positions along height and width the centre of a map of that side gets something.

    It is asked by a gradient, so that it holds for a class of anyone's.
    """
    parameter = next(attention.parameters(), torch.zeros(()))
    generator = torch.Generator().manual_seed(0)
    # Several maps of different means, so that no rectifier is closed for all of them; and of small differences, so
    # that no weight of a softmax is so small that it counts as zero.
    means = torch.randn(16, channels, 1, 1, generator=generator)
    drawn = means + torch.randn(16, channels, side, side, generator=generator) / 10
    maps = drawn.to(parameter.device).requires_grad_()
    was_training = attention.training
    try:
        with torch.enable_grad():
            centre = attention.eval()(maps)[:, :, side // 2, side // 2].sum()
            (gradient,) = torch.autograd.grad(centre, maps)
    except Exception:  # a class of anyone's may have no gradient, or refuse maps of another side by any error
        return None
    finally:
        attention.train(was_training)
    seen = gradient.abs().sum((0, 1)) > 0  # [side, side]
    rows, columns = (torch.nonzero(seen.any(axis)).flatten() for axis in (1, 0))
    if not len(rows):
        return None
    return int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1
