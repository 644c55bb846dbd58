"""JPEG files as far as the first scan (ITU-T T.81, annex B), and what libjpeg does not find wrong in the rest."""

import functools
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from foveate.data.container import HOLE, BadImageError, Container, Frame, check_limits, find_orientation

_DHT, _EOI, _SOS, _COM = 0xC4, 0xD9, 0xDA, 0xFE
_APP0, _APP14, _APP15 = 0xE0, 0xEE, 0xEF
_ALONE = {0x00, 0x01, *range(0xD0, 0xD9)}
"""Markers without a segment: padding, TEM, restarts, and the beginning."""
_FRAMES = {*range(0xC0, 0xD0)} - {_DHT, 0xC8, 0xCC}
_HUFFMAN, _SEQUENTIAL, _BITWISE = {0xC0, 0xC1}, {0xC0, 0xC1, 0xC9}, {0xC0, 0xC1, 0xC2}
_JFIF, _ADOBE, _EXIF, _XMP = b"JFIF\0", b"Adobe", b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_MAX_KNOWN = 4096
"""Bytes before the pixels that are kept, so that the next file with the same is read faster."""
_latest: list["_Head"] = []
"""The one that was read last, if it is kept: comparing with it takes a tenth of looking among those that are."""
_GRADIENT = bytes(2048)
"""More than a gradient takes of which each block is as much darker than the one before, until it is black."""
_MAX_SCANS = 100
"""Most scans; encoders write ten. Each costs time over the whole image, however short it is."""


class _Head(NamedTuple):
    """What comes before the pixels."""

    encoded: bytes
    """As it lies in the file."""
    needed: bytes
    """What a decoder needs of it."""
    frame: Frame
    orientation: int | None
    channels: bytes
    """The content of the frame's segment."""
    scan: bytes
    """The content of the first scan's."""
    fewest: int
    """Bytes that the pixels take at least."""
    hole: bytes
    """More bytes 0 than its pixels can have, where they are one scan in Huffman codes; empty: they can have any
    number, or are written otherwise."""


def open_jpeg(data: bytes, whole: bool) -> Container:
    """A JPEG as a container; `whole` as in `open_container`.

    Raises:
        BadImageError: where it is damaged before its pixels, or has a gap in them that libjpeg would fill.
    """
    head = _head(data)
    pixels = data[len(head.encoded) :]
    if whole:
        if len(pixels) < head.fewest:
            size = f"{head.frame.width} × {head.frame.height}"
            raise BadImageError(f"damaged (too few bytes for {size} pixels)")
        if head.hole:
            pixels = _without_padding(pixels, head.hole)
        else:
            _check_scans(head.channels, head.scan, pixels)
    return Container("JPEG", head.needed + pixels, head.orientation, frame=head.frame)


def _head(data: bytes) -> _Head:
    """The head of a file, which is not read anew where another file began with the same bytes."""
    for head in _latest:
        if data.startswith(head.encoded):
            return head
    at = data.find(b"\xff\xda", 2, _MAX_KNOWN)
    end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
    # A scan's header without its two bytes of length is the beginning of others, which have some.
    known = _known(data[:end]) if 2 <= at <= end - 4 and end <= min(len(data), _MAX_KNOWN) else None
    if known is None:
        return _walk(data)
    _latest[:] = [known]
    return known


@functools.lru_cache(maxsize=64)
def _known(beginning: bytes) -> _Head | None:
    """The head that these bytes are as a whole; None where they are not one.

    In sets of small images from one program, all files begin alike, and to walk through that takes as long as
    decoding.
    """
    try:
        head = _walk(beginning)
    except (BadImageError, IndexError, struct.error):
        return None
    return head if head.encoded == beginning else None


