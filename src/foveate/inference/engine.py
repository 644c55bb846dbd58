"""A trained network, wherever it runs: what it says of itself, and from pixels to logits."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from foveate.confidence import Confidence
from foveate.errors import CheckpointError
from foveate.preprocessing import Preprocessing

BATCH = 64
"""Images that are asked about at once: on a CPU larger batches are hardly faster, and hold memory."""


@dataclass(frozen=True)
class About:
    """What one must know about a network to use it."""

    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    confidence: Confidence
    digest: str
    """sha256 of its weights."""

    @property
    def size(self) -> int:
        """Side of its input, in pixels."""
        return self.preprocessing.size


class Engine(Protocol):
    """Runs one network."""

    about: About

    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits [B, K] of images [B, H, W, 3] of the network's size; B is at most `BATCH`."""
        ...


def load_engine(model: Path | str, *, device: str | None = None) -> Engine:
    """The network of a run folder, a weights file (`.safetensors`) or an exported `.onnx` file.

    Args:
        device: where a network in PyTorch runs; None: on the CPU.

    Raises:
        CheckpointError: when there is none, or it is damaged.
        ConfigError: when the device is not there.
    """
    path = Path(model)
    if path.suffix.lower() == ".onnx" and not path.is_dir():
        # ONNX Runtime needs no torch, which takes seconds to import.
        from foveate.inference.onnx import OnnxEngine

        return OnnxEngine(path)
    if path.is_file() and path.suffix.lower() != ".safetensors":
        raise CheckpointError(
            f"{path} is not a model: give a run folder, a .safetensors or an exported .onnx file"
        )
    from foveate.inference.network import NetworkEngine

    return NetworkEngine.load(path, device=device)
