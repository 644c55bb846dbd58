"""Names for files that are not decoded, by their first bytes, and what to do with them."""

import re

_NO_READER = "{}, which is not read: save it as JPEG or PNG"
RAW = _NO_READER.format("a camera's raw photo")
_TEXT = rb"(?:\xef\xbb\xbf)?\s*"
_NAMES: tuple[tuple[bytes, str], ...] = (
    (
        rb".{4}ftyp(?:hei[cxms]|hev[cmsx]|mif1|msf1)",
        "a HEIC photo, which is not read: convert it to JPEG, for example by `heif-convert photo.heic photo.jpg`",
    ),
    (rb".{4}ftyp(?:avi[fs]|miaf)", "an AVIF image, which this Pillow cannot read: save it as JPEG or PNG"),
    (rb".{4}ftypcrx|II\x2a\0.{4}CR|IIRO|IIU\0|FUJIFILMCCD-RAW|FOVb", RAW),
    (rb".{4}ftyp|\x1aE\xdf\xa3|RIFF.{4}AVI |\0\0\x01\xba", "a video, not an image: save its frames as PNG"),
    (_TEXT + rb"(?i:<!doctype html|<html|<head|<body)", "a web page, not an image: download the image itself"),
    (
        _TEXT + rb"<(?:svg|[?!].{0,4000}?<svg)[\s>]",
        "an SVG drawing, which is not read: convert it to PNG, for example by `rsvg-convert -o new.png old.svg`",
    ),
    (rb"version https://git-lfs", "a Git LFS pointer, not the image itself: run `git lfs pull`"),
    (
        rb"%PDF",
        "a PDF document, which is not read: convert its pages, for example by `pdftoppm -png file.pdf page`",
    ),
    (rb"P[1-7]\s", _NO_READER.format("a PPM, PGM, PBM or PAM image")),
    (rb"P[Ff]4?\s", _NO_READER.format("a PFM image")),
    (rb"\0\0\0\x0cJXL |\xff\x0a", _NO_READER.format("a JPEG XL image")),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", _NO_READER.format("a JPEG 2000 image")),
    (rb"II\xbc", _NO_READER.format("a JPEG XR image")),
    (rb"\xff\xd8\xff\xf7", _NO_READER.format("a JPEG-LS image")),
    (rb"%!PS|\xc5\xd0\xd3\xc6", _NO_READER.format("a PostScript file")),
    (rb"8BPS", _NO_READER.format("a Photoshop document")),
    (rb"gimp xcf", _NO_READER.format("a GIMP document")),
    (rb"\0\0[\x01\x02]\0[^\0]", _NO_READER.format("a Windows icon")),
    (rb"icns", _NO_READER.format("a macOS icon")),
    (rb"\x8a[MJ]NG|\x8bJNG", _NO_READER.format("an MNG or JNG image")),
    (rb"qoif", _NO_READER.format("a QOI image")),
    (rb"DDS ", _NO_READER.format("a DDS texture")),
    (rb"\x76\x2f\x31\x01", _NO_READER.format("an OpenEXR image")),
    (rb"#\?(?:RADIANCE|RGBE)", _NO_READER.format("a Radiance HDR image")),
    (rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF", _NO_READER.format("a Windows metafile")),
    (rb"SIMPLE  =", _NO_READER.format("a FITS file")),
    (rb".{128}DICM", _NO_READER.format("a DICOM file")),
    (rb".{344}(?:n\+1|ni1)\0", _NO_READER.format("a NIfTI volume")),
    (rb"\x89HDF|MATLAB 5", _NO_READER.format("an HDF5 or MATLAB file")),
    (rb"\x93NUMPY", "a NumPy array, not an image: give all arrays in one .npz file, or save it as PNG"),
    (rb"PK\x03\x04|\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!|\x28\xb5\x2f\xfd", "an archive, not an image: unpack it"),
    (rb"\0\x05\x16\x07", "data of macOS about another file (AppleDouble), not an image: delete it"),
    (rb"\0+\Z", "nothing but zero bytes: copy or download it again"),
    (rb"[\t\n\r\x20-\x7e]{8,}\Z", "a text, not an image: copy or download the image again"),
)
_LOOKED_AT = 4096


def name_of(data: bytes) -> str:
    """What a file is that begins with `data`, and what to do with it."""
    head = data[:_LOOKED_AT]
    for pattern, name in _NAMES:
        if re.match(pattern, head, re.DOTALL):
            return name
    return "not a JPEG, PNG, WebP, AVIF, BMP, GIF or TIFF image"
