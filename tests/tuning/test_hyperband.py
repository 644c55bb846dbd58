"""The plan against what was published, against KerasTuner's own oracle, and in any order of outcomes."""

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from math import ceil, floor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.errors import ConfigError
from foveate.tuning.brackets import (
    FORMULAS,
    Bracket,
    Budget,
    Rung,
    budget_of,
    kerastuner_brackets,
    li2018_brackets,
    screening_brackets,
)
from foveate.tuning.hyperband import Hyperband, Job, Outcome, Plan, Scores, Settings

PAIRS = [
    (epochs, factor) for factor in (2, 3, 4, 5) for epochs in (1, 2, 3, 5, 9, 16, 27, 30, 64, 81, 100, 125, 243)
]


def numbered(trial: int, _: Scores) -> Settings:
    return {"trial": trial}


def score_of(job: Job) -> float:
    """Any score, as if at random, of a trial at an epoch."""
    return random.Random(f"{job.trial} {job.to_epoch}").random()


def run(plan: Plan, workers: int, seed: int, outcome: Callable[[Job], Outcome]) -> list[tuple[Job, Outcome]]:
    """Every job and its outcome, by `workers` that end in any order."""
    order, running, done = random.Random(seed), [], []
    while True:
        job = plan.ask()
        if isinstance(job, Job):
            running.append(job)
            if len(running) < workers:
                continue
        elif job == "done" and not running:
            return done
        finished = running.pop(order.randrange(len(running)))
        done.append((finished, outcome(finished)))
        plan.tell(*done[-1])


def scored(job: Job) -> Outcome:
    return Outcome(score_of(job))


class TestBrackets:
    def test_the_figures_of_30_epochs_by_3(self) -> None:
        published = li2018_brackets(30, 3)
        assert [[rung.trials for rung in bracket] for bracket in published] == [
            [27, 9, 3, 1],
            [12, 4, 1],
            [6, 2],
            [4],
        ]
        assert [rung.epochs for rung in published[0]] == [1, 3, 10, 30]
        assert budget_of(published) == Budget(trials=49, jobs=69, epochs=390, cost=390)
        assert budget_of(published, anew=True).epochs == 460
        theirs = kerastuner_brackets(30, 3)
        assert [bracket[0].trials for bracket in theirs] == [34, 15, 8, 5]
        assert [rung.epochs for rung in theirs[0]] == [2, 4, 10, 30]

    @pytest.mark.parametrize(("max_epochs", "factor"), PAIRS)
    def test_as_li_et_al_published_it(self, max_epochs: int, factor: int) -> None:
        halvings = max(s for s in range(20) if Fraction(max_epochs, factor**s) >= 1)
        budget = (halvings + 1) * max_epochs
        expected = []
        for s in reversed(range(halvings + 1)):
            n = ceil(Fraction(budget, max_epochs) * Fraction(factor**s, s + 1))
            r = Fraction(max_epochs, factor**s)
            rungs = [(floor(Fraction(n, factor**i)), r * factor**i) for i in range(s + 1)]
            expected.append([(trials, max(1, floor(epochs + Fraction(1, 2)))) for trials, epochs in rungs])
        told = [
            [(rung.trials, rung.epochs) for rung in bracket] for bracket in li2018_brackets(max_epochs, factor)
        ]
        assert told == expected

    @pytest.mark.parametrize("formula", FORMULAS)
    @given(max_epochs=st.integers(1, 2000), factor=st.integers(2, 12))
    def test_rungs_shrink_and_grow_longer(self, formula: Any, max_epochs: int, factor: int) -> None:
        for bracket in FORMULAS[formula](max_epochs, factor):
            assert bracket[-1].epochs == max_epochs
            assert all(1 <= after.trials <= before.trials for before, after in itertools.pairwise(bracket))
            assert all(before.epochs <= after.epochs for before, after in itertools.pairwise(bracket))

    @pytest.mark.parametrize("formula", FORMULAS)
    @pytest.mark.parametrize(("max_epochs", "factor", "named"), [(0, 3, "max_epochs=0"), (9, 1, "factor=1")])
    def test_refuses(self, formula: Any, max_epochs: int, factor: int, named: str) -> None:
        with pytest.raises(ConfigError, match=named):
            FORMULAS[formula](max_epochs, factor)


