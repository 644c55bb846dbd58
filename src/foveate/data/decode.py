"""Bytes of an image, or raw pixels, to a square of uint8 RGB: the one preprocessing everywhere."""

import contextlib
import io
import os
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFile, ImageOps, features

from foveate.data.container import MISSING, NO_MEMORY, BadImageError, Container, Frame
from foveate.data.foreign import name_of
from foveate.data.formats import open_container
from foveate.data.ifd import orientation_of
from foveate.data.tiff import Raster, read_tiff, read_tiff_header, to_8_bits
from foveate.files import open_regular
from foveate.preprocessing import Preprocessing

MAX_PIXELS = 89_478_485
"""Pillow's own default for `Image.MAX_IMAGE_PIXELS`; Pillow itself only warns up to twice as many."""
MAX_BYTES = 1 << 30
"""Of an encoded file."""
DECODERS = f"{PIL.__version__} {simplejpeg.__version__}"
"""Versions that pixels may change with."""

_HEADER_BYTES = 1 << 16
"""In which nearly all files say what they hold."""

# RGB with a byte to spare is how Pillow holds RGB: it takes it without copying.
_JPEG_COLOURS = {1: ("GRAY", "L"), 3: ("RGBX", "RGBX"), 4: ("CMYK", "CMYK")}
"""What a JPEG is decoded to, by its channels: as simplejpeg names it, and as Pillow does."""
_GREY = 127
"""Beside an image that is padded. It is the middle of the range, so that no edge is as strong as one of black or
white could be; networks whose input is (x - 127) / 128 see a zero there, as their convolutions pad by."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By the orientation in EXIF data."""
_ON_ITS_SIDE = (5, 6, 7, 8)
"""Orientations whose width and height change places."""

# Pillow warns about odd metadata and big images. catch_warnings changes the whole process, hence the lock; it
# costs nothing: small images decode slower in two threads than in one, so the parallel unit is the process.
_warnings_lock = threading.Lock()


@dataclass(frozen=True)
class Header:
    """The first lines of an encoded image."""

    format: str
    """As Pillow names it; empty where pixels come as they are."""
    mode: str
    """Pillow's: RGB, L, P, RGBA, CMYK, …"""
    width: int
    """As it is shown: after it is turned."""
    height: int
    rotated: bool
    """Whether it is turned, as its EXIF data ask."""
    deep: bool
    """Whether its values have more than 8 bits each."""


