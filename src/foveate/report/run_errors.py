"""The parts of a run's page that say where the model is wrong, and what its confidence is worth."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from foveate.data.folds import OUT_OF_FOLD
from foveate.report import run_plots as plots
from foveate.report.abstaining import THRESHOLDS, Abstaining
from foveate.report.html import percent, sentence
from foveate.report.run_results import measured_cell
from foveate.report.sections import Card, Column, Details, Grid, Plot, Section, Table, Text, code, numbers, small
from foveate.training.measured import Measured

_MOST_CONFUSED = 8
_TABLE_THRESHOLDS = (50, 70, 90, 95, 99)
"""The `THRESHOLDS` that have a column."""


def errors_section(lead: Measured, split: str, *, fitted_on: str) -> Section:
    """Which classes are confused, and whether confidence is calibrated, on one split."""
    gap = percent(lead.expected_calibration_error)
    calibrated = lead.calibration and (
        f" With its logits divided by {lead.calibration['temperature']:.3f}, fitted on {fitted_on} and saved with "
        f"the model, {percent(lead.calibration['expected_calibration_error'])}; no prediction changes by that."
    )
    figures = [
        Plot(
            "confusion_matrix",
            "Confusion matrix",
            f"Confusion matrix of {len(lead.class_names)} classes; the largest confusions are listed in the "
            "table after it",
            "Rows are true classes, columns predictions. Blue is right: stronger is a larger share of the row. "
            "Orange is wrong: the strongest is the largest share of a row given to one wrong class.",
            plots.confusion_matrix(lead),
        ),
        Plot(
            "per_class",
            "Recall and precision per class",
            "Bar chart of recall and precision per class with 95 % intervals; every value is in the table per "
            "class",
            "Lowest F1 first; whiskers are 95 % intervals.",
            plots.per_class_bars(lead),
        ),
        Plot(
            "reliability",
            "Reliability of its confidence",
            f"Reliability diagram: accuracy against confidence; expected calibration error {gap}",
            f"Below the diagonal the model is overconfident, above it underconfident. On average the gap is {gap} "
            f"(expected calibration error).{calibrated or ''}",
            plots.reliability_diagram(lead),
        ),
    ]
    confused = _confused(lead)
    pairs = Table(
        "Most frequent confusions",
        [Column("True class", "break"), Column("Predicted as", "break"), *numbers("Images", "Share of its class")],
        confused,
    )
    every = Table(
        "Every class in numbers",
        [Column("Class", "break"), *numbers("Images", "Precision", "Recall", "F1")],
        [
            [name, f"{each.support:,}", *(measured_cell(each, key) for key in ("precision", "recall", "f1"))]
            for name, each in lead.per_class.items()
        ],
        tall=True,
    )
    perfect = Text("None: every image was classified correctly.", note=True)
    card = Card(
        "Most frequent confusions", [pairs if confused else perfect, Details("Every class in numbers", [every])]
    )
    where = f"all {lead.n:,} images" if split == "all" else f"the {lead.n:,} images of the {split} split"
    if split == OUT_OF_FOLD:
        where = f"the {lead.n:,} images of train and validation, each by a network that was trained without it"
    note = f"All of it on {where}."
    return Section("errors", "Errors", "Where it is right, where it is wrong", [Grid([*figures, card])], note)


def _confused(report: Measured) -> list[list[str]]:
    """The largest cells off the diagonal of the confusion matrix, largest count first."""
    names, matrix = report.class_names, np.array(report.confusion_matrix)
    supports = matrix.sum(axis=1)
    np.fill_diagonal(matrix, 0)
    cells = zip(*np.unravel_index(np.argsort(-matrix, axis=None, kind="stable"), matrix.shape), strict=True)
    return [
        [
            names[true],
            names[predicted],
            f"{matrix[true, predicted]:,}",
            percent(matrix[true, predicted] / supports[true]),
        ]
        for true, predicted in list(cells)[:_MOST_CONFUSED]
        if matrix[true, predicted]
    ]


def abstaining_section(found: Abstaining, *, fitted_on: str) -> Section:
    """How good the model is where it answers only what it is sure of: by share, class, threshold and sets."""
    everything, some = found.answered[0], found.answered[2]
    probabilities = (
        f"calibrated: their logits are divided by the temperature that was fitted on {fitted_on}"
        if found.calibrated
        else "those of softmax"
    )
    note = (
        f"If the model answers only the {100 * some.share:.0f} % of the images that it is surest of, "
        f"{percent(some.accuracy)} of its answers are right ({percent(some.interval[0])} to "
        f"{percent(some.interval[1])}); of all images, {percent(everything.accuracy)}. Probabilities are "
        f"{probabilities}.{f' {sentence(found.missing)}' if found.missing else ''}"
    )
    curve = Plot(
        "risk_coverage",
        "Accuracy over the share that is answered",
        "Line chart of accuracy over the share of images that is answered; its values are in the table after it",
        "The grey band is the 95 % interval, the dashed line the accuracy on all images.",
        plots.risk_coverage(*found.curve),
    )
    answered = Table(
        "Accuracy by the share that is answered",
        numbers("Answered", "Images", "From", "Accuracy"),
        [
            [
                f"{100 * each.share:.0f} %",
                f"{each.images:,}",
                np.format_float_positional(each.threshold, min_digits=3),
                _accuracy(each.accuracy, each.interval),
            ]
            for each in found.answered
        ],
    )
    hint = Markup("From: the lowest probability that is answered, for {}.").format(
        code("foveate predict --min-probability")
    )
    by_threshold = Plot(
        "thresholds",
        "Precision and recall over the threshold",
        "Line charts of precision and recall over the lowest probability that is answered, one for each class; "
        "values are in the table after it",
        "Of the images of a class that are answered with it, those that are right (precision); of all its "
        "images, those that are answered and right (recall).",
        plots.threshold_curves(found.classes),
    )
    classes = Table(
        "Precision and recall by threshold",
        [Column("Class", "break"), *numbers(*(f"≥ {THRESHOLDS[at]:g}" for at in _TABLE_THRESHOLDS))],
        [
            [
                each.name,
                *(small(percent(each.precision[at]), percent(each.recall[at])) for at in _TABLE_THRESHOLDS),
            ]
            for each in found.classes
        ],
        "Precision above, recall below, where only predictions of at least this probability are given",
        tall=True,
    )
    cards = [
        curve,
        Card("How much to answer", [Text(hint, note=True), answered]),
        by_threshold,
        Card("Precision and recall of every class", [classes]),
        _sets(found) if found.sets else None,
    ]
    return Section("abstaining", "Confidence", "If the model answers only what it is sure of", [Grid(cards)], note)


def _accuracy(share: float, ends: Sequence[float]) -> Markup:
    return small(percent(share), f"{percent(ends[0])} – {percent(ends[1])}")


def _sets(found: Abstaining) -> Card:
    fitted = ", on which nothing was fitted" if found.split == "test" else ""
    grouped = (
        "; images here come in groups, and those of one group are alike: for new groups it can be lower"
        if found.grouped
        else ""
    )
    note = Markup(
        "{} gives sets of classes. This is how often they contain the true class of the {} images{}. The "
        "promise is an average over draws of the calibration images{}. Where the validation images were also used "
        "to choose the epoch that was kept, the coverage can be slightly lower than promised."
    ).format(code("foveate predict --coverage"), found.split, fitted, grouped)
    rows = [
        [
            percent(each.asked),
            _accuracy(each.held, each.interval),
            f"{each.size:.2f}",
            small(f"{each.lowest[0]}: {percent(each.lowest[1])}", " – ".join(map(percent, each.lowest[2]))),
        ]
        for each in found.sets
    ]
    columns = [*numbers("Coverage asked", "Measured", "Classes in a set"), Column("Lowest class", "break")]
    return Card("Prediction sets", [Text(note, note=True), Table("Coverage of prediction sets", columns, rows)])
