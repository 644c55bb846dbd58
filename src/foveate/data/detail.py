"""How much detail pictures hold: the size that shows all of it, where they were enlarged from a smaller one."""

import itertools
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from foveate.data.container import BadImageError
from foveate.data.decode import decode, shorter_side
from foveate.data.source import Block, Image
from foveate.preprocessing import Preprocessing

_SIDES = (32, 48, 64, 96, 128)
"""Sides, in pixels, of which one may suffice."""
_LARGEST = 256
"""Side that larger pictures are looked at with: to know that 128 pixels suffice takes no more."""
_SAMPLE, _FEWEST = 32, 8
_OF_A_BLOCK = 2048
"""Images: blocks may be long, and are read from their start."""
_NEARLY_ALL = 0.9
"""Share of the sample that a side must suffice for."""
_SCALE = {
    "nearest": PillowImage.Resampling.NEAREST,
    "bilinear": PillowImage.Resampling.BILINEAR,
    "bicubic": PillowImage.Resampling.BICUBIC,
}
"""The ways in which pictures are enlarged. Lanczos is near enough to bicubic."""
# Pictures of CIFAR-10, enlarged from 32 px to 128 and 224 in these ways and saved as PNG and as JPEG of quality 75
# and 90: what 32 px lack was at most .04 of the contrast (median of 12), and .00 to .19 of what 16 px lack (nine
# in ten up to .25). Of ants-bees at 256 px what 128 px lack was .16 of the contrast and .63 of what 64 px lack
# (nine in ten from .57 on); of CIFAR-10 at its own 32 px, 16 px lack .20 of the contrast. In natural pictures
# every halving takes about as much.
_OF_CONTRAST, _OF_HALF = 0.07, 0.35


def sufficient_side(blocks: Sequence[Block]) -> int | None:
    """The side, in pixels, that shows all the detail of nearly all pictures of a sample; None: no side does.

    Only pictures of twice that side and more tell anything.
    """
    from threadpoolctl import threadpool_limits

    chosen = [blocks[each] for each in sorted({int(each) for each in np.linspace(0, len(blocks) - 1, _SAMPLE)})]
    each = -(-_SAMPLE // len(chosen))
    steps = [-(-min(block.count, _OF_A_BLOCK) // each) for block in chosen]
    with threadpool_limits(1, "blas"):  # two threads wait for each other by spinning: seven times the time
        sides = [
            sufficient_side_of(image)
            for block, step in zip(chosen, steps, strict=True)
            for image in itertools.islice(block.images(), 0, min(block.count, _OF_A_BLOCK), step)
        ]
    known = sorted(side for side in sides if side is not None)
    enough = int(np.ceil(_NEARLY_ALL * len(sides)))
    return known[enough - 1] if len(sides) >= _FEWEST and len(known) >= enough else None


def sufficient_side_of(image: Image) -> int | None:
    """The smallest of some sides that shows all the detail of one picture; None: none does, or it cannot be read.

    The picture is compared with the nearest one that can be made by enlarging a picture of the smaller side, in
    each of three ways, which is a projection. What is left is the detail that the smaller one lacks. It is
    compared with the contrast, and with what half the smaller side lacks.
    """
    shorter = shorter_side(image)
    if shorter is None or shorter < 2 * _SIDES[0]:
        return None
    side = min(_LARGEST, shorter)
    try:
        grey = decode(image, Preprocessing(side)).mean(axis=2, dtype=np.float32)
    except BadImageError:
        return None
    contrast = float(grey.std())
    for smaller in (each for each in _SIDES if 2 * each <= side):
        lost = _lost(grey, smaller)
        if lost <= _OF_CONTRAST * contrast and lost <= _OF_HALF * _lost(grey, smaller // 2):
            return smaller
    return None


def _lost(grey: NDArray[np.float32], smaller: int) -> float:
    """The root mean square of the detail in `grey` [S, S] that a smaller side lacks, along the worse axis."""

    def along(projection: NDArray[np.float32]) -> float:
        lost = (grey - projection @ grey, grey - grey @ projection)
        return max(float(np.sqrt((each**2).mean())) for each in lost)

    return min(along(_projection(len(grey), smaller, scale)) for scale in _SCALE)


@cache
def _projection(side: int, smaller: int, scale: str) -> NDArray[np.float32]:
    """[side, side], onto what Pillow can enlarge a line of `smaller` pixels to; it is symmetric."""
    unit = PillowImage.fromarray(np.eye(smaller, dtype=np.float32))
    enlarged = np.asarray(unit.resize((smaller, side), _SCALE[scale]), np.float64)
    found: NDArray[np.float32] = (enlarged @ np.linalg.pinv(enlarged)).astype(np.float32)
    return found
