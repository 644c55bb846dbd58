"""What image files say of themselves, where it is worth a line: names, formats, colour modes, sizes, rotation."""

import mimetypes
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import get_args

from foveate.counts import plural
from foveate.data.decode import Header, read_header
from foveate.data.findings import Finding, Severity
from foveate.data.folder import IMAGE_SUFFIXES, SUFFIXES
from foveate.data.source import Image, Source
from foveate.preprocessing import Preprocessing
from foveate.progress import Track
from foveate.settings import Side

_KINDS: Mapping[str, tuple[Severity, str]] = {
    "wrong_extension": ("warning", "with the name of another format: read by content, not by name"),
    "cropped": (
        "warning",
        "of which the centre crop cuts off more than a third: `--set fit=squash` shows them whole",
    ),
    "enlarged": ("warning", "enlarged to more than twice the side"),
    "rotated": ("info", "turned as the EXIF data say"),
    "deep": ("info", "with more than 8 bits for each value, brought to 8 bits"),
    "odd_mode": ("info", "neither plain RGB nor grey (CMYK, a palette, transparency …), brought to RGB"),
}
"""What a header tells, by kind."""
_PLAIN_MODES = ("RGB", "L", "1", "I", "I;16", "I;16B")
"""Pillow's names of RGB, and of grey in any number of bits."""
_CROPPED_AWAY = 0.35
"""Share of an image's area that the centre crop may take before it is told. The longer sides of cameras, 4:3 and
3:2, lose a quarter and a third, and a third too where 3:2 was rounded, as 500 × 333."""
_ENLARGED = 2
"""Times its shorter side that an image may be enlarged by before it is told."""
_SMALLEST_SIZE = next(limit.ge for limit in get_args(Side)[1].metadata if hasattr(limit, "ge"))
"""Pixels: the smallest `--size` that there is."""


def header_findings(source: Source, preprocessing: Preprocessing, track: Track) -> Iterator[Finding]:
    """What the files say of themselves that training deals with, or that a person should look at.

    Args:
        preprocessing: as training would decode them.
    """
    found: dict[str, dict[str, str]] = defaultdict(dict)
    sides: list[int] = []
    images = (image for block in source.blocks for image in block.images())
    for number, image in enumerate(track(images, total=len(source.labels), label="reading headers")):
        header = read_header(image)
        if header is not None:
            told = ", ".join(filter(None, [header.format, header.mode, f"{header.width}×{header.height}"]))
            kinds = set(_kinds(image, header, preprocessing))
            for kind in kinds:
                found[kind][source.ids[number]] = told
            sides += [_filled_side(header, preprocessing)] if "enlarged" in kinds else []
    for kind, (severity, text) in _KINDS.items():
        if remarks := found[kind]:
            advice = _enlarged_advice(sides, len(source.labels), preprocessing.size) if kind == "enlarged" else ""
            groups = tuple((each,) for each in remarks)
            yield Finding(kind, severity, f"{plural(len(groups), 'image')} {text}{advice}", groups, remarks)


def _kinds(image: Image, header: Header, preprocessing: Preprocessing) -> Iterator[str]:
    """Kinds of findings that a header is one of, where images are decoded so."""
    own, suffix = SUFFIXES.get(header.format, ()), image.suffix.lower() if isinstance(image, Path) else ""
    anothers = suffix in IMAGE_SUFFIXES or mimetypes.guess_type(f"x{suffix}")[0]
    if own and suffix not in own and anothers:
        yield "wrong_extension"
    shorter, longer = sorted((header.width, header.height))
    if preprocessing.fit == "crop" and 1 - shorter / longer > _CROPPED_AWAY:
        yield "cropped"
    if preprocessing.size > _ENLARGED * _filled_side(header, preprocessing):
        yield "enlarged"
    if header.rotated:
        yield "rotated"
    if header.deep:
        yield "deep"
    if header.mode not in _PLAIN_MODES:
        yield "odd_mode"


def _filled_side(header: Header, preprocessing: Preprocessing) -> int:
    """The side of an image, in pixels, that is brought to the size."""
    return max(header.width, header.height) if preprocessing.fit == "pad" else min(header.width, header.height)


def _enlarged_advice(sides: list[int], images: int, size: int) -> str:
    """What to do about images with such sides. A smaller size helps where most are so small, and there is one."""
    advice = f", to {size} px: replace them by larger ones, or remove them where they show too little"
    smaller = int(_ENLARGED * median(sides))
    if 2 * len(sides) > images and smaller >= _SMALLEST_SIZE:
        advice += f"; as most images are so small, `--size {smaller}` may suit them"
    return advice
