"""What a decision of the tuner costs, and how busy 64 workers are, in a study of 10,000 simulated trials.

The study is the product's own, with its plan, its journal on the disk, the space `default` and the check that a
network can be built of what is drawn; only the cluster is simulated. Jobs take a lognormal time an epoch (σ 0.5,
each trial its own) and give a random score; nothing is trained. **Peers:** synchronous Hyperband, brackets side by
side, and the same with one bracket after another, as the sampler `tpe` needs it; ASHA, where nobody waits. A
decision is all that a driver does from hearing of a job's end until the worker has its next one, or none. Told:
the mean, the 99th percentile and the largest in milliseconds (goal: at most 5 ms), and the share of the time until
the last job ended in which workers had a job (goal: at least 95 % in asynchronous mode). What is missing there is
the end of the study, when no new trials are left and the last promoted ones train alone: longer the more epochs
they have.
"""

import argparse
import heapq
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


from foveate.data.dataset import Dataset, load_dataset
from foveate.execution.campaign import run_campaign
from foveate.execution.pool import Event, Message
from foveate.training.settings import resolve_settings
from foveate.tuning.hyperband import budget_of, li2018_brackets
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
        self._pace: dict[int, float] = {}
        self._running: list[tuple[float, int, int, Message]] = []
        self._told = time.perf_counter()

    def submit(self, job: int, message: Message) -> None:
        """It will end after its epochs."""
        pace = self._pace.setdefault(job, self._draw.lognormvariate(0, 0.5))
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    arguments = parser.parse_args()
    print(f"{'':20}{'epochs':>7}{'trials':>8}{'jobs':>8}{'mean ms':>10}{'99 % ms':>10}{'largest':>10}{'busy':>9}")
    rows = []
    dataset = study_dataset(load_dataset("digits", read_space("default").base(epochs=1).data), None, 0)
    for epochs in (9, 81):
        for name, more in PLANS.items():
            rows.append({"plan": name, "max_epochs": epochs, **simulate(arguments, dataset, epochs, more)})
            row = rows[-1]
            print(
                f"{name:20}{epochs:7}{row['trials']:8}{row['jobs']:8}{row['mean_ms']:10.3f}{row['p99_ms']:10.3f}"
                f"{row['largest_ms']:10.2f}{row['busy']:9.1%}",
                flush=True,
            )
    if arguments.json:
        record = {"workers": arguments.workers, "factor": FACTOR, "rows": rows}
        arguments.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def simulate(arguments: argparse.Namespace, dataset: Dataset, epochs: int, more: dict[str, Any]) -> dict[str, Any]:
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
