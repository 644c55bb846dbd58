"""Images whose values have more than 8 bits, as a set: their largest value, and whether upper bits are empty."""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from foveate.data.decode import largest_value, read_header
from foveate.data.source import Block, Image
from foveate.progress import Track, untracked

Depth = Literal["format", "auto"] | int

_FAINT = 63
"""The largest of 255 that 14 of 16 bits come to, as cameras for science and heat have them."""


def white_of(blocks: Sequence[Block], depth: Depth, track: Track = untracked) -> int | None:
    """The value that becomes 255 in images of more than 8 bits; None: the largest of their format."""
    if depth != "auto":
        return None if depth == "format" else depth
    images = (image for block in blocks if block.encoded for image in block.images())
    total = sum(block.count for block in blocks if block.encoded)
    found = map(largest_value, track(images, total=total, label="finding the largest value"))
    return max((value for value in found if value), default=None)


def faint_images(blocks: Sequence[Block], images: NDArray[np.uint8], good: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Indices of the images of more than 8 bits, where not one of them uses the upper bits; else none.

    Args:
        blocks: the images as they lie on disk.
        images: [N, H, W, 3], as they were decoded by the depth of their format.
        good: [N], whether the row means something.
    """
    if not all(block.encoded for block in blocks):
        return np.empty(0, np.intp)
    faint = good.copy()
    for start in range(0, len(images), 1024):
        part = slice(start, start + 1024)
        faint[part] &= images[part].max(axis=(1, 2, 3)) <= _FAINT
    # Most sets have hardly an image as dark as that, so that few headers are read.
    if not any(_is_deep(image) for _, image in _chosen(blocks, faint)):
        return np.empty(0, np.intp)
    deep = np.array([index for index, image in _chosen(blocks, good) if _is_deep(image)], np.intp)
    return deep if faint[deep].all() else np.empty(0, np.intp)


def faint_text(count: int) -> str:
    """A line that says that `count` images are faint, with the fix."""
    leave = "image with more than 8 bits leaves" if count == 1 else "images with more than 8 bits leave"
    return (
        f"{count:,} {leave} the upper bits empty, and would be black or nearly so: `--set data.depth=auto` "
        "makes the largest value of the data set white"
    )


def _is_deep(image: Image) -> bool:
    header = read_header(image)
    return header is not None and header.deep


def _chosen(blocks: Sequence[Block], chosen: NDArray[np.bool_]) -> Iterator[tuple[int, Image]]:
    for block in blocks:
        if chosen[block.start : block.start + block.count].any():
            for index, image in enumerate(block.images(), block.start):
                if chosen[index]:
                    yield index, image