@pytest.fixture(scope="module")
def oracle_class() -> Any:
    hyperband = pytest.importorskip("keras_tuner.src.tuners.hyperband")
    return hyperband.HyperbandOracle


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
class TestAsKerasTuner:
    @pytest.mark.parametrize(("max_epochs", "factor"), PAIRS)
    def test_the_oracle_has_the_same_brackets(self, oracle_class: Any, max_epochs: int, factor: int) -> None:
        oracle = oracle_class(objective="val_accuracy", max_epochs=max_epochs, factor=factor)
        theirs = [
            tuple(Rung(oracle._get_size(s, i), oracle._get_epochs(s, i)) for i in range(oracle._get_num_rounds(s)))
            for s in reversed(range(oracle._get_num_brackets()))
        ]
        assert list(kerastuner_brackets(max_epochs, factor)) == theirs

    @pytest.mark.parametrize(("max_epochs", "factor"), [(9, 3), (30, 3), (16, 2), (5, 4)])
    def test_the_oracle_promotes_the_same_trials(
        self, oracle_class: Any, tmp_path: Any, max_epochs: int, factor: int
    ) -> None:
        import keras_tuner

        space = keras_tuner.HyperParameters()
        space.Float("x", 0, 1)
        oracle = oracle_class(
            objective=keras_tuner.Objective("score", "max"),
            max_epochs=max_epochs,
            factor=factor,
            hyperparameters=space,
            seed=1,
        )
        oracle._set_project_dir(str(tmp_path), "study")
        theirs = []
        while (trial := oracle.create_trial("tuner0")).status == "RUNNING":
            x, epochs = trial.hyperparameters.get("x"), trial.hyperparameters.values["tuner/epochs"]
            theirs.append((x, trial.hyperparameters.values["tuner/initial_epoch"], epochs))
            oracle.update_trial(trial.trial_id, {"score": x * epochs % 1})
            trial.status = "COMPLETED"
            oracle.end_trial(trial)
        drawn: Iterator[float] = iter([x for x, begin, _ in theirs if begin == 0])
        plan = Hyperband(
            kerastuner_brackets(max_epochs, factor), lambda _trial, _seen: {"x": next(drawn)}, in_turn=True
        )
        jobs = run(plan, 1, 0, lambda job: Outcome(job.settings["x"] * job.to_epoch % 1))
        assert [(job.settings["x"], job.from_epoch, job.to_epoch) for job, _ in jobs] == theirs


class TestHyperband:
    @pytest.mark.parametrize("in_turn", [False, True])
    @given(
        max_epochs=st.integers(1, 40), factor=st.integers(2, 4), workers=st.integers(1, 9), seed=st.integers(0, 99)
    )
    @settings(max_examples=60)
    def test_workers_and_their_order_decide_nothing(
        self, in_turn: bool, max_epochs: int, factor: int, workers: int, seed: int
    ) -> None:
        brackets = li2018_brackets(max_epochs, factor)
        alone = run(Hyperband(brackets, numbered), 1, 0, scored)
        together = run(Hyperband(brackets, numbered, in_turn=in_turn), workers, seed, scored)
        assert sorted(map(repr, alone)) == sorted(map(repr, together))
        told = budget_of(brackets)
        assert len(alone) == told.jobs
        assert sum(job.to_epoch - job.from_epoch for job, _ in alone) == told.epochs

    def test_the_best_of_a_rung_go_on_and_of_equals_the_first(self) -> None:
        scores = {0: 0.5, 1: 0.9, 2: 0.5, 3: 0.1}
        plan = Hyperband([(Rung(4, 1), Rung(2, 3))], numbered)
        jobs = run(plan, 1, 0, lambda job: Outcome(scores[job.trial]))
        assert [(job.trial, job.from_epoch, job.to_epoch) for job, _ in jobs[4:]] == [(1, 1, 3), (0, 1, 3)]

    def test_a_rung_waits_for_its_last_outcome(self) -> None:
        plan = Hyperband([(Rung(2, 1), Rung(1, 3))], numbered)
        first, second = plan.ask(), plan.ask()
        assert isinstance(first, Job)
        assert isinstance(second, Job)
        plan.tell(second, Outcome(1.0))
        assert plan.ask() == "wait"
        plan.tell(first, Outcome(0.0))
        assert plan.ask() == Job(1, {}, 0, 1, 1, 3)
        assert plan.ask() == "wait"

    def test_brackets_run_side_by_side_unless_in_turn(self) -> None:
        brackets: list[Bracket] = [(Rung(1, 2),), (Rung(1, 4),)]
        for in_turn, second in ((False, Job(1, {}, 1, 0, 0, 4)), (True, "wait")):
            plan = Hyperband(brackets, numbered, in_turn=in_turn)
            assert plan.ask() == Job(0, {}, 0, 0, 0, 2)
            assert plan.ask() == second

    def test_a_draw_sees_finished_brackets_only(self) -> None:
        seen: list[dict[tuple[int, int], float | None]] = []

        def draw(trial: int, scores: Scores) -> Settings:
            seen.append(dict(scores))
            return numbered(trial, scores)

        brackets: list[Bracket] = [(Rung(2, 1), Rung(1, 2)), (Rung(1, 2),)]
        run(Hyperband(brackets, draw, in_turn=True), 2, 0, lambda job: Outcome(job.trial + job.to_epoch / 10))
        assert seen == [{}, {}, {(0, 1): 0.1, (1, 1): 1.1, (1, 2): 1.2}]

    def test_failed_trials_are_not_promoted(self) -> None:
        plan = Hyperband([(Rung(9, 1), Rung(3, 3), Rung(1, 9))], numbered)
        jobs = run(plan, 2, 1, lambda job: Outcome(None if job.trial > 1 or job.rung == 1 else 0.0))
        assert [(job.trial, job.rung) for job, _ in jobs[9:]] == [(0, 1), (1, 1)]

    def test_what_stopped_early_is_carried_along(self) -> None:
        plan = Hyperband([(Rung(3, 1), Rung(2, 3), Rung(1, 9))], numbered)
        jobs = run(plan, 1, 0, lambda job: Outcome(-float(job.trial), stopped=job.trial == 0))
        assert [(job.trial, job.to_epoch) for job, _ in jobs] == [(0, 1), (1, 1), (2, 1), (1, 3)]
        assert plan.ask() == "done"

    @given(space=st.integers(0, 6), workers=st.integers(1, 3), in_turn=st.booleans())
    def test_a_space_that_is_used_up_ends_the_study(self, space: int, workers: int, in_turn: bool) -> None:
        left = itertools.count()
        brackets = li2018_brackets(4, 2)
        plan = Hyperband(brackets, lambda trial, _: {"t": trial} if next(left) < space else None, in_turn=in_turn)
        jobs = run(plan, workers, 0, scored)
        assert len({job.trial for job, _ in jobs}) == space
        assert plan.ask() == "done"

    def test_a_job_given_back_is_asked_for_again(self) -> None:
        plan = Hyperband([(Rung(2, 1),)], numbered)
        first = plan.ask()
        assert isinstance(first, Job)
        plan.give_back(first)
        assert plan.ask() == first


