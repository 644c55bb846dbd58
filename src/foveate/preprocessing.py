"""What becomes of an image before a network sees it, as one value that is handed to whoever decodes for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Fit = Literal["crop", "pad", "squash"]
"""How an image that is not square becomes square: its centre alone; the whole image with grey beside it; or the
whole image with its sides no longer in proportion."""
Resize = Literal[
    "centre crop, bilinear, antialiased",
    "padded with grey, bilinear, antialiased",
    "squashed, bilinear, antialiased",
]
"""The same, in the same order, in words, as files of models say it."""

RESIZES: Mapping[Fit, Resize] = dict(zip(get_args(Fit), get_args(Resize), strict=True))
FITS: Mapping[Resize, Fit] = {resize: fit for fit, resize in RESIZES.items()}


@dataclass(frozen=True)
class Preprocessing:
    """From an encoded image, or raw pixels, to a square of uint8 RGB."""

    size: int
    """Side of the square, in pixels."""
    fit: Fit = "crop"
    white: int | None = None
    """The value that becomes 255 in images with more than 8 bits; None: the largest of their format, so that the
    high byte is taken."""
