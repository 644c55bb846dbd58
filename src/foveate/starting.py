"""Weights to begin with from another network of Foveate."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from foveate.errors import CheckpointError
from foveate.pretrained import UNKNOWN, check_variances
from foveate.records import WeightsOrigin
from foveate.tensors import (
    FIX,
    TRAINING_PREFIX,
    check_finite,
    check_trained,
    metadata_of,
    opened,
    read_tensors,
    section,
)


def start_from(path: Path, network: nn.Module, class_names: Sequence[str], said: str) -> WeightsOrigin:
    """Put into `network` what agrees by name, shape and type in a checkpoint of Foveate: `--start MODEL`.

    All else in it stays as it is, also the classifier where the checkpoint has other classes. Where the checkpoint
    itself started from other weights, their licence is handed on.

    Args:
        class_names: of `network`.
        said: what the origin is called.

    Raises:
        CheckpointError: when the file is missing, damaged, foreign, from before the first step of training, or no
            weight of a layer agrees.
    """
    with opened(path) as (file, header):
        meta = metadata_of(header, path)
        check_trained(path, meta)
        tensors = read_tensors(file, header, path)
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    wanted, passed_over = network.state_dict(), [TRAINING_PREFIX]
    if meta.get("class_names") != list(class_names):
        passed_over.append(_CLASSIFIER)
    taken = {
        name: tensor
        for name, tensor in tensors.items()
        if not name.startswith(tuple(passed_over))
        and name in wanted
        and (tensor.shape, tensor.dtype) == (wanted[name].shape, wanted[name].dtype)
    }
    # Statistics, biases and the normalisation of pixels say nothing by themselves.
    if all(tensor.ndim < 2 or name.startswith("normalize.") for name, tensor in taken.items()):
        raise CheckpointError(
            f"no layer of {path} fits the new network: give it the settings of that network's model section, such "
            "as its preset"
        )
    check_finite(path, taken)
    check_variances(path, taken, fix=FIX)
    network.load_state_dict(taken, strict=False)
    name, licence = f"another network of Foveate ({len(taken)} of {len(wanted)} tensors fit)", UNKNOWN
    if "weights" in meta:
        before = section(path, meta, "weights", WeightsOrigin)
        licence, name = before.licence, f"{name}, which started from {before.name}"
    return WeightsOrigin(name=name[:_MOST_TOLD], origin=said, licence=licence, sha256=sha256)


_CLASSIFIER = "head.classifier."
_MOST_TOLD = 500
"""Characters: each network that started from another adds some."""
