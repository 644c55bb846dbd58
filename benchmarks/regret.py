"""Does it search well? Plans replayed on the recorded schedules of `curves.py`, at equal epochs that are paid.

**Peers:** random and grid search at full length, Hyperband as published and by KerasTuner's formula, each with
trials that go on and with trials that begin anew, ASHA, TPE, Optuna's TPE with its Hyperband pruner.
docs/benchmarks.md says what a replay does.

    python benchmarks/regret.py docs/records/tuning/digits.json --json docs/records/tuning/digits-regret.json
"""

import itertools
import random
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from foveate.tuning.asha import Asha
from foveate.tuning.brackets import Bracket, Rung, kerastuner_brackets, li2018_brackets, screening_brackets
from foveate.tuning.hyperband import Hyperband, Job, Outcome, Plan, Scores, Settings
from foveate.tuning.hyperparameters import Choice
from foveate.tuning.optimism import optimism
from foveate.tuning.samplers import TpeSampler
from foveate.tuning.space import read_space
from harness import begin, command_line, print_row, read_record, write_record
from optuna_plan import OptunaPlan

FACTOR = 3
MARKS = (34, 69, 138)
"""Epochs after which regret is looked at: half, one and two rounds of li2018 whose trials go on."""
SUBTABLES, SHARE = 40, 2 / 3
"""How many parts of the table intervals come from, and how large each is."""
Numbers = np.ndarray[Any, np.dtype[np.float64]]
Draw = Callable[[int, Scores], Settings | None]


class Table:
    """The recorded configurations: what each scored after every schedule, and what it is worth."""

    def __init__(self, record: Mapping[str, Any], chosen: Sequence[int] | None = None) -> None:
        self.record, self.space = record, read_space(record["space"])
        self.epochs = int(record["lengths"][-1])
        whole = [run for run in record["runs"] if "worth" in run]
        self.runs = whole if chosen is None else [whole[number] for number in chosen]
        self.worth = [100 * run["worth"] for run in self.runs]
        stopping, ranking = record["images"]["validation"], record["images"]["rank"]
        self.images = stopping + ranking
        self.right = [
            {int(epochs): bits(told["right"])[: self.images] for epochs, told in run["schedules"].items()}
            for run in self.runs
        ]
        self.scores = [
            {epochs: (float(each.mean()), float(each[stopping:].mean())) for epochs, each in right.items()}
            for right in self.right
        ]
        """By schedule, on all validation images and on the half that ranks."""
        self.settings = [
            {name: tuple(value) if isinstance(value, list) else value for name, value in run["settings"].items()}
            for run in self.runs
        ]
        self.places = np.array([self.place(settings) for settings in self.settings])
        share = np.array([stopping, ranking]) / self.images
        curves = [[(row["val_accuracy"], row["rank_accuracy"]) for row in run["rows"]] for run in self.runs]
        halves = np.array(curves)
        self.curve = halves @ share  # [configurations, epochs], on all validation images
        named = [
            [np.argmax(halves[number, : to + 1, 0]) for to in range(self.epochs)] for number in range(len(self))
        ]
        self.easier = self._easier(stopping)
        self.halved = np.array([[halves[number, at, 1] for at in each] for number, each in enumerate(named)])

    def _easier(self, stopping: int) -> tuple[float, float]:
        """By how many points all configurations score higher than their worth, on all images and on a half.

        The validation images are a sample, and may be easier or harder as a whole: that is no optimism.
        """
        last = np.array([right[self.epochs] for right in self.right])
        worth = float(np.mean(self.worth))
        return 100 * float(last.mean()) - worth, 100 * float(last[:, stopping:].mean()) - worth

    def __len__(self) -> int:
        return len(self.runs)

    def part(self, seed: int) -> "Table":
        """Some of the configurations."""
        numbers = random.Random(seed).sample(range(len(self)), round(SHARE * len(self)))  # noqa: S311
        return Table(self.record, sorted(numbers))

    def place(self, settings: Mapping[str, Any]) -> list[float]:
        """Each hyperparameter as a number from 0 to 1; -1 where it does not exist."""
        return [self._number(name, settings) for name in self.space.hyperparameters]

    def _number(self, name: str, settings: Mapping[str, Any]) -> float:
        each = self.space.hyperparameters[name]
        if name not in settings:
            return -1.0
        value = settings[name]
        if isinstance(each, Choice):
            return each.values.index(value) / max(len(each.values) - 1, 1)
        low, high, value = np.log([each.low, each.high, value]) if each.log else (each.low, each.high, value)
        return float((value - low) / (high - low))

    def nearest(self, place: Numbers, left: set[int]) -> int:
        """The configuration that is left and nearest to a place."""
        candidates = sorted(left)
        return candidates[int(np.abs(self.places[candidates] - place).sum(1).argmin())]


