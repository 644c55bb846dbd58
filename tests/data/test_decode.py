import contextlib
import io
import os
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from foveate.data.decode import (
    MAX_PIXELS,
    BadImageError,
    decode_file,
    decode_image,
    open_image,
    resize_array,
    resize_image,
    shorter_side,
)
from foveate.preprocessing import Fit, Preprocessing

Encode = Callable[..., bytes]
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF")


def save(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def centre(data: bytes, size: int = 16) -> list[int]:
    decoded = decode_image(data, Preprocessing(size))
    return [int(value) for value in decoded[size // 2, size // 2]]


@pytest.mark.parametrize("kind", FORMATS)
def test_formats(kind: str, encode: Encode) -> None:
    data = encode(kind=kind, size=(20, 20))
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    decoded = decode_image(data, Preprocessing(20))
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, expected)


@pytest.mark.parametrize("size", [(40, 30), (30, 40), (7, 90), (16, 33), (5, 5)])
def test_crop_and_resize_are_pillows(size: tuple[int, int], encode: Encode) -> None:
    image = Image.open(io.BytesIO(encode(size=size)))
    expected = ImageOps.fit(image, (16, 16), Image.Resampling.BILINEAR)
    assert np.array_equal(decode_image(encode(size=size), Preprocessing(16)), np.asarray(expected))


@pytest.mark.parametrize("size", [(40, 30), (30, 40), (7, 90), (1, 60), (60, 1), (16, 33), (5, 5)])
def test_a_squashed_image_is_pillows_resize_of_all_of_it(size: tuple[int, int], encode: Encode) -> None:
    image = Image.open(io.BytesIO(encode(size=size)))
    expected = image.resize((16, 16), Image.Resampling.BILINEAR)
    assert np.array_equal(decode_image(encode(size=size), Preprocessing(16, "squash")), np.asarray(expected))


@pytest.mark.parametrize("size", [(40, 30), (30, 40), (90, 34), (12, 8), (5, 5)])
def test_a_padded_image_is_pillows_in_the_middle_of_grey(size: tuple[int, int], encode: Encode) -> None:
    image = Image.open(io.BytesIO(encode(size=size)))
    expected = ImageOps.pad(image, (16, 16), Image.Resampling.BILINEAR, color=(127, 127, 127))
    assert np.array_equal(decode_image(encode(size=size), Preprocessing(16, "pad")), np.asarray(expected))


@pytest.mark.parametrize(("size", "row"), [((1000, 1), (7, slice(None))), ((1, 1000), (slice(None), 7))])
def test_a_padded_line_keeps_one_pixel_of_its_width(size: tuple[int, int], row: Any) -> None:
    decoded = decode_image(save(Image.new("RGB", size, (255, 0, 0))), Preprocessing(16, "pad")).copy()
    assert (decoded[row] == (255, 0, 0)).all()
    decoded[row] = 127
    assert (decoded == 127).all()


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "I;16", "CMYK"])
@pytest.mark.parametrize("fit", get_args(Fit))
def test_every_mode_is_fitted_alike(mode: str, fit: Fit) -> None:
    plain = Image.new("RGB", (48, 20), (100, 100, 100))
    images = {"I;16": Image.new("I;16", plain.size, 100 * 257), "P": plain.quantize()}
    image = images[mode] if mode in images else plain.convert(mode)
    decoded = decode_image(save(image, "TIFF" if mode in ("CMYK", "I;16") else "PNG"), Preprocessing(16, fit))
    assert abs(decoded[8].astype(int) - 100).max() <= 1
    assert (decoded[0] == 127).all() == (fit == "pad")


@pytest.mark.parametrize("fit", get_args(Fit))
def test_the_resize_is_antialiased(fit: Fit) -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255  # without a filter, every fourth column would be all white or all black
    decoded = decode_image(save(Image.fromarray(stripes)), Preprocessing(16, fit))
    assert abs(decoded.astype(int) - 127).max() < 40


