"""Checkpoints: tensors in safetensors, everything else as JSON in its header; checked, atomic, never pickled."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from foveate.config import ModelConfig
from foveate.errors import CheckpointError
from foveate.files import write_atomically
from foveate.model.build import build_model
from foveate.model.network import AttentionCNN

__all__ = [
    "TRAINING_PREFIX",
    "Checkpoint",
    "load_model",
    "load_tensors",
    "model_card",
    "save_temperature",
    "save_tensors",
    "weights_digest",
]

FORMAT = 1
TRAINING_PREFIX = "training/"
"""Tensors whose names begin so belong to the training state, all others to the network."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says of its network, and the network itself."""

    model: AttentionCNN
    config: ModelConfig
    class_names: tuple[str, ...]
    size: int
    temperature: float | None = None
    """By which its logits are divided so that its confidence is deserved; None where none was fitted."""


def model_card(config: ModelConfig, class_names: tuple[str, ...], size: int) -> dict[str, Any]:
    """What must lie beside the weights so that they can be used: architecture, classes, preprocessing."""
    return {
        "model": config.model_dump(mode="json"),
        "class_names": list(class_names),
        "preprocessing": {"size": size, "resize": "centre crop, bilinear, antialiased", "channels": "RGB"},
    }


def save_tensors(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write tensors and JSON metadata as one safetensors file, atomically, with a checksum over both.

    Raises:
        OutputError: when it cannot be written; what was there stays.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps({"format": FORMAT, **meta}, allow_nan=False)
    # Through memory: safetensors' own file writer does not tell a full disk from other faults.
    write_atomically(path, save(plain, metadata={"foveate": text, "sha256": _digest(plain, text)}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and metadata that `save_tensors` wrote.

    Raises:
        CheckpointError: when the file is missing, damaged, or not a Foveate checkpoint.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}: give a run folder made by `foveate train`")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): train again or restore it from a copy") from error
    if "foveate" not in header:
        raise CheckpointError(f"{path} is not a Foveate checkpoint: it was written by another program")
    if header.get("sha256") != _digest(tensors, header["foveate"]):
        raise CheckpointError(f"{path} is damaged (its checksum differs): train again or restore it from a copy")
    meta: dict[str, Any] = json.loads(header["foveate"])
    if meta["format"] != FORMAT:
        raise CheckpointError(f"{path} has format {meta['format']}, this version reads {FORMAT}: update foveate")
    return tensors, meta


def load_model(path: Path, *, device: torch.device | str = "cpu") -> Checkpoint:
    """The network of a checkpoint, in evaluation mode on `device`.

    Raises:
        CheckpointError: when the file is missing, damaged, foreign, or does not fit its own description.
    """
    tensors, meta = load_tensors(path)
    try:
        config = ModelConfig.model_validate(meta["model"])
        class_names, size = tuple(meta["class_names"]), int(meta["preprocessing"]["size"])
        temperature = float(meta["temperature"]) if "temperature" in meta else None
        model = build_model(config, num_classes=len(class_names), size=size)
        model.load_state_dict(
            {name: tensor for name, tensor in tensors.items() if not name.startswith(TRAINING_PREFIX)}
        )
    except (KeyError, TypeError, ValidationError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path} does not fit its own description ({reason}): train again") from error
    return Checkpoint(model.to(device).eval(), config, class_names, size, temperature)


def save_temperature(path: Path, temperature: float) -> None:
    """Put a temperature into a checkpoint that is there; all else in it stays.

    Raises:
        CheckpointError: when it is missing or damaged.
        OutputError: when it cannot be written; what was there stays.
    """
    tensors, meta = load_tensors(path)
    save_tensors(path, tensors, {**meta, "temperature": temperature})


def weights_digest(model: nn.Module) -> str:
    """By which a network is known again, wherever it lies and whatever is said of it."""
    return _digest({name: tensor.cpu() for name, tensor in model.state_dict().items()}, "")


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(f"{name}{tuple(tensors[name].shape)}{tensors[name].dtype}".encode())
        digest.update(tensors[name].contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
