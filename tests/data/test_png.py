import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from tests.data.files import PLAIN, SIDE, chunk, exif, plain_png, png, save

from foveate.data.decode import BadImageError, decode_image, largest_value, read_header
from foveate.preprocessing import Preprocessing

LARGE = zlib.compress(bytes(3 << 20))


def colour(data: bytes, white: int | None = None) -> tuple[int, ...]:
    """The one colour of a plain image."""
    pixels = decode_image(data, Preprocessing(SIDE, white=white))
    assert (pixels == pixels[0, 0]).all()
    return tuple(int(value) for value in pixels[0, 0])


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize(
    "odd",
    [
        *(chunk(name, b"Key\0\0some text", sound=False) for name in (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"pHYs")),
        chunk(b"eXIf", exif([(274, 3, b"\6\0")]), sound=False),
        chunk(b"tRNS", struct.pack(">3H", *PLAIN), sound=False),
        *(chunk(name, b"\1") for name in (b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"acTL", b"fcTL", b"bKGD", b"tRNS")),
        chunk(b"fdAT", b"\1"),
        chunk(b"iCCP", b"x\0\0" + LARGE),
        chunk(b"zTXt", b"x\0\0" + LARGE),
        chunk(b"iTXt", b"x\0\1\0\0\0" + LARGE),
        chunk(b"iCCP", b"x\0\0not compressed"),
        chunk(b"eXIf", b"garbage" * 9),
    ],
    ids=lambda odd: odd[4:8].decode(),
)
def test_an_odd_chunk_does_not_matter(odd: bytes, where: str) -> None:
    assert colour(plain_png(**{where: [odd]})) == PLAIN


