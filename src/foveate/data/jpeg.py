"""JPEG files as far as the first scan (ITU-T T.81, annex B), and what libjpeg does not find wrong in the rest."""

import functools
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from foveate.data.container import HOLE, BadImageError, Container, Frame, check_limits, find_orientation

__all__ = ["open_jpeg"]

_DHT, _EOI, _SOS, _COM = 0xC4, 0xD9, 0xDA, 0xFE
_APP0, _APP14, _APP15 = 0xE0, 0xEE, 0xEF
_ALONE = {0x00, 0x01, *range(0xD0, 0xD9)}
"""Markers without a segment: padding, TEM, restarts, and the beginning."""
_FRAMES = {*range(0xC0, 0xD0)} - {_DHT, 0xC8, 0xCC}
_HUFFMAN, _SEQUENTIAL, _BITWISE = {0xC0, 0xC1}, {0xC0, 0xC1, 0xC9}, {0xC0, 0xC1, 0xC2}
_JFIF, _ADOBE, _EXIF, _XMP = b"JFIF\0", b"Adobe", b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_EMPTY_SCAN = b"\xff\xda\0\2"
_MAX_KNOWN = 4096
"""Bytes before the first scan that are kept, so that the next file with the same is read faster."""
_MAX_SCANS = 100
"""Most scans; encoders write ten. Each costs time over the whole image, however short it is."""


@dataclass
class _Parts:
    """What comes before the pixels."""

    kind: int = 0
    """The marker of the frame."""
    frame: bytes = b""
    scan: bytes = b""
    about: dict[bytes, bytes] = field(default_factory=dict)
    """Contents of the segments that bear on colours and orientation, by how they begin."""
    others: list[bytes] = field(default_factory=list)
    """Segments as they are: tables, and the frame."""
    first_codes: list[int] = field(default_factory=list)
    pixels: bytes = b""


def open_jpeg(data: bytes, whole: bool) -> Container:
    """A JPEG as a container; `whole` as in `open_container`.

    Raises:
        BadImageError: where it is damaged before its pixels, or has a gap in them that libjpeg would fill.
    """
    parts = _read(data)
    if not parts.frame:
        raise BadImageError("damaged (a JPEG that does not say its size)")
    bits, height, width, channels = struct.unpack_from(">BHHB", parts.frame)
    scan, pixels = parts.scan, parts.pixels
    if whole and parts.kind in _BITWISE and 8 * 64 * len(pixels) < width * height:
        raise BadImageError(
            f"damaged (too few bytes for {width} × {height} pixels)"
        )  # a bit for each block at least
    if (
        parts.kind in _SEQUENTIAL
    ):  # some encoders do not set these bytes, which mean nothing here; libjpeg would warn
        scan = scan[:-3] + bytes([0, 63, 0])
    if whole and parts.kind in _HUFFMAN and scan[0] == channels and any(parts.first_codes or [1]):
        pixels = _without_padding(pixels)
    elif whole:
        _check_scans(parts.frame, scan, pixels)
    segments = [*_colours(parts.about, channels), *parts.others, _segment(_SOS, scan)]
    return Container(
        "JPEG",
        b"".join([b"\xff\xd8", *segments, pixels]),
        find_orientation(parts.about.get(_EXIF), parts.about.get(_XMP)),
        frame=Frame(width, height, channels, bits),
    )


def _read(data: bytes) -> _Parts:
    at = data.find(b"\xff\xda", 2, _MAX_KNOWN)
    if at < 0 or (parts := _known(data[:at])) is None:
        return _walk(data)
    end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
    if end > len(data):
        raise BadImageError("truncated")
    return replace(parts, scan=data[at + 4 : end], pixels=data[end:])


@functools.lru_cache(maxsize=64)
def _known(head: bytes) -> _Parts | None:
    """What such bytes before the first scan hold; None where the scan does not begin behind them.

    In sets of small images from one program, all files begin alike, and to walk through that takes as long as
    decoding.
    """
    try:
        parts = _walk(head + _EMPTY_SCAN)
    except (BadImageError, IndexError):
        return None
    return parts if parts.scan == parts.pixels == b"" else None


