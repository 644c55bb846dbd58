"""A cross-validation under way: which folds are to be trained, and what came of them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foveate.data.dataset import Dataset
from foveate.data.folds import StoredFolds
from foveate.errors import CheckpointError, ConfigError, DataError, OutputError, TrainingError
from foveate.execution.campaign import Backlog, failure_words
from foveate.execution.pool import Event, Message
from foveate.files import refuse_links
from foveate.folds.training import FoldJob, read_fold, result_path
from foveate.training.job import TrainingCost, TrainingJob
from foveate.training.measured import FoldScore

FOLDER = "folds"
"""Of a run: where its folds keep what they came to."""


class CrossValidation(Backlog[int]):
    """The campaign of a run's folds. A fold whose result is there is done.

    Args:
        shared: what the jobs have in common.
        stored: the folds.
        joined: the data set whose training images are train and validation.
    """

    fatal = (OutputError, CheckpointError, DataError, ConfigError, TrainingError)
    columns = ("epoch", "fold")
    things = "folds"
    hang_limit_s = 600.0

    def __init__(self, shared: TrainingJob, stored: StoredFolds, joined: Dataset) -> None:
        super().__init__()
        self.shared, self.stored, self.joined = shared, stored, joined
        self.held_out = stored.held_out(joined)
        self.folder = Path(shared.folder)
        self.failures: dict[int, str] = {}

    def pending(self) -> list[int]:
        """The folds that have no result yet.

        Raises:
            CheckpointError: when the file of one is damaged.
        """
        return [fold for fold in range(self.stored.count) if self.result(fold) is None]

    def result(self, fold: int) -> tuple[NDArray[np.float32], TrainingCost] | None:
        """The logits of a fold, in the order of its images, and its timing; None where it has none yet.

        Raises:
            CheckpointError: when its file is damaged.
        """
        path = result_path(self.folder, fold)
        if not path.exists():
            return None
        return read_fold(path, self.held_out[fold], len(self.joined.class_names))

    def pooled(self) -> tuple[NDArray[np.float32], list[FoldScore]]:
        """The logits [N, K] of all training images in their order, and what each fold came to.

        Raises:
            TrainingError: when a fold has none.
            CheckpointError: when a file is damaged.
        """
        train = self.joined.splits["train"]
        logits = np.zeros((len(train), len(self.joined.class_names)), np.float32)
        scores = []
        for fold, indices in enumerate(self.held_out):
            found = self.result(fold)
            if found is None:
                raise TrainingError(f"fold {fold + 1} has no result: {self.failures.get(fold, 'it was stopped')}")
            logits[np.searchsorted(train, indices)] = found[0]
            right = found[0].argmax(axis=1) == self.joined.labels[indices]
            scores.append(FoldScore(images=len(right), accuracy=float(right.mean())))
        return logits, scores

    def next_job(self) -> tuple[int, Message] | None:
        """The next fold.

        Raises:
            CheckpointError: when a link leads out of the run.
        """
        if not self._waiting:
            return None
        fold = self._waiting.pop()
        refuse_links(self.folder, within=self.folder.parent.resolve())
        job = FoldJob(
            **dict(self.shared),
            fold=fold,
            folds=self.stored.count,
            folds_path=str(self.stored.path.resolve()),
            folds_sha256=self.stored.sha256,
        )
        return fold, job.model_dump(mode="json")

    def record(self, event: Event) -> Event:
        """Note that a fold failed; its worker has kept what it came to.

        Raises:
            OutputError: when a worker on another machine wrote elsewhere.
        """
        if event.kind == "lost":
            self._waiting.append(event.job)
            return event
        self._ended += 1
        if event.kind == "failed":
            self.failures[event.job] = event.value["reason"]
        elif not result_path(self.folder, event.job).exists():
            raise OutputError(f"{self.folder}: a worker wrote a result that is not here: share --runs")
        return event

    def announcement(self, workers: int) -> list[str]:
        """How many folds there are to train."""
        left, count = len(self._todo), self.stored.count
        before = f"; {count - left} done before" if left < count else ""
        return [
            f"cross-validation: {left} folds on {workers} worker{'' if workers == 1 else 's'}, each image is "
            f"predicted by a network that was trained without it{before}"
        ]

    def row(self, job: int, epoch: int) -> tuple[str, ...]:
        """A fold that is being trained."""
        return f"{epoch}/{self.shared.config.train.epochs or '?'}", f"{job + 1} of {self.stored.count}"

    def lines(self, event: Event) -> list[str]:
        """A fold that ended."""
        title = f"fold {event.job + 1}/{self.stored.count}"
        if event.kind != "done":
            return [f"{title}  {failure_words(event)}"]
        return [f"{title}  accuracy {event.value['accuracy']:.2%}  {self.progress()}"]
