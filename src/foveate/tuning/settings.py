"""The settings of a study, and what they make it train."""

from typing import Literal

from pydantic import Field, model_validator

from foveate.config import Config
from foveate.execution.campaign import CampaignConfig
from foveate.records import Line
from foveate.tuning.hyperband import FORMULAS, MAX_EPOCHS, Bracket, Budget, Formula, Rung, budget_of
from foveate.tuning.space import Space
from foveate.tuning.trial import Semantics

_MAX_TRIALS = 100_000
"""A study's page and its journal are read as a whole."""


class StudyConfig(CampaignConfig):
    """Every setting of a study."""

    subset: int | None = Field(None, ge=10, le=10**12)
    """Images of training and validation together; None: all."""
    space_name: Line
    space: Space
    base: Config
    """What all trials have in common, resolved."""
    algorithm: Literal["hyperband", "asha"] = "hyperband"
    formula: Formula = "li2018"
    max_epochs: int = Field(ge=1, le=MAX_EPOCHS)
    factor: int = Field(3, ge=2, le=MAX_EPOCHS)
    iterations: int = Field(1, ge=1, le=_MAX_TRIALS)
    """How often Hyperband runs through its brackets."""
    trials: int | None = Field(None, ge=1, le=_MAX_TRIALS)
    """Of `asha`; None: as many as Hyperband's brackets have."""
    semantics: Semantics = "foveate"
    sampler: Literal["random", "tpe"] = "random"
    seed: int = Field(0, ge=0, lt=2**63)
    storage: str | None = None
    """Where its checkpoints lie, and no other study's: a path, or a URL that fsspec knows; None: in its folder."""
    fail_share: float = Field(0.5, ge=0, le=1)
    """The study ends when a larger share of its trials than this has failed."""

    @model_validator(mode="after")
    def _refuse_settings_without_effect(self) -> "StudyConfig":
        if self.algorithm == "asha":
            if self.sampler == "tpe":
                raise ValueError(
                    "sampler=tpe learns from finished brackets, and asha finishes none: use hyperband"
                )
            if self.formula != "li2018" or self.iterations != 1:
                raise ValueError("formula and iterations are hyperband's")
        elif self.trials is not None:
            raise ValueError("trials is asha's: max_epochs, factor and iterations decide how many hyperband has")
        return self

    @model_validator(mode="after")
    def _refuse_too_many_trials(self) -> "StudyConfig":
        trials = (
            self.trials or budget_of(FORMULAS[self.formula](self.max_epochs, self.factor)).trials * self.iterations
        )
        if trials > _MAX_TRIALS:
            raise ValueError(
                f"max_epochs={self.max_epochs}, factor={self.factor} and iterations={self.iterations} make "
                f"{trials:,} trials: {_MAX_TRIALS:,} are the most"
            )
        return self

    @property
    def brackets(self) -> tuple[Bracket, ...]:
        """Hyperband's brackets, repeated `iterations` times."""
        return FORMULAS[self.formula](self.max_epochs, self.factor) * self.iterations

    @property
    def budget(self) -> Budget:
        """What the study takes: exactly under Hyperband, approximately under ASHA."""
        if self.algorithm == "hyperband":
            return budget_of(self.brackets)
        rungs, left = [], self.trials or budget_of(self.brackets).trials
        for rung in FORMULAS["li2018"](self.max_epochs, self.factor)[0]:
            rungs.append(Rung(left, rung.epochs))
            left //= self.factor
        return budget_of([tuple(rungs)])
