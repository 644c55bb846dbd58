"""The page of a run, or of a model that was measured on other data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from foveate.counts import plural
from foveate.data.folds import OUT_OF_FOLD
from foveate.model.layers import LayerTable
from foveate.report import run_plots
from foveate.report.abstaining import Abstaining
from foveate.report.explanation_page import Explained, explained_section
from foveate.report.html import duration, interval, percent
from foveate.report.run_errors import abstaining_section, errors_section
from foveate.report.run_folds import folds_section
from foveate.report.run_results import MOST_LISTED, results_section, uneven_line
from foveate.report.sections import (
    Body,
    Bullets,
    Card,
    Column,
    Details,
    Fact,
    Grid,
    Page,
    Picture,
    Pictures,
    Plot,
    Section,
    Table,
    Text,
    code,
    numbers,
    openings_table,
    record_section,
    small,
)
from foveate.training.measured import Measured, ReceptiveField
from foveate.training.state import EpochResult

_MOST_LAYERS = 30
"""Rows of the table of layers beyond which it is folded: a backbone has a hundred, a third of the page."""
_MISTAKES = (
    "The wrong predictions with the highest confidence, as the model saw the images. Some labels may be wrong."
)


@dataclass(frozen=True)
class DatasetSummary:
    """The images, and what a model made of those that it was measured on."""

    name: str
    size: int
    """The side in pixels the model sees."""
    counts: Mapping[str, Mapping[str, int]]
    """By split and class."""
    bad: Sequence[tuple[str, str]] = ()
    """(id, reason) of images left out; the page lists the first of them."""
    notes: Sequence[str] = ()
    mistakes: Sequence[Picture] = ()
    """The most confident, the most confident first."""
    abstaining: Abstaining | None = None


@dataclass(frozen=True, kw_only=True)
class RunPage:
    """A run as its page shows it. What is left at its default is left out of the page."""

    title: str
    subtitle: str
    dataset: DatasetSummary
    reports: Mapping[str, Measured]
    """By split, only where measured; at least one."""
    history: Sequence[EpochResult] = ()
    """Rows of results.csv; `val_*` are None where nothing was held out."""
    best_epoch: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    timing: Mapping[str, float] = field(default_factory=dict)
    """`train_s`, `images_per_s`, `epochs`, `features_kept`."""
    layers: LayerTable | None = None
    attention: str = ""
    started_from: str = ""
    """The weights that training started from, in words."""
    test_openings: Sequence[tuple[str, str]] = ()
    """(time, command) of each time that the test split was opened."""
    explained: Explained | None = None
    """Where the run was explained."""
    paper: bool = False
    """The paper's preset on its data set: its figures stand beside the run's."""
    command: str = ""

    @property
    def counts_evenly(self) -> bool:
        """Whether training counted all classes the same, however many images they have."""
        train = self.settings.get("train", {})
        return train.get("class_weights") is not None or train.get("sampler") == "balanced"

    @property
    def lead(self) -> str:
        """The split that headlines and plots show."""
        return lead_split(self.reports)


def lead_split(reports: Mapping[str, Measured]) -> str:
    """Test where it was measured, else validation, else what there is."""
    return min(reports, key=lambda split: {"test": 0, "validation": 1}.get(split, 2))


def run_page(run: RunPage) -> Page:
    """All that there is to show of a run."""
    lead, size, layers, timing = run.reports[run.lead], run.dataset.size, run.layers, run.timing
    facts = []
    headline = [("Accuracy", run.lead, "accuracy"), ("F1", "macro", "macro_f1")]
    if uneven_line(lead) is not None and lead.balanced_accuracy is not None:
        headline = [("Balanced accuracy", run.lead, "balanced_accuracy"), headline[0]]
    for name, of, key in headline:
        bounds = lead.intervals[key]
        facts.append(Fact(f"{name}, {of}", percent(getattr(lead, key)), f"95\u00a0%: {interval(bounds)}", bounds))
    facts.append(Fact(f"Images, {run.lead}", f"{lead.n:,}", f"{len(lead.class_names)} classes, {size}×{size} px"))
    if layers:
        count = f"{layers.total / 1e6:.2f} M" if layers.total >= 1e6 else f"{layers.total:,}"
        facts.append(Fact("Parameters", count, f"{layers.trainable:,} trainable"))
    if timing:
        speed = f"{plural(int(timing['epochs']), 'epoch')}, {timing['images_per_s']:,.0f} images/s"
        if timing.get("features_kept"):
            speed = f"{plural(int(timing['epochs']), 'epoch')}, with features that were computed and kept before"
        facts.append(Fact("Training time", duration(timing["train_s"]), speed))
    fitted_on = "the out-of-fold answers" if OUT_OF_FOLD in run.reports else "validation"
    sections = [
        results_section(
            run.reports, run.lead, paper=run.paper, epochs=len(run.history), balanced=run.counts_evenly
        ),
        folds_section(run.reports[OUT_OF_FOLD]) if OUT_OF_FOLD in run.reports else None,
        _training(run) if run.history else None,
        errors_section(lead, run.lead, fitted_on=fitted_on),
        abstaining_section(run.dataset.abstaining, fitted_on=fitted_on) if run.dataset.abstaining else None,
        explained_section(run.explained) if run.explained else None,
        Section("mistakes", "Mistakes", "The most confident mistakes", [Pictures(run.dataset.mistakes)], _MISTAKES)
        if run.dataset.mistakes
        else None,
        _data(run, lead),
        _model(layers, run.attention, run.started_from, lead.receptive_field) if layers else None,
        record_section("run", "args.yaml", run.settings, run.environment, command=run.command),
    ]
    return Page(run.title, run.subtitle, sections, facts)


def _training(run: RunPage) -> Section:
    last, count = run.history[-1], len(run.history)
    if run.settings.get("train", {}).get("optimizer") == "logistic_regression":
        backbone, right = run.settings["model"]["backbone"], percent(last.train_accuracy)
        chosen = "chosen by the log-loss over folds within the training images"
        if last.strength_chosen is False:
            chosen = (
                "the middle of those it may be: folds could not choose it, as fewer than two classes have two "
                "training images, or two groups of them where images come in groups"
            )
        note = (
            f"The classifier is a multinomial logistic regression on the features of a frozen {backbone}, with "
            f"C = {last.lr:g}, {chosen}. It classifies {right} of the training images correctly, which says "
            "nothing about others."
        )
        return Section("curves", "Training", "Training", [], note)
    validated = last.val_accuracy is not None and last.val_loss is not None
    note = (
        plural(count, "epoch")
        + ("" if run.best_epoch is None else f"; the best on validation was epoch {run.best_epoch}")
        + ". Training values are means over the epoch, with dropout and augmentation on"
        + ("." if validated else "; nothing was held out for validation.")
    )
    train = run.settings.get("train", {})
    ways = [f"of labels smoothed by {smoothing:g}"] if (smoothing := train.get("label_smoothing") or 0) else []
    ways += ["weighted by class"] if train.get("class_weights") is not None else []
    ways += ["of classes shown equally often"] if train.get("sampler") == "balanced" else []
    smoothed = (
        f" The training loss is {' and '.join(ways)}, the validation loss is that of plain labels and of every "
        "image once: they are not to be compared."
        if ways
        else ""
    )

    def plot(name: str, figure: str, training: str, validation: str, curves: Any, more: str = "") -> Plot:
        ended = f"{training} in training" + (f" and {validation} in validation" if validated else "")
        title = f"{name.capitalize()} over epochs"
        return Plot(
            name,
            f"Figure {figure}: {name} over epochs" if run.paper else title,
            f"Line chart of {name} over {count} epochs, ending at {ended}",
            f"After the last epoch {ended}.{more}",
            curves(run.history, run.best_epoch),
        )

    accuracy = plot(
        "accuracy", "4.2", percent(last.train_accuracy), percent(last.val_accuracy), run_plots.accuracy_curves
    )
    losses = f"{last.train_loss:.3f}", f"{last.val_loss:.3f}" if validated else ""
    loss = plot("loss", "4.3", *losses, run_plots.loss_curves, smoothed)
    return Section("curves", "Training", "Training", [Grid([accuracy, loss])], note)


def _data(run: RunPage, lead: Measured) -> Section:
    dataset, counts, size = run.dataset, run.dataset.counts, run.dataset.size
    totals = {split: sum(classes.values()) for split, classes in counts.items()}
    images = ", ".join(f"{total:,} {split}" for split, total in totals.items())
    note = f"{dataset.name}: {images}; the model sees {size}×{size} pixels."
    classes = Table(
        "Images per class",
        [Column("Class", "break"), *numbers(*(split.capitalize() for split in counts))],
        [[name, *(f"{of_split.get(name, 0):,}" for of_split in counts.values())] for name in lead.class_names],
        footer=["All", *(f"{total:,}" for total in totals.values())],
        tall=True,
    )
    listed = f"; the first {MOST_LISTED} are listed" if len(dataset.bad) > MOST_LISTED else ""
    were = "was" if len(dataset.bad) == 1 else "were"
    bad = [
        Text(f"{len(dataset.bad):,} could not be read and {were} left out, never replaced{listed}.", note=True),
        Table(
            "Images left out",
            [Column("Image", "break"), Column("Reason", "break")],
            dataset.bad[:MOST_LISTED],
            tall=True,
        ),
    ]
    openings = openings_table(run.test_openings)
    if "test" not in run.reports:
        unopened = "None so far: no figure of this page was chosen or measured on it."
    elif run.settings:
        unopened = "This page measures it; the look is recorded in the model’s own run."
    else:
        unopened = "This page measures it; the look is recorded nowhere, as a model’s file has no record."
    cards = [
        Card("Images per class", [classes]),
        Card("Images left out", bad if dataset.bad else [Text("None: every image could be read.", note=True)]),
        Card("Looks at the test split", [openings if run.test_openings else Text(unopened, note=True)]),
    ]
    return Section("data", "Data", "Data", [Bullets(dataset.notes) if dataset.notes else None, Grid(cards)], note)


def _model(
    layers: LayerTable, attention: str, started_from: str, receptive_field: ReceptiveField | None
) -> Section:
    total = small(f"{layers.total:,}", f"{layers.trainable:,} trainable, {layers.non_trainable:,} not")
    table = Table(
        "Layers",
        [
            Column("Layer", "break"),
            Column("Type", "break"),
            Column("Output shape", "shape"),
            *numbers("Parameters"),
        ],
        [
            [code(layer.name), layer.kind, "×".join(map(str, layer.output_shape)), f"{layer.params:,}"]
            for layer in layers.rows
        ],
        footer=["All", total],
    )
    note = f"Attention: {attention}." if attention else ""
    if started_from:
        note += f" Training started from {started_from}."
    if layers.sight is not None:
        note += f" {layers.sight.words}"
        if receptive_field is not None:
            note += f" {_effective(receptive_field)}"
    shown: Body = table
    if len(layers.rows) > _MOST_LAYERS:
        note += f" It has {layers.total:,} parameters, of which {layers.trainable:,} are trainable."
        shown = Details(f"All {len(layers.rows)} layers", [table])
    return Section("model", "Model", "Model", [Card("", [shown])], note.strip())


def _effective(found: ReceptiveField) -> str:
    """A sentence on what the trained network does depend on."""
    without = found.effective_without_attention
    return (
        f"In the trained network the centre of the last feature maps depends on about {found.effective:.0f} × "
        f"{found.effective:.0f} px"
        + ("" if without is None else f", and on {without:.0f} × {without:.0f} px with the attention ablated")
        + f" (the effective receptive field, by the gradients of {plural(found.images, 'image')})."
    )
