"""Where a network looks: maps over an image, by its attention, by Grad-CAM and by occlusion.

NumPy alone, so that an exported network can be explained without torch; what needs torch imports it.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from foveate.errors import ConfigError, one_line
from foveate.inference.engine import Engine

if TYPE_CHECKING:
    from torch import Tensor

    from foveate.inference.network import NetworkEngine

Map = NDArray[np.float32]
"""[H, W]: how much each pixel counts, on a scale of its own; a higher value counts more."""

_ROUNDING = 1e-6
"""Differences within a map, as a share of its largest value, that float32 makes of equal values."""
_INFERNO = np.array(
    [(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], np.float32
)  # five colours of matplotlib's map of this name, which people see alike, and in grey as well


def gradcam(engine: Engine, pixels: NDArray[np.uint8], class_index: int) -> Map:
    """Where the last stage's feature maps speak for a class: the positive part of their sum, by gradients.

    Selvaraju et al. 2017 ("Grad-CAM"), equations 1 and 2, brought to the image's size by bilinear interpolation.

    Args:
        engine: a network in PyTorch.
        pixels: [H, W, 3], of the network's size.

    Raises:
        ConfigError: for a network that is not in PyTorch.
    """
    return _enlarged(_gradcam(_in_torch(engine, "gradcam"), pixels, class_index), pixels)


def attention(engine: Engine, pixels: NDArray[np.uint8], class_index: int = 0) -> Map:  # noqa: ARG001
    """How much the embedded attention looks at each position, whatever the class.

    It is the `attention_map` of the network's attention, brought to the image's size by bilinear interpolation.
    No other thread may use the network meanwhile.

    Args:
        engine, pixels: as in `gradcam`.
        class_index: it changes nothing; all methods are called alike.

    Raises:
        ConfigError: for a network that is not in PyTorch, has no attention, or one that gives no map.
    """
    return _enlarged(_attention(_in_torch(engine, "attention"), pixels), pixels)


def occlusion(engine: Engine, pixels: NDArray[np.uint8], class_index: int) -> Map:
    """How much less likely a class becomes where a part of the image is covered, in nats of its probability.

    A square of a quarter of the image's side, in the image's mean colour, is moved by an eighth (Zeiler and Fergus
    2014, section 4.2). A pixel's value is the mean over the squares that cover it; below zero, what lies there
    speaks against the class. It asks the network 50 times at most.

    Args:
        engine: any.
        pixels: [H, W, 3], of the network's size.
    """
    side = pixels.shape[0]
    window, stride = -(-side // 4), -(-side // 8)
    starts = range(0, side - window + stride, stride)
    squares = [(slice(top, top + window), slice(left, left + window)) for top in starts for left in starts]
    covered = np.repeat(pixels[None], 1 + len(squares), axis=0)
    mean = pixels.mean((0, 1)).round().astype(np.uint8)
    for image, square in zip(covered[1:], squares, strict=True):
        image[square] = mean
    logits = engine.logits(covered).astype(np.float64)
    top = logits.max(axis=1, keepdims=True)
    logs = logits[:, class_index] - top[:, 0] - np.log(np.exp(logits - top).sum(axis=1))
    total, count = np.zeros((2, *pixels.shape[:2]))
    for square, value in zip(squares, logs[1:], strict=True):
        total[square] += logs[0] - value
        count[square] += 1
    found: Map = (total / count).astype(np.float32)
    return found


METHODS: Mapping[str, Callable[[Engine, NDArray[np.uint8], int], Map]] = {
    "attention": attention,
    "gradcam": gradcam,
    "occlusion": occlusion,
}
"""By name, the functions that map an engine, pixels [H, W, 3] and a class to a map."""


def unavailable(engine: Engine, method: str) -> str | None:
    """Why a method cannot explain this network, as a line with what to do; None where it can."""
    blank = np.zeros((engine.about.size, engine.about.size, 3), np.uint8)
    try:
        if method != "occlusion":
            METHODS[method](engine, blank, 0)
    except ConfigError as error:
        return str(error)
    return None


def map_side(engine: Engine, method: str) -> int:
    """How many values the method's maps have along a side, before they are brought to the image's size."""
    side = engine.about.size
    if method == "occlusion":
        return -(-side // -(-side // 8))
    network, blank = _in_torch(engine, method), np.zeros((side, side, 3), np.uint8)
    found = _attention(network, blank) if method == "attention" else _gradcam(network, blank, 0)
    return int(found.shape[-1])


def overlay(pixels: NDArray[np.uint8], values: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """The image [H, W, 3] with a map [H, W] over it in colours, uint8 [H, W, 3].

    Dark violet to light yellow is from the map's least value, or 0 where that is below, to its largest; what has
    least stays as it is in the image. A map without any difference leaves the image as it is.
    """
    low, high = max(float(values.min()), 0.0), float(values.max())
    if not high > low:
        return pixels.copy()
    # Clipped before it is divided: by a subnormal difference, a value far below overflows.
    shares = (np.clip(values.astype(np.float64), low, high) - low) / (high - low)
    places = np.linspace(0, 1, len(_INFERNO))
    colours = np.stack([np.interp(shares, places, channel) for channel in _INFERNO.T], axis=-1)
    opacity = 0.75 * shares[..., None]
    blended: NDArray[np.uint8] = ((1 - opacity) * pixels + opacity * colours).round().astype(np.uint8)
    return blended


def _gradcam(engine: "NetworkEngine", pixels: NDArray[np.uint8], class_index: int) -> "Tensor":
    """[h, w], of the last stage's size."""
    import torch

    from foveate.inference.network import float32_kept

    network = engine.network
    with float32_kept(engine.device, engine.precision):
        with torch.no_grad():
            features = network.features(_batch(engine, pixels))  # [1, C, h, w]
        with torch.enable_grad():
            logit = network.head(features.requires_grad_())[0, class_index]
            (gradient,) = torch.autograd.grad(logit, features)
    weights = gradient.mean((2, 3), keepdim=True)  # [1, C, 1, 1]
    return torch.relu((weights * features.detach()).sum(1))[0]


