"""Augmentation: pure functions of (images, generator), a whole batch at a time, on the images' device."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["geometric_batch"]


def geometric_batch(
    images: Tensor, generator: torch.Generator, *, flip: float, shift: float, rotation: float, zoom: float
) -> Tensor:
    """The paper's geometric family: each image is mirrored, shifted, rotated and zoomed by draws of its own.

    The four are one affine map and one bilinear sampling; what comes from outside repeats the nearest edge
    pixel (Keras' `fill_mode="nearest"`). The number of draws does not depend on the settings, so that runs
    that differ in one of them see the same other draws.

    Args:
        images: [B, C, H, W], uint8 or floating, on any scale.
        generator: on the same device as `images`.
        flip: chance of a horizontal mirror image.
        shift: largest shift along each axis, as a share of the side.
        rotation: largest rotation either way, in degrees.
        zoom: largest change of scale either way, as a share.

    Returns:
        [B, C, H, W] float32 on the same scale, in channels_last memory.
    """
    count, _, height, width = images.shape
    draws = torch.rand(5, count, generator=generator, device=images.device)
    if not (flip or shift or rotation or zoom):
        return images.float().contiguous(memory_format=torch.channels_last)
    mirror = 1.0 - 2.0 * (draws[0] < flip)
    signed = 2.0 * draws[1:] - 1.0
    angle = signed[0] * math.radians(rotation)
    scale = 1.0 + signed[1] * zoom
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    # From output to input in coordinates -1…1: the aspect keeps a rotation rigid where height and width differ.
    aspect = height / width
    theta = torch.stack(
        [
            mirror * cos,
            -sin * aspect,
            2 * shift * signed[2],
            mirror * sin / aspect,
            cos,
            2 * shift * signed[3],
        ],
        dim=1,
    ).view(count, 2, 3)
    grid = F.affine_grid(theta, [count, 1, height, width], align_corners=False)  # [B, H, W, 2]
    sampled = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return sampled.contiguous(memory_format=torch.channels_last)
