"""Maps of where a network looks, and what they are worth, to one HTML file that loads nothing."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveate.inference.explanation import Map, overlay
from foveate.inference.faithfulness import CONTROLS, NAMES, Verdict
from foveate.report.html import render_template

__all__ = ["ExplainedImage", "png", "png_of_map", "render_explanation"]

SHOWN = 224
"""Pixels along a side of a picture, at least."""


@dataclass(frozen=True)
class ExplainedImage:
    """An image and its maps."""

    id: str
    shown: bytes
    """PNG of what the network sees."""
    maps: dict[str, bytes]
    """PNG of the image with the map over it, by method."""
    classes: list[tuple[str, float]]
    """The likeliest, with their probabilities."""
    of_class: str
    """Whose evidence the maps show."""
    note: str = ""


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Pixels [H, W, 3], enlarged so that each can be seen."""
    buffer = io.BytesIO()
    _enlarged(pixels).save(buffer, format="png")
    return buffer.getvalue()


def png_of_map(pixels: NDArray[np.uint8], values: Map) -> bytes:
    """The image with a map over it, enlarged smoothly."""
    image = _enlarged(pixels)
    large = np.asarray(Image.fromarray(values).resize(image.size, Image.Resampling.BILINEAR))
    buffer = io.BytesIO()
    Image.fromarray(overlay(np.asarray(image), large)).save(buffer, format="png")
    return buffer.getvalue()


def render_explanation(
    *, title: str, subtitle: str, images: Sequence[ExplainedImage], verdicts: Sequence[Verdict], hint: str
) -> str:
    """The page.

    Args:
        hint: what to do to learn what the maps are worth, where there is no verdict.
    """
    return render_template(
        "explain.html",
        {},
        page={"title": title, "subtitle": subtitle},
        images=images,
        verdicts=verdicts,
        names=NAMES,
        controls=CONTROLS,
        hint=hint,
    )


def _enlarged(pixels: NDArray[np.uint8]) -> Image.Image:
    times = -(-SHOWN // pixels.shape[0])
    return Image.fromarray(np.repeat(np.repeat(pixels, times, axis=0), times, axis=1))
