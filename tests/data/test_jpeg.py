import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps
from tests.data.files import PLAIN, SIDE, exif, plain, save, segment, with_exif, with_segments

from foveate.data.container import MAX_BEFORE_PIXELS
from foveate.data.decode import BadImageError, decode_image, read_header
from foveate.preprocessing import Preprocessing

ORIENTATION = 274, 3, struct.pack("<H", 6)
ODD_TAGS = {
    "XResolution as text": (282, 2, b"72 dpi\0\0"),
    "a rational of -1/0": (282, 10, struct.pack("<ii", -1, 0)),
    "a signed number": (283, 9, struct.pack("<i", -5)),
    "a float where a short is due": (40961, 11, struct.pack("<f", 1)),
    "strips at 0xffffffff": (273, 4, b"\xff" * 4),
    "an EXIF directory at 0xffffffff": (34665, 4, b"\xff" * 4),
}


def noise(side: int = 160, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def by_pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def scans(data: bytes) -> list[int]:
    return [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]


@pytest.mark.parametrize("quality", [1, 75, 100])
@pytest.mark.parametrize("subsampling", [0, 1, 2, "4:1:1"])
@pytest.mark.parametrize("more", [{}, {"progressive": True}, {"optimize": True}, {"restart_marker_rows": 1}])
def test_pixels_are_pillows(quality: int, subsampling: int | str, more: dict[str, bool]) -> None:
    data = save(noise(61), "JPEG", quality=quality, subsampling=subsampling, **more)
    assert np.array_equal(decode_image(data, Preprocessing(61)), by_pillow(data))


@pytest.mark.parametrize("head", [b"", b"\xff\xda a comment with the marker of a scan"])
def test_files_that_begin_alike(head: bytes) -> None:
    """What comes before the pixels is read once for all of them."""
    for turn in range(4):
        data = save(noise(16).rotate(90 * turn), "JPEG")
        if head:
            data = with_segments(data, segment(0xFE, head))
        assert np.array_equal(decode_image(data, Preprocessing(16)), by_pillow(data))
        with pytest.raises(BadImageError, match="truncated"):
            decode_image(data[: data.rindex(b"\xff\xda") + 6], Preprocessing(16))


def test_files_of_several_beginnings_in_turns() -> None:
    """What is kept of one file does not bear on the next one, whose beginning may be nearly the same."""
    image = noise(16)
    kinds = [
        save(image, "JPEG"),
        save(image, "JPEG", quality=40),
        save(image, "JPEG", progressive=True),
        save(image.convert("L"), "JPEG"),
        with_segments(save(image, "JPEG"), segment(0xE1, b"Exif\0\0" + exif([ORIENTATION]))),
    ]
    at = scans(kinds[0])[0]
    # The headers of these scans say lengths of 0 and of 2; up to there, they are as the first one.
    damaged = [kinds[0][: at + 2] + length + kinds[0][at + 4 :] for length in (b"\0\0", b"\0\2")]
    expected = [np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")) for data in kinds]
    for bad in damaged:
        for data, pixels in zip(kinds, expected, strict=True):
            with pytest.raises(BadImageError, match=r"truncated|damaged"):
                decode_image(bad, Preprocessing(16))
            for _ in range(2):
                assert np.array_equal(decode_image(data, Preprocessing(16)), pixels)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_pixels_of_other_modes_are_pillows(mode: str) -> None:
    data = save(noise(61, mode), "JPEG")
    assert np.array_equal(decode_image(data, Preprocessing(61)), by_pillow(data))


def test_rgb_that_is_not_ycbcr() -> None:
    data = save(noise(61), "JPEG", keep_rgb=True)
    assert np.array_equal(decode_image(data, Preprocessing(61)), by_pillow(data))


@pytest.mark.parametrize(
    "sampling", [(0x11, 0x21, 0x11), (0x22, 0x21, 0x12), (0x31, 0x31, 0x31), (0x14, 0x11, 0x11)]
)
def test_rare_samplings(sampling: tuple[int, int, int]) -> None:
    """Of an image whose channels share their tables, so that its 432 blocks can be taken to be of any of them."""
    data = bytearray(save(noise(96), "JPEG", keep_rgb=True, subsampling=0))
    frame = data.index(b"\xff\xc0")
    data[frame + 11 : frame + 20 : 3] = sampling
    across, down = max(each >> 4 for each in sampling), max(each & 15 for each in sampling)
    units = 432 // sum((each >> 4) * (each & 15) for each in sampling)
    data[frame + 5 : frame + 9] = struct.pack(">HH", 8 * down, 8 * across * units)
    expected = ImageOps.fit(Image.fromarray(by_pillow(bytes(data))), (16, 16), Image.Resampling.BILINEAR)
    assert np.array_equal(decode_image(bytes(data), Preprocessing(16)), np.asarray(expected))


def test_cmyk_by_way_of_ycck() -> None:
    data = bytearray(save(Image.new("CMYK", (SIDE, SIDE), (0, 0, 0, 255)), "JPEG"))
    at = data.index(b"Adobe")
    data[at + 11] = 2
    assert np.array_equal(decode_image(bytes(data), Preprocessing(SIDE)), by_pillow(bytes(data)))


@pytest.mark.parametrize("odd", ODD_TAGS)
@pytest.mark.parametrize("order", ["<", ">"])
def test_an_odd_tag_beside_the_orientation_does_not_matter(odd: str, order: str) -> None:
    tags = [(274, 3, struct.pack(f"{order}H", 6)), ODD_TAGS[odd]]
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[: SIDE // 2] = PLAIN
    data = with_segments(save(Image.fromarray(pixels), "JPEG", quality=100, subsampling=0))
    data = with_segments(data, segment(0xE1, b"Exif\0\0" + exif(sorted(tags), order)))
    turned = decode_image(data, Preprocessing(SIDE))
    assert abs(turned[:, SIDE // 2 + 2 :].astype(int) - PLAIN).max() <= 3  # the upper half is the right one now
    assert turned[:, : SIDE // 2 - 2].max() <= 3


@pytest.mark.parametrize(
    ("kind", "content"),
    [(1, b"\6"), (4, struct.pack("<I", 6)), (8, struct.pack("<h", 6)), (9, struct.pack("<i", 6)), (6, b"\6")],
)
def test_an_orientation_of_any_integer_type(kind: int, content: bytes) -> None:
    header = read_header(with_exif("JPEG", exif([(274, kind, content)])))
    assert header is not None
    assert header.rotated


@pytest.mark.parametrize(
    "data", [b"", b"garbage" * 9, b"II*\0\xff\xff\xff\xff", exif([(274, 11, b"\0\0\xc0\x40")])]
)
def test_exif_data_that_say_nothing(data: bytes) -> None:
    assert decode_image(with_exif("JPEG", data), Preprocessing(SIDE))[3, 3].tolist() == pytest.approx(PLAIN, abs=2)


def test_the_orientation_in_xmp() -> None:
    xmp = segment(0xE1, b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>')
    header = read_header(with_segments(plain("JPEG"), xmp))
    assert header is not None
    assert header.rotated
    both = with_segments(plain("JPEG"), xmp, segment(0xE1, b"Exif\0\0" + exif([(274, 3, b"\1\0")])))
    assert not read_header(both).rotated  # type: ignore[union-attr]


@pytest.mark.parametrize("length", [16, 64, 512, 4096])
@pytest.mark.parametrize("more", [{}, {"restart_marker_rows": 1}, {"optimize": True}])
def test_a_hole_of_zero_bytes(length: int, more: dict[str, bool]) -> None:
    data = bytearray(save(noise(), "JPEG", **more))
    data[5000 : 5000 + length] = bytes(length)
    with pytest.raises(BadImageError, match="damaged"):
        decode_image(bytes(data), Preprocessing(16))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("part", [0.3, 0.5, 0.9])
def test_a_part_with_an_end(part: float, progressive: bool) -> None:
    data = save(noise(), "JPEG", progressive=progressive)
    cut = data[: int(part * len(data))]
    with pytest.raises(BadImageError, match=r"damaged|truncated"):
        decode_image(cut + b"\xff\xd9", Preprocessing(16))
    with pytest.raises(BadImageError, match="truncated"):
        decode_image(cut, Preprocessing(16))


def test_zero_bytes_to_the_end_and_an_end() -> None:
    data = save(noise(), "JPEG")
    half = data[: len(data) // 2]
    with pytest.raises(BadImageError, match="damaged"):
        decode_image(half + bytes(len(half)) + b"\xff\xd9", Preprocessing(16))


def test_scans_that_are_missing() -> None:
    data = save(noise(), "JPEG", progressive=True)
    for at in scans(data)[1:]:
        with pytest.raises(BadImageError, match="the last scans of a JPEG are missing"):
            decode_image(data[:at] + b"\xff\xd9", Preprocessing(16))


@pytest.mark.parametrize("side", [9400, 320, 80])
def test_a_size_that_is_not_that_of_the_pixels(side: int) -> None:
    data = bytearray(save(noise(16 if side == 9400 else 160), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", side, side)
    with pytest.raises(BadImageError, match="damaged"):
        decode_image(bytes(data), Preprocessing(16))


def test_what_does_no_harm() -> None:
    data = save(noise(61), "JPEG", quality=80)
    expected = by_pillow(data)
    start, jfif = data.index(b"\xff\xda"), data.index(b"JFIF")
    harmless = {
        "bytes behind the end": data + b"\0" * 100 + b"SEFT" * 9,
        "zero bytes before the end": data[:-2] + bytes(100) + data[-2:],
        "few zero bytes before the end": data[:-2] + bytes(9) + data[-2:],
        "zero bytes before the end and behind it": data[:-2] + bytes(100) + data[-2:] + bytes(99),
        "filling before the end": data[:-2] + b"\xff" * 100 + data[-2:],
        "filling between segments": data[:2] + b"\xff" * 9 + data[2:],
        "no meaning in a scan's spectrum": data[: start + 11] + b"\1\0\0" + data[start + 14 :],
        "another version of JFIF": data[: jfif + 5] + b"\x09" + data[jfif + 6 :],
        "an unknown transformation of Adobe's": with_segments(
            data[:2] + data[20:], segment(0xEE, b"Adobe\0\x64\0\0\0\0\7")
        ),
        "a comment, a profile cut short and a preview": with_segments(
            data, segment(0xFE, b"hello"), segment(0xE2, b"ICC_PROFILE\0\1\2x"), segment(0xE1, b"MPF\0" * 99)
        ),
    }
    for what, each in harmless.items():
        assert np.array_equal(decode_image(each, Preprocessing(61)), expected), what


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("more", [{}, {"optimize": True}, {"progressive": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("colour", ["black", "white", "grey", PLAIN])
def test_flat_images_have_no_holes(colour: str | tuple[int, int, int], more: dict[str, bool], mode: str) -> None:
    """Of a flat area, one way of writing is zero bytes alone."""
    image = Image.new("RGB", (300, 300), colour).convert(mode)
    for quality in (1, 75, 100):
        data = save(image, "JPEG", quality=quality, **more)
        assert np.array_equal(decode_image(data, Preprocessing(300)), by_pillow(data))


@pytest.mark.parametrize(("angle", "quality"), [(150, 75), (180, 60), (210, 75)])
def test_a_gradient_has_no_hole(angle: int, quality: int) -> None:
    """Of a gradient, one way of writing is bytes 0 for as long as it lasts."""
    y, x = np.mgrid[0:480, 0:640]
    ramp = np.cos(np.radians(angle)) * x / 640 + np.sin(np.radians(angle)) * y / 480
    grey = Image.fromarray((127.5 * (ramp - ramp.min()) / np.ptp(ramp)).astype(np.uint8))
    data = save(grey, "JPEG", quality=quality, optimize=True)
    pixels = data.index(b"\xff\xda") + 10
    assert bytes(16) in data[pixels:]
    other = save(grey, "JPEG", quality=quality)
    assert np.array_equal(decode_image(data, Preprocessing(480)), decode_image(other, Preprocessing(480)))
    middle = (pixels + len(data)) // 2
    with pytest.raises(BadImageError, match="a hole of zero bytes"):
        decode_image(data[:middle] + bytes(4096) + data[middle:], Preprocessing(64))


def test_much_before_the_pixels() -> None:
    one = segment(0xE1, b"Exif\0\0" + bytes(65_000))
    kept = with_segments(plain("JPEG"), *[one] * 100)
    assert decode_image(kept, Preprocessing(SIDE))[3, 3].tolist() == pytest.approx(PLAIN, abs=2)
    with pytest.raises(BadImageError, match=f"more than {MAX_BEFORE_PIXELS >> 20} MiB before its pixels"):
        decode_image(with_segments(plain("JPEG"), *[one] * 1000), Preprocessing(SIDE))
    with pytest.raises(BadImageError, match="more than 10,000 parts"):
        decode_image(with_segments(plain("JPEG"), *[segment(0xFE, b"")] * 20_000), Preprocessing(SIDE))


def test_many_scans_are_refused_before_they_cost_time() -> None:
    data = save(noise(), "JPEG", progressive=True)
    at = scans(data)[-1]
    with pytest.raises(BadImageError, match="more than 100 scans"):
        decode_image(data[:-2] + data[at:-2] * 100 + data[-2:], Preprocessing(16))


@pytest.mark.parametrize(("place", "value"), [(4, 12), (9, 2)])
def test_kinds_of_jpeg_that_are_not_read(place: int, value: int) -> None:
    data = bytearray(plain("JPEG"))
    data[data.index(b"\xff\xc0") + place] = value
    with pytest.raises(BadImageError, match="which is not read: save it with 8 bits"):
        decode_image(bytes(data), Preprocessing(SIDE))


@pytest.mark.parametrize("data", [b"\xff\xd8\xff", b"\xff\xd8\xff\xd9", b"\xff\xd8\xff\xe0\0\0\xff\xda\0\0"])
def test_no_pixels_at_all(data: bytes) -> None:
    with pytest.raises(BadImageError, match=r"truncated|damaged"):
        decode_image(data, Preprocessing(16))
