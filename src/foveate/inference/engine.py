"""A trained network, wherever it runs: what it says of itself, and from pixels to logits."""

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from foveate.confidence import Confidence
from foveate.errors import CheckpointError, ConfigError
from foveate.preprocessing import Preprocessing
from foveate.suggestions import closest, nearest

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
        device: where a network in PyTorch runs; None: on the CPU, where exported files always run.

    Raises:
        CheckpointError: when there is none, or it is damaged.
        ConfigError: when the device is not there, or is none for an exported file.
    """
    check_model(model)
    check_device(model, device)
    path = Path(model)
    if _is_exported(path):
        # ONNX Runtime needs no torch, which takes seconds to import.
        from foveate.inference.onnx import OnnxEngine

        return OnnxEngine(path)
    if path.is_file() and path.suffix.lower() != ".safetensors":
        raise CheckpointError(
            f"{path} is not a model: give a run folder, a .safetensors or an exported .onnx file"
        )
    from foveate.inference.network import NetworkEngine

    return NetworkEngine.load(path, device=device)


Kind = Literal["run", "weights", "any"]
"""What will do for a model: a run folder, a .safetensors file too, or an exported .onnx file as well."""
_GIVE: Mapping[Kind, str] = {
    "run": "give a run folder made by `foveate train`",
    "weights": "give a run folder made by `foveate train`, or a .safetensors file",
    "any": "give a run folder made by `foveate train`, a .safetensors or an exported .onnx file",
}
_SUFFIXES: Mapping[Kind, tuple[str, ...]] = {
    "run": (),
    "weights": (".safetensors",),
    "any": (".safetensors", ".onnx"),
}


def check_model(model: Path | str, kind: Kind = "any") -> None:
    """Refuse what is no model by its name, before anything slow is done.

    Raises:
        CheckpointError: when there is nothing, or a folder or a file of another kind.
    """
    path = Path(model)
    if not os.path.lexists(path):
        raise CheckpointError(f"no model at {path}: {_GIVE[kind]}{similar_model(path, kind)}")
    inside = path / "model.onnx"
    of_export = path.is_dir() and inside.is_file() and not (path / "args.yaml").exists()
    if of_export and kind == "any":
        raise CheckpointError(f"{path} is not a run: to use the exported file in it, give {inside}")
    if kind != "any" and (of_export or _is_exported(path)):
        weights = "" if kind == "run" else " or the .safetensors file"
        raise CheckpointError(f"{path} is exported already: give the run{weights} that it was made from")


def check_device(model: Path | str, device: str | None) -> None:
    """Refuse to run an exported file elsewhere than on the CPU.

    Raises:
        ConfigError: where that was asked for.
    """
    if _is_exported(Path(model)) and device not in (None, "auto", "cpu"):
        raise ConfigError(
            f"device={device!r}: an .onnx file runs on the CPU alone: give cpu, or the run that it was made from"
        )


def check_class(name: str, known: Sequence[str]) -> None:
    """Raise ConfigError for a class that is not among the `known` ones."""
    if name not in known:
        raise ConfigError(f"class={name!r}: the model has no such class{nearest(name, known)}")


def similar_model(path: Path, kind: Kind) -> str:
    """The end of a message: the run or file of about that name that lies beside it, or in `runs/train`."""
    found: dict[str, Path] = {}
    for folder in (Path("runs", "train"), path.parent):
        with contextlib.suppress(OSError):
            found |= {each.name: each for each in folder.iterdir() if _is_model(each, kind)}
    close = closest(path.name, found)
    return "" if close is None else f"; did you mean {found[close]}?"


def _is_exported(path: Path) -> bool:
    return path.suffix.lower() == ".onnx" and not path.is_dir()


def _is_model(path: Path, kind: Kind) -> bool:
    return path.suffix.lower() in _SUFFIXES[kind] or (path / "run.json").is_file()
