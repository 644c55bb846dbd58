"""Does it search well? Plans replayed on the recorded learning curves of `curves.py`, at equal epochs.

**Peers:** Hyperband as published and by KerasTuner's formula, ASHA, Hyperband with TPE from the second bracket on,
random search and grid search at full length. docs/benchmarks.md says what a replay does.

    python benchmarks/regret.py docs/records/curves.json --json docs/records/regret.json
"""

import itertools
import random
import statistics
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from foveate.tuning.asha import Asha
from foveate.tuning.hyperband import (
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
from harness import begin, command_line, print_row, read_record, write_record

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
    parser = command_line(__doc__, replays=200, rounds=(3, "of Hyperband's brackets: the epochs of all plans"))
    parser.add_argument("curves", type=Path)
    arguments = begin(parser)
    table = Table(read_record(arguments.curves, {}))
    each = budget_of(li2018_brackets(table.epochs, FACTOR)).epochs
    marks = [each // 2, *(each * number for number in range(1, arguments.rounds + 1))]
    print(f"{len(table.runs)} configurations, worth {min(table.worth):.1f} to {max(table.worth):.1f} %")
    print_row("mean regret, points, after", *(f"{mark} epochs" for mark in marks), width=18, first=28)
    rows = []
    for name, make in methods(table, arguments.rounds).items():
        regrets = [replay(table, *make(seed), marks) for seed in range(arguments.replays)]
        columns = list(zip(*regrets, strict=True))
        means = [statistics.mean(column) for column in columns]
        errors = [1.96 * statistics.stdev(column) / len(column) ** 0.5 for column in columns]
        rows.append({"method": name, "epochs": marks, "regret": means, "interval": errors})
        cells = (f"{mean:.2f} ± {error:.2f}" for mean, error in zip(means, errors, strict=True))
        print_row(name, *cells, width=18, first=28)
    record = {"replays": arguments.replays, "configurations": len(table.runs), "rows": rows}
    write_record(arguments.json, record)


Method = tuple[Plan, Callable[[int, Job], float]]
Draw = Callable[[Table, int], Callable[[int, Scores], Settings | None]]


def methods(table: Table, rounds: int) -> dict[str, Callable[[int], Method]]:
    """Each plan, made anew for every replay, and how it scores."""
    brackets = {"li2018": li2018_brackets, "kerastuner": kerastuner_brackets}
    ours, theirs = (formula(table.epochs, FACTOR) * rounds for formula in brackets.values())
    whole = [(Rung(len(table.runs), table.epochs),)]

    def hyperband(draw: Draw) -> Callable[[int], Method]:
        return lambda seed: (Hyperband(ours, draw(table, seed), in_turn=True), table.ours)

    def full_length(draw: Draw) -> Callable[[int], Method]:
        return lambda seed: (Hyperband(whole, draw(table, seed)), table.ours)

    def as_kerastuner(seed: int) -> Method:
        return Hyperband(theirs, by_chance(table, seed), in_turn=True), table.theirs

    def asha(seed: int) -> Method:
        return Asha(table.epochs, FACTOR, len(table.runs), by_chance(table, seed)), table.ours

    return {
        "hyperband, li2018": hyperband(by_chance),
        "hyperband, kerastuner": as_kerastuner,
        "asha": asha,
        "hyperband with tpe": hyperband(by_tpe),
        "random search": full_length(by_chance),
        "grid search": full_length(by_grid),
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
