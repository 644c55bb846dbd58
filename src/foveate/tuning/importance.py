"""Which knobs mattered, by a model of what the trials gave."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from foveate.tuning.search import Trial
from foveate.tuning.space import Space

__all__ = ["knob_importance"]

_ROWS_AT_LEAST = 12
"""Below that a model would tell of chance alone."""


def knob_importance(space: Space, trials: Iterable[Trial]) -> list[tuple[str, float]]:
    """Each knob's share in what a random forest knows of a trial's accuracy, the most first; of few trials none.

    It is permutation importance (Breiman 2001): how much worse the forest guesses with a knob's values shuffled.
    The forest knows the number of epochs too, so that all rungs serve, and that is left out of the shares.
    """
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    rows = [(trial.settings, row["epoch"], row["rank_accuracy"]) for trial in trials for row in trial.rows[-1:]]
    if len(rows) < _ROWS_AT_LEAST:
        return []
    table = np.array([[*_numbers(space, settings), np.log(epoch)] for settings, epoch, _ in rows])
    scores = np.array([score for *_, score in rows])
    forest = RandomForestRegressor(n_estimators=200, random_state=0).fit(table, scores)
    found = permutation_importance(forest, table, scores, n_repeats=20, random_state=0).importances_mean[:-1]
    shares = np.maximum(found, 0) / max(np.maximum(found, 0).sum(), 1e-12)
    return sorted(zip(space.knobs, map(float, shares), strict=True), key=lambda pair: -pair[1])


def _numbers(space: Space, settings: Mapping[str, Any]) -> list[float]:
    """Each knob as a number: choices by their place, and −1 where a trial does not have the knob."""
    numbers = []
    for name, knob in space.knobs.items():
        value = settings.get(name)
        if value is None:
            numbers.append(-1.0)
        elif knob.type == "choice":
            numbers.append(float(knob.values.index(value)))
        else:
            numbers.append(float(np.log(value)) if knob.log else float(value))
    return numbers
