"""Names of the splits, and the seeded, stratified way to hold images out."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from foveate.errors import DataError

__all__ = ["SPLITS", "UNDECLARED", "draw", "hold_out", "split_code", "split_codes"]

SPLITS = ("train", "validation", "test")
UNDECLARED = -1
"""Code of an image for which the data names no split; the codes of others index `SPLITS`."""

_SPELLINGS = {"train": 0, "training": 0, "validation": 1, "val": 1, "valid": 1, "dev": 1, "test": 2}


def split_code(name: str) -> int | None:
    """Index into `SPLITS` of a split as users spell it; None when it is no split's name."""
    return _SPELLINGS.get(name.strip().lower())


def split_codes(names: Sequence[str | None], where: Callable[[int], str]) -> NDArray[np.int8]:
    """Index into `SPLITS` of each of the [N] names; `UNDECLARED` where it is empty.

    Raises:
        DataError: for what is no split's name; `where` names the place of the i-th for the message.
    """
    codes = {name: split_code(name) if name else UNDECLARED for name in set(names)}
    for name, code in codes.items():
        if code is None:
            raise DataError(f"{where(names.index(name))}: split {name!r} is none of train, val, test: correct it")
    return np.array([codes[name] for name in names], np.int8)


def hold_out(labels: NDArray[np.int64], fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw the same share of every class: round(n · fraction) of its n images, at least one and never all.

    Args:
        labels: [N] class of each image.
        fraction: within 0…1, both excluded.
        seed: of numpy's default generator.

    Returns:
        Sorted positions in `labels` of those kept and of those held out; a class of one image is kept.
    """
    generator = np.random.default_rng(seed)
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        held[members[: min(max(round(len(members) * fraction), 1), len(members) - 1)]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def draw(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Draw so many, the same share of every class, by the largest remainders; one of each where they suffice.

    Fewer, by the same seed, are some of these but for rounding.

    Args:
        labels: [N] class of each image.
        count: 0…N.
        seed: of numpy's default generator.

    Returns:
        Sorted positions in `labels`, `count` of them.
    """
    generator = np.random.default_rng(seed)
    classes, sizes = np.unique(labels, return_counts=True)
    exact = count * sizes / len(labels)
    least = int(count >= len(classes))
    quotas = np.maximum(np.floor(exact).astype(np.int64), least)
    while (short := count - quotas.sum()) != 0:  # by one at a time, where it is furthest from exact
        room = quotas < sizes if short > 0 else quotas > least
        place = np.where(room, np.sign(short) * (exact - quotas), -np.inf).argmax()
        quotas[place] += np.sign(short)
    drawn = [
        generator.permutation(np.flatnonzero(labels == label))[:quota]
        for label, quota in zip(classes, quotas, strict=True)
    ]
    return np.sort(np.concatenate(drawn))
