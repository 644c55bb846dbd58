import struct
import time

import numpy as np
import pytest
from PIL import Image, features
from tests.data.files import PLAIN, SIDE, exif, plain, save, with_exif

from foveate.data.decode import BadImageError, decode_image, read_header
from foveate.preprocessing import Preprocessing


def colour(data: bytes) -> tuple[int, ...]:
    """The colour in the middle."""
    return tuple(int(value) for value in decode_image(data, Preprocessing(SIDE))[SIDE // 2, SIDE // 2])


def noise(side: int = 160) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF"])
def test_a_plain_image(kind: str) -> None:
    assert colour(plain(kind)) == pytest.approx(PLAIN, abs=2)


# WebP


def test_the_orientation_of_a_webp_is_found() -> None:
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[: SIDE // 2] = PLAIN
    odd = exif([(274, 3, b"\6\0"), (282, 2, b"72 dpi\0\0")])
    turned = decode_image(save(Image.fromarray(pixels), "WEBP", lossless=True, exif=odd), Preprocessing(SIDE))
    assert (turned[:, SIDE // 2 :] == PLAIN).all()
    assert not turned[:, : SIDE // 2].any()


def test_garbage_in_a_webps_exif() -> None:
    assert colour(with_exif("WEBP", b"garbage" * 9, lossless=True)) == PLAIN


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("animated", [False, True])
@pytest.mark.parametrize(("start", "end"), [(0.5, 1), (0.5, 0.52), (0.2, 0.22)])
def test_a_hole_in_a_webp(start: float, end: float, animated: bool, lossless: bool) -> None:
    more = {"save_all": True, "append_images": [noise(159).resize((160, 160))]} if animated else {}
    data = bytearray(save(noise(), "WEBP", lossless=lossless, **more))
    length = len(data) // (2 if animated else 1)  # of the first frame
    hole = slice(int(start * length), int(end * length))
    data[hole] = bytes(len(data[hole]))
    with pytest.raises(BadImageError, match="a hole of zero bytes" if not animated else "damaged"):
        decode_image(bytes(data), Preprocessing(16))


@pytest.mark.parametrize("colour_", ["black", "white", "grey", PLAIN])
@pytest.mark.parametrize("alpha", [None, 0, 128])
@pytest.mark.parametrize("options", [{"quality": 0}, {"quality": 80}, {"quality": 100}, {"lossless": True}])
def test_flat_webps_have_no_holes(
    options: dict[str, int], alpha: int | None, colour_: str | tuple[int, int, int]
) -> None:
    image = Image.new("RGB", (500, 500), colour_)
    if alpha is not None:
        image.putalpha(alpha)
    assert decode_image(save(image, "WEBP", **options), Preprocessing(16)).shape == (16, 16, 3)


# AVIF


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_the_orientation_of_an_avif_is_found(orientation: int) -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:32] = 255
    turned = decode_image(
        save(Image.fromarray(pixels), "AVIF", quality=100, exif=exif([(274, 3, bytes([orientation, 0]))])),
        Preprocessing(64),
    )
    expected = {1: pixels, 3: pixels[::-1], 6: pixels.transpose(1, 0, 2)[:, ::-1]}[orientation]
    assert abs(turned.astype(int) - expected).mean() < 3
    header = read_header(save(Image.fromarray(pixels), "AVIF", exif=exif([(274, 3, bytes([orientation, 0]))])))
    assert header is not None
    assert header.rotated == (orientation != 1)


def test_a_pillow_without_avif_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    data = plain("AVIF")
    monkeypatch.setattr(features, "check", lambda name: False)
    with pytest.raises(
        BadImageError, match="an AVIF image, which this Pillow cannot read: save it as JPEG or PNG"
    ):
        decode_image(data, Preprocessing(16))


# BMP


@pytest.mark.parametrize(
    ("alphas", "expected"),
    [((0, 0), (10, 20, 30)), ((255, 255), (10, 20, 30)), ((0, 255), (255, 255, 255))],
)
def test_alpha_of_a_bmp(alphas: tuple[int, int], expected: tuple[int, ...]) -> None:
    """Version 4. Alpha that is 0 all over was never set."""
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, SIDE, SIDE, 1, 32, 3, 4 * SIDE * SIDE, 0, 0, 0, 0) + masks + b"BGRs"
    header += bytes(108 - len(header))
    first, others = (bytes([30, 20, 10, alpha]) for alpha in reversed(alphas))
    pixels = first + others * (SIDE * SIDE - 1)
    head = b"BM" + struct.pack("<IHHI", 14 + len(header) + len(pixels), 0, 0, 14 + len(header))
    assert colour(head + header + pixels) == expected


# GIF


def test_transparency_of_a_gif_and_its_comments() -> None:
    image = Image.new("P", (SIDE, SIDE), 1)
    image.putpalette([9, 8, 7, *PLAIN])
    data = save(image, "GIF", comment=b"hello")
    assert colour(data) == PLAIN
    assert colour(save(image, "GIF", transparency=1, comment=b"hello")) == (255, 255, 255)


@pytest.mark.parametrize(
    ("comment", "reason"),
    [
        (b"!\xfe" + b"\1a" * 2_000_000 + b"\0", "more than 100,000 parts"),
        (b"!\xfe\0" * 200_000, "more than 10,000 parts"),
        (b"!\xfe" + (b"\xff" + b"a" * 255) * 140_000 + b"\0", "more than"),
    ],
)
def test_comments_without_number(comment: bytes, reason: str) -> None:
    data = plain("GIF")
    at = 13 + (6 << (data[10] & 7))
    start = time.process_time()
    with pytest.raises(BadImageError, match=reason):
        decode_image(data[:at] + comment + data[at:], Preprocessing(SIDE))
    assert time.process_time() - start < 1


@pytest.mark.parametrize("data", [b"GIF89a", b"GIF89a" + bytes(7) + b";", b"RIFF\4\0\0\0WEBP", b"BM", b"II*\0"])
def test_hardly_a_beginning(data: bytes) -> None:
    with pytest.raises(BadImageError):
        decode_image(data, Preprocessing(16))
    assert read_header(data) is None
