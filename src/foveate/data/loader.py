"""Batches of a data set: in order, or shuffled by (seed, epoch) alone, so that any position can be resumed."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Batch", "Loader", "channel_statistics"]

Batch = tuple[Tensor, Tensor]
"""uint8 images [B, C, H, W] in channels_last memory, and int64 labels [B]."""


@dataclass(frozen=True, eq=False)
class Loader:
    """The images at `indices`, `batch` at a time; the last batch of an epoch may be smaller.

    Args:
        images: [N, H, W, C] uint8, in memory or memory-mapped.
        labels: [N] int64.
        indices: which of them, in order.
        seed: of the order; None: as in `indices`.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    indices: NDArray[np.int64]
    batch: int
    seed: int | None = None

    def __len__(self) -> int:
        """Batches in an epoch."""
        return math.ceil(len(self.indices) / self.batch)

    def epoch(self, number: int = 1, *, start: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number`, from its `start`-th on."""
        images, labels = torch.from_numpy(self.images), torch.from_numpy(self.labels)
        order = torch.from_numpy(self.indices)
        if self.seed is not None:
            order = order[torch.randperm(len(order), generator=_generator(self.seed, number))]
        for position in range(start * self.batch, len(order), self.batch):
            chosen = order[position : position + self.batch]
            yield images[chosen].permute(0, 3, 1, 2), labels[chosen]


def channel_statistics(
    images: NDArray[np.uint8], indices: NDArray[np.int64], *, chunk: int = 4096
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of [N, H, W, C] `images` at `indices`, on the scale 0…1."""
    channels = images.shape[-1]
    histogram = np.zeros((channels, 256), np.int64)
    for position in range(0, len(indices), chunk):
        pixels = images[indices[position : position + chunk]].reshape(-1, channels)
        for channel in range(channels):
            histogram[channel] += np.bincount(pixels[:, channel], minlength=256)
    levels = np.arange(256) / 255
    share = histogram / histogram.sum(1, keepdims=True)
    mean = share @ levels
    std = np.sqrt(np.maximum(share @ levels**2 - mean**2, 0))
    return tuple(mean.tolist()), tuple(std.tolist())


def _generator(seed: int, epoch: int) -> torch.Generator:
    # SeedSequence mixes the two: seed + epoch alone would make epoch 2 of seed 1 the same as epoch 1 of seed 2.
    mixed = int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(mixed >> 1)
