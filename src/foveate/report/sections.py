"""A page as typed data: its sections, and what stands in them. `html` gives all of it one look.

A text is a `str`, which is escaped, or a `Markup`, which has emphasis or code in it. None in place of a section or
of a body leaves it out.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import matplotlib.figure
from markupsafe import Markup, escape


class Body:
    """What a section consists of: one of the classes below, each of which has a macro in `base.html`."""


@dataclass(frozen=True)
class Text(Body):
    """A paragraph; a `note` is set smaller and in grey."""

    text: str
    note: bool = False


@dataclass(frozen=True)
class Code(Body):
    """A command in a block of its own."""

    text: str


@dataclass(frozen=True)
class Bullets(Body):
    """A list of sentences."""

    items: Sequence[str]


@dataclass(frozen=True)
class Column:
    """A column of a table, and the CSS classes of its cells: `n` for numbers, `break` for text of any length."""

    title: str
    kind: str = ""


def numbers(*titles: str) -> list[Column]:
    """Columns of numbers."""
    return [Column(title, "n") for title in titles]


@dataclass(frozen=True)
class Table(Body):
    """Rows of text. The first cell heads its row; a row of one cell heads the rows below it."""

    label: str
    """The text that a screen reader reads out."""
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    footer: Sequence[str] = ()
    """The sums below the columns; the first spans those that have none."""
    tall: bool = False
    """Whether it scrolls beyond a certain height."""


@dataclass(frozen=True)
class Plot(Body):
    """A figure, in the page as SVG and beside it as `name`.png."""

    name: str
    title: str
    alt: str
    """The figure in words, for who cannot see it."""
    caption: str
    figure: matplotlib.figure.Figure


@dataclass(frozen=True)
class Picture:
    """PNGs with their texts, one above the other, over a caption."""

    images: Sequence[tuple[bytes, str]]
    caption: str


@dataclass(frozen=True)
class Pictures(Body):
    """Pictures side by side, as many as fit."""

    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Details(Body):
    """What a click opens."""

    summary: str
    bodies: Sequence[Body]


@dataclass(frozen=True)
class Card(Body):
    """A frame; without a title where its content has one."""

    title: str
    bodies: Sequence[Body | None]


@dataclass(frozen=True)
class Grid(Body):
    """Cards and plots side by side where the screen is wide."""

    bodies: Sequence[Body | None]


@dataclass(frozen=True)
class Section:
    """A part of a page, which the navigation leads to."""

    id: str
    nav: str
    title: str
    bodies: Sequence[Body | None]
    note: str = ""


@dataclass(frozen=True)
class Fact:
    """One of the figures that head a page, with its interval as shares of 1 where it has one."""

    name: str
    value: str
    note: str
    interval: Sequence[float] | None = None


@dataclass(frozen=True)
class Page:
    """A page as a whole."""

    title: str
    subtitle: str
    sections: Sequence[Section | None]
    facts: Sequence[Fact | None] = ()

    @property
    def plots(self) -> list[Plot]:
        """All of them, in their order."""
        return list(chain.from_iterable(_plots(section.bodies) for section in self.sections if section))


def _plots(bodies: Iterable[Body | None]) -> Iterable[Plot]:
    for body in bodies:
        if isinstance(body, Plot):
            yield body
        elif isinstance(body, Card | Grid | Details):
            yield from _plots(body.bodies)


def code(text: str) -> Markup:
    """A name or a command within a text."""
    return Markup("<code>{}</code>").format(text)


_COMMAND = re.compile(r"(?<![^\s(])`([^`]+)`(?=[\s.,:;)]|$)")


def prose(text: str) -> Markup:
    """A sentence in which messages put commands between backticks, as they do on a terminal."""
    if isinstance(text, Markup):
        return text
    parts = _COMMAND.split(text)  # every second one is what the pattern's group holds
    return Markup("").join(code(part) if place % 2 else escape(part) for place, part in enumerate(parts))


_AFTER = re.compile(
    r"(?<=\w[/;|×])(?=[\w\[{(])|(?<=[\]}])(?=[\w\[{(])|(?<=[,.:])(?=[^\W\d]|[\[{(])|(?<=[a-z])(?=[A-Z])|(?<=\dT)(?=\d)"
)
"""Where a line may end: never within a number."""
_WITHIN = re.compile(r"(?<=[=_])(?=[\w\[{(])")
_LONGEST, _PIECE = 24, 16


def breakable(text: str) -> Markup:
    """A text for a narrow cell: a line may end after a comma, a slash and the like, and within very long words.

    A browser itself ends a line nowhere within `minute,attention=none`, or else after any letter of it.
    """
    if isinstance(text, Markup):
        return text
    parts: list[str] = []
    for part in _AFTER.split(text):
        for piece in _WITHIN.split(part) if _too_long(part) else [part]:
            step = _PIECE if _too_long(piece) else max(len(piece), 1)
            parts += [piece[at : at + step] for at in range(0, len(piece), step)]
    return Markup("<wbr>").join(parts)


def _too_long(text: str) -> bool:
    return max(map(len, text.split()), default=0) > _LONGEST


def isolated(name: str) -> Markup:
    """A name within a text: one written from right to left does not turn around what stands beside it."""
    return Markup("<bdi>{}</bdi>").format(name)


def small(text: str, note: str) -> Markup:
    """A cell with a second, smaller line where there is something to note."""
    noted = prose(note) if "`" in note else breakable(note)
    return Markup("{}<small>{}</small>").format(breakable(text), noted) if note else breakable(text)


def settings_table(caption: str, values: Mapping[str, Any], *, tall: bool = False) -> Table:
    """Nested settings as a table of dotted names; mappings in a list are numbered from 1."""
    columns = [Column("Name"), Column("Value", "break")]
    return Table(
        caption,
        columns,
        [[Markup("<code>{}</code>").format(breakable(name)), text] for name, text in _flat(values)],
        caption,
        tall=tall,
    )


def openings_table(openings: Iterable[tuple[str, str]]) -> Table:
    """Each time that the test split was opened: (time, command)."""
    rows = [[time, code(command)] for time, command in openings]
    return Table("Looks at the test split", [Column("When", "shape"), Column("By", "break")], rows)


def record_section(
    thing: str,
    file: str,
    settings: Mapping[str, Any],
    environment: Mapping[str, Any],
    *,
    command: str = "",
    note: str = "",
) -> Section:
    """The end of a page: what it takes to make the thing again."""
    cards = [
        Card("Settings", [settings_table(f"As resolved; also in {file}", settings, tall=True)])
        if settings
        else None,
        Card("Environment", [settings_table("Machine and versions; also in env.json", environment)])
        if environment
        else None,
    ]
    lede = f"What it takes to reproduce this {thing}.{note}"
    return Section("record", "Record", "Record", [Code(command) if command else None, Grid(cards)], lede)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif isinstance(value, Sequence) and any(isinstance(item, Mapping) for item in value):
            yield from _flat({str(number): item for number, item in enumerate(value, 1)}, f"{name}.")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            yield name, ", ".join(map(str, value))
        else:
            # By identity: 1 == True, but a seed of 1 is not "yes".
            yield (
                name,
                "–" if value is None else "yes" if value is True else "no" if value is False else str(value),
            )
