"""The first picture of a TIFF file as numbers.

Pillow and libtiff take off the compression. What the bytes mean (depth, order, sign, palette, further channels) is
read here: Pillow knows some combinations of these, and some of them wrongly.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveate.data.container import BadImageError
from foveate.data.ifd import Directory

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIPS, _SAMPLES, _STRIP_ROWS, _STRIP_BYTES, _PLANAR, _PREDICTOR = 273, 277, 278, 279, 284, 317
_PALETTE, _TILE_WIDTH, _TILE_ROWS, _TILES, _TILE_BYTES, _EXTRA, _FORMAT = 320, 322, 323, 324, 325, 338, 339
_KEPT = (*range(254, 260), 262, 263, 266, 273, *range(277, 280), 284, 292, 293, 317)
_KEPT += (*range(320, 326), 338, 339, 347, *range(512, 522), *range(529, 533))
"""Tags that say how the pixels are compressed and what they mean."""
_BYTES_ALONE = {1, 5, 8, 32773, 32946, 34925, 50000}
"""Compressions that know nothing of pixels, so that what they hold can be taken for grey pixels of 8 bits: none,
LZW, Deflate, PackBits, Deflate by its older number, LZMA, Zstandard."""
_MODES = {0: "L", 1: "L", 2: "RGB", 3: "P", 5: "CMYK", 6: "YCbCr", 8: "LAB"}
_COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 8: 3}
"""Channels by the photometric interpretation: white is 0, black is 0, RGB, palette, CMYK, LAB."""
_PALETTE_COLOURS, _CMYK, _YCBCR, _LAB = 3, 5, 6, 8
_ALPHA = (1, 2, 999)
"""Kinds of a further channel: alpha that the colour was multiplied by, alpha, and alpha by Corel Draw."""
_MAX_CHANNELS = 16
_MAX_PARTS = 200_000
"""Most strips or tiles."""
_CHUNK_BYTES = 1 << 24
_MOST_AT_ONCE = 1 << 26
"""Bytes that Pillow decodes at once, where a strip is not longer."""
_REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)[:, ::-1], axis=1)[:, 0]
"""Each byte with its bits in the other order."""


@dataclass(frozen=True)
class Raster:
    """Pixels that are not brought to 8 bits yet."""

    values: NDArray[np.unsignedinteger]
    """[H, W, 1] grey or [H, W, 3] RGB."""
    bits: int
    """Of each value."""
    alpha: NDArray[np.uint8] | None = None
    """[H, W]."""
    premultiplied: bool = False
    """Whether the values were multiplied by alpha."""


@dataclass(frozen=True)
class TiffHeader:
    """What a TIFF says of its first picture."""

    width: int
    height: int
    bits: int
    """Of its deepest channel."""
    channels: int
    photometric: int
    compression: int
    planar: bool
    extra: tuple[int, ...]
    """What the channels behind the colour are: 1 is alpha that the colour was multiplied by, 2 is alpha."""
    mode: str
    """As Pillow would name it."""


def read_tiff_header(directory: Directory) -> TiffHeader:
    """What a TIFF says of its first picture.

    Raises:
        BadImageError: where it does not.
    """
    try:
        compression = directory.integer(_COMPRESSION, 1)
        photometric = 6 if compression == 6 else directory.integer(_PHOTOMETRIC, 0)
        bits = directory.integers(_BITS, _MAX_CHANNELS) or (1,)
        channels = directory.integer(_SAMPLES, 3 if compression == 6 else 1)
        kinds = set(directory.integers(_FORMAT, _MAX_CHANNELS)) or {1}
        extra = directory.integers(_EXTRA, _MAX_CHANNELS)
        width, height = directory.integer(_WIDTH, 0), directory.integer(_HEIGHT, 0)
        planar = directory.integer(_PLANAR, 1) == 2
    except ValueError as error:
        raise BadImageError(f"damaged ({error})") from error
    if width <= 0 or height <= 0:
        raise BadImageError("damaged (a TIFF that does not say its size)")
    if kinds & {3, 6}:
        raise BadImageError("floating-point pixels have no agreed range: save it with 8 or 16 bits")
    if kinds - {1, 2, 4}:
        raise BadImageError(
            f"pixels that are no real numbers (sample format {max(kinds)}): save it with 8 or 16 bits"
        )
    if len(set(bits[:channels])) > 1 or kinds == {1, 2}:
        raise BadImageError("a TIFF whose channels have several depths, which is not read: save it with 8 bits")
    mode = _MODES.get(photometric, "other") + ("A" if {1, 2} & set(extra) else "")
    if mode == "L" and bits[0] > 8:
        mode = "I;16" if bits[0] <= 16 else "I"
    return TiffHeader(width, height, bits[0], channels, photometric, compression, planar, extra, mode)


def read_tiff(directory: Directory, header: TiffHeader) -> Raster | Image.Image:
    """The first picture of a TIFF, not turned; as an image where its colours are CMYK, YCbCr or LAB.

    Raises:
        BadImageError: where it is of a kind that is not read, or has negative values.
        Exception: nearly any, by Pillow, where the file is damaged.
    """
    try:
        if header.compression not in _BYTES_ALONE or header.photometric == _YCBCR:
            return _by_pillow(directory)
        extra = _extra_channels(header)
        values = _channels(directory, header)
        bits = header.bits
        colours = _COLOURS[header.photometric]
        if 2 in directory.integers(_FORMAT, _MAX_CHANNELS):
            bits -= 1  # one is the sign
            if (values[..., :colours] >> bits).any():
                raise BadImageError("negative pixels have no agreed range: save it with 8 or 16 bits and no sign")
        place = next((place for place, kind in enumerate(extra) if kind in _ALPHA), None)
        alpha = None if place is None else to_8_bits(values[..., colours + place], bits)
        values = values[..., :colours]
        if header.photometric == _PALETTE_COLOURS:
            return Raster(_palette(directory, bits)[values[..., 0]], 8, alpha)
    except ValueError as error:
        raise BadImageError("truncated" if "truncated" in str(error) else f"damaged ({error})") from error
    if header.photometric in (_CMYK, _LAB):
        mode = _MODES[header.photometric]
        size = (header.width, header.height)
        return Image.frombytes(mode, size, to_8_bits(values, bits).tobytes(), "raw", mode)
    if header.photometric == 0:
        values = values ^ values.dtype.type(2**bits - 1)
    return Raster(values, bits, alpha, premultiplied=place is not None and extra[place] == 1)


def _extra_channels(header: TiffHeader) -> tuple[int, ...]:
    """What the channels behind the colour are; BadImageError for an image that is not read."""
    colours = _COLOURS.get(header.photometric, 0)
    extra = header.extra
    if not extra and header.channels <= _MAX_CHANNELS and header.photometric in (2, _CMYK):
        extra = (0,) * (header.channels - colours)  # a channel is alpha only if the file says so
    # Several channels beside grey are a measurement, of which the first is as good as any.
    if (
        not colours
        or header.channels > _MAX_CHANNELS
        or header.channels != colours + len(extra)
        or (header.bits not in range(1, 17) and header.bits != 32)
        or (header.photometric == _LAB and header.bits != 8)
        or (header.photometric in (0, 1) and len(extra) > 1)
    ):
        raise BadImageError(
            f"a TIFF with {header.channels} channels of {header.bits} bits (photometric interpretation "
            f"{header.photometric}, compression {header.compression}), which is not read: save it with 8 bits"
        )
    return extra


def to_8_bits(values: NDArray[np.unsignedinteger], bits: int) -> NDArray[np.uint8]:
    """Numbers of `bits` bits as numbers of 8: the high bits of longer ones; shorter ones over the whole range."""
    if bits >= 8:
        return (values >> (bits - 8)).astype(np.uint8, copy=False)
    scaled: NDArray[np.uint8] = (np.arange(2**bits) * 255 // (2**bits - 1)).astype(np.uint8)[values]
    return scaled


def _channels(directory: Directory, header: TiffHeader) -> NDArray[np.unsignedinteger]:
    """All of them, [H, W, C], as unsigned numbers."""
    tiled = _TILES in directory or _TILE_WIDTH in directory
    across = directory.integer(_TILE_WIDTH, 0) if tiled else header.width
    down = directory.integer(_TILE_ROWS, 0) if tiled else directory.integer(_STRIP_ROWS, header.height)
    if across <= 0 or down <= 0:
        raise ValueError("tiles or strips without a size")
    if not tiled:
        down = min(down, header.height)
    parts = math.ceil(header.width / across) * math.ceil(header.height / down)
    planes = header.channels if header.planar else 1
    if parts * planes > _MAX_PARTS:
        raise BadImageError(f"more than {_MAX_PARTS:,} strips or tiles")
    per_pixel = header.channels // planes
    offsets = directory.integers(_TILES if tiled and _TILES in directory else _STRIPS, parts * planes)
    sizes = directory.integers(_TILE_BYTES if tiled and _TILE_BYTES in directory else _STRIP_BYTES, parts * planes)
    if len(offsets) < parts * planes or any(offset >= len(directory.data) for offset in offsets):
        raise ValueError("truncated: pixels behind the end of the file")
    if header.compression != 1 and len(sizes) < parts * planes:
        raise ValueError("strips without a size")
    if tiled and across * per_pixel * header.bits % 8:
        raise ValueError("tiles that end within a byte")
    layout = _Layout(
        tiled,
        header.compression,
        directory.integer(_FILL_ORDER, 1),
        header.height,
        _row_bytes(header.width, per_pixel, header.bits),
        down,
        _row_bytes(across, per_pixel, header.bits),
    )
    taken = []
    for plane in range(planes):
        own = slice(plane * parts, (plane + 1) * parts)
        rows = _rows(directory, layout, offsets[own], sizes[own])
        values = _numbers(rows, header.width * per_pixel, header.bits, directory.order)
        values = values.reshape(header.height, header.width, per_pixel)
        if directory.integer(_PREDICTOR, 1) == 2 and header.compression != 1:
            for start in range(0, header.width, across):
                piece = values[:, start : start + across]
                values[:, start : start + across] = np.cumsum(piece, axis=1, dtype=values.dtype)
        taken.append(values)
    return taken[0] if planes == 1 else np.concatenate(taken, axis=2)


@dataclass(frozen=True)
class _Layout:
    """Where the bytes of one plane lie."""

    tiled: bool
    compression: int
    fill_order: int
    rows: int
    row_bytes: int
    part_rows: int
    part_row_bytes: int


def _rows(
    directory: Directory, layout: _Layout, offsets: Sequence[int], sizes: Sequence[int]
) -> NDArray[np.uint8]:
    """The bytes of one plane, [rows, row_bytes]."""
    found = np.empty((layout.rows, layout.row_bytes), np.uint8)
    columns = -(-layout.row_bytes // layout.part_row_bytes)
    lines = -(-layout.rows // layout.part_rows)
    # Pillow refuses to decode more than its limit of pixels, here bytes, at once.
    step = max(1, _MOST_AT_ONCE // (layout.part_rows * layout.part_row_bytes * columns))
    if layout.compression == 1:
        for part, offset in enumerate(offsets):
            top, left = part // columns * layout.part_rows, part % columns * layout.part_row_bytes
            place = found[top : top + layout.part_rows, left : left + layout.part_row_bytes]
            height = layout.part_rows if layout.tiled else len(place)
            count = height * layout.part_row_bytes
            if offset + count > len(directory.data):
                raise ValueError("truncated: pixels behind the end of the file")
            part_rows = np.frombuffer(directory.data, np.uint8, count, offset).reshape(height, -1)
            place[:] = part_rows[: len(place), : place.shape[1]]
        return _REVERSED[found] if layout.fill_order == 2 else found
    for line in range(0, lines, step):
        own = slice(line * columns, (line + step) * columns)
        place = found[line * layout.part_rows : (line + step) * layout.part_rows]
        tags = [
            (_WIDTH, [layout.row_bytes]),
            (_HEIGHT, [len(place)]),
            (_BITS, [8]),
            (_COMPRESSION, [layout.compression]),
            (_PHOTOMETRIC, [1]),
            (_FILL_ORDER, [layout.fill_order]),
            (_SAMPLES, [1]),
            (_TILES if layout.tiled else _STRIPS, offsets[own]),
            (_TILE_ROWS if layout.tiled else _STRIP_ROWS, [layout.part_rows]),
            (_TILE_BYTES if layout.tiled else _STRIP_BYTES, sizes[own]),
        ]
        if layout.tiled:
            tags.append((_TILE_WIDTH, [layout.part_row_bytes]))
        kind, letter = (16, "Q") if directory.big else (4, "I")
        packed = [
            (tag, kind, len(values), struct.pack(f"{directory.order}{len(values)}{letter}", *values))
            for tag, values in tags
        ]
        with _as_tiff(directory, packed) as image:
            place[:] = np.asarray(image)
    return found


def _row_bytes(width: int, per_pixel: int, bits: int) -> int:
    return -(-width * per_pixel * bits // 8)


def _numbers(rows: NDArray[np.uint8], count: int, bits: int, order: str) -> NDArray[np.unsignedinteger]:
    """The first `count` numbers of `bits` bits in each row; those of whole bytes have them in that `order`."""
    if bits in (8, 16, 32):
        numbers = np.ascontiguousarray(rows).view(f"{order}u{bits // 8}")[:, :count]
        return numbers.astype(f"u{bits // 8}")  # a copy that may be written to
    found = np.empty((len(rows), count), np.uint8 if bits < 8 else np.uint16)
    weights = (1 << np.arange(bits - 1, -1, -1)).astype(found.dtype)
    step = max(1, _CHUNK_BYTES // (8 * rows.shape[1]))
    for start in range(0, len(rows), step):
        each = np.unpackbits(rows[start : start + step], axis=1)[:, : count * bits]
        found[start : start + step] = each.reshape(len(each), count, bits) @ weights
    return found


def _palette(directory: Directory, bits: int) -> NDArray[np.uint8]:
    """[colours, 3]."""
    count = 3 << bits
    colours = np.array(directory.integers(_PALETTE, count), np.int64)
    if len(colours) < count:
        raise ValueError("a palette that is too short")
    if colours.max() > 255:  # else it was written with 8 bits, against the standard but often
        colours >>= 8
    return np.ascontiguousarray(colours.astype(np.uint8).reshape(3, -1).T)


def _by_pillow(directory: Directory) -> Image.Image:
    """Of what only libtiff and Pillow can decode: JPEG, fax and others."""
    image = _as_tiff(directory, [(tag, *directory.raw(tag, _MAX_PARTS)) for tag in _KEPT if tag in directory])
    image.load()
    return image


def _as_tiff(directory: Directory, tags: Sequence[tuple[int, int, int, bytes]]) -> Image.Image:
    """The file's pixels by these tags alone: with a directory of them at its end.

    Args:
        tags: each with the number of its type, its number of values, and their bytes.
    """
    letter = "Q" if directory.big else "I"
    width = struct.calcsize(f"={letter}")
    body = bytearray(directory.data)
    body += bytes(-len(body) % 8)
    entries = []
    for tag, kind, count, values in sorted(tags):
        content = values
        if len(values) > width:
            content = struct.pack(f"{directory.order}{letter}", len(body))
            body += values + bytes(-len(values) % 8)
        entries.append(struct.pack(f"{directory.order}HH{letter}", tag, kind, count) + content.ljust(width, b"\0"))
    struct.pack_into(f"{directory.order}{letter}", body, width, len(body))
    body += struct.pack(directory.order + ("Q" if directory.big else "H"), len(entries))
    body += b"".join(entries) + bytes(width)
    return Image.open(BytesIO(bytes(body)), formats=("TIFF",))
