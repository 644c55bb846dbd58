"""Does it search well? Plans replayed on the recorded learning curves of `curves.py`, at equal epochs.

A replay draws configurations of the table in an order of its own, runs a plan on them as one worker would, and
after every job looks at the incumbent: of the trials trained furthest the one with the best score. Its regret is
how much less it is worth than the best of the table, in points of accuracy, on images that no plan ever saw.
**Peers:** Hyperband as published and by KerasTuner's formula (imitated in its scores too: one set of validation
images stops and ranks; that it resets the optimizer cannot be replayed), ASHA, Hyperband with TPE from the second
bracket on, random search and grid search at full length. TPE and grid take the configuration of the table that is
nearest to what they ask for. Told: mean regret with its 95 % interval over replays, after so many epochs.

    python benchmarks/regret.py docs/records/curves.json --json docs/records/regret.json
"""

import argparse
import itertools
import json
import random
import statistics
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from foveate.tuning.asha import Asha
from foveate.tuning.hyperband import (
    Bracket,
    Hyperband,
    Job,
    Outcome,
    Plan,
    Rung,
    Scores,
    Settings,
    budget_of,
    kerastuner_brackets,
    li2018_brackets,
)
from foveate.tuning.hyperparameters import Choice
from foveate.tuning.samplers import TpeSampler
from foveate.tuning.space import Space, read_space

FACTOR = 3
Numbers = np.ndarray[Any, np.dtype[np.float64]]


