"""Lines on how little some figures tell."""

from collections.abc import Mapping, Sequence

_UNEVEN = 10
"""Images of the largest class to those of the smallest from which accuracy says little of small classes."""
_WIDE = 0.05
"""Half the width of an interval of accuracy above which other images may give quite another figure."""


def wide(interval: Sequence[float]) -> bool:
    """Whether an interval of accuracy is so wide that the figure tells little."""
    return (interval[1] - interval[0]) / 2 > _WIDE


def few_images_told(split: str, images: int, interval: Sequence[float], folds: int) -> str | None:
    """A line on how little validation images, or those of all folds, tell by their accuracy's interval.

    None where it is narrow, and of other splits.

    Args:
        folds: how many can be drawn from train and validation; below 2: none.
    """
    if split not in ("validation", "out-of-fold") or not wide(interval):
        return None
    measured = f"{images:,} validation images" if split == "validation" else f"{images:,} images"
    told = f"{measured} tell only that the accuracy is between {interval[0]:.1%} and {interval[1]:.1%}: "
    if split != "validation" or folds < 2:
        return told + "only more images tell more"
    return told + f"train with --folds {folds}, which measures every image by a network that never saw it"


def undefined(metric: str, value: float | None, interval: Sequence[float] | None) -> bool:
    """Whether a metric is 0/0, though its record has a number: no score is above the threshold.

    Of all shares of none right, only that of nothing has an interval that ends at 1.
    """
    return metric == "thresholded_micro_precision" and value == 0 and interval is not None and interval[1] == 1


def uneven_told(images: Mapping[str, int], *, balanced: bool = False) -> str | None:
    """A line where the largest class has ten times the images of the smallest, or more; else None.

    Args:
        images: how many there are of each class.
        balanced: whether training counts all classes the same already.
    """
    present = {name: count for name, count in images.items() if count}
    largest, smallest = (pick(present, key=present.__getitem__, default="") for pick in (max, min))
    if len(present) < 2 or present[largest] < _UNEVEN * present[smallest]:
        return None
    line = (
        f"{largest} has {present[largest]:,} of these images, and {smallest} has {present[smallest]:,}: look at "
        "the recall of each class, as accuracy says little of the small ones"
    )
    return line if balanced else f"{line}; --set class_weights=balanced counts all classes the same in training"
