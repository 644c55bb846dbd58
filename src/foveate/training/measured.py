"""The schemas of `metrics.json`, `timing.json` and `env.json`, which may come from a stranger."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from foveate.data.folds import MOST_FOLDS
from foveate.evaluation import AblationResult, Report, Scores
from foveate.records import FiniteJson, Record

_WHOLE_MATRIX = 200
"""Classes up to which a file has the whole confusion matrix: that of a thousand has a million numbers."""
_MOST_CLASSES = 5_000
"""Of which a confusion matrix is made in memory: 400 MB, with its lists."""
_Share = Annotated[float, Field(ge=0, le=1)]


class Corruptions(Record):
    """Accuracy under corruptions, by kind and severity."""

    images: int = Field(ge=1)
    clean: _Share
    mean: _Share
    accuracy: dict[str, list[_Share]]
    weights: str
    """Digest of the network that was measured."""


class ReceptiveField(Record):
    """How far the network sees: sides in pixels, which in theory may be larger than the image."""

    convolutions: int = Field(ge=1)
    """What a position of the last feature maps can depend on by convolutions and poolings alone, in theory."""
    before_attention: int | None = Field(None, ge=1)
    """The same of what the attention is given; None: there is no attention."""
    attention_reach: tuple[int, int] | None = None
    """Height and width from which attention can bring something to a position; None: none, or it is not known."""
    effective: float = Field(ge=0)
    """What the centre of the last feature maps does depend on: its gradient, by Luo et al. (2016)."""
    effective_without_attention: float | None = Field(None, ge=0)
    """The same with the attention ablated; None: there is no attention."""
    images: int = Field(ge=1)
    """How many it was measured on."""


class FoldScore(Record):
    """The images of a fold, and how many of them its network got right."""

    images: int = Field(ge=1)
    accuracy: _Share


@dataclass(frozen=True, kw_only=True)
class Measured(Report):
    """A split as it was measured: the report, and what stands beside it."""

    groups: dict[str, Scores] = Field(default_factory=dict)
    group_count: int = Field(default=0, ge=0)
    variants: dict[str, AblationResult] = Field(default_factory=dict)
    gate: float | None = None
    calibration: dict[str, float] | None = None
    corruptions: Corruptions | None = None
    receptive_field: ReceptiveField | None = None
    folds: list[FoldScore] = Field(default_factory=list, max_length=MOST_FOLDS)
    """Of a cross-validation."""
    most_folds: int = Field(default=0, ge=0, le=MOST_FOLDS)
    """Of few validation images: how many folds could be drawn, up to the usual number."""
    copies_across_folds: int = Field(default=0, ge=0)
    """Images that have a copy, or a near copy, in another fold."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Measured":
        """Every class has its scores, and its row and column of the confusion matrix."""
        for name, value in vars(self).items():
            if isinstance(value, float) and name not in ("loss", "gate") and not 0 <= value <= 1:
                raise ValueError(f"{name}={value:g} is not between 0 and 1")
        for name, (low, high) in self.intervals.items():
            if low > high or (name != "loss" and not (low >= 0 and high <= 1)):
                raise ValueError(f"the interval of {name} cannot be {low:g} to {high:g}")
        names = self.class_names
        if sorted(self.per_class) != sorted(names):
            raise ValueError("per_class does not have each of class_names once")
        if [len(row) for row in self.confusion_matrix] != [len(names)] * len(names):
            raise ValueError(f"confusion_matrix is not {len(names)} × {len(names)}")
        if self.n != sum(map(sum, self.confusion_matrix)) or self.n < 1:
            raise ValueError(f"confusion_matrix does not hold n={self.n} images")
        return self


def for_file(report: Mapping[str, Any]) -> dict[str, Any]:
    """A split's measurements as `metrics.json` keeps them: of many classes `confusions`, not the whole matrix."""
    kept = dict(report)
    if len(kept["class_names"]) > _WHOLE_MATRIX:
        matrix = np.array(kept.pop("confusion_matrix"))
        places = np.nonzero(matrix)
        kept["confusions"] = np.stack([*places, matrix[places]], axis=1).tolist()
    return kept


def from_file(kept: Any) -> Any:
    """What `for_file` was given, of what a stranger's file may hold; as it is where that has no `confusions`.

    Raises:
        ValueError: when those are not true class, predicted class and count, of classes that there are.
    """
    if not isinstance(kept, dict) or "confusions" not in kept:
        return kept
    names, found = kept.get("class_names"), kept["confusions"]
    count = len(names) if isinstance(names, list) else 0
    if count > _MOST_CLASSES or not isinstance(kept.get("per_class"), dict) or len(kept["per_class"]) != count:
        # Before memory is taken for it: a few bytes could stand for a large matrix.
        raise ValueError(f"its {count:,} classes are more than {_MOST_CLASSES:,}, or do not all have their scores")
    whole = isinstance(found, list) and all(isinstance(each, list) and len(each) == 3 for each in found)
    if not whole or not all(type(number) is int and number >= 0 for each in found for number in each):
        raise ValueError("confusions are not lists of a true class, a predicted class and a count")
    if any(max(each[:2]) >= count for each in found):
        raise ValueError(f"confusions are not of its {count:,} classes")
    matrix = np.zeros((count, count), np.int64)
    for true, predicted, images in found:
        matrix[true, predicted] = min(images, np.iinfo(np.int64).max)
    return {
        **{name: each for name, each in kept.items() if name != "confusions"},
        "confusion_matrix": matrix.tolist(),
    }


MeasuredSplits = dict[Literal["train", "validation", "test", "all", "out-of-fold"], Measured]


class EpochTime(Record):
    """The time of an epoch, and what else `results.csv` does not say of it."""

    epoch: int
    seconds: float
    images_per_s: float
    features_kept: bool = False
    """Whether features of a frozen backbone were in the cache, so that computing them took no time here."""
    strength_chosen: bool | None = None
    """Whether folds chose the penalty of a logistic regression."""


class Timing(Record):
    """The time of the training."""

    train_s: float
    images_per_s: float
    epochs: list[EpochTime]


Environment = dict[str, FiniteJson]
"""`env.json`: it is shown, and a resumed run compares it with where it is."""