def decode_image(data: bytes, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Decode the first frame of a JPEG, PNG, WebP, AVIF, BMP, GIF or TIFF to a square.

    EXIF rotation is applied; grey, palette, 16-bit, CMYK, YCbCr and LAB become RGB; alpha is laid over white.
    Then an antialiased bilinear resize, Pillow's: of the largest square in the centre (`PIL.ImageOps.fit`), of the
    whole image to a square, or of the whole image until its longer side fits, in the middle of grey. An image of
    that size already is returned untouched. ICC profiles are not applied.

    Returns:
        [size, size, 3] uint8.

    Raises:
        BadImageError: for anything that cannot be decoded whole, and above `MAX_PIXELS`.
    """
    with _errors_as_reasons:
        if len(data) > MAX_BYTES:
            raise BadImageError(f"more than {MAX_BYTES >> 30} GiB")
        container = open_container(data)
        if (square := _square(container, preprocessing.size)) is not None:
            return square
        with _pillow_silent():
            white = preprocessing.white
            pixels = _pixels(container, every_bit=white is not None)
            orientation = _orientation(container, pixels)
            image = _raster_to_rgb(pixels, white) if isinstance(pixels, Raster) else _image_to_rgb(pixels)
            if orientation in _TURNS:
                image = image.transpose(_TURNS[orientation])
            return _fit(image, preprocessing)


def decode_file(path: Path, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """`decode_image` of a file.

    Raises:
        BadImageError: also when the file cannot be read.
    """
    return decode_image(_read(path), preprocessing)


def decode(image: Path | bytes | NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """`decode_image` of a file or of its bytes; `resize_array` of pixels.

    Raises:
        BadImageError: as these.
    """
    if isinstance(image, Path):
        return decode_file(image, preprocessing)
    return decode_image(image, preprocessing) if isinstance(image, bytes) else resize_array(image, preprocessing)


def resize_array(pixels: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """The same resize for pixels [H, W], [H, W, 1] or [H, W, 3] uint8; returns [size, size, 3]."""
    if pixels.shape == (preprocessing.size, preprocessing.size, 3):
        return pixels
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    return _fit(Image.fromarray(pixels).convert("RGB"), preprocessing)


def resize_image(image: Image.Image, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """`decode_image` of what Pillow has opened already: turned, made RGB and resized in the same way.

    Raises:
        BadImageError: when it cannot be loaded, and above `MAX_PIXELS`.
    """
    with _errors_as_reasons, _pillow_silent():
        _check_pixels(*image.size)
        if image.mode.startswith(("I", "F")):
            raise BadImageError(f"Pillow's mode {image.mode} has more than 8 bits: give the file, or its bytes")
        return _fit(_image_to_rgb(ImageOps.exif_transpose(image)), preprocessing)


def largest_value(image: Path | bytes | NDArray[np.uint8]) -> int | None:
    """The largest value in an image whose values have more than 8 bits; None for others and for bad ones."""
    header = read_header(image)
    if header is None or not header.deep or isinstance(image, np.ndarray):
        return None
    try:
        data = _read(image) if isinstance(image, Path) else image
        with _errors_as_reasons, _pillow_silent():
            pixels = _pixels(open_container(data), every_bit=True)
    except BadImageError:
        return None
    return int(pixels.values.max()) if isinstance(pixels, Raster) and pixels.bits > 8 else None


def read_header(image: Path | bytes | NDArray[np.uint8]) -> Header | None:
    """What an image says of itself before its pixels are read; None where there is nothing to read."""
    if isinstance(image, np.ndarray):
        height, width = image.shape[:2]
        mode = "RGB" if image.shape[2:] == (3,) else "L"
        return Header("", mode, width, height, rotated=False, deep=False)
    for most in (_HEADER_BYTES, MAX_BYTES):
        try:
            with _errors_as_reasons, _pillow_silent():
                return _header(_read(image, most) if isinstance(image, Path) else image[:most])
        except BadImageError:  # that much was too little, or decoding will name the reason
            pass
    return None


def shorter_side(image: Path | bytes | NDArray[np.uint8]) -> int | None:
    """The shorter side in pixels, from the header alone; None where no header can be read."""
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
        raise BadImageError(MISSING) from error
    except OSError as error:
        raise BadImageError((error.strerror or str(error)).lower().removeprefix("it is ")) from error
    except ValueError as error:  # a NUL character in the name
        raise BadImageError("not a file name") from error


def _read(path: Path, most: int = MAX_BYTES + 1) -> bytes:
    with open_image(path) as file:
        try:
            # Python makes room for as much as is asked for; files of the kernel say size 0, and may have no end.
            return file.read(min(most, os.fstat(file.fileno()).st_size))
        except OSError as error:
            raise BadImageError((error.strerror or str(error)).lower()) from error


@contextlib.contextmanager
def _pillow_silent() -> Iterator[None]:
    """Silence Pillow's warnings, one thread at a time."""
    with _warnings_lock, warnings.catch_warnings(action="ignore"):
        yield


class _ErrorsAsReasons:
    """Turns errors into reasons; a damaged file makes Pillow raise nearly anything.

    Not a generator, which costs a tenth of decoding a small image.

    Raises:
        BadImageError: for every exception.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, BadImageError):
            raise BadImageError(_reason(error)) from error


_errors_as_reasons = _ErrorsAsReasons()


def _reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MAX_PIXELS:,} pixels"
    if isinstance(error, MemoryError):
        return NO_MEMORY
    if isinstance(error, PIL.UnidentifiedImageError):
        return "damaged (its beginning is not that of its format)"
    if "truncated" in str(error).lower() or "decoder object" in str(error):  # libwebp, of a file cut short
        return "truncated"
    return " ".join(f"damaged ({type(error).__name__}: {error})".split())[:200]


def _header(data: bytes) -> Header:
    container = open_container(data, whole=False)
    orientation, deep = container.orientation, False
    if container.directory:
        tiff = read_tiff_header(container.directory)
        name, mode, size, deep = "TIFF", tiff.mode, (tiff.width, tiff.height), tiff.bits > 8
    elif container.frame:
        frame = container.frame
        name, mode, size = "JPEG", {1: "L", 4: "CMYK"}.get(frame.channels, "RGB"), (frame.width, frame.height)
    else:
        with _open(container) as image:
            orientation = _orientation(container, image)
            name, mode, size, deep = container.format, image.mode, image.size, container.deep
    if orientation in _ON_ITS_SIDE:
        size = size[::-1]
    return Header(name, mode, *size, rotated=orientation in _TURNS, deep=deep)


def _orientation(container: Container, pixels: Image.Image | Raster) -> int | None:
    """As the container says; Pillow alone knows an AVIF's."""
    if container.format == "AVIF" and isinstance(pixels, Image.Image):
        return orientation_of(pixels.info.get("exif") or b"")
    return container.orientation


def _pixels(container: Container, *, every_bit: bool) -> Image.Image | Raster:
    """Pixels in any mode, not turned; of more than 8 bits perhaps the high byte alone, unless `every_bit`."""
    if container.directory:
        header = read_tiff_header(container.directory)
        _check_pixels(header.width, header.height)
        return read_tiff(container.directory, header)
    if container.frame:
        return _jpeg(container, container.frame)
    image = _open(container)
    _check_pixels(*image.size)
    if container.deep and (every_bit or container.transparent or image.mode == "I;16"):
        return _deep_png(image, container)
    image.load()
    if container.format == "BMP" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        return image.convert("RGB")  # a channel that was never filled: every viewer shows such a file
    return image


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise BadImageError(f"{width} × {height} pixels are more than {MAX_PIXELS:,}")


def _open(container: Container) -> ImageFile.ImageFile:
    if container.format == "AVIF" and not features.check("avif"):
        raise BadImageError(name_of(container.data))
    # Pillow's rarer readers (EPS runs Ghostscript) never see a user's file.
    return Image.open(io.BytesIO(container.data), formats=(container.format,))


def _square(container: Container, size: int) -> NDArray[np.uint8] | None:
    """The pixels of a JPEG in colour that has this size already; None for others.

    Pillow has nothing to do then, and going through it takes longer than decoding a small image.
    """
    if container.frame != (size, size, 3, 8):
        return None
    return None if container.orientation in _TURNS else _jpeg_pixels(container, "RGB")


def _jpeg(container: Container, frame: Frame) -> Image.Image:
    if frame.bits != 8 or frame.channels not in _JPEG_COLOURS:
        raise BadImageError(
            f"a JPEG of {frame.channels} channels with {frame.bits} bits, which is not read: save it with 8 bits"
        )
    _check_pixels(frame.width, frame.height)
    colours, mode = _JPEG_COLOURS[frame.channels]
    pixels = _jpeg_pixels(container, colours)
    if pixels is None:
        return _open(container)
    if mode == "CMYK":
        pixels = 255 - pixels  # inverted, as Adobe writes it
    return Image.frombuffer(mode, (frame.width, frame.height), pixels, "raw", mode, 0, 1)


def _jpeg_pixels(container: Container, colours: str) -> NDArray[np.uint8] | None:
    """The pixels of a JPEG; None for a subsampling that TurboJPEG has no name for, but libjpeg decodes."""
    # Pillow decodes by libjpeg too, to the same pixels, but does not pass on its warnings of pixels it made up.
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(container.data, colours, strict=True)
    except ValueError as error:
        if "subsampling" in str(error):
            return None
        if "Premature end of JPEG file" in str(error):
            raise BadImageError("truncated") from error
        raise BadImageError(f"damaged ({error})"[:200]) from error
    return pixels


def _deep_png(image: ImageFile.ImageFile, container: Container) -> Raster:
    """All 16 bits of a PNG; but of grey, Pillow gives the high bytes or the low ones."""
    (tile,) = image.tile
    if image.mode == "I;16":
        values = np.asarray(image)[..., None]
    elif tile.args == "LA;16B":
        whole = np.asarray(_with_rawmode(image, "RGBA")).astype(np.uint16)  # bytes as they are
        values = whole[..., 0::2] << 8 | whole[..., 1::2]
    else:
        low = np.asarray(_with_rawmode(_open(container), f"{image.mode};16L"))
        values = np.asarray(image).astype(np.uint16) << 8 | low
    alpha = None
    if values.shape[2] in (2, 4):
        values, alpha = values[..., :-1], to_8_bits(values[..., -1], 16)
    elif len(container.transparent) >= 2 * values.shape[2]:
        colour = np.frombuffer(container.transparent, ">u2", values.shape[2])
        alpha = np.where((values == colour).all(axis=2), 0, 255).astype(np.uint8)
    return Raster(values, 16, alpha)


def _with_rawmode(image: ImageFile.ImageFile, rawmode: str) -> Image.Image:
    image.tile = [image.tile[0]._replace(args=rawmode)]
    return image


def _raster_to_rgb(raster: Raster, white: int | None) -> Image.Image:
    values = raster.values
    if raster.bits <= 8 or white is None:
        values = to_8_bits(values, raster.bits)
    else:
        most = min(white, np.iinfo(values.dtype).max)  # of images with other depths it may be larger
        values = (np.minimum(values, most) * (255 / white) + 0.5).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(values[..., 0] if values.shape[2] == 1 else values)).convert(
        "RGB"
    )
    if raster.alpha is None:
        return image
    alpha = Image.fromarray(raster.alpha)
    if raster.premultiplied:
        return ImageChops.add(image, ImageOps.invert(alpha).convert("RGB"))
    image.putalpha(alpha)
    return _over_white(image)


def _image_to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("RGB", "RGBX") and "transparency" not in image.info:
        return image
    return _over_white(image.convert("RGBA")) if image.has_transparency_data else image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _fit(image: Image.Image, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    square = (preprocessing.size, preprocessing.size)
    if image.size != square:
        match preprocessing.fit:
            case "crop":
                image = ImageOps.fit(image, square, Image.Resampling.BILINEAR)
            case "squash":
                image = image.resize(square, Image.Resampling.BILINEAR)
            case "pad":
                image = _padded(image, preprocessing.size)
    return np.asarray(image.convert("RGB") if image.mode == "RGBX" else image)


def _padded(image: Image.Image, size: int) -> Image.Image:
    """All of an image in the middle of a grey square.

    Not `ImageOps.pad`, which rounds a side to zero where an image is long and thin, and takes floats for it.
    """
    longer = max(image.size)
    # Rounded half up, in whole numbers: a page in a browser does the same.
    width, height = (max(1, (2 * side * size + longer) // (2 * longer)) for side in image.size)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    square = Image.new("RGB", (size, size), (_GREY, _GREY, _GREY))
    square.paste(resized.convert("RGB"), ((size - width) // 2, (size - height) // 2))
    return square