def bits(digits: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Bits from hexadecimal digits."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8))


Score = Callable[[Table, int, Job], float]


def anew(table: Table, number: int, job: Job) -> float:
    """A schedule of its own, on all validation images."""
    return table.scores[number][job.to_epoch][0]


def anew_halved(table: Table, number: int, job: Job) -> float:
    """A schedule of its own, on the half of the validation images that ranks."""
    return table.scores[number][job.to_epoch][1]


def by_halves(table: Table, number: int, job: Job) -> float:
    """As where `patience` stops trials: by halves, ranked in the epoch that the stopping images name."""
    return float(table.halved[number, job.to_epoch - 1])


def going_on(table: Table, number: int, job: Job) -> float:
    """The last epoch so far of a schedule over all epochs, on all validation images."""
    return float(table.curve[number, job.to_epoch - 1])


def as_kerastuner(table: Table, number: int, job: Job) -> float:
    """The best epoch of the job, on all validation images; that it resets the optimizer is not imitated."""
    return float(table.curve[number, job.from_epoch : job.to_epoch].max())


@dataclass(frozen=True)
class Method:
    """A plan, made anew for every replay, how it scores, and whether its draws take long."""

    make: Callable[[Table, int], Plan]
    score: Score
    slow: bool = False

    def easier(self, table: Table) -> float:
        """By how many points the images that rank are easier than those of the worth."""
        return table.easier[self.score in (by_halves, anew_halved)]


def methods() -> dict[str, Method]:
    """Every plan by its name."""

    def brackets(
        formula: Callable[[int, int], tuple[Bracket, ...]], factor: int, *, begin_anew: bool, tpe: bool = False
    ) -> Callable[[Table, int], Plan]:
        def make(table: Table, seed: int) -> Plan:
            each = formula(table.epochs, factor)
            draw = by_tpe(table, seed) if tpe else by_chance(table, seed)
            rounds = -(-len(table) // sum(bracket[0].trials for bracket in each))  # which use up the table
            return Hyperband(each * rounds, draw, in_turn=True, anew=begin_anew)

        return make

    def full_length(draw: Callable[[Table, int], Draw]) -> Callable[[Table, int], Plan]:
        return lambda table, seed: Hyperband(
            [(Rung(1, table.epochs),)] * len(table), draw(table, seed), in_turn=True
        )

    def asha(*, begin_anew: bool) -> Callable[[Table, int], Plan]:
        return lambda table, seed: Asha(table.epochs, FACTOR, len(table), by_chance(table, seed), anew=begin_anew)

    def pooled(epochs: int, factor: int) -> tuple[Bracket, ...]:
        return ((Rung(2 * factor, max(1, epochs // 9)), Rung(2, epochs)),)

    named = {
        "random": Method(full_length(by_chance), anew),
        "random, ranked by halves": Method(full_length(by_chance), anew_halved),
        "grid": Method(full_length(by_grid), anew),
        "tpe": Method(full_length(by_tpe), anew, slow=True),
        "hyperband li2018, continue": Method(brackets(li2018_brackets, FACTOR, begin_anew=False), going_on),
        "hyperband li2018, continue, by halves": Method(
            brackets(li2018_brackets, FACTOR, begin_anew=False), by_halves
        ),
        "hyperband li2018, anew": Method(brackets(li2018_brackets, FACTOR, begin_anew=True), anew),
        "hyperband kerastuner, its own": Method(
            brackets(kerastuner_brackets, FACTOR, begin_anew=False), as_kerastuner
        ),
        "hyperband kerastuner, anew": Method(brackets(kerastuner_brackets, FACTOR, begin_anew=True), anew),
        "hyperband li2018, anew, tpe": Method(
            brackets(li2018_brackets, FACTOR, begin_anew=True, tpe=True), anew, slow=True
        ),
        "optuna, tpe and hyperband pruner": Method(OptunaPlan, going_on, slow=True),
        "asha, continue": Method(asha(begin_anew=False), going_on),
        "asha, anew": Method(asha(begin_anew=True), anew),
        "screening 6, continue": Method(brackets(screening_brackets, 6, begin_anew=False), going_on),
        "screening 6, anew, by halves": Method(brackets(screening_brackets, 6, begin_anew=True), anew_halved),
        "screening 12 to 2, anew": Method(brackets(pooled, 6, begin_anew=True), anew),
        "screening 6, anew, tpe": Method(
            brackets(screening_brackets, 6, begin_anew=True, tpe=True), anew, slow=True
        ),
    }
    for factor in (3, 4, 6, 9, 12):
        named[f"screening {factor}, anew"] = Method(brackets(screening_brackets, factor, begin_anew=True), anew)
    return named


def main() -> None:
    """Replay every plan; print a row of each and write the figures where asked."""
    parser = command_line(
        __doc__,
        replays=2000,
        slow_replays=(100, "of plans that draw by TPE"),
        only=([""], "methods whose names contain one of these"),
    )
    parser.add_argument("curves", type=Path)
    arguments = begin(parser)
    table = Table(read_record(arguments.curves, {}))
    print(f"{len(table)} configurations, worth {min(table.worth):.1f} to {max(table.worth):.1f} %")
    known = correlations(table)
    for what, (rho, low, high) in known.items():
        print_row(what, f"{rho:.2f} [{low:.2f}, {high:.2f}]", width=20, first=52)
    print_row("regret; times random's; score too high", *(f"{mark} epochs" for mark in MARKS), width=34)
    parts = [table.part(seed) for seed in range(SUBTABLES)]
    rows: list[dict[str, Any]] = []
    for name, method in methods().items():
        if not any(each in name for each in arguments.only):
            continue
        row = {"method": name, "epochs": MARKS, **measure(table, parts, method, arguments)}
        rows.append(row)
        usual = rows[0]["regret"]
        row["of_random"] = [mean / max(other, 1e-9) for mean, other in zip(row["regret"], usual, strict=True)]
        cells = (
            f"{mean:.2f} ± {error:.2f}  × {share:.2f}  {high:+.2f}"
            for mean, error, share, high in zip(
                row["regret"], row["interval"], row["of_random"], row["too_high"], strict=True
            )
        )
        print_row(name, *cells, width=34)
    told = told_optimism(table, max(2, arguments.replays // 2))
    if told:
        print(
            f"the winner of screening 6 after {MARKS[1]} epochs: "
            f"{told['true']:+.2f} ± {told['interval']:.2f} points too high on half of the images, "
            f"and told so: {told['told']:+.2f}"
        )
    record = {"replays": arguments.replays, "slow_replays": arguments.slow_replays, "configurations": len(table)}
    write_record(arguments.json, {**record, "correlations": known, "rows": rows, "optimism": told})


def correlations(table: Table) -> dict[str, tuple[float, float, float]]:
    """Spearman's ρ of early scores with worth, with a 95 % interval over configurations (bootstrap)."""
    scores = {
        f"schedule of {epochs} epochs": [float(each[epochs].mean()) for each in table.right]
        for epochs in sorted(table.right[0])
    }
    for epoch in (1, 3):
        scores[f"epoch {epoch} of a schedule of {table.epochs}"] = list(table.curve[:, epoch - 1])
    generator, found = np.random.default_rng(0), {}
    for name, values in scores.items():
        again = []
        for _ in range(1000):
            some = generator.integers(len(table), size=len(table))
            again.append(spearman(np.array(values)[some], np.array(table.worth)[some]))
        low, high = np.quantile(again, [0.025, 0.975])
        found[name] = (spearman(np.array(values), np.array(table.worth)), float(low), float(high))
    return found


def spearman(first: Numbers, second: Numbers) -> float:
    """Spearman's ρ; 0 where one of the two is constant."""
    return float(spearmanr(first, second).statistic) if np.ptp(first) and np.ptp(second) else 0.0


def measure(table: Table, parts: Sequence[Table], method: Method, arguments: Any) -> dict[str, Any]:
    """Mean regret of a plan, its interval over configurations, and how much too high its winner's score is."""
    replays = arguments.slow_replays if method.slow else arguments.replays
    found = [replay(table, method, seed) for seed in range(replays)]
    means = [statistics.mean(each[mark][0] for each in found) for mark in range(len(MARKS))]
    high = [statistics.mean(each[mark][1] for each in found) for mark in range(len(MARKS))]
    # Configurations are a sample too: the jackknife that leaves out a third of them at random, 40 times.
    some = max(1, replays // len(parts))
    of_parts = [
        np.mean([[each[0] for each in replay(part, method, seed)] for seed in range(some)], 0) for part in parts
    ]
    spread = 1.96 * np.sqrt(SHARE / (1 - SHARE) * np.var(of_parts, axis=0))
    return {"regret": means, "interval": spread.tolist(), "too_high": high}


def told_optimism(table: Table, replays: int) -> dict[str, float]:
    """Of the winner of screening after the second mark: how much too high its score is, and how much is told.

    In each replay half of the images rank, drawn at random, and the winner's true accuracy is that on the others.
    """
    true, told, generator = [], [], np.random.default_rng(0)
    for seed in range(replays):
        order = generator.permutation(table.images)
        inside, outside = np.split(order, [table.images // 2])

        def score(table: Table, number: int, job: Job, inside: Numbers = inside) -> float:
            return float(table.right[number][job.to_epoch][inside].mean())

        ended: list[int] = []
        replay(table, replace(methods()["screening 6, anew"], score=score), seed, marks=MARKS[:2], ended=ended)
        last = [table.right[number][table.epochs] for number in ended]
        found = optimism((np.packbits(each[inside]).tobytes().hex() for each in last), len(inside))
        if found is not None:
            winner = max(last, key=lambda each: each[inside].mean())
            true.append(100 * float(winner[inside].mean() - winner[outside].mean()))
            told.append(100 * found)
    if len(true) < 2:  # of a small table a single trial is trained to the end
        return {}
    error = 1.96 * statistics.stdev(true) / len(true) ** 0.5
    return {"true": statistics.mean(true), "interval": error, "told": statistics.mean(told), "replays": len(true)}


def by_chance(table: Table, seed: int) -> Draw:
    """The table in an order of the seed's."""
    order = list(range(len(table)))
    random.Random(seed).shuffle(order)  # noqa: S311 (nothing secret)
    return lambda trial, _: {"number": order[trial]} if trial < len(order) else None


def by_grid(table: Table, seed: int) -> Draw:
    """Lows and highs of every hyperparameter in all combinations, in an order of the seed's."""
    points = list(itertools.product((0.2, 0.8), repeat=len(table.space.hyperparameters)))
    random.Random(seed).shuffle(points)  # noqa: S311 (nothing secret)
    left, places = set(range(len(table))), iter(points)

    def draw(trial: int, _: Scores) -> Settings | None:  # noqa: ARG001
        if not left:
            return None
        number = table.nearest(np.array(next(places)), left)
        left.remove(number)
        return {"number": number}

    return draw


def by_tpe(table: Table, seed: int) -> Draw:
    """By chance until there are enough scores, then what is nearest to the sampler's wish."""
    sampler = TpeSampler(table.space, seed, lambda _: True)
    order, numbers = list(range(len(table))), dict[int, int]()
    random.Random(seed).shuffle(order)  # noqa: S311 (nothing secret)

    def draw(trial: int, seen: Scores) -> Settings | None:
        if not order:
            return None
        number = order[0]
        if len(seen) > len(table.space.hyperparameters):
            wish = sampler(trial, seen, {each: table.settings[known] for each, known in numbers.items()})
            number = table.nearest(np.array(table.place(wish or {})), set(order))
        order.remove(number)
        numbers[trial] = number
        return {"number": number}

    return draw


def replay(
    table: Table, method: Method, seed: int, *, marks: Sequence[int] = MARKS, ended: list[int] | None = None
) -> list[tuple[float, float]]:
    """The regret of the incumbent after so many epochs, and by how much its score is too high, in points.

    Args:
        ended: takes the configurations that were trained to the end until then.
    """
    plan, best = method.make(table, seed), max(table.worth)
    reached: list[tuple[float, float]] = []
    left: Iterator[int] = iter(marks)
    mark, spent = next(left), 0
    incumbent: tuple[int, float, int] | None = None
    while True:
        job = plan.ask()
        after = spent + (job.to_epoch - job.from_epoch if isinstance(job, Job) else 10**9)
        while mark < after:  # what was known when so many epochs were spent
            worth = table.worth[incumbent[2]] if incumbent else statistics.mean(table.worth)
            high = 100 * incumbent[1] - worth - method.easier(table) if incumbent else 0.0
            reached.append((best - worth, high))
            if (following := next(left, None)) is None:
                return reached
            mark = following
        assert isinstance(job, Job)
        spent, number = after, job.settings["number"]
        outcome = method.score(table, number, job)
        plan.tell(job, Outcome(outcome))
        if ended is not None and job.to_epoch == table.epochs:
            ended.append(number)
        if incumbent is None or (job.to_epoch, outcome) > incumbent[:2]:
            incumbent = (job.to_epoch, outcome, number)


if __name__ == "__main__":
    main()
