"""What fits into a time: a bracket whole, a rung where it has begun, and nothing beyond."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveate.tuning.brackets import screening_brackets
from foveate.tuning.hyperband import Hyperband, Job, Outcome
from foveate.tuning.pace import Pace, ask_in_time

BRACKET = screening_brackets(9, 6)[0]  # six at 1 epoch, one at 9: 15 epochs anew


@pytest.mark.parametrize(
    ("left_s", "workers", "owed", "fits"),
    [
        (166, 1, 0, True),
        (164, 1, 0, False),
        (166, 1, 5, False),
        (230, 1, 5, True),
        (109, 4, 0, False),
        (111, 4, 0, True),
    ],
)
def test_a_bracket_fits_with_a_margin_over_all_workers_and_along_its_longest_way(
    left_s: float, workers: int, owed: int, fits: bool
) -> None:
    """At ten seconds an epoch; four workers do four in that time, and still ten one after another on one."""
    pace = Pace(epochs=40, elapsed_s=400 / workers, worked_s=400, left_s=left_s)
    assert pace.bracket_fits(BRACKET, owed=owed, anew=True) == fits


def test_before_an_epoch_is_known_nothing_fits() -> None:
    assert not Pace(0, 5.0, 0.0, 1e9).bracket_fits(BRACKET, owed=0, anew=True)


@given(time_s=st.floats(1, 500), epoch_s=st.floats(0.5, 5))
def test_one_worker_ends_brackets_whole_and_within_the_time(time_s: float, epoch_s: float) -> None:
    plan = Hyperband([BRACKET] * 50, lambda trial, _: {"trial": trial}, anew=True)
    plan.allowed = 1
    now, epochs, begun, jobs = 0.0, 0, set(), []
    while isinstance(job := ask_in_time(plan, Pace(epochs, now, now, time_s - now), begun), Job):
        begun.add((job.bracket, job.rung))
        jobs.append(job)
        now += epoch_s * job.to_epoch
        epochs += job.to_epoch
        plan.tell(job, Outcome(0.5))
    first = [job for job in jobs if job.bracket == 0]
    assert len(first) in (6, 7)  # the first begins in any case, and may stop at its rung
    rest = len(jobs) - len(first)
    assert rest % 7 == 0  # what began later was known to fit
    if len(first) == 7:
        assert now <= max(time_s, 0.0)
    assert epoch_s * 15 * (1 + rest // 7) <= max(time_s, 15 * epoch_s) + 1e-6
    if rest < 7 * 49:
        assert now + 1.1 * 15 * epoch_s > time_s - 1e-6 or len(first) == 6
