"""Bytes of an image, or raw pixels, to a square of uint8 RGB: the one preprocessing everywhere, by Pillow."""

import contextlib
import io
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from foveate.files import open_regular

__all__ = [
    "MAX_PIXELS",
    "BadImageError",
    "Header",
    "decode_file",
    "decode_image",
    "open_image",
    "read_header",
    "resize_array",
    "shorter_side",
]

MAX_PIXELS = 89_478_485
"""Pillow's own default for `Image.MAX_IMAGE_PIXELS`; Pillow itself only warns up to twice as many."""

# The formats that are promised; Pillow's rarer readers (EPS runs Ghostscript) never see a user's file.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")  # a phone's MPO is opened as JPEG

# Pillow warns about odd metadata and big images. catch_warnings changes the whole process, hence the lock; it
# costs nothing: small images decode slower in two threads than in one, so the parallel unit is the process.
_warnings_lock = threading.Lock()


class BadImageError(Exception):
    """An image that cannot be decoded; the message is a short reason."""


@dataclass(frozen=True)
class Header:
    """The first lines of an encoded image."""

    format: str
    """As Pillow names it; empty where pixels come as they are."""
    mode: str
    """Pillow's: RGB, L, P, RGBA, CMYK, …"""
    width: int
    height: int
    rotated: bool
    """Whether its EXIF data asks for it to be turned."""


def decode_image(data: bytes, size: int) -> NDArray[np.uint8]:
    """Decode the first frame of a JPEG, PNG, WebP, BMP, GIF or TIFF to a square.

    EXIF rotation is applied; grey, palette, 16-bit (its high byte), CMYK, YCbCr and LAB become RGB, alpha is
    composited over white. Then `PIL.ImageOps.fit`: a centre crop to a square and an antialiased bilinear resize;
    an image of that size already is returned untouched. ICC profiles are not applied.

    Args:
        data: the encoded file.
        size: side of the square, in pixels.

    Returns:
        [size, size, 3] uint8.

    Raises:
        BadImageError: for anything that cannot be decoded whole, and above `MAX_PIXELS`.
    """
    return _decode(io.BytesIO(data), size)


def decode_file(path: Path, size: int) -> NDArray[np.uint8]:
    """`decode_image` of a file.

    Raises:
        BadImageError: also when the file cannot be read.
    """
    with open_image(path) as file:
        return _decode(file, size)


def resize_array(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The same crop and resize for pixels [H, W], [H, W, 1] or [H, W, 3] uint8; returns [size, size, 3]."""
    if pixels.shape == (size, size, 3):
        return pixels
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    return _fit(Image.fromarray(pixels).convert("RGB"), size)


def read_header(image: Path | bytes | NDArray[np.uint8]) -> Header | None:
    """What an image says of itself before its pixels are read; None where there is nothing to read."""
    if isinstance(image, np.ndarray):
        height, width = image.shape[:2]
        return Header("", "RGB" if image.shape[2:] == (3,) else "L", width, height, rotated=False)
    try:
        with open_image(image) if isinstance(image, Path) else io.BytesIO(image) as file, _quiet():
            opened = Image.open(file, formats=_FORMATS)
            # PNG's own reads the whole file to look behind the pixels too.
            exif = Image.Image.getexif(opened)
            rotated = exif.get(ExifTags.Base.Orientation) in range(2, 9)
            return Header(opened.format or "", opened.mode, *opened.size, rotated=rotated)
    except Exception:  # Pillow raises nearly anything for a damaged header; decoding will name the reason
        return None


def shorter_side(image: Path | bytes | NDArray[np.uint8]) -> int | None:
    """The shorter side in pixels, from the header alone; None where there is none to read."""
    header = read_header(image)
    return min(header.width, header.height) if header else None


def open_image(path: Path) -> io.BufferedReader:
    """Open the file of an image; anything but a regular file, such as a pipe, could block for ever.

    Raises:
        BadImageError: when it is missing, not a regular file, or not readable.
    """
    try:
        return open_regular(path)
    except FileNotFoundError as error:
        raise BadImageError("missing file") from error
    except OSError as error:
        raise BadImageError((error.strerror or str(error)).lower().removeprefix("it is ")) from error
    except ValueError as error:  # a NUL character in the name
        raise BadImageError("not a file name") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence Pillow's warnings, one thread at a time."""
    with _warnings_lock, warnings.catch_warnings(action="ignore"):
        yield


def _decode(file: BinaryIO, size: int) -> NDArray[np.uint8]:
    try:
        with _quiet(), Image.open(file, formats=_FORMATS) as image:
            _check_pixels(image)
            ImageOps.exif_transpose(image, in_place=True)
            return _fit(_to_rgb(image), size)
    except BadImageError:
        raise
    except Exception as error:  # a damaged file makes Pillow raise nearly anything, struct.error included
        raise BadImageError(_reason(error, file)) from error


def _check_pixels(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise BadImageError(f"{image.width} × {image.height} pixels are more than {MAX_PIXELS:,}")


def _fit(image: Image.Image, size: int) -> NDArray[np.uint8]:
    if image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(image)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise BadImageError("floating-point pixels have no agreed range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.uint32)
        # Mode I holds 32 bits, but mostly files whose values need fewer: those of the narrowest width are used.
        bits = 16 if image.mode.startswith("I;16") else next(b for b in (8, 16, 32) if values.max() < 2**b)
        image = Image.fromarray((values >> (bits - 8)).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _reason(error: Exception, file: BinaryIO) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MAX_PIXELS:,} pixels"
    if not file.closed and file.seek(0, io.SEEK_END) == 0:
        return "zero bytes"
    if isinstance(error, UnidentifiedImageError):
        return "not a JPEG, PNG, WebP, BMP, GIF or TIFF image"
    if "truncated" in str(error).lower():
        return "truncated"
    return " ".join(f"damaged ({type(error).__name__}: {error})".split())[:200]
