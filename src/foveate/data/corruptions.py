"""Common corruptions at five severities, in the manner of CIFAR-10-C (Hendrycks and Dietterich 2019, 1903.12261).

Kinds are of that paper's set, without glass blur and frost; severities are its own for images of 32 px, but of
snow, elastic and defocus blur. Lengths in pixels grow with the side. They are drawn anew here, by another program,
so that figures are not comparable with published ones to the last point. Images are [B, 3, H, W]; a corruption
takes and gives the scale 0…1, `corrupt` takes and gives uint8.
"""

import io
import math
import zlib
from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

SEVERITIES = 5
_SIDE = 32
"""Of the images that the lengths here are for."""
_GREY = (0.299, 0.587, 0.114)
"""Luma of ITU-R BT.601."""

Corruption = Callable[[Tensor, int, torch.Generator], Tensor]


def corrupt(images: Tensor, kind: str, severity: int, generator: torch.Generator) -> Tensor:
    """Images [B, 3, H, W] uint8 as such a corruption makes them; severity 1…5."""
    with torch.autocast("cpu", enabled=False):  # the same in any precision of the network's
        changed = CORRUPTIONS[kind](images.float() / 255, severity - 1, generator)
    return (changed.clamp(0, 1) * 255).round().to(torch.uint8)


class Corrupted(nn.Module):
    """A network that sees its images corrupted; the same ones each time that they come in the same batches.

    Shape: as the network's: [B, 3, H, W] uint8 → [B, K].
    """

    def __init__(self, network: nn.Module, kind: str, severity: int) -> None:
        super().__init__()
        self.network, self.kind, self.severity = network, kind, severity
        self.training = network.training
        self._generator = torch.Generator().manual_seed(zlib.crc32(f"{kind} {severity}".encode()))

    def forward(self, images: Tensor) -> Tensor:
        """Corrupt, then classify."""
        changed = corrupt(images.cpu(), self.kind, self.severity, self._generator)
        return self.network(changed.to(images.device))  # type: ignore[no-any-return]


def gaussian_noise(images: Tensor, level: int, generator: torch.Generator) -> Tensor:
    """Of a sensor in the dark."""
    return images + (0.04, 0.06, 0.08, 0.09, 0.10)[level] * torch.randn(images.shape, generator=generator)


def shot_noise(images: Tensor, level: int, generator: torch.Generator) -> Tensor:
    """Of light that comes in quanta: the number of them for white falls with the severity."""
    photons = (500, 250, 100, 75, 50)[level]
    return torch.poisson(images * photons, generator=generator) / photons


def impulse_noise(images: Tensor, level: int, generator: torch.Generator) -> Tensor:
    """Values that became black or white."""
    draws = torch.rand(images.shape, generator=generator)
    share = (0.01, 0.02, 0.03, 0.05, 0.07)[level]
    return torch.where(draws < share / 2, 0.0, torch.where(draws < share, 1.0, images))


def defocus_blur(images: Tensor, level: int, generator: torch.Generator) -> Tensor:  # noqa: ARG001
    """A disc, softened at its edge."""
    # The published discs of 1 and 1.5 pixels are drawn by whole pixels and come out wider, as these are; and less
    # than their lengths at 32 pixels blurs nothing.
    lengths = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.35, 0.2), (1.65, 0.1))[level]
    radius, soft = (max(each, _scaled(images, each)) for each in lengths)
    reach = math.ceil(radius + 3 * soft)
    fine = torch.arange(-reach - 0.45, reach + 0.5, 0.1)  # ten samples a pixel: a small disc is still a disc
    disc = ((fine**2)[:, None] + (fine**2)[None, :] <= max(radius, 0.5) ** 2).float()
    kernel = F.avg_pool2d(disc[None, None], 10)[0, 0]
    return _smoothed(_filtered(images, kernel), soft)


def motion_blur(images: Tensor, level: int, generator: torch.Generator) -> Tensor:
    """Of a hand that moved, along a line of its own in each image."""
    length, sigma = ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5))[level]
    length, sigma = round(_scaled(images, length)), _scaled(images, sigma)
    angles = (torch.rand(len(images), generator=generator) - 0.5) * math.pi / 2
    weights = torch.exp(-0.5 * (torch.arange(length) / sigma) ** 2)
    weights = weights / weights.sum()
    moved = torch.zeros_like(images)
    for step, weight in enumerate(weights.tolist()):
        moved += weight * _moved(images, step * torch.cos(angles), step * torch.sin(angles))
    return moved


def zoom_blur(images: Tensor, level: int, generator: torch.Generator) -> Tensor:  # noqa: ARG001
    """Of a camera that came nearer: the mean over enlargements."""
    most = (0.06, 0.11, 0.16, 0.21, 0.26)[level]
    side = images.shape[-1]
    total, count = images.clone(), 1
    for step in range(1, round(most / 0.01)):
        larger = round(side * (1 + 0.01 * step))
        begin = (larger - side) // 2
        grown = F.interpolate(images, size=(larger, larger), mode="bilinear", align_corners=False)
        total += grown[..., begin : begin + side, begin : begin + side]
        count += 1
    return total / count


def fog(images: Tensor, level: int, generator: torch.Generator) -> Tensor:
    """Plasma, a fractal of its own in each image, laid over it."""
    weight, decay = ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75))[level]
    brightest = images.amax((1, 2, 3), keepdim=True)
    covered = images + weight * _plasma(len(images), images.shape[-1], decay, generator)
    return covered * brightest / (brightest + weight)


