"""Which hyperparameters mattered, by a model of what the trials gave."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from foveate.tuning.space import Space
from foveate.tuning.trials import Trial

_MIN_TRIALS = 12
"""Of fewer trials a model would describe chance alone."""


def importances(space: Space, trials: Iterable[Trial]) -> list[tuple[str, float]]:
    """Each hyperparameter's share in how well a random forest predicts accuracy, the largest first.

    It is permutation importance (Breiman 2001): how much worse the forest predicts with one's values shuffled.
    The forest knows the number of epochs too, so that all rungs can be used; the shares leave that out. Of fewer
    than twelve trials nothing is returned.
    """
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    rows = [(trial.settings, row["epoch"], row["rank_accuracy"]) for trial in trials for row in trial.rows[-1:]]
    if len(rows) < _MIN_TRIALS:
        return []
    table = np.array([[*_numbers(space, settings), np.log(epoch)] for settings, epoch, _ in rows])
    scores = np.array([score for *_, score in rows])
    forest = RandomForestRegressor(n_estimators=200, random_state=0).fit(table, scores)
    found = permutation_importance(forest, table, scores, n_repeats=20, random_state=0).importances_mean[:-1]
    shares = np.maximum(found, 0) / max(np.maximum(found, 0).sum(), 1e-12)
    return sorted(zip(space.hyperparameters, map(float, shares), strict=True), key=lambda pair: -pair[1])


def _numbers(space: Space, settings: Mapping[str, Any]) -> list[float]:
    """Each hyperparameter as a number: choices by their place, and −1 where the trial does not have it."""
    numbers = []
    for name, hyperparameter in space.hyperparameters.items():
        if name not in settings:
            numbers.append(-1.0)
            continue
        value = settings[name]
        if hyperparameter.type == "choice":
            numbers.append(float(hyperparameter.values.index(value)))
        else:
            numbers.append(float(np.log(value)) if hyperparameter.log else float(value))
    return numbers
