"""Which format a file has, by its first bytes, and its container."""

import re
import struct
from collections.abc import Callable, Iterator

from foveate.data.container import (
    HOLE,
    MAX_SMALL_PARTS,
    MAX_TEXT,
    BadImageError,
    Container,
    check_limits,
    find_orientation,
)
from foveate.data.foreign import RAW, name_of
from foveate.data.ifd import Directory
from foveate.data.jpeg import open_jpeg
from foveate.data.png import MAGIC, open_png

_NEW_SUBFILE_TYPE, _SUB_IFDS, _DNG_VERSION = 254, 330, 50706
"""Tags of TIFF 6.0, of its supplement and of DNG."""


def open_container(data: bytes, *, whole: bool = True) -> Container:
    """Find out the format by the first bytes, and take from the container what bears on the pixels.

    Args:
        data: the encoded file, or its beginning.
        whole: False: `data` may end anywhere behind the beginning of the pixels; its header alone is wanted.

    Raises:
        BadImageError: for another format, and for a container that is damaged or beyond the limits.
    """
    if not data:
        raise BadImageError("zero bytes")
    for magic, read in _READERS.items():
        if magic.match(data):
            try:
                return read(data, whole)
            except (struct.error, IndexError) as error:
                raise BadImageError("truncated") from error
    raise BadImageError(name_of(data))


def _gif(data: bytes, _whole: bool) -> Container:
    """Without comments and whatever else comes before the first frame, but for its transparency."""

    def colours(flags: int) -> int:
        return 6 << (flags & 7) if flags & 0x80 else 0

    at = start = 13 + colours(data[10])
    control, parts, blocks = b"", 0, 0
    while (kind := data[at]) != 0x2C:
        if kind == 0x3B:
            raise BadImageError("damaged (a GIF without pixels)")
        check_limits(parts := parts + 1, at)
        begin, at = at, at + 1
        if kind == 0x21:
            at += 1
            while size := data[at]:
                check_limits(blocks := blocks + 1, at, MAX_SMALL_PARTS)
                at += size + 1
            at += 1
            if data[begin + 1] == 0xF9:
                control = data[begin:at]
    return Container("GIF", data[:start] + control + data[at:])


def _webp(data: bytes, whole: bool) -> Container:
    found: dict[bytes, bytes] = {}
    for name, body in _riff_chunks(data, 12):
        if name == b"ANMF":  # a frame of an animation, which holds chunks of its own behind 16 bytes
            for inner, content in _riff_chunks(body, 16):
                found.setdefault(inner, content)
        found.setdefault(name, body)
    if whole:
        lossy = found.get(b"VP8 ", b"")
        width, height = struct.unpack_from("<HH", lossy, 6) if len(lossy) >= 10 else (0, 0)
        flat = (width & 0x3FFF) * (height & 0x3FFF) // _FLAT_PIXELS
        # libwebp reads a hole as pixels, and gives no sign.
        if HOLE + bytes(flat) in lossy or HOLE in found.get(b"VP8L", b""):
            raise BadImageError("damaged (a hole of zero bytes in its pixels)")
    return Container("WEBP", data, find_orientation(found.get(b"EXIF"), found.get(b"XMP ")))


_FLAT_PIXELS = 2000
"""Of a flat area, libwebp writes one byte 0 for 10,400 pixels at most."""


def _riff_chunks(data: bytes, at: int) -> Iterator[tuple[bytes, bytes]]:
    parts = 0
    while at + 8 <= len(data):
        check_limits(parts := parts + 1, 0)
        name, length = struct.unpack_from("<4sI", data, at)
        yield name, data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def _tiff(data: bytes, _whole: bool) -> Container:
    try:
        directory = Directory(data)
    except ValueError as error:
        raise BadImageError("truncated" if "truncated" in str(error) else f"damaged ({error})") from error
    if _is_raw(directory):
        raise BadImageError(RAW)
    try:
        xmp = directory.raw(700, MAX_TEXT)[2]
    except ValueError:
        xmp = b""
    return Container("TIFF", data, find_orientation(data, xmp), directory=directory)


def _is_raw(directory: Directory) -> bool:
    """Whether it is a camera's raw photo, whose first picture is a thumbnail, such as a DNG, CR2 or NEF."""
    try:
        reduced = directory.integer(_NEW_SUBFILE_TYPE, 0) & 1
    except ValueError:
        reduced = 0
    return _DNG_VERSION in directory or directory.data[8:10] == b"CR" or bool(reduced and _SUB_IFDS in directory)


def _as_it_is(name: str) -> Callable[[bytes, bool], Container]:
    return lambda data, _whole: Container(name, data)


_READERS: dict[re.Pattern[bytes], Callable[[bytes, bool], Container]] = {
    re.compile(rb"\xff\xd8\xff"): open_jpeg,
    re.compile(re.escape(MAGIC)): open_png,
    re.compile(rb"GIF8[79]a"): _gif,
    re.compile(rb"RIFF....WEBP", re.DOTALL): _webp,
    re.compile(rb"II[\x2a\x2b]\0|MM\0[\x2a\x2b]|MM\x2a\0|II\0\x2a"): _tiff,
    re.compile(rb"BM"): _as_it_is("BMP"),
    re.compile(rb"....ftyp(?:avi[fs]|(?:mif1|msf1|miaf).{4,40}avi[fs])", re.DOTALL): _as_it_is("AVIF"),
}
"""By how a file begins."""
