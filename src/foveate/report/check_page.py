"""The page of a checked data set, and its plots."""

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import NDArray

from foveate.data.findings import Finding
from foveate.report.html import png
from foveate.report.plots import BLUE, INK, MUTED, ORANGE, new_axes, rows_axes, shorten, styled
from foveate.report.sections import Card, Grid, Page, Picture, Pictures, Plot, Section, Text, code

GROUPS_SHOWN = 12
"""Of each finding, with pictures."""
EACH_SHOWN = 6
"""Of each group."""
_SEVERITIES = {"error": "Error", "warning": "Warning", "info": "Information"}
_MOST_CLASSES = 40

Pixels = NDArray[np.uint8]


def check_page(
    *,
    title: str,
    subtitle: str,
    counts: Mapping[str, Mapping[str, int]],
    findings: Sequence[Finding],
    pictures: Mapping[str, Pixels],
    sheet: Mapping[str, Pixels],
) -> Page:
    """What was found in a data set.

    Args:
        counts: images by split and class.
        pictures: [H, W, 3] by id; what cannot be read has none.
        sheet: rows of images [N, H, W, 3], by family of augmentation; may be empty.
    """
    kinds = {finding.kind: [each for each in findings if each.kind == finding.kind] for finding in findings}
    cards = [_kind(of_kind, pictures) for of_kind in kinds.values()]
    classes, half = len(next(iter(counts.values()))), _MOST_CLASSES // 2
    bars = Plot(
        "classes",
        "Images of every class"
        if classes <= _MOST_CLASSES
        else f"Images of the {half} largest and the {half} smallest of {classes:,} classes",
        "Bar chart of the number of images of each class and split; every value is in check.json",
        "Images that can be read, as declared; images of “all” are split when they are trained on.",
        class_counts(counts),
    )
    sections: list[Section | None] = [
        Section(
            "findings",
            "Findings",
            "Findings",
            cards or [Text("No problems found.", note=True)],
            "An error makes a measured value wrong; a warning may; information needs no action. Every finding, "
            "with all its images, is in check.json. A picture shows what a network would see of the image.",
        ),
        Section("classes", "Classes", "Classes", [Grid([bars])]),
    ]
    if sheet:
        caption = Markup(
            "The row below “as they are” is what the preset does, unless it does not augment; the others are the "
            "families of {}, each alone, at the strength that is set."
        ).format(code("augment.augmentations"))
        alt = "The same images as they are, and after each family of augmentation"
        plot = Plot("augment", "What training may make of an image", alt, caption, contact_sheet(sheet))
        sections.append(Section("augmentation", "Augmentation", "Augmentation", [plot]))
    return Page(title, subtitle, sections)


def _kind(findings: Sequence[Finding], pictures: Mapping[str, Pixels]) -> Card:
    """All findings of one kind."""
    bodies = [body for finding in findings for body in _finding(finding, pictures)]
    return Card(f"{_SEVERITIES[findings[0].severity]}: {findings[0].title}", bodies)


def _finding(finding: Finding, pictures: Mapping[str, Pixels]) -> list[Text | Pictures]:
    bodies: list[Text | Pictures] = [Text(finding.text if finding.text.endswith(".") else f"{finding.text}.")]
    shown = []
    for number, group in enumerate(finding.groups[:GROUPS_SHOWN], start=1):
        of_group = f"group {number} ({len(group)} images)" if len(group) > 1 else ""
        for each in group[:EACH_SHOWN]:
            notes = [note for note in (finding.remarks.get(each), of_group) if note is not None and note]
            small = Markup("").join(Markup("<small>{}</small>").format(note) for note in notes)
            caption = Markup('<span class="break">{}</span>{}').format(each, small)
            shown.append(Picture([(png(pictures[each]), "")] if each in pictures else [], caption))
    if shown:
        bodies.append(Pictures(shown))
    if (more := len(finding.groups) - GROUPS_SHOWN) > 0:
        bodies.append(Text(f"{more:,} more are in check.json.", note=True))
    return bodies


@styled()
def class_counts(counts: Mapping[str, Mapping[str, int]]) -> Figure:
    """Images of every class, a bar a split; of many classes the smallest and the largest."""
    names = list(next(iter(counts.values())))
    names.sort(key=lambda name: -sum(of_split[name] for of_split in counts.values()))
    if len(names) > _MOST_CLASSES:
        names = [*names[: _MOST_CLASSES // 2], *names[-_MOST_CLASSES // 2 :]]
    figure, axes = rows_axes([shorten(name) for name in names], "Images", inches=0.24)
    left = np.zeros(len(names))
    for (split, of_split), colour in zip(counts.items(), (BLUE, ORANGE, INK, MUTED), strict=False):
        values = np.array([of_split[name] for name in names])
        axes.barh(range(len(names)), values, left=left, height=0.7, color=colour, label=split)
        left += values
    axes.locator_params(axis="x", integer=True)  # there is no half image
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4)
    return figure


@styled()
def contact_sheet(rows: Mapping[str, Pixels]) -> Figure:
    """Images [N, H, W, 3] side by side, a row under each name."""
    images = np.stack(list(rows.values()))  # [R, N, H, W, 3]
    gap = max(1, images.shape[2] // 16)
    framed = np.pad(images, [(0, 0), (0, 0), (0, gap), (0, gap), (0, 0)], constant_values=255)
    down, across, side = framed.shape[:3]
    figure, axes = new_axes(0.62 * down)
    axes.imshow(framed.swapaxes(1, 2).reshape(down * side, across * side, 3), interpolation="nearest")
    axes.set_yticks([(place + 0.5) * side - gap / 2 for place in range(down)], list(rows), color=INK)
    axes.set(xticks=[])
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    return figure
