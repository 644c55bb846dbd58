"""What a decision of the tuner costs, and how busy 64 workers are, in a study of 10,000 simulated trials.

The study is the product's own, with its plan, its journal on the disk, the space `default` and the check that a
network can be built of what is drawn; only the cluster is simulated. **Peers:** Hyperband with brackets side by
side, with one bracket after another, and ASHA. Goals: a decision takes at most 5 ms; workers have a job in at
least 95 % of the time in asynchronous mode.
"""

import heapq
import random
import statistics
import tempfile
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import begin, command_line, print_row, write_record

# isort: split
from foveate.data.dataset import Dataset, load_dataset
from foveate.execution.campaign import run_campaign
from foveate.execution.pool import Event, Message
from foveate.training.settings import resolve_settings
from foveate.tuning.brackets import budget_of, li2018_brackets
from foveate.tuning.journal import Journal
from foveate.tuning.samplers import RandomSampler
from foveate.tuning.search import Search
from foveate.tuning.settings import StudyConfig
from foveate.tuning.space import read_space
from foveate.tuning.trial import study_dataset, usable_in

FACTOR = 3
PLANS: dict[str, dict[str, Any]] = {
    "hyperband": {},
    "hyperband, once": {"iterations": 1},
    "hyperband, in turn": {"sampler": "tpe"},
    "asha": {"algorithm": "asha", "iterations": 1},
}


class SimulatedCluster:
    """A `Pool` with a clock of its own, which stands still while the driver decides; that is timed."""

    queues = False

    def __init__(self, workers: int, seed: int) -> None:
        self.workers = workers
        self.now = self.worked = 0.0
        self.jobs = 0
        self.decisions: list[float] = []
        self._draw = random.Random(seed)  # noqa: S311 (nothing secret)
        self._pace: dict[str, float] = {}
        self._running: list[tuple[float, int, int, Message]] = []
        self._told = time.perf_counter()

    def submit(self, job: int, message: Message) -> None:
        """It will end after its epochs."""
        pace = self._pace.setdefault(message["folder"], self._draw.lognormvariate(0, 0.5))
        seconds = pace * (message["to_epoch"] - message["from_epoch"])
        self.jobs += 1
        self.worked += seconds
        heapq.heappush(self._running, (self.now + seconds, self.jobs, job, message))

    def event(self, timeout_s: float) -> Event | None:  # noqa: ARG002
        """The next end of a job, at once."""
        self.decisions.append(time.perf_counter() - self._told)
        self.now, _, job, message = heapq.heappop(self._running)
        score = self._draw.random()
        row = {"val_accuracy": score, "rank_accuracy": score, "val_loss": 1.0, "seconds": 1.0}
        rows = [{"epoch": epoch, **row} for epoch in range(message["from_epoch"] + 1, message["to_epoch"] + 1)]
        self._told = time.perf_counter()
        return Event(job, "done", {"score": score, "stopped": False, "rows": rows})

    def stop(self, job: int) -> None:
        """Nothing hangs."""

    def waited_s(self, job: int) -> Mapping[int, float]:  # noqa: ARG002
        """Nothing waits."""
        return {}

    def close(self) -> None:
        """Nothing runs."""


def main() -> None:
    """Simulate each plan, print a row as it ends, and write the figures where asked."""
    arguments = begin(command_line(__doc__, "seed", trials=10_000, workers=64, max_epochs=[9, 81]))
    print_row("", "epochs", "trials", "jobs", "mean ms", "99 % ms", "largest", "busy", width=10, first=20)
    rows = []
    dataset = study_dataset(
        load_dataset("digits", read_space("default").base(epochs=1).data), None, 0, halved=True
    )
    for epochs in arguments.max_epochs:
        for name, more in PLANS.items():
            row = {"plan": name, "max_epochs": epochs, **simulate(arguments, dataset, epochs, more)}
            rows.append(row)
            figures = (f"{row[key]:.3f}" for key in ("mean_ms", "p99_ms", "largest_ms"))
            cells = (epochs, row["trials"], row["jobs"], *figures, f"{row['busy']:.1%}")
            print_row(name, *cells, width=10, first=20)
    write_record(arguments.json, {"workers": arguments.workers, "factor": FACTOR, "rows": rows})


def simulate(arguments: Namespace, dataset: Dataset, epochs: int, more: dict[str, Any]) -> dict[str, Any]:
    """A study of so many trials, each of at most so many epochs, on a simulated cluster."""
    space = read_space("default")
    base = resolve_settings(space.base(epochs=epochs, device="cpu"), dataset)
    rounds = -(-arguments.trials // budget_of(li2018_brackets(epochs, FACTOR)).trials)
    config = StudyConfig(
        data="digits",
        data_dir=None,
        fingerprint=dataset.fingerprint,
        space_name="default",
        space=space,
        base=base,
        max_epochs=epochs,
        factor=FACTOR,
        seed=arguments.seed,
        **{"iterations": rounds, **more},
        **({"trials": arguments.trials} if more.get("algorithm") == "asha" else {}),
    )
    cluster = SimulatedCluster(arguments.workers, arguments.seed)
    sampler = RandomSampler(space, config.seed, usable_in(space, base, dataset))
    with tempfile.TemporaryDirectory() as name:
        search = Search(config, Path(name), Journal.open(Path(name) / "journal.jsonl", "0" * 64), sampler)
        for _ in run_campaign(search, cluster):
            pass
    decisions = sorted(cluster.decisions[1:])  # the first gives all workers a job
    return {
        "trials": len(search.trials),
        "jobs": cluster.jobs,
        "mean_ms": 1e3 * statistics.mean(decisions),
        "p99_ms": 1e3 * decisions[len(decisions) * 99 // 100],
        "largest_ms": 1e3 * decisions[-1],
        "busy": cluster.worked / (arguments.workers * cluster.now),
    }


if __name__ == "__main__":
    main()