def test_the_crop_is_of_the_centre() -> None:
    wide = np.zeros((16, 48, 3), np.uint8)
    wide[:, 16:32] = 255
    assert (decode_image(save(Image.fromarray(wide)), Preprocessing(16)) == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(orientation: int) -> None:
    upright = np.zeros((16, 16, 3), np.uint8)
    upright[:4, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    image = Image.fromarray(upright)
    stored = image.transpose(undo[orientation]) if orientation in undo else image
    for kind in ("PNG", "TIFF"):
        assert np.array_equal(decode_image(save(stored, kind, exif=exif), Preprocessing(16)), upright)


@pytest.mark.parametrize(
    ("mode", "colour", "kind", "expected"),
    [
        ("1", 1, "PNG", [255, 255, 255]),
        ("L", 77, "PNG", [77, 77, 77]),
        ("LA", (10, 255), "PNG", [10, 10, 10]),
        ("LA", (0, 127), "PNG", [128, 128, 128]),
        ("RGBA", (255, 0, 0, 0), "PNG", [255, 255, 255]),
        ("RGBA", (255, 0, 0, 255), "WEBP", [255, 0, 0]),
        ("RGBA", (0, 0, 0, 127), "TIFF", [128, 128, 128]),
        ("CMYK", (0, 0, 0, 0), "TIFF", [255, 255, 255]),
        ("CMYK", (0, 0, 0, 255), "JPEG", [0, 0, 0]),
        ("CMYK", (255, 0, 0, 0), "TIFF", [0, 255, 255]),
        ("YCbCr", (128, 128, 128), "TIFF", [128, 128, 128]),
        ("LAB", (255, 128, 128), "TIFF", [255, 255, 255]),
        ("I;16", 0xABCD, "PNG", [0xAB] * 3),
        ("I;16", 0xABCD, "TIFF", [0xAB] * 3),
        ("I", 200, "TIFF", [0] * 3),
        ("I", 0x12ABCDEF, "TIFF", [0x25] * 3),  # the high byte of 31 bits, as one is the sign
    ],
)
def test_modes_become_rgb(mode: str, colour: Any, kind: str, expected: list[int]) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    assert centre(save(Image.new(mode, (20, 20), colour), kind, **options)) == pytest.approx(expected, abs=1)


def test_palette_with_and_without_transparency() -> None:
    image = Image.new("P", (20, 20), 1)
    image.putpalette([9, 8, 7, 200, 100, 50])
    assert centre(save(image)) == [200, 100, 50]
    assert centre(save(image, transparency=1)) == [255, 255, 255]


def test_the_first_frame_is_taken() -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "TIFF", "MPO"):
        data = save(frames[0], kind, save_all=True, append_images=frames[1:])
        red, _, blue = centre(data)
        assert red > 200, kind
        assert blue < 50, kind


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "zero bytes"),
        (b"hello", "not a JPEG, PNG, WebP, AVIF, BMP, GIF or TIFF image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "a PostScript file, which is not read"),
        (save(Image.new("F", (20, 20)), "TIFF"), "floating-point pixels have no agreed range"),
    ],
)
def test_bad_images_say_why(data: bytes, reason: str) -> None:
    with pytest.raises(BadImageError, match=reason):
        decode_image(data, Preprocessing(16))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF"])