def snow(images: Tensor, level: int, generator: torch.Generator) -> Tensor:
    """Flakes that fall aslant, over an image that is paler for it."""
    share, bright = ((0.02, 0.1), (0.04, 0.15), (0.06, 0.2), (0.08, 0.25), (0.1, 0.3))[level]
    flakes = (torch.rand(len(images), 1, *images.shape[2:], generator=generator) < share).float()
    angle = torch.full((len(images),), math.radians(60))
    streaks = torch.stack([_moved(flakes, n * torch.cos(angle), n * torch.sin(angle)) for n in range(3)]).amax(0)
    pale = torch.lerp(images, _grey(images).expand_as(images) * 0.5 + 0.5, bright)
    return torch.maximum(pale, streaks)


def brightness(images: Tensor, level: int, generator: torch.Generator) -> Tensor:  # noqa: ARG001
    """More of HSV's value."""
    value = images.amax(1, keepdim=True)
    lighter = (value + (0.05, 0.1, 0.15, 0.2, 0.3)[level]).clamp(max=1)
    return torch.where(value > 0, images * lighter / value.clamp(min=1e-6), lighter)


def contrast(images: Tensor, level: int, generator: torch.Generator) -> Tensor:  # noqa: ARG001
    """Nearer to the mean of each channel."""
    return torch.lerp(images.mean((2, 3), keepdim=True), images, (0.75, 0.5, 0.4, 0.3, 0.15)[level])


def elastic(images: Tensor, level: int, generator: torch.Generator) -> Tensor:
    """Every place moved by a smooth field of its own."""
    pixels = _scaled(images, (0.5, 0.75, 1.0, 1.5, 2.0)[level])
    field = torch.rand(len(images), 2, *images.shape[2:], generator=generator) * 2 - 1
    field = _smoothed(field, _scaled(images, 2.0))
    field = pixels * field / field.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-6)
    return _moved(images, field[:, 0], field[:, 1])


def pixelate(images: Tensor, level: int, generator: torch.Generator) -> Tensor:  # noqa: ARG001
    """Made smaller, and larger again, by areas."""
    side = images.shape[-1]
    small = max(1, int(side * (0.95, 0.9, 0.85, 0.75, 0.65)[level]))
    return F.interpolate(F.interpolate(images, size=(small, small), mode="area"), size=(side, side), mode="area")


def jpeg(images: Tensor, level: int, generator: torch.Generator) -> Tensor:  # noqa: ARG001
    """Compressed, at a quality below what cameras write."""
    quality = (80, 65, 58, 50, 40)[level]
    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    read = []
    for picture in pixels:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=quality)
        read.append(np.asarray(Image.open(file)))
    return torch.from_numpy(np.stack(read)).permute(0, 3, 1, 2).float() / 255


CORRUPTIONS: Mapping[str, Corruption] = {
    "gaussian_noise": gaussian_noise,
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "defocus_blur": defocus_blur,
    "motion_blur": motion_blur,
    "zoom_blur": zoom_blur,
    "fog": fog,
    "snow": snow,
    "brightness": brightness,
    "contrast": contrast,
    "elastic": elastic,
    "pixelate": pixelate,
    "jpeg": jpeg,
}
"""Noise, blur, weather and digital, in this order."""


def _scaled(images: Tensor, pixels: float) -> float:
    """A length at 32 px, at the side of these images."""
    return pixels * images.shape[-1] / _SIDE


def _grey(images: Tensor) -> Tensor:
    return (images * torch.tensor(_GREY).view(3, 1, 1)).sum(1, keepdim=True)


def _smoothed(images: Tensor, sigma: float) -> Tensor:
    """Each channel by a Gaussian, along rows and then columns."""
    places = torch.arange(-math.ceil(3 * sigma), math.ceil(3 * sigma) + 1)
    line = torch.exp(-0.5 * (places / sigma) ** 2)
    return _filtered(_filtered(images, line[None, :]), line[:, None])


def _filtered(images: Tensor, kernel: Tensor) -> Tensor:
    """Each channel by a kernel [R, C], both odd, that is brought to sum 1; what is outside is the edge's."""
    channels, (rows, columns) = images.shape[1], kernel.shape
    kernel = (kernel / kernel.sum()).expand(channels, 1, -1, -1)
    padding = [columns // 2, columns // 2, rows // 2, rows // 2]
    return F.conv2d(F.pad(images, padding, mode="replicate"), kernel, groups=channels)


def _moved(images: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """Images sampled `right` and `down` pixels from each place ([B], or [B, H, W]); the edge is repeated."""
    height, width = images.shape[2:]
    ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    right, down = (part.view(-1, 1, 1) if part.ndim == 1 else part for part in (right, down))
    grid = torch.stack([(2 * (xs + right) + 1) / width - 1, (2 * (ys + down) + 1) / height - 1], dim=-1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _plasma(count: int, side: int, decay: float, generator: torch.Generator) -> Tensor:
    """A fractal [count, 1, side, side], 0…1: noise of ever finer grain, each `decay` times weaker."""
    total, weight, cells = torch.zeros(count, 1, side, side), 1.0, 2
    while cells <= side:
        noise = torch.rand(count, 1, cells, cells, generator=generator)
        total += weight * F.interpolate(noise, size=(side, side), mode="bilinear", align_corners=False)
        weight, cells = weight / decay, 2 * cells
    low, high = total.amin((1, 2, 3), keepdim=True), total.amax((1, 2, 3), keepdim=True)
    return (total - low) / (high - low).clamp(min=1e-6)
