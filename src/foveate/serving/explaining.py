"""Where the network looked, as PNG: over the image, and alone, to be laid over a sharper one."""

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveate.inference.engine import Engine
from foveate.inference.explanation import METHODS, overlay, unavailable

_BEST_FIRST = ("gradcam", "occlusion", "attention")
"""The page shows the first that the network can give; an attention says nothing of a class."""
_ORANGE = (240, 110, 20)
_DENSEST = 0.75
"""How opaque the map alone is where it is highest."""


def methods(engine: Engine) -> tuple[str, ...]:
    """How the network can be explained: one under ONNX Runtime by occlusion alone."""
    return tuple(method for method in _BEST_FIRST if unavailable(engine, method) is None)


def explain(engine: Engine, method: str, pixels: NDArray[np.uint8], class_index: int) -> dict[str, str]:
    """A map for a class on `pixels` [size, size, 3], as data URLs of PNG.

    Returns:
        `image`: the map over the pixels; `map`: it alone, the more opaque the higher.
    """
    found = METHODS[method](engine, pixels, class_index)
    return {"image": _data_url(overlay(pixels, found)), "map": _data_url(_transparent(found))}


def _transparent(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """A map [H, W] from 0 to its highest value as RGBA [H, W, 4]; what is below 0 is not shown."""
    layer = np.empty((*values.shape, 4), np.uint8)
    layer[..., :3] = _ORANGE
    layer[..., 3] = np.round(255 * _DENSEST * values.clip(0) / max(float(values.max()), 1e-12))
    return layer


def _data_url(pixels: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
