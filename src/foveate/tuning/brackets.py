"""How many trials are trained how far: brackets of Hyperband, by two formulas, and of screening; their cost."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from foveate.errors import ConfigError

MAX_EPOCHS = 100_000
"""The most epochs of a trial: as many as a run can have."""
Formula = Literal["li2018", "kerastuner"]
_SHORT = 9
"""How many times as long the last rung of screening is as its first."""


@dataclass(frozen=True)
class Rung:
    """How many trials are trained, and to which epoch, counted from their first."""

    trials: int
    epochs: int
    epoch_cost: float = 1.0
    """What an epoch of it takes, as a share of one at full size: less where its images are smaller."""

    @property
    def cost(self) -> float:
        """What one trial takes that begins from nothing, in epochs at full size."""
        return self.epochs * self.epoch_cost


Bracket = tuple[Rung, ...]
"""The rungs of one successive halving, from the many short trials to the few long ones."""


@dataclass(frozen=True)
class Budget:
    """What brackets take."""

    trials: int
    jobs: int
    epochs: int
    """All that are trained: an epoch that is trained twice counts twice."""
    cost: float
    """What these take, in epochs at full size."""


def li2018_brackets(max_epochs: int, factor: int) -> tuple[Bracket, ...]:
    """Hyperband as published: Li et al., JMLR 18 (2018), algorithm 1, with R = `max_epochs` and η = `factor`.

    Brackets from the most halving to none. A rung keeps ⌊n/η⌋ of its n trials. Its resource R·η⁻ˢ⁺ⁱ is rounded to
    whole epochs, half upwards, and is at least one. Everything is in integers: ⌊log₃ 243⌋ is 4 in floats.

    Raises:
        ConfigError: for `max_epochs` below 1 or `factor` below 2.
    """
    check_plan(max_epochs, factor)
    halvings = 0
    while factor ** (halvings + 1) <= max_epochs:
        halvings += 1
    brackets = []
    for s in range(halvings, -1, -1):
        trials = -(-(halvings + 1) * factor**s // (s + 1))  # ⌈B/R · ηˢ/(s + 1)⌉
        rungs = []
        for i in range(s + 1):
            share = factor ** (s - i)
            rungs.append(Rung(trials // factor**i, max(1, (2 * max_epochs + share) // (2 * share))))
        brackets.append(tuple(rungs))
    return tuple(brackets)


def kerastuner_brackets(max_epochs: int, factor: int) -> tuple[Bracket, ...]:
    """Hyperband as KerasTuner 1.4.8 has it: sizes and epochs are rounded up, and logarithms taken in floats.

    Raises:
        ConfigError: as `li2018_brackets`.
    """
    check_plan(max_epochs, factor)
    brackets: list[Bracket] = []
    epochs = float(max_epochs)
    while epochs >= 1:
        s = len(brackets)
        end_size = math.ceil(1 + math.log(max_epochs, factor)) / (s + 1)
        rungs = (
            Rung(math.ceil(end_size * factor ** (s - i)), math.ceil(max_epochs / factor ** (s - i)))
            for i in range(s + 1)
        )
        brackets.append(tuple(rungs))
        epochs /= factor
    return tuple(reversed(brackets))


def screening_brackets(max_epochs: int, factor: int) -> tuple[Bracket, ...]:
    """One bracket of two rungs: `factor` short trials, and the best of them for `max_epochs`.

    The short ones have a ninth of the epochs, one at least. It is meant for trials whose schedule is complete at
    every rung: then a ninth of the epochs tells much of all of them (docs/log.md, "Does it search well?").

    Raises:
        ConfigError: as `li2018_brackets`.
    """
    check_plan(max_epochs, factor)
    short = max(1, max_epochs // _SHORT)
    if short == max_epochs:
        return ((Rung(factor, max_epochs),),)
    return ((Rung(factor, short), Rung(1, max_epochs)),)


FORMULAS: Mapping[Formula, Callable[[int, int], tuple[Bracket, ...]]] = {
    "li2018": li2018_brackets,
    "kerastuner": kerastuner_brackets,
}


def budget_of(brackets: Iterable[Bracket], *, anew: bool = False) -> Budget:
    """What `brackets` take, where a promoted trial goes on from where it was, or begins `anew`."""
    trials = jobs = epochs = 0
    cost = 0.0
    for bracket in brackets:
        trials, before = trials + bracket[0].trials, 0
        for rung in bracket:
            jobs += rung.trials
            epochs += rung.trials * (rung.epochs - before)
            cost += rung.trials * (rung.epochs - before) * rung.epoch_cost
            before = 0 if anew else rung.epochs
    return Budget(trials, jobs, epochs, cost)


def check_plan(max_epochs: int, factor: int) -> None:
    """Refuse numbers of which no plan can be made.

    Raises:
        ConfigError: for `max_epochs` below 1 or above `MAX_EPOCHS`, or `factor` below 2.
    """
    if max_epochs < 1:
        raise ConfigError(f"max_epochs={max_epochs}: give 1 at least")
    if max_epochs > MAX_EPOCHS:
        raise ConfigError(f"max_epochs={max_epochs}: give {MAX_EPOCHS:,} at most")
    if factor < 2:
        raise ConfigError(f"factor={factor}: give 2 at least; a rung keeps one trial in `factor`")
