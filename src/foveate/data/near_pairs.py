"""Pairs of hashes that differ in few bits, found without comparing every hash with every other."""

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

NEAR_BITS = 10
"""Bits of 64 in which near hashes differ at most."""
_QUARTER = 16
# Were two hashes to differ in one bit more than this in each quarter, they would differ in eleven: so those that
# differ in ten at most differ in no more than this in one quarter at least.
_RADII = (2, 2, 2, 1)
_MASKS = tuple(
    sum(1 << bit for bit in bits)
    for count in range(max(_RADII) + 1)
    for bits in itertools.combinations(range(_QUARTER), count)
)
_COMPARED = 2**16
"""Pairs that are compared at once: arrays of that length stay in a processor's cache."""
_YIELDED = 2**17
"""Near pairs from which they are given out."""
_FEW = 2**22
"""Pairs that are compared before the quarters could be sorted."""
_DEARER = 6
"""What comparing a pair costs that was found by a quarter, measured by one whose hashes lie side by side."""

Places = NDArray[np.intp]
Pairs = tuple[Places, Places]


def near_pairs(hashes: NDArray[np.uint64]) -> Iterator[Pairs]:
    """Places of all pairs of hashes [N] that differ in ten bits at most: two arrays [n], of some pairs at a time.

    A pair may come several times, and its places in either order. Takes some hundred bytes a hash, however many
    pairs there are.
    """
    every = len(hashes) * (len(hashes) - 1) // 2
    dense = every <= _FEW or _DEARER * _compared_by_quarters(hashes) > every
    gathered: list[Pairs] = []
    waiting = 0
    for pairs in all_pairs(hashes) if dense else banded_pairs(hashes):
        gathered.append(pairs)
        waiting += len(pairs[0])
        if waiting >= _YIELDED:
            yield _joined(gathered)
            gathered, waiting = [], 0
    if waiting:
        yield _joined(gathered)


def all_pairs(hashes: NDArray[np.uint64]) -> Iterator[Pairs]:
    """As `near_pairs`, by comparing each hash with all behind it: the faster way where most are alike, or few."""
    start = 0
    while start < len(hashes) - 1:
        behind = hashes[start + 1 :]
        rows = max(1, _COMPARED // len(behind))
        ones, others = np.nonzero(np.bitwise_count(hashes[start : start + rows, None] ^ behind) <= NEAR_BITS)
        later = others >= ones  # a block's own corner has its pairs twice
        if later.any():
            yield start + ones[later], start + 1 + others[later]
        start += rows


def banded_pairs(hashes: NDArray[np.uint64]) -> Iterator[Pairs]:
    """As `near_pairs`, by multi-index hashing (Norouzi, Punjani and Fleet 2012, "Fast Search in Hamming Space").

    The hashes are sorted by each quarter of their bits, and compared with those alone whose quarter differs in no
    more bits than `_RADII` says: a random hash with one in 150.
    """
    for quarter, radius in enumerate(_RADII):
        keys = _keys(hashes, quarter)
        order = np.argsort(keys, kind="stable")
        keys, ordered = keys[order], hashes[order]
        starts = np.searchsorted(keys, np.arange(2**_QUARTER + 1))
        for mask in _masks(radius):
            # Of two keys that differ by the mask the lower one asks; of equal ones that which comes first.
            ones = np.flatnonzero(keys < keys ^ mask) if mask else np.arange(len(keys))
            partners = keys[ones] ^ mask
            firsts = starts[partners] if mask else ones + 1
            for one, other in _near(ordered, ones, firsts, starts[partners + 1]):
                yield order[one], order[other]


def _near(ordered: NDArray[np.uint64], ones: Places, firsts: Places, ends: Places) -> Iterator[Pairs]:
    """Places in `ordered` of near pairs: of each of `ones` [n] with those from its first to before its end."""
    counts = ends - firsts
    through = np.cumsum(counts)  # pairs up to each of the ones, itself included
    total = int(through[-1]) if len(through) else 0
    cuts = np.searchsorted(through, np.arange(_COMPARED, total, _COMPARED)).tolist()
    for start, end in itertools.pairwise([0, *(cut + 1 for cut in cuts), len(ones)]):
        if start >= end:
            continue  # a place with very many partners
        part = slice(start, end)
        before = through[start] - counts[start]
        others = np.arange(before, through[end - 1])
        others += np.repeat(firsts[part] - through[part] + counts[part], counts[part])
        differing = np.repeat(ordered[ones[part]], counts[part])
        differing ^= ordered[others]
        near = np.flatnonzero(np.bitwise_count(differing) <= NEAR_BITS)
        if len(near):
            yield ones[start + np.searchsorted(through[part], before + near, side="right")], others[near]


def _compared_by_quarters(hashes: NDArray[np.uint64]) -> int:
    """How many pairs `banded_pairs` compares."""
    compared = 0
    for quarter, radius in enumerate(_RADII):
        counts = np.bincount(_keys(hashes, quarter), minlength=2**_QUARTER)
        keys = np.arange(2**_QUARTER)
        twice = sum(int(counts @ counts[keys ^ mask]) for mask in _masks(radius)) - len(hashes)
        compared += twice // 2
    return compared


def _keys(hashes: NDArray[np.uint64], quarter: int) -> Places:
    """A quarter of the bits [N]."""
    return (hashes >> np.uint64(_QUARTER * quarter) & np.uint64(2**_QUARTER - 1)).astype(np.intp)


def _masks(radius: int) -> Iterator[int]:
    """Every way in which two quarters can differ in up to `radius` bits; equal ones come first."""
    return (mask for mask in _MASKS if mask.bit_count() <= radius)


def _joined(pairs: list[Pairs]) -> Pairs:
    return np.concatenate([ones for ones, _ in pairs]), np.concatenate([others for _, others in pairs])