class TestScreening:
    @given(max_epochs=st.integers(1, 2000), factor=st.integers(2, 40))
    def test_many_short_trials_and_the_best_of_them_for_all_epochs(self, max_epochs: int, factor: int) -> None:
        (bracket,) = screening_brackets(max_epochs, factor)
        assert bracket[0].trials == factor
        assert bracket[-1].epochs == max_epochs
        if max_epochs > 1:
            assert bracket == (Rung(factor, max(1, max_epochs // 9)), Rung(1, max_epochs))

    def test_nine_epochs_take_fifteen_anew(self) -> None:
        brackets = screening_brackets(9, 6)
        assert budget_of(brackets, anew=True) == Budget(trials=6, jobs=7, epochs=15, cost=15)
        assert budget_of(brackets) == Budget(trials=6, jobs=7, epochs=14, cost=14)

    def test_epochs_of_smaller_images_cost_less(self) -> None:
        ((first, last),) = screening_brackets(9, 6)
        small = [(replace(first, epoch_cost=0.25), last)]
        assert budget_of(small, anew=True) == Budget(trials=6, jobs=7, epochs=15, cost=10.5)

    def test_of_one_epoch_there_is_one_rung(self) -> None:
        assert screening_brackets(1, 6) == ((Rung(6, 1),),)

    @pytest.mark.parametrize(("max_epochs", "factor"), [(0, 6), (9, 1)])
    def test_what_makes_no_plan_is_refused(self, max_epochs: int, factor: int) -> None:
        with pytest.raises(ConfigError):
            screening_brackets(max_epochs, factor)


class TestAnew:
    @given(pair=st.sampled_from(PAIRS), workers=st.integers(1, 9), seed=st.integers(0, 99))
    @settings(max_examples=30)
    def test_the_same_trials_are_promoted_and_every_job_begins_from_nothing(
        self, pair: tuple[int, int], workers: int, seed: int
    ) -> None:
        brackets = li2018_brackets(*pair)[-3:]
        going_on = run(Hyperband(brackets, numbered), workers, seed, scored)
        begun_anew = run(Hyperband(brackets, numbered, anew=True), workers, seed, scored)
        assert {(job.trial, job.to_epoch) for job, _ in going_on} == {
            (job.trial, job.to_epoch) for job, _ in begun_anew
        }
        assert {job.from_epoch for job, _ in begun_anew} == {0}
        paid = sum(job.to_epoch - job.from_epoch for job, _ in begun_anew)
        assert paid == budget_of(brackets, anew=True).epochs


class TestAllowed:
    @given(allowed=st.integers(0, 4), workers=st.integers(1, 9), seed=st.integers(0, 99))
    def test_only_brackets_that_may_begin_do(self, allowed: int, workers: int, seed: int) -> None:
        plan = Hyperband(screening_brackets(9, 3) * 4, numbered, anew=True)
        plan.allowed = allowed
        first = run(plan, workers, seed, scored)
        assert {job.bracket for job, _ in first} == set(range(allowed))
        plan.allowed = 4
        rest = run(plan, workers, seed, scored)
        straight = run(Hyperband(screening_brackets(9, 3) * 4, numbered, anew=True), 1, 0, scored)
        key = [(job.trial, job.to_epoch) for job, _ in straight]
        assert sorted((job.trial, job.to_epoch) for job, _ in [*first, *rest]) == sorted(key)
