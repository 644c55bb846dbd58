"""Where the network looked, as PNG: over the image, and alone, to be laid over a sharper one."""

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveate.inference.engine import Engine

__all__ = ["EXPLANATIONS", "can_explain", "explain"]

EXPLANATIONS = ("gradcam",)
_ORANGE = (240, 110, 20)
_DENSEST = 0.75
"""How opaque the map alone is where it is highest."""


def can_explain(engine: Engine) -> bool:
    """Whether this engine has gradients: ONNX Runtime has none."""
    return hasattr(engine, "network")


def explain(engine: Engine, pixels: NDArray[np.uint8], class_index: int) -> dict[str, str]:
    """Grad-CAM for a class on `pixels` [size, size, 3], as data URLs of PNG.

    Returns:
        `image`: the map over the pixels; `map`: it alone, the more opaque the higher.
    """
    from foveate.inference.explanation import gradcam, overlay

    found = gradcam(engine, pixels, class_index)
    return {"image": _data_url(overlay(pixels, found)), "map": _data_url(_transparent(found))}


def _transparent(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """A map [H, W] from 0 to its highest value as RGBA [H, W, 4]."""
    layer = np.empty((*values.shape, 4), np.uint8)
    layer[..., :3] = _ORANGE
    layer[..., 3] = np.round(255 * _DENSEST * values / max(float(values.max()), 1e-12))
    return layer


def _data_url(pixels: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
