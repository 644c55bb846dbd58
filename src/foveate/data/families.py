"""Families of augmentation beside the geometric one: pure functions of (images, generator), each image for itself.

They are those that Shorten & Khoshgoftaar's survey (Journal of Big Data 6, 2019) tells apart: kernel filters,
colour, information deleted, images mixed. Images are [B, 3, H, W] on the scale 0…255, and stay on it. A `strength`
is 0…1.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from foveate.settings import ExtraFamily

_GREY = (0.299, 0.587, 0.114)
"""Luma of ITU-R BT.601."""
_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
_RAND_FAMILIES = 2
"""Of RandAugment: how many an image gets (N of Cubuk et al. 2020)."""

Mixed = tuple[Tensor, Tensor]
"""Images [B, 3, H, W], and the share [B] that each keeps of itself: the rest is of the next image of the batch."""


def filter_batch(images: Tensor, generator: torch.Generator, *, strength: float) -> Tensor:
    """Kernel filters: each image is blurred or sharpened by its own amount.

    Between the image and its blur by the binomial kernel (1 2 1)/4 along both axes; beyond the image it is an
    unsharp mask. At full strength from the whole blur to twice its opposite.
    """
    padded = F.pad(images.float(), (1, 1, 1, 1), mode="replicate")
    across = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    blurred = (across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]) / 16
    amount = strength * (3 * _rand(images, generator) - 2)
    return torch.lerp(images.float(), blurred, amount.view(-1, 1, 1, 1)).clamp(0, 255)


def colour_batch(images: Tensor, generator: torch.Generator, *, strength: float) -> Tensor:
    """Brightness, contrast, saturation and hue of each image by draws of its own: one affine map of its colours.

    At full strength: factors of 0.2 to 1.8, and a hue turned by up to 90° either way, in YIQ.
    """
    draws = strength * (2 * torch.rand(4, len(images), generator=generator, device=images.device) - 1)
    brightness, contrast, saturation = (1 + 0.8 * draws[:3]).view(3, -1, 1, 1).unbind()
    angle = draws[3] * math.pi / 2
    to_yiq = torch.tensor(_TO_YIQ, device=images.device)
    grey = torch.tensor(_GREY, device=images.device).expand(3, 3)
    same = torch.eye(3, device=images.device)
    cos, sin, zero, one = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle), torch.ones_like(angle)
    turn = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], dim=1).view(-1, 3, 3)
    colours = (
        brightness
        * contrast
        * (torch.linalg.inv(to_yiq) @ turn @ to_yiq)
        @ torch.lerp(grey.expand(len(images), 3, 3), same.expand(len(images), 3, 3), saturation)
    )
    pixels = images.float().flatten(2)  # [B, 3, H·W]
    mean = (grey[:1] @ pixels).mean((1, 2), keepdim=True)
    offset = (brightness * (1 - contrast)) * mean
    return torch.baddbmm(offset.expand(-1, 3, 1), colours, pixels).view(images.shape).clamp(0, 255)


def erase_batch(images: Tensor, generator: torch.Generator, *, strength: float) -> Tensor:
    """Random erasing: in half of the images a rectangle, up to 40 % of it at full strength, becomes noise.

    Zhong et al. 2020 (arXiv 1708.04896), algorithm 1, aspect ratios of 0.3 to 3.3; a rectangle may lie across the
    edge.
    """
    height, width = images.shape[2:]
    draws = torch.rand(5, len(images), generator=generator, device=images.device)
    area = 0.4 * strength * draws[0] * height * width * (draws[1] < 0.5)
    aspect = torch.exp((2 * draws[2] - 1) * math.log(3.3))
    noise = 255 * torch.rand(images.shape, generator=generator, device=images.device)
    rows = _between(height, draws[3] * height, (area * aspect).sqrt())
    columns = _between(width, draws[4] * width, (area / aspect).sqrt())
    return torch.where((rows.unsqueeze(2) & columns.unsqueeze(1)).unsqueeze(1), noise, images.float())


def gridmask_batch(images: Tensor, generator: torch.Generator, *, strength: float) -> Tensor:
    """GridMask: a grid of squares is deleted, of its own width and place in each image.

    Chen et al. 2020 (arXiv 2001.04086), section 3: units of a quarter to the whole of the side, of which the side
    of a square takes up to 60 % at full strength. What is deleted is 127.5, the middle of the scale.
    """
    side = images.shape[-1]
    draws = torch.rand(3, len(images), 1, generator=generator, device=images.device)
    unit = side * (0.25 + 0.75 * draws[0])
    deleted = [
        torch.remainder(torch.arange(length, device=images.device) + unit * draw, unit) < 0.6 * strength * unit
        for length, draw in zip(images.shape[2:], draws[1:], strict=True)
    ]
    where = deleted[0].unsqueeze(2) & deleted[1].unsqueeze(1)
    return torch.where(where.unsqueeze(1), 127.5, images.float())


def mixup_batch(images: Tensor, generator: torch.Generator) -> Mixed:
    """MixUp: each image and the next are averaged, with a weight drawn evenly (Zhang et al. 2018, α = 1)."""
    share = _rand(images, generator)
    pixels = images.float()
    return torch.lerp(pixels.roll(-1, 0), pixels, share.view(-1, 1, 1, 1)), share


def cutmix_batch(images: Tensor, generator: torch.Generator) -> Mixed:
    """CutMix: a rectangle of each image is that of the next, its area drawn evenly (Yun et al. 2019, α = 1)."""
    height, width = images.shape[2:]
    draws = torch.rand(3, len(images), generator=generator, device=images.device)
    cut = (1 - draws[0]).sqrt()
    rows = _between(height, draws[1] * height, cut * height)
    columns = _between(width, draws[2] * width, cut * width)
    where = rows.unsqueeze(2) & columns.unsqueeze(1)  # [B, H, W]
    share = 1 - where.float().mean((1, 2))  # of what was cut indeed: it may lie across the edge
    return torch.where(where.unsqueeze(1), images.roll(-1, 0), images), share


def rand_batch(images: Tensor, generator: torch.Generator, *, strength: float) -> Tensor:
    """RandAugment: each image gets two of the families here that mix no images, drawn for itself.

    After Cubuk et al. 2020 (arXiv 1909.13719), N = 2 and one strength for all. Not as there: the two are never the
    same, they come in one order, and the geometric ones before them, for every image.
    """
    ranks = torch.rand(len(images), len(_SINGLE), generator=generator, device=images.device).argsort(1).argsort(1)
    for place, family in enumerate(_SINGLE):
        changed = family(images, generator, strength=strength)
        images = torch.where((ranks[:, place] < _RAND_FAMILIES).view(-1, 1, 1, 1), changed, images)
    return images


def mix_batch(
    images: Tensor, mixes: Sequence[Callable[[Tensor, torch.Generator], Mixed]], generator: torch.Generator
) -> Mixed:
    """Each image mixed with the next by one of `mixes`, drawn for itself."""
    pixels, share = mixes[0](images, generator)
    chosen = (_rand(images, generator) * len(mixes)).long()
    for number, mix in enumerate(mixes[1:], start=1):
        others, its_share = mix(images, generator)
        pixels = torch.where((chosen == number).view(-1, 1, 1, 1), others, pixels)
        share = torch.where(chosen == number, its_share, share)
    return pixels, share


_SINGLE = (filter_batch, colour_batch, erase_batch, gridmask_batch)

FAMILIES: Mapping[ExtraFamily, Callable[..., Tensor]] = {
    "filter": filter_batch,
    "colour": colour_batch,
    "erase": erase_batch,
    "gridmask": gridmask_batch,
    "rand": rand_batch,
}
MIXES: Mapping[ExtraFamily, Callable[[Tensor, torch.Generator], Mixed]] = {
    "mixup": mixup_batch,
    "cutmix": cutmix_batch,
}
"""Those whose labels are mixed as well."""


def _rand(images: Tensor, generator: torch.Generator) -> Tensor:
    """[B], 0…1, one for each image."""
    return torch.rand(len(images), generator=generator, device=images.device)


def _between(length: int, centre: Tensor, size: Tensor) -> Tensor:
    """Which places of a side lie within `size` [B] about `centre` [B]: [B, length]."""
    places = torch.arange(length, device=centre.device) + 0.5
    return (places - centre.unsqueeze(1)).abs() < size.unsqueeze(1) / 2
