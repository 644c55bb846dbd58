"""What a decision of the tuner costs, and how busy 64 workers are, in a study of 10,000 simulated trials.

Trials take a lognormal time an epoch (σ 0.5, each its own) and give a random score; nothing is trained. **Peers:**
synchronous Hyperband, brackets side by side, and the same with one bracket after another, as the sampler `tpe`
needs it; ASHA, where nobody waits. A decision is an `ask` and a `tell` of the plan. Told: the mean, the 99th
percentile and the largest in milliseconds (goal: at most 5 ms), and the share of the time until the last job ended
in which workers had a job (goal: at least 95 % in asynchronous mode). What is missing there is the end of the
study, when no new trials are left and the last promoted ones train alone: longer the more epochs they have.
"""

import argparse
import heapq
import json
import random
import statistics
import time
from pathlib import Path
from typing import Any

from foveate.tuning.hyperband import Asha, Hyperband, Job, Outcome, Plan, cost, li2018_brackets

FACTOR = 3


def main() -> None:
    """Simulate each plan, print a row as it ends, and write the figures where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    arguments = parser.parse_args()
    plans = {
        (name, epochs): plan for epochs in (9, 81) for name, plan in plans_of(epochs, arguments.trials).items()
    }
    print(f"{'':20}{'epochs':>7}{'trials':>8}{'jobs':>8}{'mean ms':>10}{'99 % ms':>10}{'largest':>10}{'busy':>9}")
    rows = []
    for (name, epochs), plan in plans.items():
        rows.append({"plan": name, "max_epochs": epochs, **simulate(plan, arguments.workers, arguments.seed)})
        row = rows[-1]
        print(
            f"{name:20}{epochs:7}{row['trials']:8}{row['jobs']:8}{row['mean_ms']:10.3f}{row['p99_ms']:10.3f}"
            f"{row['largest_ms']:10.2f}{row['busy']:9.1%}"
        )
    if arguments.json:
        record = {"workers": arguments.workers, "factor": FACTOR, "rows": rows}
        arguments.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def plans_of(epochs: int, trials: int) -> dict[str, Plan]:
    """The plans of a study of so many trials, each of at most so many epochs."""
    brackets = li2018_brackets(epochs, FACTOR)
    rounds = -(-trials // cost(brackets).trials)

    def settings(trial: int, _: Any) -> dict[str, int]:
        return {"trial": trial}

    return {
        "hyperband": Hyperband(brackets * rounds, settings),
        "hyperband, once": Hyperband(brackets, settings),
        "hyperband, in turn": Hyperband(brackets * rounds, settings, in_turn=True),
        "asha": Asha(epochs, FACTOR, trials, settings),
    }


def simulate(plan: Plan, workers: int, seed: int) -> dict[str, Any]:
    """Run a plan on a simulated cluster."""
    draw = random.Random(seed)  # noqa: S311 (nothing secret)
    pace: dict[int, float] = {}
    running: list[tuple[float, int, Job]] = []
    decisions, now, worked, jobs = [], 0.0, 0.0, 0
    while True:
        while len(running) < workers:
            began = time.perf_counter()
            job = plan.ask()
            decisions.append(time.perf_counter() - began)
            if not isinstance(job, Job):
                break
            seconds = pace.setdefault(job.trial, draw.lognormvariate(0, 0.5)) * (job.to_epoch - job.from_epoch)
            jobs += 1
            worked += seconds
            heapq.heappush(running, (now + seconds, jobs, job))
        if not running:
            break
        now, _, job = heapq.heappop(running)
        outcome = Outcome(draw.random())
        began = time.perf_counter()
        plan.tell(job, outcome)
        decisions.append(time.perf_counter() - began)
    decisions.sort()
    return {
        "trials": len(pace),
        "jobs": jobs,
        "mean_ms": 1e3 * statistics.mean(decisions),
        "p99_ms": 1e3 * decisions[len(decisions) * 99 // 100],
        "largest_ms": 1e3 * decisions[-1],
        "busy": worked / (workers * now),
    }


if __name__ == "__main__":
    main()
