"""How long work is followed: a wrapper around an iterable, as the command line, a notebook or nobody wants it."""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

__all__ = ["Track", "untracked"]

T = TypeVar("T")


class Track(Protocol):
    """Wraps `items` so that whoever follows the work sees it move; yields them unchanged, in order."""

    def __call__(self, items: Iterable[T], *, total: int, label: str, images_each: int = 1) -> Iterable[T]:
        """Follow `total` items; each stands for `images_each` images in the rate that is shown."""
        ...


def untracked(items: Iterable[T], *, total: int, label: str, images_each: int = 1) -> Iterator[T]:  # noqa: ARG001
    """Follow nothing: the default of the Python API."""
    yield from items
