import contextlib
import io
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.data.files import PLAIN, SIDE, save, tiff

from foveate.data.decode import BadImageError, decode_image, largest_value, read_header
from foveate.preprocessing import Preprocessing

PIXELS = SIDE * SIDE
RGB = {258: [8, 8, 8], 262: 2, 277: 3}


def colour(data: bytes, white: int | None = None) -> tuple[int, ...]:
    """The one colour of a plain image."""
    pixels = decode_image(data, Preprocessing(SIDE, white=white))
    assert (pixels == pixels[-1, -1]).all()
    return tuple(int(value) for value in pixels[-1, -1])


def grey(kind: str, value: float, *, order: str = "<", photometric: int = 1, first: float | None = None) -> bytes:
    """A plain grey image of numbers as NumPy names them."""
    values = np.full(PIXELS, value, order + kind)
    if first is not None:
        values[0] = first
    tags = {258: int(kind[1]) * 8, 262: photometric, 277: 1, 339: {"u": 1, "i": 2, "f": 3, "c": 6}[kind[0]]}
    return tiff(values.tobytes(), tags, order=order)


def packed(value: int, bits: int) -> bytes:
    """Rows of numbers of so many bits, the highest bit first; each row fills whole bytes."""
    row = f"{value:0{bits}b}" * SIDE
    row += "0" * (-len(row) % 8)
    return int(row, 2).to_bytes(len(row) // 8) * SIDE


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("u1", 200, 200),
        ("u2", 0xABCD, 0xAB),
        ("u4", 0xABCDEF01, 0xAB),
        ("i1", 100, 200),
        ("i2", 0x4000, 0x80),
        ("i4", 0x40000000, 0x80),
    ],
)
def test_whole_bytes(kind: str, value: int, expected: int, photometric: int, order: str) -> None:
    """Either order, and whether 0 is black or white."""
    found = colour(grey(kind, value, order=order, photometric=photometric))
    assert found == pytest.approx(((expected if photometric else 255 - expected),) * 3, abs=kind == "i1")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("bits", "value", "expected"),
    [
        (1, 1, 255),
        (2, 1, 85),
        (4, 1, 17),
        (10, 1023, 255),
        (10, 512, 128),
        (12, 4095, 255),
        (12, 0x800, 128),
        (14, 0x2000, 128),
    ],
)
def test_packed_bits(bits: int, value: int, expected: int, order: str) -> None:
    data = tiff(packed(value, bits), {258: bits, 262: 1, 277: 1}, order=order)
    assert colour(data) == (expected,) * 3
    if bits > 8:
        assert largest_value(data) == value


@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_floating_point_is_refused(kind: str, order: str) -> None:
    with pytest.raises(BadImageError, match="floating-point pixels have no agreed range"):
        decode_image(grey(kind, 0.5, order=order), Preprocessing(SIDE))


@pytest.mark.parametrize("kind", ["i1", "i2", "i4"])
def test_negative_pixels_are_refused(kind: str) -> None:
    with pytest.raises(BadImageError, match="negative pixels have no agreed range"):
        decode_image(grey(kind, 100, first=-1), Preprocessing(SIDE))


@pytest.mark.parametrize("kind", ["u8", "c8"])
def test_other_numbers_are_refused(kind: str) -> None:
    with pytest.raises(BadImageError, match="save it with 8"):
        decode_image(grey(kind, 1), Preprocessing(SIDE))


@pytest.mark.parametrize("kind", ["u2", "u4", "i4"])
def test_equal_values_give_equal_output_whatever_is_beside_them(kind: str) -> None:
    alone, beside = (decode_image(grey(kind, 200, first=first), Preprocessing(SIDE)) for first in (200, 30_000))
    assert np.array_equal(alone[1:], beside[1:])
    scaled = (decode_image(grey(kind, 200, first=first), Preprocessing(SIDE, white=255)) for first in (200, 256))
    assert all((each[1:] == 200).all() for each in scaled)


def test_the_largest_value_is_that_of_colours() -> None:
    values = np.tile(np.array([200, 30, 30, 65535], "<u2"), PIXELS)
    data = tiff(values.tobytes(), {258: [16] * 4, 262: 2, 277: 4, 338: 2})
    assert largest_value(data) == 200
    assert colour(data, 255) == PLAIN


@pytest.mark.parametrize(
    ("extra", "alpha", "expected"),
    [
        ([], 0, (10, 20, 30)),
        ([0], 0, (10, 20, 30)),
        ([2], 0, (255, 255, 255)),
        ([2], 255, (10, 20, 30)),
        ([2], 51, (206, 208, 210)),
        ([1], 51, (214, 224, 234)),
        ([999], 255, (10, 20, 30)),
    ],
)
def test_the_fourth_channel(extra: list[int], alpha: int, expected: tuple[int, ...]) -> None:
    more = {338: extra} if extra else {}
    data = tiff(bytes([10, 20, 30, alpha]) * PIXELS, {258: [8] * 4, 262: 2, 277: 4, **more})
    assert colour(data) == expected


