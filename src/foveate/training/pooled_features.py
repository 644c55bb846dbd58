"""What a frozen backbone makes of images that never change, pooled, and kept on the disk."""

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foveate.config import Config
from foveate.errors import CheckpointError
from foveate.files import cache_folder, writing_to
from foveate.model.backbones import fold_batch_norm
from foveate.model.heads import LinearHead
from foveate.model.network import AttentionCNN
from foveate.progress import Track
from foveate.tensors import digest_of, load_tensors, save_tensors
from foveate.training.device import DeviceData
from foveate.training.features import outputs

_FORMAT = 1
"""Raised when other numbers come of the same images and weights."""
_CLOSED = "test"
"""No image of this split is looked at."""
_MOST_BYTES = 512 << 20
"""Of features that are kept; more are computed again."""
_IMAGES_AT_ONCE = 64


@dataclass(frozen=True)
class PooledFeatures:
    """Features [n, F] of the images at the sorted `indices` [n]."""

    indices: NDArray[np.int64]
    features: NDArray[np.float32]

    def of(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Those of some of the images."""
        found: NDArray[np.float32] = self.features[np.searchsorted(self.indices, indices)]
        return found


def pooled_features(network: nn.Module, data: DeviceData, config: Config, track: Track) -> PooledFeatures:
    """What the classifier of `network` is given of every image but those of the test split, in one pass.

    They are kept in the cache under a digest of the images' pixels and of the weights: folds of the same images,
    other seeds and other settings of the classifier find them there. Damaged ones are computed again.

    Raises:
        TrainingError: when memory runs out.
        OutputError: when the cache cannot be written.
    """
    model = cast("AttentionCNN", network)
    pool = cast("LinearHead", model.head).pool
    backbone = nn.Sequential(model.normalize, model.stem, pool)
    wanted = [each for name, each in data.dataset.splits.items() if name != _CLOSED]
    indices = np.sort(np.concatenate(wanted))
    path = _path(backbone, data, indices, config)
    if (kept := _read(path, len(indices))) is not None:
        return PooledFeatures(indices, kept.numpy())
    folded = nn.Sequential(model.normalize, fold_batch_norm(model.stem), pool).eval()
    batches = outputs(folded, data, indices, config, label="features", track=track)
    features = torch.cat([batch.float().cpu() for batch in batches])
    if features.nbytes <= _MOST_BYTES:
        with writing_to(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(path, {"features": features}, {"dataset": data.dataset.name})
    return PooledFeatures(indices, features.numpy())


def _path(backbone: nn.Module, data: DeviceData, indices: NDArray[np.int64], config: Config) -> Path:
    """Where the features lie; its name stands for all that they depend on."""
    images = data.dataset.images
    kind = f"{_FORMAT} {backbone} {config.train.precision} {data.device.type} {images.shape[1:]} {len(indices)}"
    digest = hashlib.sha256(digest_of(backbone.state_dict(), kind).encode())
    for start in range(0, len(indices), _IMAGES_AT_ONCE):
        digest.update(images[indices[start : start + _IMAGES_AT_ONCE]].data)
    return cache_folder() / "features" / f"{digest.hexdigest()[:32]}.safetensors"


def _read(path: Path, count: int) -> Tensor | None:
    """The features of `count` images; None where there are none, or damaged ones."""
    try:
        features = load_tensors(path)[0].get("features")
    except CheckpointError:
        return None
    if features is None or features.dtype != torch.float32 or features.ndim != 2 or len(features) != count:
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # when it was used last
    return features