def _attention(engine: "NetworkEngine", pixels: NDArray[np.uint8]) -> "Tensor":
    """[h, w], of the size that the attention sees."""
    import torch

    from foveate.inference.network import float32_kept

    part = engine.network.attention
    if part is None:
        raise ConfigError("attention: this network has none embedded; choose the method gradcam or occlusion")
    name = type(part).__name__
    if not hasattr(part, "attention_map"):
        raise ConfigError(
            f"attention: {name} gives no map of its own; choose the method gradcam or occlusion, or give the "
            "class a method attention_map(features) from [B, C, H, W] to [B, H, W]"
        )
    found: list[Any] = []
    # One of a user's own may raise anything. Its result is taken here, where its input is known.
    handle = part.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    try:
        with torch.inference_mode(), float32_kept(engine.device, engine.precision):
            engine.network(_batch(engine, pixels))
            values: Tensor = cast("Any", part).attention_map(found[0])
    except Exception as error:
        raise ConfigError(f"attention: attention_map of {name} failed: {one_line(error)}") from error
    finally:
        handle.remove()
    shape = tuple(getattr(values, "shape", ()))
    if len(shape) != 3 or shape[0] != 1 or 0 in shape or not torch.isfinite(values).all():
        raise ConfigError(
            f"attention: attention_map of {name} must give finite values [B, H, W]; it gave the shape {shape}"
        )
    return values[0].float()


def _enlarged(values: "Tensor", pixels: NDArray[np.uint8]) -> Map:
    """A map [h, w] at the size of an image [H, W, 3]; one that differs by rounding alone has one value."""
    import torch.nn.functional as F

    size = pixels.shape[:2]
    least, most = values.aminmax()
    if most - least <= _ROUNDING * values.abs().max():
        return np.full(size, float(values.mean()), np.float32)  # interpolation would round each place differently
    large = F.interpolate(values[None, None], size=size, mode="bilinear", align_corners=False)
    found: Map = large[0, 0].cpu().numpy().astype(np.float32)
    return found


def _batch(engine: "NetworkEngine", pixels: NDArray[np.uint8]) -> "Tensor":
    """[H, W, 3] → float32 [1, 3, H, W] on the network's device."""
    import torch

    from foveate.data.loader import to_device

    return to_device(torch.from_numpy(pixels[None].copy()).permute(0, 3, 1, 2), engine.device).float()


def _in_torch(engine: Engine, method: str) -> "NetworkEngine":
    """The engine as one in PyTorch; ConfigError where it is another."""
    if not hasattr(engine, "network"):
        raise ConfigError(
            f"{method}: an .onnx file can be explained by occlusion alone, as the other methods need PyTorch; "
            "choose the method occlusion, or give the run or its .safetensors file"
        )
    return cast("NetworkEngine", engine)
