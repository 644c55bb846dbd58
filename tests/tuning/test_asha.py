"""ASHA promotes as published, in any order of outcomes."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tuning.test_hyperband import numbered, run, scored

from foveate.errors import ConfigError
from foveate.tuning.asha import Asha
from foveate.tuning.brackets import li2018_brackets
from foveate.tuning.hyperband import Job, Outcome


class TestAsha:
    @given(
        max_epochs=st.integers(1, 30),
        factor=st.integers(2, 4),
        trials=st.integers(1, 40),
        workers=st.integers(1, 9),
    )
    @settings(max_examples=60)
    def test_every_promotion_was_among_the_best(
        self, max_epochs: int, factor: int, trials: int, workers: int
    ) -> None:
        done = run(Asha(max_epochs, factor, trials, numbered), workers, workers, scored)
        rungs = [rung.epochs for rung in li2018_brackets(max_epochs, factor)[0]]
        heard = [{job.trial: told.score for job, told in done if job.rung == rung} for rung in range(len(rungs))]
        assert len(heard[0]) == trials
        for job, _ in done:
            assert (job.from_epoch, job.to_epoch) == ([0, *rungs][job.rung], rungs[job.rung])
        for below, above in itertools.pairwise(heard):
            assert len(above) >= len(below) // factor  # nothing that could go on was left
            best = sorted(below, key=lambda trial: (-below[trial], trial))[: len(below) // factor]  # type: ignore[operator]
            assert set(best) <= set(above)

    def test_nobody_waits_while_trials_are_left(self) -> None:
        plan = Asha(9, 3, 100, numbered)
        assert all(isinstance(plan.ask(), Job) for _ in range(100))
        assert plan.ask() == "wait"

    def test_failed_stopped_and_given_back(self) -> None:
        plan = Asha(4, 2, 4, numbered)
        jobs = run(
            plan, 1, 0, lambda job: Outcome(None if job.trial == 3 else -float(job.trial), stopped=job.trial < 1)
        )
        assert [(job.trial, job.to_epoch) for job, _ in jobs] == [(0, 1), (1, 1), (2, 1), (3, 1), (1, 2)]
        plan = Asha(4, 2, 2, numbered)
        first = plan.ask()
        assert isinstance(first, Job)
        plan.give_back(first)
        assert plan.ask() == first

    def test_a_space_that_is_used_up(self) -> None:
        plan = Asha(4, 2, 9, lambda trial, _: {} if trial < 2 else None)
        assert [job.rung for job, _ in run(plan, 1, 0, scored)] == [0, 0, 1]

    def test_refuses_no_trials(self) -> None:
        with pytest.raises(ConfigError, match="trials=0"):
            Asha(9, 3, 0, numbered)
