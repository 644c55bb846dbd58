"""Does one epoch of smaller images tell what nine of larger ones will be worth? (`foveate tune --first-size`)

The same configurations stand in two records: their scores after a schedule of one epoch in the first, and in the
second their accuracies and worth after nine epochs of larger images. Screening is replayed with first rungs of
the one and long trials of the other, beside random search, at equal cost.

    python benchmarks/small_first.py docs/records/tuning/cifar10-16px.json docs/records/tuning/cifar10-32px.json \
        --json docs/records/tuning/small-first.json
"""

from itertools import islice
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from harness import begin, command_line, print_row, read_record, write_record
from regret import MARKS, SHARE, SUBTABLES, Numbers, Table, spearman

FACTOR = 6


def main() -> None:
    """Print the correlations and the regrets, and write them where asked."""
    parser = command_line(
        __doc__,
        replays=2000,
        cost=(0.25, "of an epoch of smaller images, in epochs of larger ones"),
    )
    parser.add_argument("small", type=Path)
    parser.add_argument("large", type=Path)
    arguments = begin(parser)
    small, runs = Table(read_record(arguments.small, {})), read_record(arguments.large, {})["runs"]
    for mine, other in zip(small.record["runs"], runs, strict=True):
        differ = {name for name, value in other["settings"].items() if mine["settings"][name] != value}
        if differ - {"width"}:
            parser.error(f"the records have other configurations: {differ}")
    early = np.array([100 * scores[1][0] for scores in small.scores])
    last = [run["rows"][-1] for run in runs]
    final = np.array([50 * (row["val_accuracy"] + row["rank_accuracy"]) for row in last])  # its halves are equal
    worth = np.array([100 * run["worth"] for run in runs])
    width = np.array([run["settings"].get("width", 0) for run in runs])
    known = {
        "one epoch of smaller images": bootstrapped(early, worth),
        "the same within one width": bootstrapped(early, worth, width),
        "epoch 1 of 9 of larger images": bootstrapped(
            np.array([run["rows"][0]["val_accuracy"] + run["rows"][0]["rank_accuracy"] for run in runs]), worth
        ),
        "width alone": bootstrapped(width.astype(float), worth),
    }
    for what, (rho, low, high) in known.items():
        print_row(what, f"{rho:.2f} [{low:.2f}, {high:.2f}]", width=20, first=52)
    rows = []
    for name, trials, cost in (("random", 1, 0.0), ("screening 6, smaller first", FACTOR, arguments.cost)):
        means = regrets(early, final, worth, trials, cost, arguments.replays)
        generator, parts = np.random.default_rng(0), []
        for _ in range(SUBTABLES):
            some = generator.choice(len(worth), round(SHARE * len(worth)), replace=False)
            few = max(1, arguments.replays // SUBTABLES)
            parts.append(regrets(early[some], final[some], worth[some], trials, cost, few))
        spread = 1.96 * np.sqrt(SHARE / (1 - SHARE) * np.var(parts, axis=0))
        rows.append({"method": name, "cost": MARKS, "regret": means.tolist(), "interval": spread.tolist()})
        print_row(
            name, *(f"{mean:.2f} ± {error:.2f}" for mean, error in zip(means, spread, strict=True)), width=20
        )
    write_record(arguments.json, {"replays": arguments.replays, "correlations": known, "rows": rows})


def bootstrapped(scores: Numbers, worth: Numbers, groups: Numbers | None = None) -> tuple[float, float, float]:
    """Spearman's ρ with a 95 % interval over configurations; within groups: of ranks less their group's mean."""
    generator, again = np.random.default_rng(0), []
    for _ in range(1000):
        some = generator.integers(len(worth), size=len(worth))
        again.append(_rho(scores[some], worth[some], None if groups is None else groups[some]))
    low, high = np.quantile(again, [0.025, 0.975])
    return _rho(scores, worth, groups), float(low), float(high)


def _rho(scores: Numbers, worth: Numbers, groups: Numbers | None) -> float:
    if groups is None:
        return spearman(scores, worth)
    ranks = np.array([rankdata(scores), rankdata(worth)])
    for group in np.unique(groups):
        ranks[:, groups == group] -= ranks[:, groups == group].mean(1, keepdims=True)
    return float(np.corrcoef(ranks)[0, 1]) if np.ptp(ranks, axis=1).all() else 0.0


def regrets(early: Numbers, final: Numbers, worth: Numbers, trials: int, cost: float, replays: int) -> Numbers:
    """Mean regret at each mark of brackets: this many first trials at `cost` each, and their best for nine."""
    found = np.empty((replays, len(MARKS)))
    for seed in range(replays):
        order = iter(np.random.default_rng(seed).permutation(len(worth)))
        spent, incumbent, regret = 0.0, None, np.full(len(MARKS), worth.max() - worth.mean())
        while bracket := list(islice(order, trials)):
            spent += len(bracket) * cost + 9
            best = bracket[int(early[bracket].argmax())]
            incumbent = best if incumbent is None or final[best] > final[incumbent] else incumbent
            regret[np.array(MARKS) >= spent] = worth.max() - worth[incumbent]
        found[seed] = regret
    return found.mean(0)


if __name__ == "__main__":
    main()
