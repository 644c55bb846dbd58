"""The part of a run's page that says how good the model is."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup

from foveate.data.folds import OUT_OF_FOLD
from foveate.report.caveats import few_images_told, undefined, uneven_told
from foveate.report.html import interval, metric, percent, sentence
from foveate.report.sections import Card, Column, Section, Table, Text, code, numbers, small
from foveate.training.measured import Measured

METRICS = {
    "": {
        "loss": ("Loss", "mean cross-entropy in nats"),
        "accuracy": ("Accuracy", "images classified correctly"),
        "balanced_accuracy": ("Balanced accuracy", "mean recall of the classes that have images"),
    },
    "Macro average over classes, by argmax": {
        "macro_precision": ("Precision", "of the predictions of a class, those that are right"),
        "macro_recall": ("Recall", "of the images of a class, those that are found"),
        "macro_f1": ("F1", "harmonic mean of the two, for each class"),
    },
    "Micro average at a threshold of 0.5, as in Keras": {
        "thresholded_micro_precision": ("Precision", "of all class scores above 0.5, those of the true class"),
        "thresholded_micro_recall": ("Recall", "images whose true class scores above 0.5"),
        "thresholded_micro_f1": ("F1", "harmonic mean of these two"),
    },
    "Calibration": {
        "expected_calibration_error": ("Calibration error", "expected, 15 equal-width bins of confidence")
    },
}
"""Every metric of a report by family: its key, its name, what it is."""

PAPER_TABLE = {
    "loss": (0.467, None),
    "accuracy": (0.854, (0.847, 0.861)),
    "thresholded_micro_precision": (0.900, None),
    "thresholded_micro_recall": (0.823, None),
    "macro_f1": (0.855, None),
}
"""Figure 4.1 of the paper, 10,000 test images; the interval is Wilson's and ours, the paper gives none."""
_PAPER_EPOCHS = 45

MOST_LISTED = 100
"""Rows of a list that may be as long as the data set (bad images, groups); the count is always whole."""
_VARIANTS = {"attention taken out": "attention ablated"}
"""Keys of `metrics.json`, which keep the names that they always had, in the words of the page."""


def measured_cell(scores: Any, key: str) -> Markup:
    """A metric over its interval, of anything that has both."""
    value, bounds = getattr(scores, key), scores.intervals.get(key)
    if undefined(key, value, bounds):
        return small("–", "no score is above 0.5")
    return small("–" if value is None else metric(value, key), interval(bounds, key) if bounds else "")


def uneven_line(report: Measured, *, balanced: bool = False) -> str | None:
    """A line where the classes that were measured are uneven, as `uneven_told`."""
    images = {name: each.support for name, each in report.per_class.items()}
    return uneven_told(images, balanced=balanced)


