"""The settings of a study, and what they make it train."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from foveate.config import Config
from foveate.counts import plural
from foveate.execution.campaign import CampaignConfig
from foveate.records import Line
from foveate.settings import Side
from foveate.training.job import shared_fields
from foveate.tuning.brackets import (
    FORMULAS,
    MAX_EPOCHS,
    Bracket,
    Budget,
    Formula,
    budget_of,
    li2018_brackets,
    screening_brackets,
)
from foveate.tuning.hyperband import Job
from foveate.tuning.space import Space
from foveate.tuning.trial import ScoreMetric, Semantics, TrialJob

Algorithm = Literal["screening", "hyperband", "asha"]
HYPERBAND_FACTOR, SCREENING_FACTOR = 3, 6
_MAX_TRIALS = 100_000
"""A study's page and its journal are read as a whole."""
_ITERATIONS_IN_TIME = 1_000
"""The most times that brackets are gone through in the time that is given."""


class StudyConfig(CampaignConfig):
    """Every setting of a study."""

    subset: int | None = Field(None, ge=10, le=10**12)
    """Images of training and validation together; None: all."""
    space_name: Line
    space: Space
    base: Config
    """What all trials have in common, resolved."""
    algorithm: Algorithm = "hyperband"
    formula: Formula = "li2018"
    """Sizes of Hyperband's brackets."""
    max_epochs: int = Field(ge=1, le=MAX_EPOCHS)
    factor: int = Field(HYPERBAND_FACTOR, ge=2, le=MAX_EPOCHS)
    iterations: int = Field(1, ge=1, le=_MAX_TRIALS)
    """How often the brackets are gone through."""
    time_s: float | None = Field(None, gt=0)
    """Seconds that the study has: as many of the brackets are gone through as fit; None: all."""
    trials: int | None = Field(None, ge=1, le=_MAX_TRIALS)
    """Of `asha`; None: as many as Hyperband's brackets have."""
    semantics: Semantics = "continue"
    first_size: Side | None = None
    """Pixels of the images in the first rung of every bracket that has another; None: as in all others."""
    sampler: Literal["random", "tpe"] = "random"
    seed: int = Field(0, ge=0, lt=2**63)
    storage: str | None = None
    """Where its checkpoints lie, and no other study's: a path, or a URL that fsspec knows; None: in its folder."""
    fail_share: float = Field(0.5, ge=0, le=1)
    """The study ends when a larger share of its trials than this has failed."""

    @model_validator(mode="before")
    @classmethod
    def _take_the_older_name(cls, values: Any) -> Any:
        """`continue` was the only one beside `kerastuner`, and named after Foveate."""
        if isinstance(values, Mapping) and values.get("semantics") == "foveate":
            return {**values, "semantics": "continue"}
        return values

    @model_validator(mode="after")
    def _refuse_settings_without_effect(self) -> "StudyConfig":
        if self.algorithm != "hyperband" and self.formula != "li2018":
            raise ValueError("formula says the sizes of hyperband's brackets: use algorithm=hyperband")
        if self.algorithm == "asha":
            if self.sampler == "tpe":
                raise ValueError(
                    "sampler=tpe learns from finished brackets, and asha finishes none: use hyperband or screening"
                )
            if self.iterations != 1 or self.time_s is not None:
                raise ValueError("asha has no brackets that are gone through several times, or until a time")
        elif self.trials is not None:
            raise ValueError(
                f"trials is asha's: how many {self.algorithm} has is decided by max_epochs, factor and iterations"
            )
        return self

    @model_validator(mode="after")
    def _refuse_a_first_size_that_cannot_work(self) -> "StudyConfig":
        if self.first_size is None:
            return self
        size = self.base.data.size
        if not self.anew:
            raise ValueError(
                f"first_size: under semantics={self.semantics} a promoted trial goes on with what it has learned "
                "from the images that it began with: give --semantics anew, or leave first_size out"
            )
        if size is not None and self.first_size >= size:
            raise ValueError(
                f"first_size={self.first_size}: the other rungs have images of {size} px: give fewer pixels"
            )
        if all(len(bracket) == 1 for bracket in self._once):
            raise ValueError(
                f"first_size: with max_epochs={self.max_epochs} and factor={self.factor} no rung follows the "
                "first: give more epochs, or leave first_size out"
            )
        return self

    @model_validator(mode="after")
    def _refuse_too_many_trials(self) -> "StudyConfig":
        trials = self.trials or budget_of(self._once).trials * self.iterations
        if trials > _MAX_TRIALS:
            raise ValueError(
                f"max_epochs={self.max_epochs}, factor={self.factor} and iterations={self.iterations} make "
                f"{trials:,} trials: {_MAX_TRIALS:,} are the most"
            )
        return self

    @property
    def _once(self) -> tuple[Bracket, ...]:
        formula = screening_brackets if self.algorithm == "screening" else FORMULAS[self.formula]
        return tuple(
            (replace(first, epoch_cost=self._first_cost), *rest) if rest else (first,)
            for first, *rest in formula(self.max_epochs, self.factor)
        )

    @property
    def _first_cost(self) -> float:
        """What an epoch of first rungs takes: about in proportion to the area (`training.length.Rates`)."""
        size = self.base.data.size
        return 1.0 if self.first_size is None or size is None else (self.first_size / size) ** 2

    @property
    def brackets(self) -> tuple[Bracket, ...]:
        """The brackets, repeated `iterations` times."""
        return self._once * self.iterations

    @property
    def score(self) -> ScoreMetric:
        """What trials are ranked by: accuracy, or balanced accuracy where that is the `monitor` of all trials."""
        return "balanced_accuracy" if self.base.train.monitor == "balanced_accuracy" else "accuracy"

    @property
    def anew(self) -> bool:
        """Whether a promoted trial begins from nothing, with a schedule over the epochs of its new rung."""
        return self.semantics == "anew"

    @property
    def halves_validation(self) -> bool:
        """Whether one half of the validation images stops trials and names their best epoch, the other ranks them.

        Only where trials can be stopped: else a trial is ranked on all images in its last epoch, which no image
        chose.
        """
        patience = self.base.train.patience is not None or any(
            path.rpartition(".")[2] == "patience" for path in self.space.paths()
        )
        return patience and self.semantics != "kerastuner"

    @property
    def plan(self) -> tuple[Bracket, ...]:
        """The brackets, or the one of ASHA, in which about as many trials go on."""
        if self.algorithm != "asha":
            return self.brackets
        rungs, left = [], self.trials or budget_of(self.brackets).trials
        for rung in self._once[0]:
            rungs.append(replace(rung, trials=left))
            left //= self.factor
        return (tuple(rungs),)

    @property
    def budget(self) -> Budget:
        """What the study takes: exactly where it has brackets and no time, approximately under ASHA."""
        return budget_of(self.plan, anew=self.anew)

    @property
    def plan_words(self) -> str:
        """What the study takes, in words: epochs that are paid."""
        budget, about = self.budget, "about " if self.algorithm == "asha" else ""
        if self.time_s is not None:
            budget = budget_of(self.brackets[:1], anew=self.anew)
            about = f"brackets for {timedelta(seconds=round(self.time_s))}, the first of "
        plan = f"hyperband, {self.formula}" if self.algorithm == "hyperband" else self.algorithm
        counts = (
            f"{plural(budget.trials, 'trial')}, {plural(budget.jobs, 'job')}, {plural(budget.epochs, 'epoch')}"
        )
        return f"{plan}: {about}{counts}"

    @property
    def cost_words(self) -> str:
        """How long epochs with smaller images take, in words; empty where all images have one size."""
        if self.first_size is None:
            return ""
        budget = budget_of(self.brackets[:1], anew=True) if self.time_s is not None else self.budget
        return (
            f"first rungs have images of {self.first_size} px, and all epochs together take about as long as "
            f"{budget.cost:.1f} of {self.base.data.size} px"
        )

    def is_small(self, job: Job) -> bool:
        """Whether a job of the plan sees the smaller images."""
        return self.first_size is not None and job.rung == 0 and job.to_epoch < self.max_epochs

    def epoch_cost(self, job: Job) -> float:
        """What an epoch of a job takes, as a share of one at full size."""
        return self._first_cost if self.is_small(job) else 1.0

    def trial_job(self, job: Job, folder: Path, checkpoints: str) -> TrialJob:
        """What a worker is given of a job of the plan.

        Args:
            folder: of the study.
            checkpoints: where those of the trial lie.
        """
        config = self.space.apply(self.base, job.settings)
        if self.anew:
            config = config.replacing(epochs=job.to_epoch)
        if self.is_small(job):
            config = config.replacing(size=self.first_size)
        return TrialJob(
            **shared_fields(self, folder),
            config=config,
            subset=self.subset,
            folder=checkpoints,
            from_epoch=job.from_epoch,
            to_epoch=job.to_epoch,
            semantics=self.semantics,
            halves_validation=self.halves_validation,
            score=self.score,
            tells_right=job.to_epoch == self.max_epochs and self.score == "accuracy",
        )


