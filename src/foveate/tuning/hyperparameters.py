"""One hyperparameter of a space: which values it has, and how one is drawn."""

import math
from typing import Annotated, Literal, TypeAlias

import numpy as np
from pydantic import Field, model_validator

from foveate.records import Name
from foveate.settings import Section

_MAX_INT = 2**53
"""A float holds every whole number up to it exactly."""
_MIN_STEP, _MAX_STEPS = 1e-11, 10**9
"""Of floats, which are rounded to 12 decimals."""
_MAX_VALUES = 10_000

Scalar: TypeAlias = int | float | str | bool | None
Value: TypeAlias = Scalar | tuple[Scalar, ...]
Values = Annotated[tuple[Value, ...], Field(min_length=1, max_length=_MAX_VALUES)]
Whole = Annotated[int, Field(ge=-_MAX_INT, le=_MAX_INT)]


class _Hyperparameter(Section):
    sets: Annotated[dict[Name, float], Field(min_length=1, max_length=_MAX_VALUES)] | Name | None = None
    """Settings, each set to a multiple of its value; or the name of one; None: the setting that has its name."""
    when: dict[Name, Values] = Field({})
    """It exists only where each of these other hyperparameters has one of these values."""


class IntRange(_Hyperparameter):
    """A whole number from `low` to `high`, in steps or on a logarithmic scale."""

    type: Literal["int"]
    low: Whole
    high: Whole
    step: int = Field(1, ge=1, le=_MAX_INT)
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> "IntRange":
        _check_range(self.low, self.high, log=self.log, stepped=self.step > 1)
        return self

    def draw(self, generator: np.random.Generator) -> int:
        """One of its values, uniformly or by their logarithms."""
        if self.log:
            drawn = int(math.exp(generator.uniform(math.log(self.low), math.log(self.high + 1))))
            return max(self.low, min(self.high, drawn))
        return self.low + self.step * int(generator.integers((self.high - self.low) // self.step + 1))

    def contains(self, value: Value) -> bool:
        """Whether it is one of its values."""
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and self.low <= value <= self.high and (value - self.low) % self.step == 0  # type: ignore[operator]


class FloatRange(_Hyperparameter):
    """A number from `low` to `high`, in steps or on a logarithmic scale."""

    type: Literal["float"]
    low: float
    high: float
    step: float | None = Field(None, gt=0)
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> "FloatRange":
        _check_range(self.low, self.high, log=self.log, stepped=self.step is not None)
        if not math.isfinite(self.high - self.low):
            raise ValueError(f"low={self.low} and high={self.high} are too far apart")
        if self.step is not None and (self.step < _MIN_STEP or (self.high - self.low) / self.step > _MAX_STEPS):
            raise ValueError(
                f"step={self.step} is too small: give {_MIN_STEP:g} or more, and at most {_MAX_STEPS:,} steps"
            )
        return self

    def draw(self, generator: np.random.Generator) -> float:
        """One of its values, uniformly or by their logarithms."""
        if self.step is not None:
            steps = math.floor((self.high - self.low) / self.step + 1e-9)
            return self.rounded(self.low + self.step * int(generator.integers(steps + 1)))
        if self.log:
            return math.exp(generator.uniform(math.log(self.low), math.log(self.high)))
        return float(generator.uniform(self.low, self.high))

    def contains(self, value: Value) -> bool:
        """Whether it is one of its values, up to what rounding does to the last bits."""
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        near = 1e-9 * max(abs(self.low), abs(self.high), 1e-300)
        if not self.low - near <= value <= self.high + near:
            return False
        steps = 0.0 if self.step is None else (value - self.low) / self.step
        return abs(steps - round(steps)) < 0.1

    def rounded(self, value: float) -> float:
        """A value as it is written, whatever sum of steps it came from."""
        return value if self.step is None else round(value, 12)


class Choice(_Hyperparameter):
    """One of some values."""

    type: Literal["choice"]
    values: Values

    def draw(self, generator: np.random.Generator) -> Value:
        """One of them, uniformly."""
        return self.values[int(generator.integers(len(self.values)))]

    def contains(self, value: Value) -> bool:
        """Whether it is one of its values."""
        return value in self.values


Hyperparameter = Annotated[IntRange | FloatRange | Choice, Field(discriminator="type")]


def _check_range(low: float, high: float, *, log: bool, stepped: bool) -> None:
    if low > high:
        raise ValueError(f"low={low} is above high={high}")
    if log and low <= 0:
        raise ValueError(f"low={low} has no logarithm")
    if log and stepped:
        raise ValueError("a logarithmic range has no step")
