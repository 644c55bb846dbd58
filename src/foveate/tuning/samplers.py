"""Where the settings of new trials come from: chance, or a model of what was good so far."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from foveate.errors import ConfigError
from foveate.tuning.hyperband import Scores
from foveate.tuning.hyperparameters import Choice, Hyperparameter, IntRange, Value
from foveate.tuning.space import Space, random_draws

Usable = Callable[[Mapping[str, Value]], bool]
"""Whether a network can be built of settings."""


class Sampler(Protocol):
    """Gives a new trial its settings, from its number, the scores seen so far, and the other trials' settings."""

    def __call__(
        self, trial: int, seen: Scores, settings: Mapping[int, Mapping[str, Value]]
    ) -> Mapping[str, Value] | None:
        """Settings no other trial has; None when there are no more."""
        ...


class RandomSampler:
    """Trial k has the k-th draw of a seed's, whatever the order in which trials are asked for."""

    def __init__(self, space: Space, seed: int, usable: Usable) -> None:
        self._draws = random_draws(space, seed, usable)
        self._drawn: list[Mapping[str, Value]] = []

    def __call__(
        self,
        trial: int,
        seen: Scores,  # noqa: ARG002
        settings: Mapping[int, Mapping[str, Value]],  # noqa: ARG002
    ) -> Mapping[str, Value] | None:
        """As `Sampler`."""
        while len(self._drawn) <= trial:
            if (drawn := next(self._draws, None)) is None:
                return None
            self._drawn.append(drawn)
        return self._drawn[trial]


def _import_optuna() -> Any:
    """The module `optuna`; ConfigError where it is not installed."""
    try:
        import optuna
    except ImportError:
        raise ConfigError('sampler=tpe needs Optuna: pip install "foveate[optuna]"') from None
    return optuna


class TpeSampler:
    """The tree-structured Parzen estimator (Bergstra et al. 2011), by Optuna's sampler, over finished brackets.

    As in BOHB (Falkner et al. 2018, section 3.2) it models the scores at the most epochs for which there are
    enough of them, here one more than there are hyperparameters; before, draws are random. A draw is a function of
    the seed, the number of the trial, and what it is given.

    Raises:
        ConfigError: when Optuna is not installed.
    """

    def __init__(self, space: Space, seed: int, usable: Usable) -> None:
        optuna = _import_optuna()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna, self._space, self._seed, self._usable = optuna, space, seed, usable
        self._random = RandomSampler(space, seed, usable)

    def __call__(
        self, trial: int, seen: Scores, settings: Mapping[int, Mapping[str, Value]]
    ) -> Mapping[str, Value] | None:
        """As `Sampler`."""
        at: dict[float, dict[int, float]] = {}
        for (number, epochs), score in seen.items():
            if score is not None:
                at.setdefault(epochs, {})[number] = score
        enough = [epochs for epochs, scores in at.items() if len(scores) > len(self._space.hyperparameters)]
        if not enough:
            return self._random(trial, seen, settings)
        study = self._study(at[max(enough)], settings, trial)
        known = list(settings.values())
        for _ in range(100):
            drawn = self._ask(study)
            if drawn not in known and self._usable(drawn):
                return drawn
        draws = (self._random(number, seen, settings) for number in itertools.count())
        return next(drawn for drawn in draws if drawn is None or drawn not in known)

    def _study(self, scores: Mapping[int, float], settings: Mapping[int, Mapping[str, Value]], trial: int) -> Any:
        optuna = self._optuna
        seed = int(np.random.SeedSequence([self._seed, trial]).generate_state(1)[0])
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=0, multivariate=False)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for number, score in scores.items():
            names = settings[number]
            params = {name: self._inward(name, value) for name, value in names.items()}
            kinds = {name: self._distribution(self._space.hyperparameters[name]) for name in names}
            study.add_trial(optuna.trial.create_trial(params=params, distributions=kinds, value=score))
        return study

    def _ask(self, study: Any) -> dict[str, Value]:
        """One draw, a hyperparameter at a time, so that conditions hold."""
        asked = study.ask()
        drawn: dict[str, Value] = {}
        for name, hyperparameter in self._space.hyperparameters.items():
            if self._space.exists(name, drawn):
                drawn[name] = self._outward(
                    hyperparameter, asked._suggest(name, self._distribution(hyperparameter))
                )
        return drawn

    @staticmethod
    def _outward(hyperparameter: Hyperparameter, value: Any) -> Value:
        if isinstance(hyperparameter, Choice):
            return hyperparameter.values[int(value)]
        # Rounded as a random draw is, so that equal settings are recognised as equal.
        return int(value) if isinstance(hyperparameter, IntRange) else hyperparameter.rounded(float(value))

    def _inward(self, name: str, value: Value) -> Any:
        hyperparameter = self._space.hyperparameters[name]
        return hyperparameter.values.index(value) if isinstance(hyperparameter, Choice) else value

    def _distribution(self, hyperparameter: Hyperparameter) -> Any:
        kinds = self._optuna.distributions
        if isinstance(hyperparameter, Choice):  # by their places: Optuna takes no lists
            return kinds.CategoricalDistribution(range(len(hyperparameter.values)))
        if hyperparameter.type == "int":
            return kinds.IntDistribution(
                hyperparameter.low, hyperparameter.high, log=hyperparameter.log, step=hyperparameter.step
            )
        return kinds.FloatDistribution(
            hyperparameter.low, hyperparameter.high, log=hyperparameter.log, step=hyperparameter.step
        )


SAMPLERS: Mapping[str, type[RandomSampler] | type[TpeSampler]] = {"random": RandomSampler, "tpe": TpeSampler}


def check_sampler(name: str) -> None:
    """Raise ConfigError for a sampler whose library is missing, before anything else is done for a study."""
    if name == "tpe":
        _import_optuna()
