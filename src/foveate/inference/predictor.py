"""Predictions: from paths, bytes or pixels to labels, calibrated probabilities, prediction sets, and a warning."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from foveate.arguments import at_home
from foveate.confidence import energy
from foveate.data.container import BadImageError
from foveate.data.decode import decode, resize_array, resize_image
from foveate.data.stream import stream_files
from foveate.errors import ConfigError, DataError
from foveate.inference.engine import BATCH, About, Engine, load_engine

Image = str | Path | bytes | PIL.Image.Image | NDArray[np.uint8]
"""An image: the path of a file, a file's bytes, a Pillow image, or pixels [H, W], [H, W, 1] or [H, W, 3]."""

IN_PROCESS = 32
"""Files up to which decoding them here is faster than starting processes for it."""


@dataclass(frozen=True)
class Prediction:
    """What a network says of one image; of an image that cannot be read, only `id` and `reason` are given."""

    id: str
    """Its path, or its place among the images that were given."""
    label: str | None = None
    probability: float | None = None
    """Calibrated, of the label."""
    probabilities: NDArray[np.float64] | None = None
    """[K], calibrated, in the order of the model's `class_names`."""
    set: tuple[str, ...] | None = None
    """The classes among which the true one is, the likeliest first; None where no coverage was asked for."""
    unlike: bool | None = None
    """Whether the image is unlike those that the network was trained on; None where that was not fitted."""
    unlike_score: float | None = None
    """Its energy: the higher, the less it resembles them."""
    reason: str | None = None
    """Why it cannot be read."""


class Predictor:
    """Predicts by one trained network.

    Args:
        engine: runs the network.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @classmethod
    def load(cls, model: Path | str, *, device: str | None = None) -> "Predictor":
        """The predictor of a run folder, a weights file (`.safetensors`) or an exported `.onnx` file.

        Raises:
            CheckpointError, ConfigError: as `load_engine`.
        """
        return cls(load_engine(at_home(model), device=device))

    @property
    def about(self) -> About:
        """The description of the model."""
        return self.engine.about

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of `Prediction.probabilities`."""
        return self.about.class_names

    def predict(self, images: Image | Sequence[Image], *, coverage: float | None = None) -> list[Prediction]:
        """Predict one image or many; an image that cannot be read has a `reason` in place of a label.

        Args:
            coverage: what share of prediction sets is to hold the true class; None: no sets are made.

        Raises:
            ConfigError: where sets are asked for that the model cannot give.
            DataError: when an array is not an image.
        """
        self.check_coverage(coverage)
        one = isinstance(images, str | Path | bytes | PIL.Image.Image | np.ndarray)
        given = cast("list[Image]", [images] if one else list(cast("Sequence[Image]", images)))
        found: list[Prediction] = []
        for start in range(0, len(given), BATCH):
            part = given[start : start + BATCH]
            pixels = np.zeros((len(part), self.about.size, self.about.size, 3), np.uint8)
            bad = {}
            for place, image in enumerate(part):
                try:
                    pixels[place] = self._decode(image)
                except BadImageError as error:
                    bad[place] = str(error)
            names = [
                str(image) if isinstance(image, str | Path) else str(start + place)
                for place, image in enumerate(part)
            ]
            found += self.of_pixels(names, pixels, bad, coverage=coverage)
        return found

    def predict_files(
        self, paths: Iterable[str], *, coverage: float | None = None, workers: int | None = None
    ) -> Iterator[Prediction]:
        """Predict any number of files, in their order, decoded by other processes, so that no image can hang.

        Args:
            coverage: as in `predict`.
            workers: processes that decode; 0: this one; None: one a processor.

        Raises:
            ConfigError: as `predict`.
            DataError: when no process can decode.
        """
        self.check_coverage(coverage)
        ready: dict[int, list[Prediction]] = {}
        following = 0
        for some in stream_files(paths, self.about.preprocessing, at_once=BATCH, workers=workers):
            ready[some.start] = self.of_pixels(some.paths, some.pixels, some.bad, coverage=coverage)
            while (batch := ready.pop(following, None)) is not None:
                yield from batch
                following += len(batch)

    def of_pixels(
        self, ids: Sequence[str], pixels: NDArray[np.uint8], bad: dict[int, str], *, coverage: float | None = None
    ) -> list[Prediction]:
        """Predict images [N, size, size, 3] that are decoded already, except the `bad` ones, by their place."""
        good = [place for place in range(len(ids)) if place not in bad]
        batches = (good[at : at + BATCH] for at in range(0, len(good), BATCH))
        found = itertools.chain.from_iterable(
            self.of_logits([ids[place] for place in batch], self.engine.logits(pixels[batch]), coverage)
            for batch in batches
        )
        return [
            Prediction(name, reason=bad[place]) if place in bad else next(found) for place, name in enumerate(ids)
        ]

    def of_logits(self, ids: Sequence[str], logits: NDArray[Any], coverage: float | None) -> list[Prediction]:
        """What logits [N, K] say of images."""
        confidence, names = self.about.confidence, self.class_names
        probabilities, scores = confidence.probabilities(logits), energy(logits)
        unlike, best = confidence.is_unlike(logits), logits.argmax(axis=1)
        chosen = None if coverage is None else confidence.sets(probabilities, coverage)

        def members(place: int) -> tuple[str, ...] | None:
            if chosen is None:
                return None
            ordered = np.argsort(-probabilities[place], kind="stable")
            return tuple(names[index] for index in ordered if chosen[place, index])

        return [
            Prediction(
                id=ids[place],
                label=names[best[place]],
                probability=float(probabilities[place, best[place]]),
                probabilities=probabilities[place],
                set=members(place),
                unlike=None if unlike is None else bool(unlike[place]),
                unlike_score=float(scores[place]),
            )
            for place in range(len(ids))
        ]

    def check_coverage(self, coverage: float | None) -> None:
        """Refuse prediction sets that the model cannot give.

        Raises:
            ConfigError: saying what to do.
        """
        if coverage is None:
            return
        if not 0 < coverage < 1:
            raise ConfigError(f"coverage={coverage:g}: give a share above 0 and below 1, such as 0.95")
        confidence = self.about.confidence
        if not confidence.scores and confidence.images is not None:
            raise ConfigError(f"{confidence.told}; leave out coverage")
        if not confidence.scores:
            raise ConfigError(
                "this model has no prediction sets: it was trained on its validation images as well, or by an "
                "earlier version of Foveate (then give the run, after `foveate evaluate RUN`); leave out "
                "coverage"
            )

    def _decode(self, image: Image) -> NDArray[np.uint8]:
        preprocessing = self.about.preprocessing
        if isinstance(image, PIL.Image.Image):
            return resize_image(image, preprocessing)
        if not isinstance(image, np.ndarray):
            return decode(Path(image) if isinstance(image, str) else image, preprocessing)
        is_shape = image.ndim >= 2 and image.shape[2:] in ((), (1,), (3,)) and image.size
        if image.dtype != np.uint8 or not is_shape:
            raise DataError(
                f"an array of shape {image.shape} and type {image.dtype} is not an image: give uint8 pixels "
                "[height, width], [height, width, 1] or [height, width, 3]"
            )
        return resize_array(image, preprocessing)
