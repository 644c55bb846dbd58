"""Pixels and weights that two programs can make alike, and what of a feature map is compared."""

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

SIZES = ((64, 64), (96, 96), (97, 97), (70, 131), (224, 224))
"""Height and width: even, odd, and not square."""


def pixels(height: int, width: int) -> np.ndarray:
    """Two images [2, 3, height, width] of noise, uint8."""
    counts = np.arange(2 * 3 * height * width, dtype=np.uint64) + np.uint64(1)
    mixed = counts * np.uint64(0x9E3779B97F4A7C15)  # Knuth's multiplicative hash, modulo 2^64
    return (mixed >> np.uint64(56)).astype(np.uint8).reshape(2, 3, height, width)


def seeded_weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Weights by the names of timm and torchvision, each drawn by its name; their features stay near 1."""
    return {name: _drawn(name, shape) for name, shape in shapes.items()}


def _drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    # The legacy generator: NumPy promises its stream for all versions.
    rng = np.random.RandomState(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return np.array(1, np.int64)
    if len(shape) == 4:
        values = rng.standard_normal(shape) * np.sqrt(1 / np.prod(shape[1:]))
    elif name.endswith((".running_var", ".weight")):
        values = rng.uniform(0.5, 1.5, shape)
    else:
        values = rng.uniform(-0.2, 0.2, shape)
    return values.astype(np.float32)


def brief(maps: np.ndarray) -> dict[str, Any]:
    """A feature map in brief: its shape, mean, standard deviation, and 24 values that are not cut off."""
    between = np.flatnonzero((maps > 0) & (maps < 6))
    places = between[np.linspace(0, len(between) - 1, 24).astype(int)]
    return {
        "shape": list(maps.shape),
        "mean": round(float(maps.mean(dtype=np.float64)), 7),
        "std": round(float(maps.std(dtype=np.float64)), 7),
        "values": {str(place): round(float(maps.flat[place]), 6) for place in places},
    }
