"""Millions of texts, such as the paths of files, in a few tens of bytes each."""

import bisect
import itertools
from abc import abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import overload


class _MadeOnDemand(Sequence[str]):
    """Texts that are made each time they are asked for; equal to any other sequence of the same ones."""

    @abstractmethod
    def _text(self, place: int) -> str:
        """The text at a place from 0 on."""

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...

    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        """A text; of a slice, a view that copies nothing."""
        places = range(len(self))[index]
        return _View(self, places) if isinstance(places, range) else self._text(places)

    def __iter__(self) -> Iterator[str]:
        return map(self._text, range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str) or len(self) != len(other):
            return False
        return all(mine == its for mine, its in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


class _View(_MadeOnDemand):
    """Some of other texts, which keep them."""

    __slots__ = ("_places", "_texts")

    def __init__(self, texts: _MadeOnDemand, places: range) -> None:
        self._texts, self._places = texts, places

    def __len__(self) -> int:
        return len(self._places)

    def _text(self, place: int) -> str:
        return self._texts._text(self._places[place])


class Texts(_MadeOnDemand):
    """Texts kept as UTF-8 in one buffer; what stands up to the last slash is kept once for all that share it.

    A Python string takes 49 bytes beside its characters, and 8 in its list: a million paths of 60 characters take
    117 MB as a list, and 30 MB here, where they lie in a few folders and have names of 18 characters.

    Args:
        texts: the first ones; `append` adds others. Characters that stand for bytes that are not UTF-8 are kept.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._folders: list[str] = []
        self._numbers: dict[str, int] = {}
        self._folder = array("i")
        """Of each text, the place in `_folders` of what stands up to its last slash."""
        self._end = array("q")
        """Of each text, where its rest ends in `_rests`."""
        self._rests = bytearray()
        for text in texts:
            self.append(text)

    def append(self, text: str) -> None:
        """Add a text at the end."""
        cut = max(text.rfind("/"), text.rfind("\\")) + 1
        folder = text[:cut]
        number = self._numbers.get(folder)
        if number is None:
            number = self._numbers[folder] = len(self._folders)
            self._folders.append(folder)
        self._rests += text[cut:].encode("utf-8", "surrogatepass")
        self._folder.append(number)
        self._end.append(len(self._rests))

    def __len__(self) -> int:
        return len(self._end)

    def _text(self, place: int) -> str:
        rest = self._rests[self._end[place - 1] if place else 0 : self._end[place]]
        return self._folders[self._folder[place]] + rest.decode("utf-8", "surrogatepass")


class MadeTexts(_MadeOnDemand):
    """`count` texts, each made by a function of its place."""

    def __init__(self, count: int, make: Callable[[int], str]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    def _text(self, place: int) -> str:
        return self._make(place)


def row_names(parts: Sequence[tuple[str, int]], end: str = "") -> MadeTexts:
    """Names of rows: for each part (a text and a number of rows) the text, the row's number in it, and `end`."""
    starts = [0, *itertools.accumulate(count for _, count in parts)]

    def name(row: int) -> str:
        part = bisect.bisect_right(starts, row) - 1
        return f"{parts[part][0]}{row - starts[part]}{end}"

    return MadeTexts(starts[-1], name)