@pytest.mark.parametrize("scale", [1, 257, 256])
def test_palettes_of_8_and_16_bits(scale: int) -> None:
    palette = [0] * 768
    palette[5], palette[256 + 5], palette[512 + 5] = 255 * scale, 128 * scale, 18 * scale
    assert colour(tiff(b"\5" * PIXELS, {258: 8, 262: 3, 277: 1, 320: palette})) == (255, 128, 18)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u1", "u2"])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("tiled", [False, True])
def test_planes_and_tiles(order: str, kind: str, planar: bool, tiled: bool) -> None:
    bits = int(kind[1]) * 8
    pixels = np.random.default_rng(0).integers(0, 2**bits, (SIDE, SIDE, 3)).astype(order + kind)
    padded = np.pad(pixels, ((0, 12), (0, 12), (0, 0))) if tiled else pixels
    planes = [padded[..., [channel]] for channel in range(3)] if planar else [padded]
    step, width = (16, 16) if tiled else (5, SIDE)
    parts = [
        plane[top : top + step, left : left + width].tobytes()
        for plane in planes
        for top in range(0, len(padded), step)
        for left in range(0, padded.shape[1], width)
    ]
    tags: dict[int, int | Sequence[int]] = {258: [bits] * 3, 262: 2, 277: 3, 284: 1 + planar}
    tags |= {322: 16, 323: 16} if tiled else {278: 5}
    found = decode_image(tiff(parts, tags, order=order), Preprocessing(SIDE))
    assert np.array_equal(found, (pixels >> (bits - 8)).astype(np.uint8))


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "LAB"])
@pytest.mark.parametrize("big", [False, True])
def test_pixels_are_pillows(mode: str, compression: str, big: bool) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (61, 61, 4), np.uint8)
    if mode == "LAB":
        image = Image.frombytes("LAB", (61, 61), pixels[..., :3].tobytes())
    else:
        image = Image.fromarray(pixels).convert(mode)
    data = save(image, "TIFF", compression=compression, big_tiff=big)
    opened = Image.open(io.BytesIO(data))
    white = Image.new("RGBA", image.size, "white")
    if opened.has_transparency_data:
        opened = Image.alpha_composite(white, opened.convert("RGBA"))
    assert np.array_equal(decode_image(data, Preprocessing(61)), np.asarray(opened.convert("RGB")))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate"])
@pytest.mark.parametrize(("mode", "predictor"), [("L", 2), ("RGB", 2), ("I;16", 1), ("I;16", 2), ("I", 1)])
def test_differences_of_neighbours(mode: str, predictor: int, compression: str) -> None:
    pixels = np.random.default_rng(1).integers(0, 2**15, (61, 61), np.uint16)
    image = {
        "L": lambda: Image.fromarray((pixels >> 7).astype(np.uint8)),
        "RGB": lambda: Image.fromarray(
            np.stack([pixels >> 7, pixels & 255, pixels >> 3 & 255], 2).astype(np.uint8)
        ),
        "I;16": lambda: Image.fromarray(pixels),
        "I": lambda: Image.fromarray(pixels.astype(np.int32) << 16),
    }[mode]()
    data = save(image, "TIFF", compression=compression, tiffinfo={317: predictor})
    expected = np.asarray(image) if mode in ("L", "RGB") else pixels >> (8 if mode == "I;16" else 7)
    expected = expected if mode == "RGB" else np.repeat(expected[..., None], 3, 2)
    assert np.array_equal(decode_image(data, Preprocessing(61)), expected)


@pytest.mark.parametrize("compression", ["jpeg", "group3", "group4", "tiff_ccitt"])
def test_compressions_that_are_libtiffs_alone(compression: str) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    image = Image.fromarray(pixels).convert("RGB" if compression == "jpeg" else "1")
    for exif in ({}, {274: 6}):
        data = save(image, "TIFF", compression=compression, tiffinfo=exif)
        opened = Image.open(io.BytesIO(data))
        assert np.array_equal(decode_image(data, Preprocessing(64)), np.asarray(opened.convert("RGB")))