def _walk(data: bytes) -> _Head:
    """The head of a file; BadImageError, IndexError or struct.error where it is damaged."""
    about: dict[bytes, bytes] = {}  # contents of the segments that bear on colours and orientation
    others: list[bytes] = []  # segments as they are: tables, and the frame
    first_codes: list[tuple[bool, int]] = []
    kind, frame, scan, size = 0, b"", b"", 0
    for marker, body, end in _segments(data):
        if marker == _SOS:
            scan, size = body, end
        elif marker == _COM or _APP0 <= marker <= _APP15:
            for name in (_JFIF, _ADOBE, _EXIF, _XMP):
                if body.startswith(name):
                    about.setdefault(name, body)
        else:
            others.append(_segment(marker, body))
            if marker == _DHT:
                first_codes += _first_codes(body)
            elif marker in _FRAMES:
                kind, frame = marker, body
    if not frame:
        raise BadImageError("damaged (a JPEG that does not say its size)")
    bits, height, width, channels = struct.unpack_from(">BHHB", frame)
    # Some encoders do not set these bytes, which mean nothing here; libjpeg would warn.
    if kind in _SEQUENTIAL:
        scan = scan[:-3] + bytes([0, 63, 0])
    return _Head(
        data[:size],
        b"".join([b"\xff\xd8", *_colours(about, channels), *others, _segment(_SOS, scan)]),
        Frame(width, height, channels, bits),
        find_orientation(about.get(_EXIF), about.get(_XMP)),
        frame,
        scan,
        fewest=-(-width * height // 512) if kind in _BITWISE else 0,  # a bit for each block of 64
        hole=_hole(first_codes) if kind in _HUFFMAN and scan[0] == channels else b"",
    )


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


def _first_codes(body: bytes) -> Iterator[tuple[bool, int]]:
    """Of each Huffman table of a segment whether it is for what a block has beside its mean, and what bits 0 are.

    0 is the end of a block there; of a mean it is that of the block before.
    """
    while len(body) > 17:
        yield body[0] >= 16, body[17]
        body = body[17 + sum(body[1:17]) :]


def _hole(first_codes: list[tuple[bool, int]]) -> bytes:
    """More bytes 0 than the pixels of an image can have; empty where they can be a flat area, however large."""
    if not first_codes or any(code for of_block, code in first_codes if of_block):
        return HOLE  # the bits of each block would be at the limit of what it can hold
    return _GRADIENT if any(code for _, code in first_codes) else b""


def _colours(about: dict[bytes, bytes], channels: int) -> Iterator[bytes]:
    """The segments by which libjpeg knows what the channels are, without what it would warn of."""
    if _JFIF in about:  # as of version 1.1; it decodes others alike
        yield _segment(_APP0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
    if len(adobe := about.get(_ADOBE, b"")) >= 12:
        transform = adobe[11] if adobe[11] in (0, 1, 2) else {4: 2}.get(channels, 1)  # as it takes other numbers
        yield _segment(_APP14, adobe[:11] + bytes([transform]))


def _without_padding(pixels: bytes, hole: bytes) -> bytes:
    """The only scan of a JPEG, whose pixels cannot have a `hole`, without bytes 0 and anything else behind it.

    libjpeg reads a hole of bytes 0 as pixels, and often is in step again behind it: of 132 photographs with a hole
    of 64 bytes it warned of 89.

    Raises:
        BadImageError: for such a hole.
    """
    if pixels.endswith(b"\xff\xd9") and not pixels.endswith(b"\0\0\xff\xd9") and hole not in pixels:
        return pixels  # as nearly all are; looking for the first end costs more
    end = pixels.find(b"\xff\xd9")
    if end < 0:
        return pixels  # truncated, as libjpeg will say
    filled = pixels[:end].rstrip(b"\0")
    if hole in filled:
        raise BadImageError("damaged (a hole of zero bytes in its pixels)")
    last = 2 if hole == HOLE else len(hole)  # bytes 0 that may be pixels
    return filled + pixels[len(filled) : end][:last] + pixels[end : end + 2]


def _check_scans(frame: bytes, scan: bytes, pixels: bytes) -> None:
    """Refuse a JPEG that lacks some of its scans, or has too many: libjpeg takes what is missing for 0."""
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