def _walk(data: bytes) -> _Parts:
    parts = _Parts()
    for marker, body, end in _segments(data):
        if marker == _SOS:
            parts.scan, parts.pixels = body, data[end:]
        elif marker == _COM or _APP0 <= marker <= _APP15:
            for name in (_JFIF, _ADOBE, _EXIF, _XMP):
                if body.startswith(name):
                    parts.about.setdefault(name, body)
        else:
            parts.others.append(_segment(marker, body))
            if marker == _DHT:
                parts.first_codes += _first_codes(body)
            elif marker in _FRAMES:
                parts.kind, parts.frame = marker, body
    return parts


def _segments(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Marker, content and end of each segment up to the first scan's; bytes between segments are passed over."""
    at, count = 2, 0
    while True:
        if (at := data.find(b"\xff", at)) < 0:
            raise BadImageError("truncated")
        at += 1
        marker = data[at]
        if marker == 0xFF or marker in _ALONE:
            continue
        check_limits(count := count + 1, at)
        if marker == _EOI:
            raise BadImageError("damaged (a JPEG without pixels)")
        end = at + 1 + int.from_bytes(data[at + 1 : at + 3])
        if end > len(data):
            raise BadImageError("truncated")
        yield marker, data[at + 3 : end], end
        if marker == _SOS:
            return
        at = max(end, at + 3)


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _first_codes(body: bytes) -> Iterator[int]:
    """What bits 0 stand for in each Huffman table of a segment; 0: no difference, or the end of a block."""
    while len(body) > 17:
        yield body[17]
        body = body[17 + sum(body[1:17]) :]


def _colours(about: dict[bytes, bytes], channels: int) -> Iterator[bytes]:
    """The segments by which libjpeg knows what the channels are, without what it would warn of."""
    if _JFIF in about:  # as of version 1.1; it decodes others alike
        yield _segment(_APP0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
    if len(adobe := about.get(_ADOBE, b"")) >= 12:
        transform = adobe[11] if adobe[11] in (0, 1, 2) else {4: 2}.get(channels, 1)  # as it takes other numbers
        yield _segment(_APP14, adobe[:11] + bytes([transform]))


def _without_padding(pixels: bytes) -> bytes:
    """The only scan of a JPEG, where bits 0 cannot be a flat area, without bytes 0 and anything else behind it.

    libjpeg reads a hole of bytes 0 as pixels, and often is in step again behind it: of 132 photographs with a hole
    of 64 bytes it warned of 89.

    Raises:
        BadImageError: for such a hole.
    """
    if pixels.endswith(b"\xff\xd9") and not pixels.endswith(b"\0\0\xff\xd9") and HOLE not in pixels:
        return pixels  # as nearly all are; looking for the first end costs more
    end = pixels.find(b"\xff\xd9")
    if end < 0:
        return pixels  # truncated, as libjpeg will say
    filled = pixels[:end].rstrip(b"\0")
    if HOLE in filled:
        raise BadImageError("damaged (a hole of zero bytes in its pixels)")
    return filled + pixels[len(filled) : end][:2] + pixels[end : end + 2]  # up to two bytes 0 may be pixels


def _check_scans(frame: bytes, scan: bytes, pixels: bytes) -> None:
    """Refuse a JPEG of several scans that lacks some: libjpeg takes coefficients that never come for 0.

    Raises:
        BadImageError: for it, and for too many scans.
    """
    scans = [scan, *(pixels[at.end() + 2 :][:13] for at in re.finditer(rb"\xff\xda", pixels))]
    if len(scans) > _MAX_SCANS:
        raise BadImageError(f"more than {_MAX_SCANS} scans")
    missing = {(frame[at], place) for at in range(6, len(frame) - 2, 3) for place in range(64)}
    for each in scans:
        count = each[0] if each else 0
        if count > 4 or len(each) < 4 + 2 * count:
            continue
        first, last, bits = each[1 + 2 * count : 4 + 2 * count]
        if bits & 15 == 0:
            missing -= {(each[1 + 2 * one], place) for one in range(count) for place in range(first, last + 1)}
    if missing:
        raise BadImageError("truncated (the last scans of a JPEG are missing)")
