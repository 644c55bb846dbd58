"""Pictures whose label no single place tells: a cue at the left says which of two digits is to be read.

On a black canvas lie two of scikit-learn's digits, an orange and a blue one, and at the left a square of one of
these colours, the cue. The label is the digit of the cue's colour. How far the cue is from the digits is chosen,
so that a network whose receptive field is narrower than that cannot answer without some way to look further.
"""

from dataclasses import asdict, dataclass, fields, replace
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from foveate.data.digits import PixelBlock, open_digits
from foveate.data.hashing import Content
from foveate.data.source import Source
from foveate.data.splits import SPLITS, stratified_split
from foveate.errors import DataError
from foveate.suggestions import close_to

DIGIT_SIDE = 8
"""Of a digit, in pixels."""
CUE_SIDE = 4
"""Of the cue, in pixels."""
_NEAREST = (CUE_SIDE + DIGIT_SIDE) // 2
"""The distance at which cue and digits touch."""
_SLACK = 4
"""By how many pixels the cue may lie further to the right than the left border, where there is room."""
_COLOURS = np.array([[230, 159, 0], [86, 180, 233]])
"""Orange and sky blue, which people with any colour vision can tell apart (Okabe and Ito 2008)."""
_LONGEST_SIDE = 384
_SHRUNK_FROM = 64
"""Side beyond which images are shrunk unless a size is given, in pixels."""
_MOST_BYTES = 2 << 30
"""Of all pictures together, which lie in memory."""


