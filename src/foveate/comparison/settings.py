"""The settings of a comparison."""

from typing import Annotated

from pydantic import Field, model_validator

from foveate.comparison.arms import Arm
from foveate.comparison.pooling import Rule
from foveate.execution.campaign import CampaignConfig
from foveate.records import Line, distinct

_MAX_RUNS = 100_000


class ComparisonConfig(CampaignConfig):
    """Every setting of a comparison."""

    num_classes: int = Field(ge=1, le=100_000)
    arms: tuple[Arm, ...] = Field(min_length=2, max_length=1_000)
    """Resolved. The first is the reference, controls come last."""
    seeds: int = Field(5, ge=1, le=10_000)
    first_seed: int = Field(0, ge=0, lt=2**62)
    subsets: tuple[Annotated[int, Field(ge=1, le=10**12)] | None, ...] = Field(
        (None,), min_length=1, max_length=1_000
    )
    """Numbers of training images; None: all. Several make a curve."""
    delta: float = Field(0.005, gt=0, lt=1)
    """δ: the smallest difference in accuracy that matters, 0…1."""
    alpha: float = Field(0.05, ge=1e-9, le=0.2)
    """The chance of any false verdict, over all pairs together."""
    rule: Rule = "seeds"
    """How the pairs are judged. Files that lack it are of versions that judged by `seeds`; no new one has that."""
    pilot: bool = False
    """Whether it only measures how much seeds differ. It is not evidence, and never sees the test split."""

    told: tuple[Line, ...] = ()
    """What was told of the networks that arms start from when the comparison began."""

    def first_seed_of(self, arm: int) -> int:
        """Of the arm at a place."""
        own = self.arms[arm].first_seed
        return self.first_seed if own is None else own

    @model_validator(mode="after")
    def _check_arms(self) -> "ComparisonConfig":
        if (runs := self.seeds * len(self.arms) * len(self.subsets)) > _MAX_RUNS:
            raise ValueError(f"seeds × arms × subsets are {runs:,} runs: {_MAX_RUNS:,} are the most")
        distinct(self.subsets)
        names = distinct([arm.name for arm in self.arms])
        if self.arms[0].matched or not {name for arm in self.arms for name in arm.matched} <= set(names):
            raise ValueError("arms: the first is the reference, and controls are matched to other arms by name")
        data = [arm.config.data for arm in self.arms]
        if data[0].size is None or any(each != data[0] for each in data):
            raise ValueError("arms: all must have the same `data`, with a size")
        return self
