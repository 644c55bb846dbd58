"""Image files written byte by byte, so that each may be as odd as a real one."""

import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

PLAIN = (200, 30, 30)
"""The colour of a plain test image."""
SIDE = 20


def save(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def plain(kind: str, **options: Any) -> bytes:
    return save(Image.new("RGB", (SIDE, SIDE), PLAIN), kind, **options)


def directory(tags: Sequence[tuple[int, int, bytes]], *, order: str = "<", start: int = 8) -> bytes:
    """A TIFF directory at `start`, and behind it what does not fit; each tag with its type and values as bytes."""
    sizes = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
    entries, behind = b"", b""
    end = start + 6 + 12 * len(tags)
    for tag, kind, content in tags:
        place = content.ljust(4, b"\0")
        if len(content) > 4:
            place = struct.pack(f"{order}I", end + len(behind))
            behind += content + bytes(len(content) % 2)
        entries += struct.pack(f"{order}HHI", tag, kind, len(content) // sizes[kind]) + place
    return struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + behind


def exif(tags: Sequence[tuple[int, int, bytes]], order: str = "<") -> bytes:
    """EXIF data."""
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8)
    return head + directory(tags, order=order)


def tiff(
    pixels: bytes | Sequence[bytes],
    tags: Mapping[int, int | Sequence[int]],
    *,
    order: str = "<",
    size: tuple[int, int] = (SIDE, SIDE),
    more: Sequence[tuple[int, int, bytes]] = (),
) -> bytes:
    """A TIFF with its strips (or tiles, where `tags` has 322) behind the header and its directory behind them."""
    parts = [pixels] if isinstance(pixels, bytes) else list(pixels)
    offsets, body = [], b""
    for part in parts:
        offsets.append(8 + len(body))
        body += part + bytes(len(part) % 2)
    tiled = 322 in tags
    values: dict[int, int | Sequence[int]] = {
        256: size[0],
        257: size[1],
        259: 1,
        324 if tiled else 273: offsets,
        325 if tiled else 279: [len(part) for part in parts],
        **({} if tiled else {278: -(-size[1] // len(parts))}),
        **tags,
    }
    packed = []
    for tag, value in values.items():
        each = [value] if isinstance(value, int) else list(value)
        kind, letter = (4, "I") if tag in (256, 257, 273, 278, 279, 322, 323, 324, 325) else (3, "H")
        packed.append((tag, kind, struct.pack(f"{order}{len(each)}{letter}", *each)))
    listed = sorted([*packed, *more])
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8 + len(body))
    return head + body + directory(listed, order=order, start=8 + len(body))


def chunk(name: bytes, body: bytes, *, sound: bool = True) -> bytes:
    """A chunk of a PNG; with a wrong checksum where it is not `sound`."""
    check = zlib.crc32(body, zlib.crc32(name)) ^ (not sound)
    return struct.pack(">I4s", len(body), name) + body + struct.pack(">I", check)


def png(
    row: bytes,
    bits: int,
    colour: int,
    *,
    before: Sequence[bytes] = (),
    after: Sequence[bytes] = (),
    side: int = SIDE,
) -> bytes:
    """A PNG of equal rows, with chunks before and behind the pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, bits, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress((b"\0" + row) * side))
    return b"\x89PNG\r\n\x1a\n" + b"".join([header, *before, pixels, *after, chunk(b"IEND", b"")])


def plain_png(*, before: Sequence[bytes] = (), after: Sequence[bytes] = ()) -> bytes:
    return png(bytes(PLAIN) * SIDE, 8, 2, before=before, after=after)


def segment(marker: int, body: bytes) -> bytes:
    """A segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def with_exif(kind: str, data: bytes, **options: Any) -> bytes:
    """A plain image with these EXIF data, whatever they hold."""
    if kind == "JPEG":
        return with_segments(plain(kind, **options), segment(0xE1, b"Exif\0\0" + data))
    if kind == "PNG":
        return plain_png(before=[chunk(b"eXIf", data)])
    if kind == "WEBP":
        return plain(kind, exif=data, **options)
    raise ValueError(kind)
