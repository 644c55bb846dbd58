"""By how much the score of a study's winner is too good, because it was chosen for that score."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

_REPEATS = 200
_LEFT_OUT = 0.1
"""Share of the images on which the chosen trial is scored. The rest, on which it is chosen, should be nearly all:
of fewer images the choice is worse and the optimism larger, as one over the root of their number."""


def optimism(right: Iterable[str], images: int) -> float | None:
    """How much better the best of some trials is on the images that chose it than on others, on average.

    In each of 200 repeats the best trial is chosen on a random nine tenths of the images, and its accuracy there
    is compared with that on the images left out, which had no part in the choice (repeated learning-testing,
    Burman 1989). None with fewer than two trials or ten images.

    Args:
        right: of each trial, which images it gets right, as bits in hexadecimal digits.
        images: how many there are.
    """
    bits = [np.unpackbits(np.frombuffer(bytes.fromhex(each), np.uint8)) for each in right]
    if len(bits) < 2 or images * _LEFT_OUT < 1 or any(len(each) < images for each in bits):
        return None
    table: NDArray[np.float64] = np.array([each[:images] for each in bits], np.float64)  # [trials, images]
    generator, left = np.random.default_rng(0), round(images * _LEFT_OUT)
    gaps = []
    for _ in range(_REPEATS):
        order = generator.permutation(images)
        inside, outside = table[:, order[left:]].mean(axis=1), table[:, order[:left]].mean(axis=1)
        best = inside.argmax()  # of equal ones the lowest number, as everywhere
        gaps.append(inside[best] - outside[best])
    return float(np.mean(gaps))