@dataclass(frozen=True)
class CueConfig:
    """What the pictures are like, and how many there are."""

    size: int = 32
    """Side of the canvas, in pixels."""
    distance: int = 14
    """Pixels from the cue's centre to the column of the digits' centres."""
    images: int = 10_000
    """To train on; there are a fifth as many to validate and to test."""
    seed: int = 0
    """Of the pictures; which digits are for training, validation and test does not depend on it."""

    @property
    def text(self) -> str:
        """What names the data set: `cue`, and what differs from the usual."""
        usual = {**asdict(CueConfig()), "distance": _usual_distance(self.size)}
        own = [f"{name}={value}" for name, value in asdict(self).items() if value != usual[name]]
        return "cue" + (":" + ",".join(own) if own else "")

    @classmethod
    def parse(cls, text: str) -> "CueConfig":
        """`cue`, or `cue:NAME=NUMBER,…`.

        Raises:
            DataError: for what cannot be drawn, or is not written so.
        """
        known = [each.name for each in fields(cls)]
        given: dict[str, int] = {}
        pairs = text.removeprefix("cue").removeprefix(":")
        for pair in pairs.split(",") if pairs else ():
            name, equals, value = (part.strip() for part in pair.partition("="))
            if name not in known:
                raise DataError(
                    f"{text!a}: {name!a} is not one of {', '.join(known)}{close_to(name, known)}: write it as in "
                    "cue:size=64,distance=28"
                )
            if name in given:
                raise DataError(f"{text!a}: {name} is given twice: give it once")
            if not equals or not (value.isascii() and value.isdigit() and len(value) <= 9):
                raise DataError(f"{text!a}: {name} needs a whole number, as in cue:size=64,distance=28")
            given[name] = int(value)
        # Without a distance of its own, a canvas of another size has the cue as far away, in proportion.
        if "distance" not in given and "size" in given:
            given["distance"] = _usual_distance(given["size"])
        config = replace(cls(), **given)
        config.check(text)
        return config

    def check(self, text: str) -> None:
        """Refuse what cannot be drawn; DataError that names `text`."""
        if not 16 <= self.size <= _LONGEST_SIDE:
            raise DataError(f"{text!a}: size={self.size} is not between 16 and {_LONGEST_SIDE}: give another size")
        furthest = self.size - _NEAREST
        if not _NEAREST <= self.distance <= furthest:
            raise DataError(
                f"{text!a}: distance={self.distance} is not between {_NEAREST} and {furthest}, where cue and "
                f"digits lie side by side on {self.size} px: give another distance, or a larger size"
            )
        if self.images < 50:
            raise DataError(f"{text!a}: images={self.images} is too few: give 50 or more")
        if (most := _MOST_BYTES * 5 // (7 * 3 * self.size**2)) < self.images:
            raise DataError(
                f"{text!a}: {self.images:,} images of {self.size} px take too much memory: give at most {most:,}"
            )


def _usual_distance(size: int) -> int:
    return size * CueConfig.distance // CueConfig.size


class CuePictures(NamedTuple):
    """N pictures, and what is where in them: centres, as (row, column) in pixels from the upper left."""

    images: NDArray[np.uint8]
    """[N, S, S, 3]."""
    labels: NDArray[np.int64]
    """[N], the digit to be read."""
    cues: NDArray[np.int64]
    """[N, 2], where the cue is."""
    digits: NDArray[np.int64]
    """[N, 2, 2], where the upper and the lower digit are."""
    sources: NDArray[np.int64]
    """[N, 2], which of the digits these are."""
    read: NDArray[np.int64]
    """[N], 0 where the upper one is to be read, and 1 for the lower."""


def open_cue(data: str) -> Source:
    """The data set of a name such as `cue:size=64,distance=28`, drawn now: a second for 14,000 pictures of 32 px.

    Raises:
        DataError: for what cannot be drawn, or is not written so.
    """
    config = CueConfig.parse(data)
    drawn = draw_cue(config)
    counts = {split: len(each.labels) for split, each in drawn.items()}
    images = np.concatenate([each.images for each in drawn.values()])
    notes = (
        f"the pictures are {config.size} px wide: without --size {config.size} they are shrunk to "
        f"{_SHRUNK_FROM} px, and the distances with them",
    )
    return Source(
        name=config.text.replace("=", "").replace(":", "-").replace(",", "-"),
        location=config.text,
        class_names=tuple("0123456789"),
        labels=np.concatenate([each.labels for each in drawn.values()]),
        declared=np.repeat([SPLITS.index(split) for split in counts], list(counts.values())).astype(np.int8),
        ids=[f"{split}#{row}" for split, count in counts.items() for row in range(count)],
        blocks=[PixelBlock(0, len(images), images)],
        content=Content(sha256(images.tobytes()).hexdigest()),
        notes=notes if config.size > _SHRUNK_FROM else (),
        side=config.size,
        mirror_safe=False,
    )


def draw_cue(config: CueConfig) -> dict[str, CuePictures]:
    """The pictures of each split.

    A digit that is tested on is in no picture to train on, whatever the seed: the digits are parted once, by
    class, into 60, 20 and 20 %.
    """
    digits = open_digits()
    pixels = np.array([image for block in digits.blocks for image in block.images()])
    rest, test = stratified_split(digits.labels, 0.2, seed=0)
    train, validation = stratified_split(digits.labels[rest], 0.25, seed=0)
    allowed = {"train": rest[train], "validation": rest[validation], "test": test}
    drawn = {}
    for number, split in enumerate(SPLITS):
        count = config.images if split == "train" else config.images // 5
        generator = np.random.default_rng([config.seed, number])
        drawn[split] = _draw(pixels, digits.labels, allowed[split], count, config, generator)
    return drawn


def _draw(
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    allowed: NDArray[np.int64],
    count: int,
    config: CueConfig,
    generator: np.random.Generator,
) -> CuePictures:
    """Draw `count` pictures of the `allowed` ones of the digits `pixels` [M, 8, 8] with their `labels` [M].

    Every class is to be read as often as every other, but for rounding. The digit that is not to be read is of any
    class, in a tenth of the pictures of the same. Which of the two is orange, which lies above, and which is to be
    read are independent draws, so that a picture without its cue says nothing of that.
    """
    size, distance = config.size, config.distance
    to_read = generator.permutation(np.arange(count) % 10)
    other = generator.integers(10, size=count)
    of_class = [allowed[labels[allowed] == digit] for digit in range(10)]
    read = generator.integers(2, size=count)  # 0: the upper digit
    colour = generator.integers(2, size=count)  # of the upper digit; the lower one has the other
    upper_first = np.stack([to_read, other], axis=1)
    upper_first[read == 1] = upper_first[read == 1, ::-1]  # [N, 2]: classes of the upper and of the lower digit
    chance = generator.random((count, 2))
    sources = np.zeros((count, 2), np.int64)
    for digit, members in enumerate(of_class):
        place = upper_first == digit
        sources[place] = members[(chance[place] * len(members)).astype(np.int64)]

    half = DIGIT_SIDE // 2
    room = min(_SLACK, size - distance - half - CUE_SIDE // 2)
    column = generator.integers(CUE_SIDE // 2, CUE_SIDE // 2 + room, size=count, endpoint=True)
    row = generator.integers(2 * half, size - 2 * half, size=count, endpoint=True)
    # The digits lie above and below the cue, and less far along the height than along the width: a square window
    # that holds both centres is `distance` wide.
    up = generator.integers(half, np.minimum(distance, row - half), endpoint=True)
    down = generator.integers(half, np.minimum(distance, size - half - row), endpoint=True)
    cues = np.stack([row, column], axis=1)
    aside = np.full(count, distance)
    digits = np.stack([cues + np.stack([rise, aside], axis=1) for rise in (-up, down)], axis=1)

    images = np.zeros((count, size, size, 3), np.uint8)
    colours = np.stack([colour, 1 - colour], axis=1)  # [N, 2]
    for which in range(2):
        shades = pixels[sources[:, which]][..., None] / 255  # [N, 8, 8, 1]
        _paste(images, digits[:, which], np.round(shades * _COLOURS[colours[:, which]][:, None, None]))
    cue = _COLOURS[colours[np.arange(count), read]][:, None, None]  # [N, 1, 1, 3]
    _paste(images, cues, np.broadcast_to(cue, (count, CUE_SIDE, CUE_SIDE, 3)))
    return CuePictures(images, to_read.astype(np.int64), cues, digits, sources, read)


def _paste(images: NDArray[np.uint8], centres: NDArray[np.int64], patches: NDArray[Any]) -> None:
    """Put patches [N, s, s, 3] of an even side, by their centres [N, 2], into images [N, S, S, 3]."""
    side = patches.shape[1]
    offsets = np.arange(side) - side // 2
    rows, columns = (centres[:, axis, None] + offsets for axis in range(2))  # [N, s]
    images[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]] = patches
