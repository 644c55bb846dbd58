"""Pairs of near hashes: each way of finding them against their definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from foveate.data import near_pairs as module
from foveate.data.near_pairs import all_pairs, banded_pairs, near_pairs


def clustered(seed: int, bits: int = 12, clusters: int = 3, count: int = 40) -> NDArray[np.uint64]:
    """Hashes that differ from one of some in up to `bits` bits, so that many pairs differ in ten or eleven."""
    random = np.random.default_rng(seed)
    centres = random.integers(0, 2**64, clusters, dtype=np.uint64)
    flipped = random.random((count, 64)) < random.integers(0, bits + 1, (count, 1)) / 64
    return centres[random.integers(0, clusters, count)] ^ np.packbits(flipped, axis=1).view(np.uint64)[:, 0]


def pairs_by_definition(hashes: NDArray[np.uint64]) -> set[tuple[int, int]]:
    differing = np.bitwise_count(hashes[:, None] ^ hashes)
    return {(one, other) for one, other in np.argwhere(differing <= 10).tolist() if one < other}


def found(pairs: object) -> list[tuple[int, int]]:
    return [tuple(sorted(pair)) for part in pairs for pair in zip(*map(np.ndarray.tolist, part), strict=True)]


@given(st.integers(0, 2**32), st.integers(0, 20), st.integers(1, 5), st.integers(0, 60))
@settings(max_examples=40)
def test_both_ways_find_the_pairs_of_the_definition(seed: int, bits: int, clusters: int, count: int) -> None:
    hashes = clustered(seed, bits, clusters, count)
    expected = pairs_by_definition(hashes)
    every = found(all_pairs(hashes))
    assert set(every) == expected
    assert len(every) == len(expected)
    assert set(found(banded_pairs(hashes))) == expected


@pytest.mark.parametrize("most", [1, 7, 2**16])
def test_pairs_are_the_same_however_many_are_compared_at_once(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_COMPARED", most)
    hashes = clustered(1, 8)
    assert set(found(banded_pairs(hashes))) == set(found(all_pairs(hashes))) == pairs_by_definition(hashes)


@pytest.mark.parametrize("where", [(0, 16, 32, 48), (0, 16, 32, 47), (1, 17, 33, 63)])
def test_the_bits_may_differ_in_any_quarters(where: tuple[int, ...]) -> None:
    """3 + 3 + 2 + 2 bits and the like, where no quarter has fewer."""
    base = np.uint64(0x123456789ABCDEF)
    for counts in [(3, 3, 3, 1), (3, 3, 2, 2), (2, 3, 3, 2), (3, 2, 3, 2), (3, 3, 0, 4), (4, 3, 3, 0)]:
        bits = {
            start % 64 + step if start % 16 + step < 16 else start - step
            for start, n in zip(where, counts, strict=True)
            for step in range(n)
        }
        assert len(bits) == 10
        other = base ^ np.uint64(sum(1 << bit for bit in bits))
        assert set(found(banded_pairs(np.array([base, other])))) == {(0, 1)}


def test_few_pairs_of_many_hashes_are_found_by_their_quarters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "all_pairs", None)
    hashes = np.random.default_rng(0).integers(0, 2**64, 4000, dtype=np.uint64)
    hashes[-1] = hashes[7] ^ np.uint64(2**10 - 1)
    assert set(found(near_pairs(hashes))) == {(7, 3999)}


def test_where_most_are_alike_all_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "banded_pairs", None)
    assert sum(len(ones) for ones, _ in near_pairs(np.zeros(3000, np.uint64))) == 3000 * 2999 // 2
