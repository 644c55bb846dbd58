"""Which plan a study has: as its file says, under earlier names too, and what is usual where nobody said."""

from typing import Any

import pytest

from foveate.tuning.brackets import Rung
from foveate.tuning.settings import StudyConfig, usual_plan
from foveate.tuning.space import Space, read_space

SPACE = {"preset": "minute", "hyperparameters": {"lr": {"type": "float", "low": 0.01, "high": 1.0, "log": True}}}


def config(space: dict[str, Any] = SPACE, base: dict[str, Any] | None = None, **given: Any) -> StudyConfig:
    made = Space.model_validate(space)
    values = {
        "data": "digits",
        "data_dir": None,
        "fingerprint": "",
        "space_name": "test",
        "space": made,
        "base": made.base(epochs=9, **(base or {})),
        "max_epochs": 9,
    }
    return StudyConfig.model_validate({**values, **given})


def test_files_of_earlier_versions_go_on_as_they_were() -> None:
    for given in ({}, {"semantics": "foveate"}):
        old = config(**given)
        assert (old.algorithm, old.semantics, old.halves_validation, old.budget.epochs) == (
            "hyperband",
            "continue",
            False,
            69,
        )
    theirs = config(semantics="kerastuner", formula="kerastuner")
    assert (theirs.halves_validation, theirs.anew) == (False, False)


@pytest.mark.parametrize(
    ("given", "base", "halved"),
    [
        ({"semantics": "anew"}, {}, False),
        ({"semantics": "anew"}, {"patience": 3}, True),
        ({"semantics": "continue"}, {}, False),
        ({"semantics": "continue"}, {"patience": 3}, True),
        ({"semantics": "kerastuner"}, {"patience": 3}, False),
    ],
)
def test_validation_is_halved_where_something_stops_trials(given: Any, base: Any, halved: bool) -> None:
    assert config(**given, base=base).halves_validation == halved


def test_a_patience_that_is_searched_halves_too() -> None:
    patience = {"type": "choice", "values": [None, 3]}
    space = {**SPACE, "hyperparameters": {"stop": {**patience, "sets": "train.patience"}}}
    assert config(space, semantics="anew").halves_validation


def test_asha_has_one_bracket_of_all_its_trials() -> None:
    asha = config(algorithm="asha", trials=7, max_epochs=3)
    assert asha.plan == ((Rung(7, 1), Rung(2, 3)),)
    assert config(max_epochs=3).plan == config(max_epochs=3).brackets


def test_epochs_are_those_that_are_paid() -> None:
    assert config(semantics="anew").budget.epochs == 78
    assert config(algorithm="screening", semantics="anew", factor=6, iterations=5).budget.epochs == 75


@pytest.mark.parametrize(
    ("given", "plan"),
    [
        ({}, ("screening", "anew", 6, 5)),
        ({"factor": 3}, ("hyperband", "anew", 3, None)),
        ({"formula": "kerastuner"}, ("hyperband", "anew", 3, None)),
        ({"semantics": "kerastuner"}, ("hyperband", "kerastuner", 3, None)),
        ({"semantics": "continue"}, ("screening", "continue", 6, 5)),
        ({"algorithm": "asha", "trials": 5}, ("asha", "anew", 3, None)),
        ({"algorithm": "screening", "factor": 9}, ("screening", "anew", 9, 4)),
        ({"iterations": 2}, ("screening", "anew", 6, 2)),
        ({"time_s": 60.0}, ("screening", "anew", 6, 1000)),
        ({"factor": 3, "time_s": 60.0}, ("hyperband", "anew", 3, 1000)),
    ],
)
def test_the_usual_plan_where_the_rate_falls(given: Any, plan: Any) -> None:
    space = read_space("default")
    usual = usual_plan(space, space.base(epochs=9), 9, given)
    assert (usual["algorithm"], usual["semantics"], usual["factor"], usual.get("iterations")) == plan
    assert config(**usual).algorithm == plan[0]


def test_where_the_rate_is_constant_it_is_hyperband_going_on() -> None:
    space = read_space("paper")
    usual = usual_plan(space, space.base(epochs=30), 30, {"semantics": None, "factor": None})
    assert usual == {"semantics": "continue", "algorithm": "hyperband", "factor": 3}


def test_a_rate_that_falls_in_some_trials_is_not_constant() -> None:
    schedule = {"type": "choice", "values": ["constant", "cosine"]}
    space = Space.model_validate({"preset": "paper", "hyperparameters": {"schedule": schedule}})
    assert usual_plan(space, space.base(epochs=30), 30, {})["semantics"] == "anew"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"algorithm": "screening", "formula": "kerastuner"}, "formula says the sizes of hyperband's brackets"),
        ({"algorithm": "screening", "trials": 5}, "trials is asha's"),
        ({"algorithm": "asha", "time_s": 5.0}, "asha has no brackets"),
        ({"algorithm": "asha", "iterations": 2}, "asha has no brackets"),
        ({"time_s": 0.0}, "time_s"),
        ({"semantics": "anow"}, "'anew', 'continue' or 'kerastuner'"),
        ({"semantics": "continue", "first_size": 16}, "first_size: under semantics=continue"),
        ({"semantics": "kerastuner", "first_size": 16}, "first_size: under semantics=kerastuner"),
        ({"semantics": "anew", "first_size": 32}, "first_size=32: the other rungs have images of 32 px"),
        ({"semantics": "anew", "first_size": 15}, "first_size"),
        ({"semantics": "anew", "first_size": 16, "factor": 10}, "no rung follows the first"),
    ],
)
def test_what_does_not_go_together_is_refused(given: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        config(base={"size": 32}, **given)
