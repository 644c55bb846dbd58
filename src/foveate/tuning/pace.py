"""Whether more trials fit into the time that a study has, by how long its epochs have taken so far."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal

from foveate.tuning.brackets import Bracket, budget_of
from foveate.tuning.hyperband import Hyperband, Job

_MARGIN = 1.1
"""A bracket begins only where it would still fit if its epochs took this many times as long: trials differ, and a
bracket without its last rung is worth little."""


@dataclass(frozen=True)
class Pace:
    """How fast a study is, and how much time it has left.

    Args:
        epochs: that all jobs that have ended took; those of smaller images count as the share that they cost.
        elapsed_s: seconds since the study began.
        worked_s: seconds of all jobs that have ended, side by side or not.
        left_s: seconds that the study has left.
    """

    epochs: float
    elapsed_s: float
    worked_s: float
    left_s: float

    def bracket_fits(self, bracket: Bracket, *, owed: float, anew: bool) -> bool:
        """Whether another bracket fits beside `owed` epochs of those that have begun; False before it is known."""
        in_turn = sum(rung.cost for rung in bracket) if anew else bracket[-1].epochs
        return self._fit(owed + budget_of([bracket], anew=anew).cost, in_turn, _MARGIN)

    def rung_fits(self, trials: int, epochs: float) -> bool:
        """Whether a rung fits in which each of `trials` trains for `epochs`."""
        return self._fit(trials * epochs, epochs, 1.0)

    def _fit(self, epochs: float, in_turn: float, margin: float) -> bool:
        """Whether `epochs` fit over all workers, and `in_turn` of them one after another on one."""
        if not self.epochs:
            return False
        side_by_side_s, one_by_one_s = epochs * self.elapsed_s, in_turn * self.worked_s
        return margin * max(side_by_side_s, one_by_one_s) / self.epochs <= self.left_s


def ask_in_time(plan: Hyperband, pace: Pace, begun: AbstractSet[tuple[int, int]]) -> Job | Literal["wait", "done"]:
    """The next job of a plan that fits: a bracket begins only where all of it fits, and stops only at a rung.

    Args:
        plan: whose first bracket alone is allowed at first: it begins before anything is known.
        begun: which rungs have begun: of which bracket, and which of its rungs.

    Returns:
        As `Hyperband.ask`; `done` also where nothing more fits at this pace.
    """
    job = plan.ask()
    if not isinstance(job, Job) and plan.allowed < len(plan.brackets):
        begun_epochs = budget_of(plan.brackets[: plan.allowed], anew=plan.anew).cost
        owed = 0 if job == "done" else max(0, begun_epochs - pace.epochs)
        if pace.bracket_fits(plan.brackets[plan.allowed], owed=owed, anew=plan.anew):
            plan.allowed += 1
            job = plan.ask()
    if isinstance(job, Job) and job.rung and (job.bracket, job.rung) not in begun:
        trials = plan.brackets[job.bracket][job.rung].trials
        if not pace.rung_fits(trials, job.to_epoch - job.from_epoch):
            plan.give_back(job)
            return "done"
    return job
