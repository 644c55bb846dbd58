"""The digits that scikit-learn carries: 1,797 real handwritten ones of 8 × 8 grey pixels, no download."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from foveate.data.hashing import Content
from foveate.data.source import Block, Image, Source
from foveate.data.splits import UNDECLARED
from foveate.data.texts import row_names


@dataclass(frozen=True, eq=False)
class PixelBlock(Block):
    """Pixels that lie in memory."""

    pixels: NDArray[np.uint8]
    """[N, H, W] or [N, H, W, 3]."""
    encoded: ClassVar[bool] = False

    def images(self) -> Iterator[Image]:
        """Yield them."""
        yield from self.pixels


def open_digits() -> Source:
    """The digits (Alpaydin and Kaynak, UCI, 1998; `sklearn.datasets.load_digits`), 0…16 scaled to 0…255."""
    table = _table()  # [N, 65]: 64 pixels, and the class
    pixels = np.round(table[:, :64].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    count = len(pixels)
    return Source(
        name="digits",
        location="digits",
        class_names=tuple("0123456789"),
        labels=table[:, 64].astype(np.int64),
        declared=np.full(count, UNDECLARED, np.int8),
        ids=row_names([("digits#", count)]),
        blocks=[PixelBlock(0, count, pixels)],
        content=Content(hashlib.sha256(pixels.tobytes()).hexdigest()),
        mirror_safe=False,
    )


def _table() -> NDArray[np.float64]:
    """The file that `load_digits` reads, as it reads it: to import scikit-learn for that takes two seconds."""
    found = find_spec("sklearn")
    places = found.submodule_search_locations if found is not None else None
    file = Path((places or [""])[0], "datasets", "data", "digits.csv.gz")
    if file.is_file():
        return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits  # of another version, which has it elsewhere

    digits: Any = load_digits()
    return np.column_stack([digits.data, digits.target])
