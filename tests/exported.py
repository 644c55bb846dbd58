"""A tiny network and the `.onnx` file that was exported of it, made once in a process."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from tests.hostile_models import CARD, SIZE, weights

from foveate.checkpoint import load_model
from foveate.confidence import Confidence, Unlike
from foveate.exporting.graph import described, to_onnx
from foveate.inference.network import NetworkEngine
from foveate.inference.onnx_file import Card, PreprocessingRecord
from foveate.preprocessing import RESIZES, Fit
from foveate.tensors import save_tensors

NAMES = ("cat", "Hündin", "<b>")
CONFIDENCE = Confidence(
    temperature=0.7, scores=tuple(np.linspace(0.3, 1, 200).tolist()), unlike=Unlike(threshold=-1.2, images=200)
)


@cache
def plain() -> bytes:
    """The graph alone, without a description."""
    return to_onnx(network().network, SIZE, CONFIDENCE.temperature)


@cache
def network() -> NetworkEngine:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        checkpoint = load_model(save(Path(folder) / "model.safetensors"))
    return NetworkEngine(checkpoint, "fp32")


def save(path: Path, **changes: Any) -> Path:
    """A weights file of the tiny network, sure of something by its weights, with `changes` of its card."""
    tensors = {name: 3 * each if name == "head.classifier.weight" else each for name, each in weights().items()}
    save_tensors(path, tensors, {**CARD, "confidence": CONFIDENCE.model_dump(mode="json"), **changes})
    return path


def card(fit: Fit = "crop", **changes: Any) -> Card:
    values: dict[str, Any] = {
        "names": NAMES,
        "imgsz": (SIZE, SIZE),
        "preprocessing": PreprocessingRecord(
            version=1,
            resize=RESIZES[fit],
            channels="RGB",
            layout="NCHW",
            type="uint8",
            white=None,
        ),
        "confidence": CONFIDENCE,
        "weights": network().about.digest,
        "precision": "fp32",
        "proof": None,
        "version": "0.1.0",
        "date": "2026-11-26",
    }
    return Card(**{**values, **changes})


def write(path: Path, **changes: Any) -> Path:
    path.write_bytes(described(plain(), card(**changes)))
    return path


def unsealed(proto: Any) -> bytes:
    """A changed file without its checksum: whoever makes a hostile one leaves it out, or makes one that fits."""
    kept = [each for each in proto.metadata_props if each.key != "checksum"]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    content: bytes = proto.SerializeToString()
    return content


def images(count: int = 8, seed: int = 0, size: int = SIZE) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)
