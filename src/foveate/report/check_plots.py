"""The plots of a checked data set: how many images each class has, and what augmentation makes of some."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from foveate.report.plots import BLUE, INK, MUTED, ORANGE, new_axes, shorten, styled

__all__ = ["class_counts", "contact_sheet"]

_MOST_CLASSES = 40


def class_counts(counts: Mapping[str, Mapping[str, int]]) -> Figure:
    """Images of every class, a bar a split; of many classes the smallest and the largest."""
    names = list(next(iter(counts.values())))
    totals = {name: sum(of_split[name] for of_split in counts.values()) for name in names}
    names.sort(key=lambda name: -totals[name])
    if len(names) > _MOST_CLASSES:
        names = [*names[: _MOST_CLASSES // 2], *names[-_MOST_CLASSES // 2 :]]
    with styled():
        figure, axes = new_axes(1.0 + 0.24 * len(names))
        left = np.zeros(len(names))
        for (split, of_split), colour in zip(counts.items(), (BLUE, ORANGE, INK, MUTED), strict=False):
            values = np.array([of_split[name] for name in names])
            axes.barh(range(len(names)), values, left=left, height=0.7, color=colour, label=split)
            left += values
        axes.set_yticks(range(len(names)), [shorten(name) for name in names])
        axes.set(xlabel="Images", ylim=(len(names) - 0.5, -0.5))
        axes.grid(visible=False, axis="y")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4)
    return figure


def contact_sheet(rows: Mapping[str, NDArray[np.uint8]]) -> Figure:
    """Images [N, H, W, 3] side by side, a row under each name."""
    side, count = next(iter(rows.values())).shape[1], len(next(iter(rows.values())))
    gap = max(1, side // 16)
    sheet = np.full(((side + gap) * len(rows), (side + gap) * count, 3), 255, np.uint8)
    for down, images in enumerate(rows.values()):
        for across, image in enumerate(images):
            top, left = down * (side + gap), across * (side + gap)
            sheet[top : top + side, left : left + side] = image
    with styled():
        figure, axes = new_axes(0.62 * len(rows))
        axes.imshow(sheet, interpolation="nearest")
        axes.set_yticks([place * (side + gap) + side / 2 for place in range(len(rows))], list(rows), color=INK)
        axes.set(xticks=[])
        axes.spines[:].set_visible(False)
        axes.grid(visible=False)
    return figure
