"""The closest of the names that are known, for a message about one that is not; no torch here."""

import difflib
from collections.abc import Iterable

_MOST_LISTED = 20
"""Names that a message lists: more cannot be read in one line."""
_OTHER_NAMES = {
    "batch_size": "batch",
    "cutmix": "augmentations",
    "degrees": "rotation",
    "early_stopping": "patience",
    "image_size": "size",
    "img_size": "size",
    "imgsz": "size",
    "learning_rate": "lr",
    "lr0": "lr",
    "mixup": "augmentations",
    "num_epochs": "epochs",
    "pretrained": "weights",
    "translate": "shift",
    "val_split": "val_fraction",
    "validation_split": "val_fraction",
}
"""What other trainers call a setting."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message about a `name` that is not `known`: the closest that is, else all or some of them."""
    names = sorted(known)
    if close := close_to(name, names):
        return close
    if len(names) <= _MOST_LISTED:
        return f"; known are {', '.join(names)}"
    similar = difflib.get_close_matches(str(name)[:100], names, n=5, cutoff=0)
    return f"; the most similar of {len(names)} are {', '.join(similar)}"


def close_to(name: object, known: Iterable[str]) -> str:
    """The end of a message that names the closest of `known`; empty where none is close."""
    found = closest(name, known)
    return "" if found is None else f"; did you mean {found!r}?"


def closest(name: object, known: Iterable[str]) -> str | None:
    """The closest of `known`, whether its letters are large or small; None where none is close."""
    names = {each.lower(): each for each in known}
    if (other := _OTHER_NAMES.get(str(name))) in names:
        return other
    # .65 of the letters in common: below, names are suggested that have nothing to do with what was meant.
    close = difflib.get_close_matches(str(name)[:100].lower(), names, n=1, cutoff=0.65)
    return names[close[0]] if close else None
