"""Studies whose trials are simulated, so that thousands of them run in a second."""

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from foveate.execution.pool import Event, Message
from foveate.tuning.journal import Journal
from foveate.tuning.samplers import RandomSampler, Sampler
from foveate.tuning.search import Search
from foveate.tuning.settings import StudyConfig
from foveate.tuning.space import Space
from foveate.workflows.request import settings_digest

SPACE = {
    "preset": "minute",
    "hyperparameters": {
        "lr": {"type": "float", "low": 0.01, "high": 1.0, "log": True},
        "depth": {"type": "choice", "values": [[3, 3], [3, 3, 3]], "sets": "model.stages.*.kernels"},
    },
}


def simulated_rows(message: Message) -> list[dict[str, Any]]:
    """The epochs of a job: each more accurate, and a trial's accuracy by its learning rate and by chance."""
    lr = message["config"]["train"]["lr"]
    rows = []
    for epoch in range(message["from_epoch"] + 1, message["to_epoch"] + 1):
        accuracy = 0.95 - abs(lr - 0.15) / 2 - 0.5 / (epoch + random.Random(f"{lr} {epoch}").random())
        rows.append({"epoch": epoch, "val_accuracy": accuracy, "rank_accuracy": accuracy, "seconds": 1.0})
    return rows


class SimulatedPool:
    """Does jobs at once, hands their events out in any order, and fails where it is told to."""

    queues = False

    def __init__(
        self, workers: int, seed: int = 0, fate: Callable[[Message], Mapping[str, Any] | None] = lambda _: None
    ) -> None:
        self.workers, self._order, self._fate = workers, random.Random(seed), fate
        self._queues: dict[int, list[Event]] = {}
        self.submitted: list[int] = []
        self.stopped: list[int] = []
        self.folders: dict[int, str] = {}

    def submit(self, job: int, message: Message) -> None:
        assert len(self._queues) < self.workers
        assert job not in self._queues
        self.submitted.append(job)
        self.folders[job] = message["folder"]
        if (fate := self._fate(message)) is not None:
            self._queues[job] = [Event(job, fate["kind"], fate["value"]) if fate else Event(job, "progress", {})]
            return
        rows = simulated_rows(message)
        best = max(rows, key=lambda row: row["val_accuracy"])
        done = {"score": best["rank_accuracy"], "stopped": False, "rows": rows}
        progress = [Event(job, "progress", row) for row in ({}, *rows)]
        self._queues[job] = [*progress, Event(job, "done", done)]

    def event(self, timeout_s: float) -> Event | None:
        ready = sorted(job for job, queue in self._queues.items() if queue)
        if not ready:
            return None
        job = self._order.choice(ready)
        event = self._queues[job].pop(0)
        if event.kind != "progress":
            del self._queues[job]
        return event

    def stop(self, job: int) -> None:
        self.stopped.append(job)
        self._queues[job] = [Event(job, "lost", {"message": "stopped"})]

    def waited_s(self, job: int) -> Mapping[int, float]:
        return {}

    def close(self) -> None:
        self._queues.clear()


def open_search(folder: Path, sampler: Sampler | None = None, **settings: Any) -> Search:
    """A study of nine epochs, as far as it came in `folder`."""
    space = Space.model_validate(SPACE)
    values = {
        "data": "digits",
        "data_dir": None,
        "fingerprint": "",
        "subset": None,
        "space_name": "test",
        "space": space,
        "base": space.base(epochs=settings.get("max_epochs", 9)),
        "max_epochs": 9,
    }
    config = StudyConfig.model_validate({**values, **settings})
    sampler = sampler or RandomSampler(config.space, config.seed, lambda _: True)
    digest = settings_digest(config.model_dump(mode="json", exclude={"storage"}))
    return Search(config, folder, Journal.open(folder / "journal.jsonl", digest), sampler)
