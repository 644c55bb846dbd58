"""How long work is followed: a wrapper around an iterable, as the command line, a notebook or nobody wants it."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

__all__ = ["Track", "signs_of_life", "untracked"]

T = TypeVar("T")
_SAY_EVERY_S = 2.0
"""Seconds between two signs of life."""


class Track(Protocol):
    """Wraps `items` so that whoever follows the work sees it move; yields them unchanged, in order."""

    def __call__(self, items: Iterable[T], *, total: int, label: str, images_each: int = 1) -> Iterable[T]:
        """Follow `total` items; each stands for `images_each` images in the rate that is shown."""
        ...


def untracked(items: Iterable[T], *, total: int, label: str, images_each: int = 1) -> Iterator[T]:  # noqa: ARG001
    """Follow nothing: the default of the Python API."""
    yield from items


def signs_of_life(report: Callable[[Mapping[str, Any]], None]) -> Track:
    """Follows work by an empty report every so often, for whoever waits in another process."""
    said = time.monotonic()

    def track(items: Iterable[T], *, total: int, label: str, images_each: int = 1) -> Iterator[T]:  # noqa: ARG001
        nonlocal said
        for item in items:
            yield item
            if time.monotonic() - said >= _SAY_EVERY_S:
                report({})
                said = time.monotonic()

    return track
