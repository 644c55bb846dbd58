"""The trials of a study: their settings, states, scores and jobs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from foveate.tuning.hyperparameters import Value
from foveate.tuning.journal import Ended
from foveate.tuning.trial import Row


@dataclass
class Trial:
    """What is known of a trial."""

    number: int
    settings: Mapping[str, Value]
    bracket: int
    rung: int = 0
    state: Literal["running", "waiting", "stopped", "pruned", "finished", "failed"] = "running"
    """`waiting` for its rung; `stopped` early; `pruned`: not promoted; `finished`: trained for all epochs."""
    score: float | None = None
    """The score of its last job."""
    reached: int = 0
    """Epochs that the score stands for: to which that job went, or all where it stopped early; 0: none, as the
    images were smaller than those of other rungs."""
    cost: float = 0.0
    """What all its jobs took, in epochs at full size."""
    rows: list[Row] = field(default_factory=list)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    """Each with `rung`, `began` and `ended` in seconds since the study began, the `slot` it ran on, `failed`."""
    reason: str | None = None
    """Why it failed."""
    right: str | None = None
    """Which ranking images its last job gets right, as bits in hexadecimal digits; None: that is not known."""

    @property
    def schedules(self) -> list[list[Row]]:
        """Its rows, those of a job that began from nothing apart from those of the job before it."""
        parts: list[list[Row]] = []
        for row in self.rows:
            if not parts or row["epoch"] <= parts[-1][-1]["epoch"]:
                parts.append([])
            parts[-1].append(row)
        return parts

    @property
    def epochs_paid(self) -> int:
        """The epochs of all its jobs: one that was trained twice counts twice."""
        return len(self.rows)

    @property
    def epochs(self) -> int:
        """The epoch that its last job came to; 0: none."""
        return self.rows[-1]["epoch"] if self.rows else 0

    def note_end(self, entry: Ended, *, reached: int, epoch_cost: float) -> None:
        """Take what the journal says of a job that ended; if it has a score, that stands for `reached` epochs."""
        self.cost += epoch_cost * len(entry.rows)
        self.rung, self.reason, self.right = entry.rung, entry.reason, entry.right
        self.rows += [row.model_dump() for row in entry.rows]
        self.jobs.append({"rung": entry.rung, **entry.time.model_dump(), "failed": entry.reason is not None})
        if entry.reason is None:
            self.score, self.reached = entry.score, reached
