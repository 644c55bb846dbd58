"""Batches of a data set: in order, or shuffled by (seed, pass) alone, so that any position can be resumed."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from foveate.data.dataset import Dataset

STATISTICS_OF = 50_000
_ROUNDS = 2**33
"""Stands before a class and a round in a seed: no pass, and no purpose of `training.fit`, has that number."""


class Batch(NamedTuple):
    """Images with their labels, on the loader's device."""

    images: Tensor
    """[B, C, H, W] uint8, in channels_last memory."""
    labels: Tensor
    """[B] int64."""
    turn: Tensor
    """[B] bool: for each image true in every other pass over the data; for half of them in the first."""


@dataclass(frozen=True, eq=False)
class Loader:
    """The images at `indices`, in batches of at most `batch` that differ by one image at most.

    Args:
        images: [N, H, W, C] uint8: in memory, memory-mapped, or on a GPU, where batches are then made.
        labels: [N] int64, on the same device.
        indices: which of them, in order.
        seed: of the order; None: as in `indices`.
        passes: over the images, in an epoch.
        balanced: whether a pass shows every class equally often, to one image, in place of every image once. All
            images of a class are shown before one of them comes again, from one pass to the next too. It takes a
            seed.
    """

    images: Tensor
    labels: Tensor
    indices: NDArray[np.int64]
    batch: int
    seed: int | None = None
    passes: int = 1
    balanced: bool = False

    @property
    def side(self) -> int:
        """Of the images, in pixels."""
        return self.images.shape[2]

    def __len__(self) -> int:
        """Batches in an epoch."""
        return math.ceil(len(self.indices) * self.passes / self.batch)

    def images_before(self, step: int) -> int:
        """Images in the first `step` batches of an epoch."""
        return len(self.indices) * self.passes * step // len(self)

    def epoch(self, number: int = 1, *, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """The batches of epoch `number`, from its `start`-th on, up to its `stop`-th."""
        device = self.images.device
        first = (number - 1) * self.passes
        make = self._balanced_pass if self.balanced else self._pass
        orders, turns = zip(*(make(first + each) for each in range(self.passes)), strict=True)
        # Moved once an epoch: a GPU is never waited for between batches.
        order, turn = torch.cat(orders).to(device), torch.cat(turns).to(device)
        for step in range(start, len(self) if stop is None else stop):
            here = slice(self.images_before(step), self.images_before(step + 1))
            chosen = order[here]
            yield Batch(self.images[chosen].permute(0, 3, 1, 2), self.labels[chosen], turn[here])

    def _pass(self, number: int) -> tuple[Tensor, Tensor]:
        """Order and turns of the `number`-th pass, from 0."""
        count = len(self.indices)
        shuffled = torch.arange(count)
        turn = torch.zeros(count, dtype=torch.bool)
        if self.seed is not None:
            shuffled = torch.randperm(count, generator=_generator(self.seed, number + 1))
            first = torch.rand(count, generator=_generator(self.seed, 0)) < 0.5
            turn = first[shuffled] ^ bool(number % 2)
        return torch.from_numpy(self.indices)[shuffled], turn

    def _balanced_pass(self, number: int) -> tuple[Tensor, Tensor]:
        """The same, with every class equally often; where that leaves some images, one more of each class in turn.

        The images of a class are a stream of shuffled rounds over all of them, each drawn from the seed, the class
        and its number alone, of which every pass takes up the next. An image's turn changes with every round.
        """
        if self.seed is None:
            raise ValueError("balanced=True needs a seed")
        count, seed = len(self.indices), self.seed
        labels = self.labels[torch.from_numpy(self.indices).to(self.labels.device)].cpu()
        first = torch.rand(count, generator=_generator(seed, 0)) < 0.5
        classes = labels.unique().tolist()
        even, more = divmod(count, len(classes))
        places, turns = [], []
        for position, label in enumerate(classes):
            members = (labels == label).nonzero().flatten()
            # Passes go on giving one image more where the one before stopped: class after class, all round.
            start, stop = (
                each * even + (each * more + len(classes) - 1 - position) // len(classes)
                for each in (number, number + 1)
            )
            for each in range(start // len(members), -(-stop // len(members))):
                before = each * len(members)
                order = torch.randperm(len(members), generator=_generator(seed, _ROUNDS, label + 1, each + 1))
                chosen = members[order[max(0, start - before) : stop - before]]
                places.append(chosen)
                turns.append(first[chosen] ^ bool(each % 2))
        shuffled = torch.randperm(count, generator=_generator(seed, number + 1))
        return torch.from_numpy(self.indices)[torch.cat(places)[shuffled]], torch.cat(turns)[shuffled]


def preload(dataset: Dataset, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images [N, H, W, C] and labels [N] of a data set, as a `Loader` takes them.

    They go to a GPU as a whole where they take no more than half of its free memory, so that no batch has to; else
    they stay where they are, memory-mapped.
    """
    images, labels = torch.from_numpy(dataset.images), torch.from_numpy(dataset.labels)
    if device.type == "cuda" and images.nbytes <= torch.cuda.mem_get_info(device)[0] // 2:
        return images.to(device), labels.to(device)
    return images, labels


def channel_statistics(
    images: NDArray[np.uint8], indices: NDArray[np.int64], *, chunk: int = 128
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of [N, H, W, 3] `images` at `indices`, on the scale 0…1.

    Of many images those of `STATISTICS_OF`, evenly spaced: reading a million takes up to minutes, and what that
    changes no network would notice.
    """
    if len(indices) > STATISTICS_OF:
        indices = indices[np.linspace(0, len(indices) - 1, STATISTICS_OF, dtype=np.int64)]
    histogram = np.zeros((3, 256), np.int64)
    for position in range(0, len(indices), chunk):
        pixels = images[indices[position : position + chunk]]
        # Pillow counts all channels at once, in less than half the time that numpy takes for one after another.
        counts = Image.fromarray(pixels.reshape(-1, pixels.shape[2], 3)).histogram()
        histogram += np.reshape(counts, (3, 256))
    levels = np.arange(256) / 255
    share = histogram / histogram.sum(1, keepdims=True)
    mean = share @ levels
    std = np.sqrt(np.maximum(share @ levels**2 - mean**2, 0))
    return tuple(mean.tolist()), tuple(std.tolist())


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on `device`.

    Only a copy from pinned memory to CUDA may go on while the program does: that memory is not used again before
    the copy has ended. From other memory, or to other devices, the source could be freed before it was read.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def fold_in_seed(seed: int, *numbers: int) -> int:
    """A seed of all: seed + number alone would make pass 2 of seed 1 the same as pass 1 of seed 2."""
    return int(np.random.SeedSequence([seed, *numbers]).generate_state(1, np.uint64)[0]) >> 1


def _generator(seed: int, *numbers: int) -> torch.Generator:
    return torch.Generator().manual_seed(fold_in_seed(seed, *numbers))
