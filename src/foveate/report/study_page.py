"""The page of a study."""

from collections.abc import Mapping, Sequence
from typing import Any

from foveate.counts import plural
from foveate.metrics import wilson_ends
from foveate.report import study_plots as plots
from foveate.report.html import duration, interval, percent
from foveate.report.sections import (
    Card,
    Code,
    Column,
    Fact,
    Grid,
    Page,
    Plot,
    Section,
    Table,
    Text,
    numbers,
    record_section,
    settings_table,
    small,
)
from foveate.tuning.hyperparameters import Hyperparameter
from foveate.tuning.trials import Trial

_MOST_BRACKETS = 12
"""Brackets that are listed one by one."""


def study_page(
    *,
    title: str,
    subtitle: str,
    trials: Sequence[Trial],
    brackets: Sequence[Sequence[tuple[int, int]]],
    about: bool = False,
    hyperparameters: Mapping[str, Hyperparameter],
    importance: Sequence[tuple[str, float]],
    best: Trial | None,
    ranking: int,
    too_high: str,
    metric: str = "accuracy",
    halved: bool,
    first_size: int | None = None,
    seconds: float,
    worked: float,
    epochs: int,
    settings: Mapping[str, Any],
    environment: Mapping[str, Any],
    train: str,
    tested: bool = True,
) -> Page:
    """What a study found.

    Args:
        brackets: the plan: (trials, epochs) of every rung.
        about: whether more or fewer trials may go on than the plan says.
        importance: of each hyperparameter, the most important first; may be empty.
        ranking: the images that rank trials.
        too_high: by how much the best score is too good, in words; may be empty.
        metric: what trials are ranked by, in words.
        halved: whether the validation images that rank trials are others than those that stop them.
        first_size: pixels of the images in first rungs; None: as in all others.
        seconds: that it ran.
        worked: of that, the share that workers had a job.
        epochs: of all trials together.
        train: the command that trains the winner.
        tested: whether that opens a test split in the end.
    """
    finished, failed = (sum(trial.state == state for trial in trials) for state in ("finished", "failed"))
    score = best.score if best else None
    # Other scores are no shares of these images.
    bounds = None if score is None or metric != "accuracy" else wilson_ends(round(score * ranking), ranking)
    on = (
        f"of {ranking:,} images that rank trials and stop none"
        if halved
        else f"of all {ranking:,} validation images"
    )
    chosen = [
        *([f"95\u00a0%: {interval(bounds)}, without the choice"] if bounds else []),
        on,
        *([f"trial {best.number}"] if best else []),
        *([too_high] if too_high else []),
    ]
    facts = [
        Fact(f"Best {metric}", percent(score), "; ".join(chosen), bounds),
        Fact("Trials", str(len(trials)), f"{finished} to the last epoch, {failed} failed"),
        Fact("Epochs", f"{epochs:,}", "of all jobs together"),
        Fact("Time", duration(seconds), f"workers had a job {percent(worked)} of it"),
    ]
    sections = [
        _winner(best, train, tested=tested),
        _search(
            trials,
            brackets,
            first_size,
            hyperparameters,
            importance,
            best.number if best else None,
            about=about,
            metric=metric,
        ),
        _trials(trials, list(hyperparameters), best, metric),
        record_section("study", "study.yaml", settings, environment),
    ]
    return Page(title, subtitle, sections, facts)


def _winner(best: Trial | None, train: str, *, tested: bool) -> Section:
    if best is None:
        return Section("winner", "Winner", "The winner", [Text("None: no trial ended well.", note=True)])
    note = "The best of many scores is a little too good: it was chosen for being high. " + (
        "The test split gives an unbiased value, once, after this command has trained the winner on training and "
        "validation images together:"
        if tested
        else "This data has no test split, which would give an unbiased value. This command trains the winner:"
    )
    caption = f"Trial {best.number}, trained for {plural(best.epochs, 'epoch')}; all its settings are in best.yaml"
    bodies = [Code(train), Card("", [settings_table(caption, best.settings)])]
    return Section("winner", "Winner", "The winner", bodies, note)


def _search(
    trials: Sequence[Trial],
    brackets: Sequence[Sequence[tuple[int, int]]],
    first_size: int | None,
    hyperparameters: Mapping[str, Hyperparameter],
    importance: Sequence[tuple[str, float]],
    best: int | None,
    *,
    about: bool,
    metric: str,
) -> Section:
    then = ", about " if about else ", "
    note = " ".join(
        f"Bracket {number}: {then.join(f'{count} to epoch {epochs}' for count, epochs in bracket)}."
        for number, bracket in enumerate(brackets[:_MOST_BRACKETS])
    )
    if len(brackets) > _MOST_BRACKETS:
        note += f" So on, to bracket {len(brackets) - 1}."
    if first_size is not None:
        note += (
            f" Where another rung follows, the first one sees images of {first_size} px only: its scores are "
            "lower, and are compared with each other alone."
        )
    curves = Plot(
        "rung_curves",
        "How the trials learned",
        f"Line chart of {metric} over epochs, a line for each of {len(trials)} trials; the scores are in the "
        "table of trials",
        "A line is a trial, and ends where its training ended; one that was promoted and began anew has several. "
        "At the dotted lines a rung ends, and only the best are promoted. The best trial is orange.",
        plots.rung_curves(trials, sorted({epochs for bracket in brackets for _, epochs in bracket}), best, metric),
    )
    mattered = (
        None
        if not importance
        else Plot(
            "knob_importance",
            "What mattered",
            f"Bar chart of the importance of each hyperparameter: {importance[0][0]} has the largest",
            f"How much worse a random forest predicts a trial’s {metric} when a hyperparameter’s values are "
            "shuffled among the trials (permutation importance), as shares of the sum. With few trials it says "
            "little.",
            plots.importance_bars(importance),
        )
    )
    timeline = Plot(
        "worker_timeline",
        "Who worked when",
        "Timeline of the jobs of each worker",
        "A bar is a job, stronger on a higher rung; orange ones failed. White is waiting.",
        plots.worker_timeline(trials),
    )
    lines = Plot(
        "parallel_coordinates",
        f"Settings and {metric}",
        f"Parallel coordinates of the hyperparameters of each trial and its {metric}; every value is in the "
        "table of trials",
        "A line is a trial, stronger for a higher rank; orange is the best. Below an axis lie trials that do "
        "not have the hyperparameter. Scores are those of each trial’s last rung, so after few epochs as "
        "well as after many.",
        plots.parallel_coordinates(trials, hyperparameters, best, metric),
    )
    return Section("search", "Search", "The search", [Grid([curves, mattered, timeline]), lines], note)


def _trials(trials: Sequence[Trial], names: Sequence[str], best: Trial | None, metric: str) -> Section:
    ranked = sorted(trials, key=lambda trial: (trial is not best, -trial.epochs, -(trial.score or 0)))
    rows = []
    for trial in ranked:
        state = small(trial.state, trial.reason or "")
        values = [plots.value_text(trial.settings[name]) if name in trial.settings else "–" for name in names]
        counts = [percent(trial.score), str(trial.epochs), str(trial.bracket)]
        rows.append([str(trial.number), state, *counts, *values])
    columns = [*numbers("Trial"), Column("State"), *numbers(metric.capitalize(), "Epochs", "Bracket")]
    columns += [Column(name, "shape") for name in names]
    caption = "The longest trained first; also in tune_results.csv"
    return Section(
        "trials", "Trials", "Every trial", [Card("", [Table("Every trial", columns, rows, caption, tall=True)])]
    )
