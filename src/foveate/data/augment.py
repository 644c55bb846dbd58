"""Augmentation: pure functions of (images, generator), a whole batch at a time, on the images' device."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from foveate.data.families import FAMILIES, MIXES, mix_batch
from foveate.settings import AugmentConfig

UNCHANGED: Mapping[str, Any] = {
    "family": "affine",
    "flip": 0.0,
    "alternating_flip": False,
    "shift": 0.0,
    "rotation": 0.0,
    "zoom": 0.0,
    "augmentations": (),
}
"""The settings that leave images as they are."""

_RATIO = 4 / 3
"""Of the sides of a rectangle that `resized_crop` takes, at most."""

Augment = Callable[[Tensor, Tensor, Tensor, torch.Generator, torch.Generator], tuple[Tensor, Tensor]]
"""From images [B, C, H, W], labels [B], whether it is each image's turn [B] (`loader.Batch`), and two generators
on their device, of which the second draws the families in `augmentations`, to images and targets: the labels, or
where images are mixed the share of each class [B, K]."""


def as_they_are(images: Tensor, labels: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    """No augmentation, as an `Augment`: for features, which are not images."""
    return images, labels


def build_augment(config: AugmentConfig, num_classes: int) -> Augment:
    """The augmentation of `config`, whose `flip` is settled."""
    flip = config.flip or 0.0
    singles = [FAMILIES[name] for name in config.augmentations if name in FAMILIES]
    mixes = [MIXES[name] for name in config.augmentations if name in MIXES]

    def geometric(images: Tensor, turn: Tensor, generator: torch.Generator) -> Tensor:
        # Drawn whether it is used or not: runs that differ in this alone see the same other draws.
        chance = torch.rand(len(turn), generator=generator, device=turn.device)
        mirror = turn & (flip > 0) if config.alternating_flip else chance < flip
        if config.family == "crop":
            return crop_batch(images, mirror, generator, shift=round(config.shift * images.shape[-1]))
        if config.family == "resized_crop":
            return resized_crop_batch(images, mirror, generator, scale=config.crop_scale)
        return affine_batch(
            images, mirror, generator, shift=config.shift, rotation=config.rotation, zoom=config.zoom
        )

    def augment(
        images: Tensor, labels: Tensor, turn: Tensor, generator: torch.Generator, extras: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        images = geometric(images, turn, generator)
        for family in singles:
            images = family(images, extras, strength=config.strength)
        if not mixes:
            return images, labels
        images, share = mix_batch(images, mixes, extras)
        own = F.one_hot(labels, num_classes).float()
        return images, torch.lerp(own.roll(-1, 0), own, share.unsqueeze(1))

    return augment


def affine_batch(
    images: Tensor, mirror: Tensor, generator: torch.Generator, *, shift: float, rotation: float, zoom: float
) -> Tensor:
    """The paper's geometric family: each image is mirrored, shifted, rotated and zoomed by draws of its own.

    The four are one affine map and one bilinear sampling; what comes from outside repeats the nearest edge
    pixel (Keras' `fill_mode="nearest"`). The number of draws does not depend on the settings, so that runs
    that differ in one of them see the same other draws.

    Args:
        images: [B, C, H, W], uint8 or floating, on any scale.
        mirror: [B], whether to mirror each.
        generator: on the same device as `images`.
        shift: largest shift along each axis, as a share of the side.
        rotation: largest rotation either way, in degrees.
        zoom: largest change of scale either way, as a share.

    Returns:
        [B, C, H, W] float32 on the same scale, in channels_last memory.
    """
    count, _, height, width = images.shape
    signed = 2.0 * torch.rand(4, count, generator=generator, device=images.device) - 1.0
    if not (shift or rotation or zoom):
        mirrored = torch.where(mirror.view(-1, 1, 1, 1), images.flip(-1), images)
        return mirrored.float().contiguous(memory_format=torch.channels_last)
    sign = 1.0 - 2.0 * mirror
    angle = signed[0] * math.radians(rotation)
    scale = 1.0 + signed[1] * zoom
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    # From output to input in coordinates -1…1: the aspect keeps a rotation rigid where height and width differ.
    aspect = height / width
    theta = torch.stack(
        [sign * cos, -sin * aspect, 2 * shift * signed[2], sign * sin / aspect, cos, 2 * shift * signed[3]], dim=1
    )
    return _mapped(images, theta)


def crop_batch(images: Tensor, mirror: Tensor, generator: torch.Generator, *, shift: int) -> Tensor:
    """Each image is shifted by whole pixels, drawn evenly from -`shift`…`shift` along each axis, and mirrored.

    What comes from outside is the image reflected at its edge. One gather does all.

    Args:
        images: [B, C, H, W] of any type.
        mirror: [B], whether to mirror each.
        generator: on the same device as `images`.
        shift: in pixels, less than the side.

    Returns:
        [B, C, H, W] of the same type, in channels_last memory.
    """
    count, channels, height, width = images.shape
    device = images.device
    moves = torch.randint(-shift, shift + 1, (2, count, 1), generator=generator, device=device)
    rows = _reflected(torch.arange(height, device=device) + moves[0], height)  # [B, H]
    columns = _reflected(torch.arange(width, device=device) + moves[1], width)  # [B, W]
    columns = torch.where(mirror.unsqueeze(1), width - 1 - columns, columns)
    first = torch.arange(count, device=device).unsqueeze(1) * height
    pixels = (first + rows).unsqueeze(2) * width + columns.unsqueeze(1)  # [B, H, W], into all pixels of the batch
    flat = images.permute(0, 2, 3, 1).reshape(-1, channels)
    return flat[pixels.flatten()].view(count, height, width, channels).permute(0, 3, 1, 2)


def resized_crop_batch(images: Tensor, mirror: Tensor, generator: torch.Generator, *, scale: float) -> Tensor:
    """Of each image a rectangle of its own, enlarged to the whole of it by one bilinear sampling, and mirrored.

    After Szegedy et al. 2015 (1409.4842, section 6), by the ranges of torchvision's `RandomResizedCrop`. The
    rectangle's share of the area is drawn evenly from `scale`…1. The ratio of its sides, to that of the image's,
    is drawn from 3/4…4/3, its logarithm evenly; and its place evenly. Where such a rectangle does not fit into
    the image, torchvision draws again. Here the ratio is drawn from those that fit, so that every image takes as
    many draws.

    Args:
        images: [B, C, H, W], uint8 or floating, on any scale.
        mirror: [B], whether to mirror each.
        generator: on the same device as `images`.
        scale: smallest share of the area, above 0.

    Returns:
        [B, C, H, W] float32 on the same scale, in channels_last memory.
    """
    drawn = torch.rand(4, len(images), generator=generator, device=images.device)
    area = scale + (1 - scale) * drawn[0]
    ratio = torch.exp((2 * drawn[1] - 1) * (-torch.log(area)).clamp(max=math.log(_RATIO)))
    across, down = torch.sqrt(area * ratio).clamp(max=1), torch.sqrt(area / ratio).clamp(max=1)
    sign, none = 1.0 - 2.0 * mirror, torch.zeros_like(area)
    # From output to input in coordinates -1…1, in which the rectangle's centre is so far from the image's.
    right, lower = (2 * drawn[2] - 1) * (1 - across), (2 * drawn[3] - 1) * (1 - down)
    return _mapped(images, torch.stack([sign * across, none, right, none, down, lower], dim=1))


def resize_batch(images: Tensor, side: int) -> Tensor:
    """Images [B, C, H, W] made `side`×`side`, bilinearly, without aliasing; as they came where they are so.

    Returns:
        [B, C, side, side], float32 where they were resized, in channels_last memory.
    """
    if images.shape[-1] == side:
        return images
    smaller = F.interpolate(images.float(), size=(side, side), mode="bilinear", antialias=True)
    return smaller.contiguous(memory_format=torch.channels_last)


def _mapped(images: Tensor, theta: Tensor) -> Tensor:
    """Images [B, C, H, W] by the affine maps `theta` [B, 6] (from output to input), float32 in channels_last."""
    count, _, height, width = images.shape
    grid = F.affine_grid(theta.view(count, 2, 3), [count, 1, height, width], align_corners=False)  # [B, H, W, 2]
    sampled = _sampled(images.float(), grid, clamp=images.device.type == "mps")
    return sampled.contiguous(memory_format=torch.channels_last)


def _sampled(images: Tensor, grid: Tensor, *, clamp: bool) -> Tensor:
    """Images [B, C, H, W] sampled at `grid` [B, H, W, 2]; what comes from outside repeats the nearest edge pixel.

    Args:
        clamp: bring the grid itself inside, to the centres of the edge's pixels, as MPS has no border padding.
    """
    if clamp:
        height, width = images.shape[2:]
        inside = torch.tensor([1 - 1 / width, 1 - 1 / height], dtype=grid.dtype, device=grid.device)
        grid = torch.minimum(torch.maximum(grid, -inside), inside)
    padding = "zeros" if clamp else "border"
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)


def _reflected(positions: Tensor, side: int) -> Tensor:
    """Positions -side < p < 2·side - 1 brought back into 0…side - 1, the edge itself not repeated."""
    return side - 1 - (side - 1 - positions.abs()).abs()