class Table:
    """The recorded configurations: what each scored at every epoch, and what it is worth."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.space: Space = read_space(record["space"])
        self.epochs = int(record["epochs"])
        self.runs = [run for run in record["runs"] if len(run.get("rows", [])) == self.epochs]
        self.settings = [
            {name: tuple(value) if isinstance(value, list) else value for name, value in run["settings"].items()}
            for run in self.runs
        ]
        self.worth = [100 * run["worth"] for run in self.runs]
        self.places = np.array([self.place(settings) for settings in self.settings])

    def place(self, settings: Mapping[str, Any]) -> list[float]:
        """Each hyperparameter as a number from 0 to 1; -1 where it does not exist."""
        return [self._number(name, settings.get(name)) for name in self.space.hyperparameters]

    def _number(self, name: str, value: Any) -> float:
        each = self.space.hyperparameters[name]
        if value is None:
            return -1.0
        if isinstance(each, Choice):
            return each.values.index(value) / max(len(each.values) - 1, 1)
        low, high, value = np.log([each.low, each.high, value]) if each.log else (each.low, each.high, value)
        return float((value - low) / (high - low))

    def nearest(self, place: Numbers, left: set[int]) -> int:
        """The configuration that is left and nearest to a place."""
        candidates = sorted(left)
        return candidates[int(np.abs(self.places[candidates] - place).sum(1).argmin())]

    def ours(self, number: int, job: Job) -> float:
        """The score by halves: ranked in the epoch that the stopping images name."""
        rows = self.runs[number]["rows"][: job.to_epoch]
        return float(max(rows, key=lambda row: row["val_accuracy"])["rank_accuracy"])

    def theirs(self, number: int, job: Job) -> float:
        """As KerasTuner: the best epoch of the job, on all validation images."""
        rows = self.runs[number]["rows"][job.from_epoch : job.to_epoch]
        return float(max((row["val_accuracy"] + row["rank_accuracy"]) / 2 for row in rows))


def main() -> None:
    """Replay every plan; print a row of each and write the figures where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("curves", type=Path)
    parser.add_argument("--replays", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3, help="of Hyperband's brackets: the epochs of all plans")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    arguments = parser.parse_args()
    table = Table(json.loads(arguments.curves.read_text(encoding="utf-8")))
    each = budget_of(li2018_brackets(table.epochs, FACTOR)).epochs
    marks = [each // 2, *(each * number for number in range(1, arguments.rounds + 1))]
    print(f"{len(table.runs)} configurations, worth {min(table.worth):.1f} to {max(table.worth):.1f} %")
    print(f"{'mean regret, points, after':28}" + "".join(f"{f'{mark} epochs':>18}" for mark in marks))
    rows = []
    for name, make in methods(table, arguments.rounds).items():
        regrets = [replay(table, *make(seed), marks) for seed in range(arguments.replays)]
        columns = list(zip(*regrets, strict=True))
        means = [statistics.mean(column) for column in columns]
        errors = [1.96 * statistics.stdev(column) / len(column) ** 0.5 for column in columns]
        rows.append({"method": name, "epochs": marks, "regret": means, "interval": errors})
        cells = (f"{mean:.2f} ± {error:.2f}" for mean, error in zip(means, errors, strict=True))
        print(f"{name:28}" + "".join(f"{cell:>18}" for cell in cells), flush=True)
    if arguments.json:
        record = {"replays": arguments.replays, "configurations": len(table.runs), "rows": rows}
        arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


Method = tuple[Plan, Callable[[int, Job], float]]


def methods(table: Table, rounds: int) -> dict[str, Callable[[int], Method]]:
    """Each plan, made anew for every replay, and how it scores."""
    ours, theirs = (
        li2018_brackets(table.epochs, FACTOR) * rounds,
        kerastuner_brackets(table.epochs, FACTOR) * rounds,
    )
    single: Bracket = (Rung(len(table.runs), table.epochs),)
    return {
        "hyperband, li2018": lambda seed: (Hyperband(ours, by_chance(table, seed), in_turn=True), table.ours),
        "hyperband, kerastuner": lambda seed: (
            Hyperband(theirs, by_chance(table, seed), in_turn=True),
            table.theirs,
        ),
        "asha": lambda seed: (
            Asha(table.epochs, FACTOR, len(table.runs), by_chance(table, seed)),
            table.ours,
        ),
        "hyperband with tpe": lambda seed: (Hyperband(ours, by_tpe(table, seed), in_turn=True), table.ours),
        "random search": lambda seed: (Hyperband([single], by_chance(table, seed)), table.ours),
        "grid search": lambda seed: (Hyperband([single], by_grid(table, seed)), table.ours),
    }


def by_chance(table: Table, seed: int) -> Callable[[int, Scores], Settings | None]:
    """The table in an order of the seed's."""
    order = list(range(len(table.runs)))
    random.Random(seed).shuffle(order)  # noqa: S311 (nothing secret)
    return lambda trial, _: {"number": order[trial]} if trial < len(order) else None


def by_grid(table: Table, seed: int) -> Callable[[int, Scores], Settings | None]:
    """Lows and highs of every hyperparameter in all combinations, in an order of the seed's."""
    points = list(itertools.product((0.2, 0.8), repeat=len(table.space.hyperparameters)))
    random.Random(seed).shuffle(points)  # noqa: S311 (nothing secret)
    left, places = set(range(len(table.runs))), iter(points)

    def draw(trial: int, _: Scores) -> Settings | None:  # noqa: ARG001
        if not left:
            return None
        number = table.nearest(np.array(next(places)), left)
        left.remove(number)
        return {"number": number}

    return draw


def by_tpe(table: Table, seed: int) -> Callable[[int, Scores], Settings | None]:
    """By chance in the first bracket, then what is nearest to the sampler's wish."""
    sampler = TpeSampler(table.space, seed, lambda _: True)
    order, numbers = list(range(len(table.runs))), dict[int, int]()
    random.Random(seed).shuffle(order)  # noqa: S311 (nothing secret)

    def draw(trial: int, seen: Scores) -> Settings | None:
        if not order:
            return None
        number = order[0]
        if seen:
            wish = sampler(trial, seen, {each: table.settings[known] for each, known in numbers.items()})
            number = table.nearest(np.array(table.place(wish or {})), set(order))
        order.remove(number)
        numbers[trial] = number
        return {"number": number}

    return draw


def replay(table: Table, plan: Plan, score: Callable[[int, Job], float], marks: list[int]) -> list[float]:
    """The regret of the incumbent after so many epochs."""
    best, reached = max(table.worth), list[float]()
    left: Iterator[int] = iter(marks)
    mark, spent = next(left), 0
    incumbent: tuple[int, float, int] | None = None
    while True:
        job = plan.ask()
        after = spent + (job.to_epoch - job.from_epoch if isinstance(job, Job) else 10**9)
        while mark < after:  # what was known when so many epochs were spent
            reached.append(best - (table.worth[incumbent[2]] if incumbent else statistics.mean(table.worth)))
            if (following := next(left, None)) is None:
                return reached
            mark = following
        assert isinstance(job, Job)
        spent, number = after, job.settings["number"]
        outcome = score(number, job)
        plan.tell(job, Outcome(outcome))
        if incumbent is None or (job.to_epoch, outcome) > incumbent[:2]:
            incumbent = (job.to_epoch, outcome, number)


if __name__ == "__main__":
    main()