def usual_plan(space: Space, base: Config, max_epochs: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """The plan of a study where a request leaves it open; settings that are `given` stay.

    Where the rate is constant, an early epoch of a long schedule is the end of a short one: promoted trials go on,
    by Hyperband, as in the paper. Where it falls, an early epoch says little of the last, and a short schedule of
    its own says much (docs/tune.md): trials begin anew, in brackets of many short ones and one long. A factor or
    a formula are Hyperband's. Brackets of screening are repeated until they take as much as Hyperband, or without
    end where a time is given.
    """
    plan = {name: value for name, value in given.items() if value is not None}
    constant = base.train.schedule == "constant" and "train.schedule" not in space.paths()
    plan.setdefault("semantics", "continue" if constant else "anew")
    of_hyperband = constant or plan["semantics"] == "kerastuner" or {"factor", "formula"} & plan.keys()
    plan.setdefault("algorithm", "hyperband" if of_hyperband else "screening")
    screening = plan["algorithm"] == "screening"
    plan.setdefault("factor", SCREENING_FACTOR if screening else HYPERBAND_FACTOR)
    if "iterations" not in plan and plan["algorithm"] in ("screening", "hyperband"):
        anew = plan["semantics"] == "anew"
        hyperbands = FORMULAS.get(plan.get("formula", "li2018"), li2018_brackets)
        once = (screening_brackets if screening else hyperbands)(max_epochs, plan["factor"])
        if plan.get("time_s") is not None:
            plan["iterations"] = max(1, min(_ITERATIONS_IN_TIME, _MAX_TRIALS // budget_of(once).trials))
        elif screening:
            whole = budget_of(li2018_brackets(max_epochs, HYPERBAND_FACTOR), anew=anew).epochs
            plan["iterations"] = max(1, round(whole / budget_of(once, anew=anew).epochs))
    return plan
