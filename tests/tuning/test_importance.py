"""Knob importance: it finds the one that matters, and is silent of few trials."""

import numpy as np
import pytest

from foveate.tuning.importance import _numbers, importances
from foveate.tuning.space import Space
from foveate.tuning.trials import Trial

SPACE = Space.model_validate(
    {
        "preset": "minute",
        "hyperparameters": {
            "batch": {"type": "int", "low": 10, "high": 100},
            "lr": {"type": "float", "low": 0.01, "high": 1.0, "log": True},
            "depth": {"type": "choice", "values": [[3, 3], [3, 3, 3]], "sets": "model.stages.*.kernels"},
            "attention_stage": {"type": "choice", "values": [2, 3], "when": {"depth": [[3, 3]]}},
        },
    }
)


def trials(count: int) -> list[Trial]:
    generator = np.random.default_rng(0)
    found = []
    for number in range(count):
        settings = SPACE.draw(generator)
        epoch = int(generator.choice([1, 3, 9]))
        score = -abs(np.log(float(settings["lr"]) / 0.2)) + np.log(epoch)  # type: ignore[arg-type]
        found.append(Trial(number, settings, 0, rows=[{"epoch": epoch, "rank_accuracy": score}]))
    return found


@pytest.mark.slow
def test_the_hyperparameter_that_decides_has_nearly_all_of_it() -> None:
    shares = importances(SPACE, trials(60))
    assert shares[0][0] == "lr"
    assert shares[0][1] > 0.7
    assert {name for name, _ in shares} == set(SPACE.hyperparameters)
    assert abs(sum(share for _, share in shares) - 1) < 1e-9
    assert shares == importances(SPACE, trials(60))


def test_of_few_trials_it_says_nothing() -> None:
    assert importances(SPACE, trials(5)) == []


def test_null_is_a_value_and_no_absence() -> None:
    """Trials with `patience: null` are told apart from those that have no patience at all."""
    hyperparameters = {
        "family": {"type": "choice", "values": ["crop", "none"]},
        "patience": {"type": "choice", "values": [5, None], "when": {"family": ["crop"]}},
    }
    space = Space.model_validate({"preset": "minute", "hyperparameters": hyperparameters})
    settings = [{"family": "crop", "patience": 5}, {"family": "crop", "patience": None}, {"family": "none"}]
    assert [_numbers(space, each)[1] for each in settings] == [0.0, 1.0, -1.0]
