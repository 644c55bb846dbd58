"""Maps of where a network looks and what they are worth: a page of its own, and a section of a run's page."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from foveate.inference.explanation import Map, overlay
from foveate.inference.faithfulness import CONTROLS, NAMES, Interval, Verdict
from foveate.records import Digest, Line, Name, Record, read_record
from foveate.report.html import percent
from foveate.report.html import png as to_png
from foveate.report.sections import (
    Card,
    Column,
    Details,
    Grid,
    Page,
    Picture,
    Pictures,
    Section,
    Table,
    Text,
    code,
    isolated,
    numbers,
    small,
)

SHOWN = 224
"""Pixels along a side of a picture, at least."""
_CURVES = (
    "While the pixels that a map points at are covered, the probability of the class should fall fast (deletion); "
    "while they are uncovered, it should rise fast (insertion)."
)

_Base64 = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]+={0,2}$", max_length=4 << 20)]


class ExplainedMistake(Record):
    """An image of the report's grid, right or wrong, and PNGs in base64: of it, and of the maps over it."""

    id: Name
    true: Name
    predicted: Name
    shown: _Base64
    maps: dict[Name, _Base64]


class Explained(Record):
    """What `foveate explain RUN` found, as `explanation.json` keeps it."""

    weights: Digest
    """Of the network that was explained."""
    command: Line
    verdicts: Annotated[tuple[Verdict, ...], Field(max_length=10)]
    grid: Annotated[tuple[ExplainedMistake, ...], Field(max_length=50)]


def read_explained(folder: Path, weights: str) -> Explained | None:
    """What was found of a run's network; None where nothing was, or of other weights.

    Raises:
        CheckpointError: when it is damaged.
    """
    path = folder / "explanation.json"
    if not path.exists():
        return None
    found = read_record(path, Explained, fix="remove it, and run `foveate explain` again")
    return found if found.weights == weights else None


@dataclass(frozen=True)
class ExplainedImage:
    """An image and its maps."""

    id: str
    shown: bytes
    """PNG of what the network sees."""
    maps: dict[str, bytes]
    """PNG of the image with the map over it, by method."""
    classes: list[tuple[str, float]]
    """The most probable, with their probabilities."""
    of_class: str
    """Whose evidence the maps show."""
    note: str = ""


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Pixels [H, W, 3], enlarged so that each can be seen."""
    times = -(-SHOWN // pixels.shape[0])
    return to_png(pixels.repeat(times, axis=0).repeat(times, axis=1))


def png_of_map(pixels: NDArray[np.uint8], values: Map) -> bytes:
    """The image with a map over it, enlarged smoothly."""
    times = -(-SHOWN // pixels.shape[0])
    image = pixels.repeat(times, axis=0).repeat(times, axis=1)
    large = Image.fromarray(values).resize(image.shape[1::-1], Image.Resampling.BILINEAR)
    return to_png(overlay(image, np.asarray(large)))


def explanation_page(
    *, title: str, subtitle: str, images: Sequence[ExplainedImage], verdicts: Sequence[Verdict], hint: str
) -> Page:
    """The page.

    Args:
        hint: how to measure what the maps are worth, shown where there is no verdict.
    """
    note = "Bright regions are those that a method says the network uses for the class that is named. "
    maps = Section(
        "maps",
        "Maps",
        "Where the network looks",
        [Card(image.id, _explained_bodies(image)) for image in images],
        note + ("What these maps are worth is below." if verdicts else hint),
    )
    worth = Section(
        "verdict",
        "Worth",
        "What these maps are worth",
        [_verdicts(verdicts)],
        f"{_CURVES} A map is worth something where both curves are better than those of maps that know nothing of "
        "the image.",
    )
    return Page(title, subtitle, [maps if images else None, worth if verdicts else None])


def explained_section(found: Explained) -> Section:
    """The verdicts in a run's page, and a grid of right and wrong images."""
    pictures = [
        Picture(
            [(base64.b64decode(each.shown), each.id)]
            + [(base64.b64decode(image), NAMES[method]) for method, image in each.maps.items()],
            Markup("{}, in truth {}").format(isolated(each.predicted), isolated(each.true))
            if each.predicted != each.true
            else each.predicted,
        )
        for each in found.grid
    ]
    note = Markup("Measured on validation images by {}. {}").format(code(found.command), _CURVES)
    title = "Where it looks, and whether that means anything"
    return Section("explained", "Maps", title, [_verdicts(found.verdicts), Pictures(pictures)], note)


def _explained_bodies(image: ExplainedImage) -> list[Pictures | Text]:
    seen = "what the network sees"
    pictures = [Picture([(image.shown, seen)], seen)]
    for method, content in image.maps.items():
        pictures.append(Picture([(content, f"{NAMES[method]} for {image.of_class}")], NAMES[method]))
    likely = Markup(", ").join(
        Markup("{} ({})").format(isolated(name), percent(probability)) for name, probability in image.classes
    )
    said = Markup("Maps for <b>{}</b>. The network predicts {}. {}").format(
        isolated(image.of_class), likely, image.note
    )
    return [Pictures(pictures), Text(said, note=True)]


def _verdicts(verdicts: Sequence[Verdict]) -> Grid:
    cards = []
    for verdict in verdicts:
        name = NAMES[verdict.method]
        against = Table(
            f"{name} against controls",
            [Column("Control"), *numbers("Deletion", "Insertion"), Column("It is")],
            [
                [CONTROLS[each.control], _mean(each.deletion, "+.3f"), _mean(each.insertion, "+.3f"), each.outcome]
                for each in verdict.against
            ],
            f"How much better its curves are than those of a control, over {verdict.images} images; 95 % "
            "intervals",
        )
        shuffled = Table(
            "Rank correlation with shuffled weights",
            [Column("Shuffled down to"), *numbers("Rank correlation with the true map")],
            [[each.layer, _mean(each.correlation, ".2f")] for each in verdict.shuffled],
        )
        more = Details("Maps of the network with its weights shuffled", [shuffled]) if verdict.shuffled else None
        cards.append(Card(name, [Text(verdict.words), against, more]))
    return Grid(cards)


def _mean(found: Interval, digits: str) -> Markup:
    return small(f"{found.mean:{digits}}", f"{found.low:{digits}} to {found.high:{digits}}")