def test_truncated(kind: str, encode: Encode) -> None:
    data = encode(kind=kind, size=(64, 64))
    with pytest.raises(BadImageError, match=r"truncated|damaged"):
        decode_image(data[: len(data) // 2], Preprocessing(16))


@pytest.mark.parametrize("side", [9460, 13400, 20000])  # just above the cap; above Pillow's own error; far above
def test_a_bomb_is_refused_before_it_is_decoded(side: int, tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (side, side)).save(path)
    assert path.stat().st_size < 200_000
    start = time.perf_counter()
    with (
        warnings.catch_warnings(record=True, action="always") as seen,
        pytest.raises(BadImageError, match="pixels"),
    ):
        decode_file(path, Preprocessing(16))
    assert not seen
    assert time.perf_counter() - start < 0.2
    assert side * side > MAX_PIXELS


def test_pillows_globals_are_left_alone() -> None:
    assert Image.MAX_IMAGE_PIXELS == MAX_PIXELS
    from PIL import ImageFile

    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_warnings_are_kept_in_and_the_filters_as_they_were(encode: Encode) -> None:
    image = Image.new("P", (20, 20))
    odd = save(image, transparency=b"\x00\x80")  # Pillow warns about palette images with transparency in bytes
    before = list(warnings.filters)
    threads = [threading.Thread(target=decode_image, args=(odd, Preprocessing(16))) for _ in range(8)]
    with warnings.catch_warnings(record=True, action="always") as seen:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not seen
    assert list(warnings.filters) == before


@settings(max_examples=150)
@given(st.binary(max_size=300))
def test_random_bytes_only_raise_bad_image(data: bytes) -> None:
    with contextlib.suppress(BadImageError):  # a GIF of one pixel has 22 bytes, which are drawn once in a while
        assert decode_image(data, Preprocessing(16)).shape == (16, 16, 3)
    shorter_side(data)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(FORMATS), st.sampled_from(["RGB", "L", "P"]), st.data())
def test_damage_only_raises_bad_image(encode: Encode, kind: str, mode: str, draw: st.DataObject) -> None:
    data = bytearray(encode(kind=kind, mode="RGB" if (kind, mode) == ("JPEG", "P") else mode))
    for _ in range(draw.draw(st.integers(0, 8))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    cut = bytes(data[: draw.draw(st.integers(0, len(data)))])
    try:
        assert decode_image(cut, Preprocessing(16)).shape == (16, 16, 3)
    except BadImageError as error:
        reason = str(error)
    else:
        reason = "decoded"
    assert reason
    assert "\n" not in reason
    assert len(reason) <= 200
    shorter_side(cut)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("fit", get_args(Fit))
def test_an_image_is_turned_before_it_is_fitted(kind: str, fit: Fit) -> None:
    pixels = np.zeros((24, 64, 3), np.uint8)
    pixels[:, :32] = (200, 40, 40)
    upright, exif = Image.fromarray(pixels), Image.Exif()
    exif[0x0112] = 6
    stored = upright.transpose(Image.Transpose.ROTATE_90)
    turned = decode_image(save(stored, kind, exif=exif, quality=100, subsampling=0), Preprocessing(16, fit))
    assert abs(turned.astype(int) - resize_array(pixels, Preprocessing(16, fit))).max() <= 3


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([(), (1,), (3,)]), st.sampled_from(get_args(Fit)))
@settings(max_examples=100)
def test_arrays_take_the_same_way_as_files(height: int, width: int, channels: tuple[int, ...], fit: Fit) -> None:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, *channels), np.uint8)
    image = Image.fromarray(pixels if channels == (3,) else pixels.reshape(height, width))
    decoded = decode_image(save(image), Preprocessing(16, fit))
    assert decoded.shape == (16, 16, 3)
    assert np.array_equal(resize_array(pixels, Preprocessing(16, fit)), decoded)
    assert np.array_equal(resize_image(image, Preprocessing(16, fit)), decoded)


@given(st.integers(1, 90), st.integers(16, 40))
@settings(max_examples=50)
def test_a_square_is_the_same_whatever_the_fit(side: int, size: int) -> None:
    pixels = np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)
    crop, *others = (resize_array(pixels, Preprocessing(size, fit)) for fit in get_args(Fit))
    assert all(np.array_equal(crop, other) for other in others)


def test_an_image_of_the_size_is_untouched(encode: Encode) -> None:
    pixels = np.asarray(Image.open(io.BytesIO(encode(size=(16, 16)))))
    assert np.array_equal(decode_image(encode(size=(16, 16)), Preprocessing(16)), pixels)
    assert resize_array(pixels, Preprocessing(16)) is pixels


def test_shorter_side(encode: Encode, tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    path.write_bytes(encode(size=(50, 21)))
    assert shorter_side(path) == 21
    assert shorter_side(encode(size=(19, 50))) == 19
    assert shorter_side(np.zeros((12, 10, 3), np.uint8)) == 10
    assert shorter_side(b"none") is None
    assert shorter_side(tmp_path / "missing.png") is None


def test_files_that_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, reason in [
        ("missing", "missing file"),
        (".", "not a regular"),
        ("pipe", "not a regular"),
        ("a\0b", "name"),
    ]:
        with pytest.raises(BadImageError, match=reason):
            decode_file(tmp_path / name, Preprocessing(16))


def test_a_file_that_may_not_be_read(tmp_path: Path, unprivileged: None) -> None:
    with pytest.raises(BadImageError, match="permission denied"):
        open_image(tmp_path / "some.png")
