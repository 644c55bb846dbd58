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
    """Epochs that the score stands for: to which that job went, or all where it stopped early."""
    rows: list[Row] = field(default_factory=list)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    """Each with `rung`, `began` and `ended` in seconds since the study began, the `slot` it ran on, `failed`."""
    reason: str | None = None
    """Why it failed."""

    @property
    def epochs(self) -> int:
        """The last epoch that it was trained to; 0: none."""
        return self.rows[-1]["epoch"] if self.rows else 0

    def note_end(self, entry: Ended, *, reached: int) -> None:
        """Take what the journal says of a job that ended; if it has a score, that stands for `reached` epochs."""
        self.rung, self.reason = entry.rung, entry.reason
        self.rows += [row.model_dump() for row in entry.rows]
        self.jobs.append({"rung": entry.rung, **entry.time.model_dump(), "failed": entry.reason is not None})
        if entry.reason is None:
            self.score, self.reached = entry.score, reached
