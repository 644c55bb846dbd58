import time

import pytest

from foveate.data.decode import BadImageError, decode_image
from foveate.data.foreign import name_of
from foveate.preprocessing import Preprocessing


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC photo, .* convert it to JPEG, .* `heif-convert"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "a HEIC photo"),
        (b"\0\0\0\x18ftypcrx ", "a camera's raw photo"),
        (b"\0\0\0\x18ftypisom", "a video, not an image"),
        (b'<svg xmlns="http://www.w3.org/2000/svg">', "an SVG drawing, .* convert it to PNG"),
        (b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- made by hand -->\n<svg>', "an SVG drawing"),
        (b"<!DOCTYPE html><html><svg ", "a web page, not an image: download the image itself"),
        (b"P6\n2 2\n255\n", "a PPM, PGM, PBM or PAM image, which is not read: save it as JPEG or PNG"),
        (b"%PDF-1.7", "a PDF document, .* convert its pages"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "a PostScript file"),
        (b"8BPS\0\1", "a Photoshop document"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
        (b"\0\0\1\0\1\0", "a Windows icon"),
        (b"\0\0\2\0\0\0\0\0\0\0\0\0\20\0\20\0\30\0", "not a JPEG, PNG, WebP"),  # a TGA has no mark
        (b"v/1\1\2\0", "an OpenEXR image"),
        (bytes(128) + b"DICM", "a DICOM file"),
        (b"\x93NUMPY\1\0", r"a NumPy array, .* \.npz"),
        (b"PK\3\4", "an archive, not an image: unpack it"),
        (b"\0\5\x16\7\0\2", "AppleDouble"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer, .* `git lfs pull`"),
        (bytes(9000), "nothing but zero bytes"),
        (b"404: Not Found\n", "a text, not an image"),
        (b"\x01\x02\x03\x04", "not a JPEG, PNG, WebP, AVIF, BMP, GIF or TIFF image"),
        (b"hello", "not a JPEG, PNG, WebP, AVIF, BMP, GIF or TIFF image"),
    ],
)
def test_what_is_not_read_is_named(data: bytes, reason: str) -> None:
    with pytest.raises(BadImageError, match=reason):
        decode_image(data, Preprocessing(16))


@pytest.mark.parametrize("data", [b"<!--" * 1000, b"<?xml" * 900, b" " * 5000, b"P" * 5000, b"a" * 4095 + b"\0"])
def test_a_name_is_found_soon(data: bytes) -> None:
    start = time.process_time()
    assert name_of(data)
    assert time.process_time() - start < 0.05
