"""What a frozen backbone makes of images that never change: computed in one pass, and kept on the disk."""

import contextlib
import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foveate.config import Config
from foveate.data.loader import to_device
from foveate.errors import CheckpointError
from foveate.files import cache_folder, writing_to
from foveate.inference.network import autocast, float32_kept, out_of_memory_explained
from foveate.model.backbones import fold_batch_norm
from foveate.model.network import AttentionCNN
from foveate.progress import Track
from foveate.tensors import digest_of, load_tensors, save_tensors
from foveate.training.device import DeviceData

_FORMAT = 2
"""Raised when other numbers come of the same images and weights."""
_CLOSED = "test"
"""No image of this split is looked at."""
_MOST_BYTES = 1 << 30
"""Of features that are kept: the maps of 8,500 photographs; more are computed again."""
_IMAGES_AT_ONCE = 64


@dataclass(frozen=True)
class KeptFeatures:
    """Features [n, …] of the images at the sorted `indices` [n], on the host."""

    indices: NDArray[np.int64]
    features: Tensor
    kept: bool = False
    """Whether they were found in the cache, and not computed now."""

    def places(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the features of some of the images lie."""
        return np.searchsorted(self.indices, indices)


class _HalfRows(nn.Module):
    """Maps [B, C, h, w] as a loader takes images, [B, h, w, C], in half precision."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.half().permute(0, 2, 3, 1).contiguous()


def kept_features(
    network: AttentionCNN, data: DeviceData, config: Config, track: Track, *, pool: nn.Module | None
) -> KeptFeatures:
    """What the backbone of `network` makes of every image but those of the test split, in one pass.

    They are kept in the cache under a digest of the images' pixels and of the weights: folds of the same images,
    other seeds and other settings of what follows the backbone find them there. Damaged ones are computed again.

    Args:
        pool: what comes after the backbone and is frozen too, whose vectors [n, F] are kept; None: the maps are,
            [n, h, w, C] in half precision.

    Raises:
        TrainingError: when memory runs out.
        OutputError: when the cache cannot be written.
    """
    last = pool or _HalfRows()
    backbone = nn.Sequential(network.normalize, network.stem, last)
    wanted = [each for name, each in data.dataset.splits.items() if name != _CLOSED]
    indices = np.sort(np.concatenate(wanted))
    path = _path(backbone, data, indices, config)
    if (kept := _read(path, len(indices), 2 if pool else 4)) is not None:
        return KeptFeatures(indices, kept, kept=True)
    folded = nn.Sequential(network.normalize, fold_batch_norm(network.stem), last).eval()
    features = _outputs(folded, data, indices, config, track)
    features = features.float() if pool else features
    if features.nbytes <= _MOST_BYTES:
        with writing_to(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(path, {"features": features}, {"dataset": data.dataset.name})
    return KeptFeatures(indices, features)


def _outputs(
    module: nn.Module, data: DeviceData, indices: NDArray[np.int64], config: Config, track: Track
) -> Tensor:
    """What `module`, in evaluation mode, makes of the images at `indices`, on the host."""
    loader = replace(data.in_order("train"), indices=indices)
    with (
        torch.inference_mode(),
        float32_kept(data.device, config.train.precision),
        autocast(data.device, config.train.precision),
        out_of_memory_explained("use --device cpu, or a smaller size", f"a batch of {loader.batch} images"),
    ):
        batches = track(loader.epoch(), total=len(loader), label="features", images_each=loader.batch)
        parts = [module(to_device(images, data.device)).cpu() for images, _, _ in batches]
    return torch.cat(parts)


def _path(backbone: nn.Module, data: DeviceData, indices: NDArray[np.int64], config: Config) -> Path:
    """Where the features lie; its name stands for all that they depend on."""
    images = data.dataset.images
    kind = f"{_FORMAT} {backbone} {config.train.precision} {data.device.type} {images.shape[1:]} {len(indices)}"
    digest = hashlib.sha256(digest_of(backbone.state_dict(), kind).encode())
    for start in range(0, len(indices), _IMAGES_AT_ONCE):
        digest.update(images[indices[start : start + _IMAGES_AT_ONCE]].data)
    return cache_folder() / "features" / f"{digest.hexdigest()[:32]}.safetensors"


def _read(path: Path, count: int, dimensions: int) -> Tensor | None:
    """The features of `count` images; None where there are none, or damaged ones."""
    try:
        features = load_tensors(path)[0].get("features")
    except CheckpointError:
        return None
    dtype = torch.float32 if dimensions == 2 else torch.float16
    if features is None or features.dtype != dtype or features.ndim != dimensions or len(features) != count:
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # when it was used last
    return features
