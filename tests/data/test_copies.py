"""Copies and near copies: groups against their definition, hashes against SciPy's cosine transform."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.fft import dctn
from scipy.sparse.csgraph import connected_components

from foveate.data.copies import exact_groups, near_copies_among, near_groups, perceptual_hashes
from foveate.data.dataset import load_dataset
from foveate.settings import DataConfig


@given(st.lists(st.lists(st.integers(0, 63), max_size=14), min_size=1, max_size=12), st.integers(0, 99))
@settings(max_examples=60)
def test_near_groups_are_what_hangs_together_by_ten_bits_at_most(flips: list[list[int]], seed: int) -> None:
    """Hashes that differ from one of three in some bits; thumbnails that agree where they are of one half."""
    random = np.random.default_rng(seed)
    bases = random.integers(0, 2**64, 3, dtype=np.uint64).tolist()
    hashes = [bases[place % 3] ^ sum(1 << bit for bit in set(bits)) for place, bits in enumerate(flips)]
    halves = random.integers(0, 2, len(flips))
    near = np.array(
        [
            [(one ^ other).bit_count() <= 10 and halves[i] == halves[j] for j, other in enumerate(hashes)]
            for i, one in enumerate(hashes)
        ]
    )
    parts = connected_components(near)[1]
    expected = {tuple(np.flatnonzero(parts == part)) for part in set(parts) if (parts == part).sum() > 1}
    thumbnails = np.eye(2, dtype=np.float32)[halves]
    found = near_groups(
        np.array(hashes, np.uint64),
        thumbnails,
        lambda ones, _: {"all": np.full(len(ones), True), "none": np.full(len(ones), False)},
    )
    assert {tuple(sorted(group)) for group in found.get("all", [])} == expected
    assert len(found.get("all", [])) == len(expected)
    assert not found.get("none")


def smooth(seed: int) -> np.ndarray:
    """A picture of 32 by 32 whose neighbouring pixels are alike, as those of photographs are."""
    coarse = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8))
    return np.asarray(coarse.resize((32, 32), Image.Resampling.BICUBIC))


def test_a_hash_is_that_of_its_definition() -> None:
    images = np.stack([smooth(seed) for seed in range(5)])
    hashes, thumbnails = perceptual_hashes(images, np.arange(5))
    for image, got in zip(images, hashes, strict=True):
        low = dctn(image @ np.array([0.299, 0.587, 0.114]), type=2)[:8, :8].ravel()
        bits = low > np.sort(low[1:])[31]  # torch's median of 63
        bits[0] = False
        assert (np.packbits(bits).view(np.uint64)[0] ^ got).item().bit_count() <= 1  # a bit may lie at the median
    assert np.allclose((thumbnails**2).sum(1), 1, atol=1e-5)


def test_exact_groups_are_of_equal_pixels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), np.uint8)
    images[4] = images[1]
    assert [group.tolist() for group in exact_groups(images, np.arange(6))] == [[1, 4]]
    assert exact_groups(images, np.array([0, 1, 2])) == []


def test_near_copies_are_counted_of_large_images_and_few_alone() -> None:
    rng = np.random.default_rng(0)
    side = np.kron(rng.integers(0, 255, (6, 8, 8, 3)), np.ones((1, 8, 8, 1))).astype(np.uint8)
    images = np.concatenate([side, side[:2] // 2 + 40])
    whole = replace(
        load_dataset("digits", DataConfig()),
        images=images,
        splits={"train": np.arange(6), "validation": np.arange(6, 8), "test": np.arange(2, 6)},
    )
    assert near_copies_among(whole, "validation", whole, ("train",)).tolist() == [6, 7]
    assert near_copies_among(whole, "validation", whole, ("test",)).tolist() == []
    small = replace(whole, images=images[:, ::2, ::2])
    assert near_copies_among(small, "validation", small, ("train",)).tolist() == []
