"""An encoded image without what does not bear on its pixels, and the limits on that.

Pillow reads all comments, profiles and previews, at a cost without a limit, and refuses an image for an oddity in
them. So the container of each format is read by Foveate, within limits, and written again with what a decoder
needs. Of the rest, only the orientation is kept.
"""

import re
from typing import NamedTuple

from foveate.data.ifd import Directory, orientation_of

MAX_BEFORE_PIXELS = 32 << 20
"""Most bytes of an image before its pixels; the largest profiles and previews have some megabytes."""
MAX_PARTS = 10_000
"""Most segments, chunks or blocks of an image that hold no pixels."""
MAX_SMALL_PARTS = 100_000
"""Most chunks that the pixels of a PNG lie in (encoders that write 8 KiB at a time need fewer), and most
blocks of up to 255 bytes that the comments of a GIF lie in."""
MAX_TEXT = 1 << 20
"""Bytes of a compressed text that are read."""
HOLE = bytes(16)
"""What encoded pixels do not hold, but a file does that was copied or downloaded with a gap."""


MISSING = "missing file"
NO_MEMORY = "too large for the memory"
"""Why a file that is not there cannot be read."""


class BadImageError(Exception):
    """An image that cannot be decoded; the message is a short reason."""


class Frame(NamedTuple):
    """What a JPEG says of its pixels."""

    width: int
    height: int
    channels: int
    bits: int


class Container(NamedTuple):
    """An encoded image, ready for its decoder."""

    format: str
    """JPEG, PNG, WEBP, BMP, GIF, TIFF or AVIF."""
    data: bytes
    """With what a decoder needs; of a JPEG, PNG or GIF with nothing else."""
    orientation: int | None = None
    """As EXIF numbers it, 1 to 8, or a number without meaning; None: the file does not say."""
    frame: Frame | None = None
    """Of a JPEG."""
    directory: Directory | None = None
    """Of a TIFF."""
    deep: bool = False
    """Whether it is a PNG of 16 bits."""
    transparent: bytes = b""
    """The transparent grey or colour of such a PNG, as its tRNS chunk has it."""


def check_limits(parts: int, at: int, most: int = MAX_PARTS) -> None:
    """Raise BadImageError for an image of more than `most` parts, or with more than `MAX_BEFORE_PIXELS` bytes `at`
    this place.
    """
    if parts > most:
        raise BadImageError(f"more than {most:,} parts")
    if at > MAX_BEFORE_PIXELS:
        raise BadImageError(f"more than {MAX_BEFORE_PIXELS >> 20} MiB before its pixels")


def find_orientation(exif: bytes | None, xmp: bytes | None) -> int | None:
    """The orientation by EXIF data, else by XMP data; None where neither says it."""
    if exif and (found := orientation_of(exif)) is not None:
        return found
    told = re.search(rb"tiff:Orientation(?:=[\"']|>)([0-9])", xmp or b"")
    return int(told[1]) if told else None
