"""PNG files as their chunks (ISO/IEC 15948)."""

import struct
import zlib
from collections.abc import Iterator

from foveate.data.container import (
    MAX_SMALL_PARTS,
    MAX_TEXT,
    BadImageError,
    Container,
    check_limits,
    find_orientation,
)

MAGIC = b"\x89PNG\r\n\x1a\n"
_RAW_EXIF, _XMP = b"Raw profile type exif", b"XML:com.adobe.xmp"
_LOOKED_AT = {b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"tEXt", b"zTXt", b"iTXt"}
_NEEDED = {b"IHDR", b"IDAT"}
_GREY, _RGB, _PALETTE = 0, 2, 3


def open_png(data: bytes, whole: bool) -> Container:
    """A PNG as a container; `whole` as in `open_container`. Of an animated one, the default image.

    Raises:
        BadImageError: where it is damaged in what bears on its pixels.
    """
    found, pixels, is_bare = _read(data, whole)
    if len(header := found.get(b"IHDR", b"")) < 13:
        raise BadImageError("damaged (a PNG without a header)")
    if not pixels:
        raise BadImageError("truncated")
    bits, colour = header[8:10]
    if is_bare and len(pixels) == 1 and len(header) == 13:
        return Container("PNG", data, deep=bits == 16)
    written = [(b"IHDR", header[:13])]
    if palette := found.get(b"PLTE"):
        written.append((b"PLTE", palette[: min(768, len(palette) // 3 * 3)]))
    transparent = found.get(b"tRNS", b"")
    if colour == _PALETTE and transparent:
        written.append((b"tRNS", transparent[:256]))
    elif bits < 16 and len(transparent) >= {_GREY: 2, _RGB: 6}.get(colour, 7):
        written.append((b"tRNS", _as_decoded(transparent, bits)))
    written += [(b"IDAT", b"".join(pixels)), (b"IEND", b"")]
    exif = found.get(b"eXIf") or _raw_profile(found.get(_RAW_EXIF, b""))
    return Container(
        "PNG",
        MAGIC + b"".join(_chunk(name, body) for name, body in written),
        find_orientation(exif, found.get(_XMP)),
        deep=bits == 16,
        transparent=transparent if bits == 16 else b"",
    )


def _read(data: bytes, whole: bool) -> tuple[dict[bytes, bytes], list[bytes], bool]:
    """The contents of the chunks that are looked at, by name, or of a text by its keyword; those with pixels; and
    whether there is nothing else.

    Of the others, those with a wrong checksum are passed over, as libpng does.
    """
    found: dict[bytes, bytes] = {}
    pixels: list[bytes] = []
    is_bare = True
    for name, body, check in _chunks(data):
        is_bare &= name in _NEEDED
        if name == b"IDAT":
            pixels.append(body)
            if not whole:
                break
            # zlib has a checksum as well, but Pillow is content when it has all rows, and does not read as far.
            if check != _checksum(name, body):
                raise BadImageError("truncated" if len(check) < 4 else "damaged (the checksum of IDAT is wrong)")
        elif name == b"CgBI":
            raise BadImageError(
                "a PNG in Apple's own variant (CgBI), which is not read: save it as an ordinary PNG"
            )
        elif name not in _LOOKED_AT:
            continue
        elif check == _checksum(name, body):
            is_text = body.startswith((_RAW_EXIF + b"\0", _XMP + b"\0"))
            key, content = (body[: body.index(0)], _text(name, body)) if is_text else (name, body)
            found.setdefault(key, content)
        elif name in (b"IHDR", b"PLTE"):
            raise BadImageError(f"damaged (the checksum of {name.decode()} is wrong)")
    return found, pixels, is_bare and len(found) == 1


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Name, content and checksum of each chunk, as far as they are whole; of pixels also a part of one."""
    at, parts, pixel_parts = len(MAGIC), 0, 0
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        start, at = at + 8, at + 12 + length
        if name == b"IDAT":
            check_limits(pixel_parts := pixel_parts + 1, 0, MAX_SMALL_PARTS)
        elif name == b"IEND" or not name.isalpha() or start + length > len(data):
            return
        else:
            check_limits(parts := parts + 1, 0 if pixel_parts else at)
        yield name, data[start : start + length], data[at - 4 : at]


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body), name) + body + _checksum(name, body)


def _checksum(name: bytes, body: bytes) -> bytes:
    return zlib.crc32(body, zlib.crc32(name)).to_bytes(4)


def _as_decoded(transparent: bytes, bits: int) -> bytes:
    """A transparent grey or colour, as Pillow compares it: with values of 8 bits, but of 1 bit as they are."""
    if bits == 1:
        return transparent
    values = struct.unpack(f">{len(transparent) // 2}H", transparent[: len(transparent) // 2 * 2])
    return b"".join((value % 2**bits * 255 // (2**bits - 1)).to_bytes(2) for value in values)


def _text(name: bytes, body: bytes) -> bytes:
    """The text in a chunk, up to a limit; nothing where it is damaged."""
    _, _, text = body.partition(b"\0")
    if name == b"tEXt":
        return text
    packed = name == b"zTXt" or text[:1] == b"\1"
    text = text[1:] if name == b"zTXt" else text[2:].split(b"\0", 2)[-1]
    try:
        return zlib.decompressobj().decompress(text, MAX_TEXT) if packed else text
    except zlib.error:
        return b""


def _raw_profile(text: bytes) -> bytes:
    """EXIF data as ImageMagick writes them into a text: a name, a length, and hexadecimal digits."""
    try:
        return bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii"))
    except ValueError:
        return b""