@pytest.mark.parametrize(
    "odd",
    [
        (282, 2, b"72 dpi\0\0"),
        (282, 10, struct.pack("<ii", -1, 0)),
        (296, 9, struct.pack("<i", -5)),
        (34665, 4, b"\xff" * 4),
        (330, 4, b"\xff" * 4),
        (34675, 7, b"no profile"),
        (33723, 5, b"\xff" * 8),
    ],
)
def test_an_odd_tag_beside_the_orientation_does_not_matter(odd: tuple[int, int, bytes]) -> None:
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[: SIDE // 2] = PLAIN
    turned = decode_image(
        tiff(pixels.tobytes(), RGB, more=[(274, 3, struct.pack("<H", 6)), odd]), Preprocessing(SIDE)
    )
    assert (turned[:, SIDE // 2 :] == PLAIN).all()
    assert not turned[:, : SIDE // 2].any()


def test_the_first_of_several_pages() -> None:
    pages = [Image.new("RGB", (SIDE, SIDE), each) for each in (PLAIN, "blue")]
    assert colour(save(pages[0], "TIFF", save_all=True, append_images=pages[1:])) == PLAIN


def test_bits_in_the_other_order() -> None:
    assert colour(tiff(b"\x13" * PIXELS, {258: 8, 262: 1, 277: 1, 266: 2})) == (0xC8,) * 3


@pytest.mark.parametrize("offset", [0xFFFFFFFF, 10_000])
def test_pixels_that_are_not_there(offset: int) -> None:
    data = tiff(bytes(PIXELS * 3), {**RGB, 273: offset})
    with pytest.raises(BadImageError, match="truncated"):
        decode_image(data, Preprocessing(SIDE))


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({258: [8] * 3, 262: 1, 277: 3}, "3 channels of 8 bits"),
        ({258: 0, 262: 1, 277: 1}, "1 channels of 0 bits"),
        ({258: 8, 262: 2, 277: 65_535}, "65535 channels"),
        ({258: 8, 262: 32803, 277: 1}, "photometric interpretation 32803"),
        ({258: [5, 6, 5], 262: 2, 277: 3}, "several depths"),
        ({258: 8, 262: 1, 277: 1, 256: 0}, "does not say its size"),
        ({258: 8, 262: 1, 277: 1, 256: 100_000, 257: 100_000}, "more than 89,478,485"),
        ({258: 8, 262: 3, 277: 1, 320: [1, 2, 3]}, "a palette that is too short"),
    ],
)
def test_what_is_not_read_says_why(tags: dict[int, Any], reason: str) -> None:
    with pytest.raises(BadImageError, match=reason):
        decode_image(tiff(bytes(PIXELS * 3), tags), Preprocessing(SIDE))


def test_tags_and_strips_without_number() -> None:
    many = [(40_000 + each, 3, b"\1\0") for each in range(5000)]
    with pytest.raises(BadImageError, match="more than 4,096 tags"):
        decode_image(tiff(bytes(PIXELS * 3), RGB, more=many), Preprocessing(SIDE))
    with pytest.raises(BadImageError, match="more than 200,000 strips or tiles"):
        decode_image(tiff(b"", {258: 8, 262: 1, 277: 1, 322: 1, 323: 1}, size=(500, 500)), Preprocessing(SIDE))


def test_a_directory_that_names_itself_as_the_next_one() -> None:
    data = bytearray(tiff(bytes(PLAIN) * PIXELS, RGB))
    start = struct.unpack_from("<I", data, 4)[0]
    struct.pack_into("<I", data, start + 2 + 12 * struct.unpack_from("<H", data, start)[0], start)
    assert colour(bytes(data)) == PLAIN


@settings(max_examples=150)
@given(st.data())
def test_damage_only_raises_bad_image(draw: st.DataObject) -> None:
    compression = draw.draw(st.sampled_from(["raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"]))
    data = bytearray(save(Image.new("RGB", (SIDE, SIDE), PLAIN), "TIFF", compression=compression))
    for _ in range(draw.draw(st.integers(1, 6))):
        at = draw.draw(st.integers(0, len(data) - 1))
        data[at] = draw.draw(st.integers(0, 255))
    with contextlib.suppress(BadImageError):
        decode_image(bytes(data), Preprocessing(16))
    largest_value(bytes(data))
    read_header(bytes(data))


@pytest.mark.parametrize(
    ("tags", "raw"),
    [
        ({50706: 1}, True),  # a DNG
        ({254: 1, 330: 8}, True),  # a thumbnail before the picture, as in a NEF
        ({254: 1}, False),
        ({330: 8}, False),
    ],
)
def test_a_cameras_raw_photo_is_named_and_not_read_as_its_thumbnail(tags: dict[int, int], raw: bool) -> None:
    data = tiff(bytes([10, 20, 30]) * PIXELS, {**RGB, **tags})
    if raw:
        with pytest.raises(
            BadImageError, match=r"^a camera's raw photo, which is not read: save it as JPEG or PNG"
        ):
            decode_image(data, Preprocessing(SIDE))
    else:
        assert colour(data) == (10, 20, 30)