@pytest.mark.parametrize(
    "odd",
    [
        chunk(b"eXIf", exif([(274, 3, b"\6\0"), (282, 2, b"72 dpi\0\0")])),
        chunk(b"eXIf", b"Exif\0\0" + exif([(274, 1, b"\6")])),
        chunk(b"tEXt", b"Raw profile type exif\0\nexif\n  26\n" + exif([(274, 3, b"\6\0")]).hex().encode()),
        chunk(
            b"zTXt",
            b"Raw profile type exif\0\0"
            + zlib.compress(b"\nexif\n  26\n" + exif([(274, 3, b"\6\0")]).hex().encode()),
        ),
        chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'),
    ],
)
@pytest.mark.parametrize("where", ["before", "after"])
def test_the_orientation_is_found(odd: bytes, where: str) -> None:
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[: SIDE // 2] = PLAIN
    data = save(Image.fromarray(pixels))
    at = data.index(b"IDAT" if where == "before" else b"IEND") - 4
    turned = decode_image(data[:at] + odd + data[at:], Preprocessing(SIDE))
    assert (turned[:, SIDE // 2 :] == PLAIN).all()
    assert not turned[:, : SIDE // 2].any()


@pytest.mark.parametrize("name", [b"IHDR", b"PLTE", b"IDAT"])
def test_damage_in_what_bears_on_pixels(name: bytes) -> None:
    image = Image.new("P", (SIDE, SIDE), 1)
    image.putpalette([9, 8, 7, *PLAIN])
    data = bytearray(save(image))
    data[data.index(name) + 6] ^= 1
    with pytest.raises(BadImageError, match="damaged"):
        decode_image(bytes(data), Preprocessing(SIDE))


@pytest.mark.parametrize(
    ("row", "bits", "transparent", "expected"),
    [
        (b"\0" * 3, 1, b"\0\0", 255),
        (b"\xff" * 3, 1, b"\0\0", 255),
        (b"\x55" * 5, 2, b"\0\1", 255),
        (b"\x55" * 5, 2, b"\0\2", 85),
        (b"\x11" * 10, 4, b"\0\1", 255),
        (b"\x11" * 10, 4, b"\0\2", 17),
        (b"\7" * 20, 8, b"\0\7", 255),
        (b"\7" * 20, 8, b"\0\x08", 7),
        (b"\x12\x34" * 20, 16, b"\x12\x34", 255),
        (b"\x12\x34" * 20, 16, b"\x12\x35", 18),
    ],
)
def test_white_behind_a_transparent_grey(row: bytes, bits: int, transparent: bytes, expected: int) -> None:
    assert colour(png(row, bits, 0, before=[chunk(b"tRNS", transparent)])) == (expected,) * 3


@pytest.mark.parametrize(("transparent", "expected"), [(b"\x12\x34", 255), (b"\x12\x35", 18)])
def test_white_behind_a_transparent_colour_of_16_bits(transparent: bytes, expected: int) -> None:
    assert colour(png(b"\x12\x34" * 60, 16, 2, before=[chunk(b"tRNS", transparent * 3)])) == (expected,) * 3


@pytest.mark.parametrize(
    ("pixel", "kind", "by_format", "largest", "by_largest"),
    [
        (b"\xc8\x34", 0, (200, 200, 200), 0xC834, (255, 255, 255)),
        (b"\xc8\x34\x1e\x12\x1e\xff", 2, (200, 30, 30), 0xC834, (255, 38, 39)),
        (b"\xc8\x34\xff\xff", 4, (200, 200, 200), 0xC834, (255, 255, 255)),
        (b"\xc8\x34\x1e\x12\x1e\xff\xff\xff", 6, (200, 30, 30), 0xC834, (255, 38, 39)),
        (b"\0\xc8\0\x1e\0\x1e", 2, (0, 0, 0), 200, (255, 38, 38)),
        (b"\x0f\xff\x08\0\0\0\xff\xff", 6, (15, 8, 0), 4095, (255, 128, 0)),
        (b"\x0f\xff\x80\0", 4, (135, 135, 135), 4095, (255, 255, 255)),
    ],
)
def test_16_bits(
    pixel: bytes,
    kind: int,
    by_format: tuple[int, ...],
    largest: int,
    by_largest: tuple[int, ...],
) -> None:
    data = png(pixel * SIDE, 16, kind)
    assert colour(data) == by_format
    assert largest_value(data) == largest
    assert colour(data, largest) == by_largest
    assert read_header(data).deep  # type: ignore[union-attr]


def test_8_bits_are_as_they_are_whatever_is_white() -> None:
    assert colour(plain_png(), 4095) == PLAIN
    assert largest_value(plain_png()) is None


@pytest.mark.parametrize("kind", [b"teSt", b"IDAT", b"tEXt"])
@pytest.mark.parametrize("where", ["before", "after"])
def test_chunks_without_number(kind: bytes, where: str) -> None:
    data = plain_png(**{where: [chunk(kind, b"")] * 200_000})
    with pytest.raises(BadImageError, match=r"more than 10?0,000 parts"):
        decode_image(data, Preprocessing(SIDE))


def test_one_large_chunk_before_the_pixels() -> None:
    with pytest.raises(BadImageError, match="before its pixels"):
        decode_image(plain_png(before=[chunk(b"teSt", bytes(33 << 20))]), Preprocessing(SIDE))


def test_the_default_image_of_an_animated_png() -> None:
    frames = [Image.new("RGB", (SIDE, SIDE), each) for each in (PLAIN, "blue")]
    assert colour(save(frames[0], save_all=True, append_images=frames[1:])) == PLAIN
    assert colour(save(frames[0], save_all=True, append_images=frames[1:], default_image=True)) == PLAIN


@pytest.mark.parametrize("seed", range(8))
def test_the_half_of_a_png(seed: int) -> None:
    """Zero bytes may be pixels to zlib, all rows of them; the checksum is what tells."""
    smooth = np.random.default_rng(seed).normal(0, 3, (200, 200, 3)).cumsum(1).astype(np.int64) % 256
    data = save(Image.fromarray(smooth.astype(np.uint8)))
    half = data[: len(data) // 2]
    with pytest.raises(BadImageError, match=r"the checksum of IDAT is wrong|truncated"):
        decode_image(half + bytes(len(data) - len(half)), Preprocessing(16))
    with pytest.raises(BadImageError, match="truncated"):
        decode_image(half, Preprocessing(16))
    for missing in range(13, 20):
        with pytest.raises(BadImageError, match="truncated"):
            decode_image(data[:-missing], Preprocessing(16))


def test_without_an_end() -> None:
    assert colour(plain_png()[:-12]) == PLAIN


def test_apples_variant_is_named() -> None:
    data = plain_png()
    with pytest.raises(BadImageError, match="CgBI"):
        decode_image(data[:8] + chunk(b"CgBI", b"\x50\0\x20\2") + data[8:], Preprocessing(SIDE))


@pytest.mark.parametrize("options", [{}, {"gamma": 0.45}, {"dpi": (72, 72)}])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_modes_are_as_pillow_decodes_them(mode: str, options: dict[str, float]) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (SIDE, SIDE, 4), np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    white = Image.new("RGBA", image.size, "white")
    expected = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    assert np.array_equal(decode_image(save(image, **options), Preprocessing(SIDE)), np.asarray(expected))
