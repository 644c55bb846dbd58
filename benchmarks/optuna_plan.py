"""Optuna's TPE and its Hyperband pruner as a plan that `regret.py` replays: as a user of Optuna would have them.

Every epoch of a trial is reported, trials go on until the pruner stops them, and the sampler has its own settings.
What the sampler asks for becomes the nearest recorded configuration, and the sampler learns from that one.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import optuna

from foveate.tuning.hyperband import Job, Outcome
from foveate.tuning.samplers import TpeSampler

if TYPE_CHECKING:
    from regret import Table

FACTOR = 3


class _Nearest(optuna.samplers.BaseSampler):
    """Optuna's TPE, of whose wishes the nearest configuration of a table is taken that is left.

    Attributes:
        left: the configurations that were not taken.
        taken: the last that was.
    """

    def __init__(self, table: "Table", seed: int) -> None:
        self._table, self._tpe = table, optuna.samplers.TPESampler(seed=seed)
        self._translated = TpeSampler(table.space, seed, lambda _: True)
        self.left, self.taken = set(range(len(table))), 0

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:  # noqa: ARG002
        """Every hyperparameter: they are drawn together."""
        return {
            name: self._translated._distribution(each) for name, each in self._table.space.hyperparameters.items()
        }

    def sample_relative(self, study: Any, trial: Any, search_space: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of the configuration that is nearest to what TPE draws, one hyperparameter at a time."""
        space, wish = self._table.space, dict[str, Any]()
        for name, each in space.hyperparameters.items():
            if space.exists(name, wish):
                drawn = self._tpe.sample_independent(study, trial, name, search_space[name])
                wish[name] = self._translated._outward(each, drawn)
        self.taken = self._table.nearest(np.array(self._table.place(wish)), self.left)
        self.left.remove(self.taken)
        settings = self._table.settings[self.taken]
        return {name: self._translated._inward(name, value) for name, value in settings.items()}

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        """Never asked for."""
        raise NotImplementedError


class OptunaPlan:
    """One trial after another, each an epoch at a time, until the pruner stops it or it has all epochs."""

    def __init__(self, table: "Table", seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._sampler, self._epochs = _Nearest(table, seed), table.epochs
        pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=table.epochs, reduction_factor=FACTOR)
        # The name decides, with a trial's number, which bracket the trial is in.
        self._study = optuna.create_study(
            direction="maximize", sampler=self._sampler, pruner=pruner, study_name=str(seed)
        )
        self._trial: Any = None
        self._epoch = 0

    def ask(self) -> Job | Literal["wait", "done"]:
        """The next epoch of the trial under way, or the first of a new one."""
        if self._trial is None:
            if not self._sampler.left:
                return "done"
            self._trial, self._epoch = self._study.ask(), 0
            names = list(self._trial.relative_params)  # draws them all
            for name in names:
                self._trial._suggest(name, self._trial.relative_search_space[name])
        settings = {"number": self._sampler.taken}
        return Job(self._trial.number, settings, 0, 0, self._epoch, self._epoch + 1)

    def tell(self, job: Job, outcome: Outcome) -> list[int]:
        """Report an epoch; the trial ends by it where it was the last, or the pruner says so."""
        self._epoch = job.to_epoch
        self._trial.report(outcome.score, step=job.to_epoch)
        if job.to_epoch == self._epochs:
            self._study.tell(self._trial, outcome.score)
        elif self._trial.should_prune():
            self._study.tell(self._trial, state=optuna.trial.TrialState.PRUNED)
        else:
            return []
        self._trial = None
        return [job.trial]

    def give_back(self, job: Job) -> None:
        """Never asked for: nothing is lost in a replay."""
        raise NotImplementedError