def results_section(
    reports: Mapping[str, Measured], split: str, *, paper: bool, epochs: int, balanced: bool = False
) -> Section:
    """Every metric with its interval, beside the paper's in a run of the paper; and what else was measured.

    Where the classes are uneven, the recall of each comes first.

    Args:
        split: the one that comes first, of which there is more.
        epochs: that were trained.
        balanced: whether training counted all classes the same.
    """
    lead = reports[split]
    ordered = {split: lead, **reports}
    note = (
        "The 95 % interval is below each value: Wilson’s for shares of images, a Bayesian bootstrap over images "
        "for the rest. Where every image is right, the lower end lies below all the same: the next may be wrong."
    )
    if (folds := reports.get(OUT_OF_FOLD)) is not None and folds.groups:
        note += (
            " Those of all out-of-fold images are over groups: a bootstrap of whole groups, or Wilson’s where that"
            " is wider. They hold for groups that were not seen."
        )
    # Of the split of the headline alone: what another one tells must not be read as a word on that figure.
    told = few_images_told(split, lead.n, lead.intervals["accuracy"], lead.most_folds)
    warnings: list[str] = [] if told is None else [Markup("<strong>{}</strong>").format(sentence(told))]
    columns = [
        Column(small(name.capitalize(), f"{each.n:,} images"), "n strong") for name, each in ordered.items()
    ]
    if paper:
        columns = [Column(small("Paper", "test"), "n paper")]
        columns += [Column(small("Ours", name), "n strong") for name in ordered]
        note += (
            " The paper’s precision and recall fit the thresholded micro family and its F1 the macro family; it "
            "names neither, and gives no intervals (that of its accuracy is computed here from 10,000 images)."
        )
        if "test" not in reports:
            opens = code("foveate evaluate RUN --final")
            told = f"The paper’s column is the test split; this run was measured on {split} only."
            warnings.append(Markup("<strong>{}</strong> The test split is opened by {}.").format(told, opens))
        if epochs != _PAPER_EPOCHS:
            told = f"The paper trained for {_PAPER_EPOCHS} epochs, this run for {epochs}."
            warnings.append(Markup("<strong>{}</strong>").format(told))
    rows: list[list[str]] = []
    for family, metrics in METRICS.items():
        rows += [[family]] if family else []
        for key, (name, meaning) in metrics.items():
            value, bounds = PAPER_TABLE.get(key, (None, None))
            theirs = "–" if value is None else small(metric(value, key), interval(bounds, key) if bounds else "")
            ours = [measured_cell(report, key) for report in ordered.values()]
            rows.append([small(name, meaning), *([theirs] if paper else []), *ours])
    uneven = uneven_line(lead, balanced=balanced)
    bodies = [
        Text(Markup("<strong>{}</strong>.").format(uneven), note=True) if uneven else None,
        _recalls(lead, split) if uneven else None,
        *(Text(warning, note=True) for warning in warnings),
        Card("", [Table("Results", [Column("Metric"), *columns], rows)]),
        _variants(lead, split) if lead.variants else None,
        _corruptions(lead, split),
        _groups(lead, split) if lead.groups else None,
    ]
    return Section("results", "Results", "Figure 4.1, the paper’s and ours" if paper else "Results", bodies, note)


def _recalls(lead: Measured, split: str) -> Card:
    ranked = sorted(lead.per_class.items(), key=lambda item: (item[1].recall is None, item[1].recall))
    rows = [[name, f"{scores.support:,}", measured_cell(scores, "recall")] for name, scores in ranked]
    columns = [Column("Class", "break"), *numbers("Images", "Recall")]
    table = Table("Recall of each class", columns, rows, "Lowest first", tall=True)
    return Card(f"Recall of each class, {split}", [table])


def _variants(lead: Measured, split: str) -> Card:
    gate = (
        ""
        if lead.gate is None
        else f"; the gate of the attention is {lead.gate:+.3f}, and 0 would be no attention"
    )
    rows = [["As they are", measured_cell(lead, "accuracy"), measured_cell(lead, "loss")]]
    for name, scores in lead.variants.items():
        rows.append(
            [
                _VARIANTS.get(name, name).capitalize(),
                measured_cell(scores, "accuracy"),
                metric(scores.loss, "loss"),
            ]
        )
    columns = [Column("How"), *numbers("Accuracy", "Loss")]
    table = Table("Measured another way", columns, rows, f"The same images and weights{gate}")
    return Card(f"Measured another way, {split}", [table])


def _corruptions(lead: Measured, split: str) -> Card | None:
    if (found := lead.corruptions) is None:
        return None
    caption = (
        f"Accuracy of {found.images:,} images; as they are {percent(found.clean)}, on average over all kinds and "
        f"severities {percent(found.mean)}"
    )
    rows = [
        [kind.replace("_", " ").capitalize(), *map(percent, values), percent(float(np.mean(values)))]
        for kind, values in found.accuracy.items()
    ]
    columns = [Column("Corruption"), *numbers(*map(str, range(1, len(rows[0]) - 1)), "Mean")]
    return Card(f"Under corruptions, {split}", [Table("Accuracy under corruptions", columns, rows, caption)])


def _groups(lead: Measured, split: str) -> Card:
    ranked = sorted(lead.groups.items(), key=lambda item: item[1].accuracy)
    count = max(lead.group_count, len(ranked))
    rows = [
        [name, f"{scores.n:,}", *(measured_cell(scores, key) for key in ("accuracy", "macro_f1", "loss"))]
        for name, scores in ranked[:MOST_LISTED]
    ]
    more = f"; {MOST_LISTED} of {count:,} groups" if count > MOST_LISTED else ""
    columns = [Column("Group", "break"), *numbers("Images", "Accuracy", "F1, macro", "Loss")]
    caption = f"Lowest accuracy first{more}; the intervals are over the images of each group"
    table = Table("Results by group", columns, rows, caption, tall=True)
    return Card(f"By group, {split}", [table])
