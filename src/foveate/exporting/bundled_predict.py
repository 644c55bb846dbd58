"""Predict images by the model beside this file: `python predict.py IMAGE…`; it needs neither Foveate nor torch.

Images are decoded and resized by the modules in `foveate/data`, which are those that the network was trained with.
"""

import argparse
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when it is imported

import onnxruntime

from foveate.data.container import BadImageError
from foveate.data.decode import decode_file
from foveate.preprocessing import FITS, Preprocessing

BATCH = 64


class Model:
    """An exported model; what it says of itself lies in its metadata, as JSON."""

    def __init__(self, path: Path) -> None:
        onnxruntime.disable_telemetry_events()
        content = path.read_bytes()
        self.session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        about = {name: json.loads(text) for name, text in self.session.get_modelmeta().custom_metadata_map.items()}
        # Of the whole file, with the checksum itself written as below.
        checksum = about["checksum"].encode()
        if hashlib.sha256(content.replace(checksum, b"checksum" * 8)).hexdigest().encode() != checksum:
            raise ValueError("its checksum differs")
        self.names: list[str] = about["names"]
        said = about["preprocessing"]
        self.preprocessing = Preprocessing(about["imgsz"][0], FITS[said["resize"]], said["white"])
        self.temperature: float = about["confidence"]["temperature"] or 1.0
        self.scores: list[float] | None = about["confidence"]["scores"]
        unlike = about["confidence"]["unlike"]
        self.threshold: float | None = unlike["threshold"] if unlike else None

    def predict(self, paths: list[Path], coverage: float | None = None) -> list[dict[str, Any]]:
        """What the model says of image files, in their order; of one that cannot be read, the reason."""
        told: list[dict[str, Any]] = [{"id": str(path)} for path in paths]
        pixels = {}
        for place, path in enumerate(paths):
            try:
                pixels[place] = decode_file(path, self.preprocessing)
            except BadImageError as error:
                told[place]["reason"] = str(error)
        if pixels:
            batch = np.stack(list(pixels.values())).transpose(0, 3, 1, 2)  # [B, 3, H, W], uint8
            (logits,) = self.session.run(["logits"], {"images": np.ascontiguousarray(batch)})
            for place, each in zip(pixels, logits, strict=True):
                told[place] |= self._one(each.astype(np.float64), coverage)
        return told

    def _one(self, logits: Any, coverage: float | None) -> dict[str, Any]:
        scaled = logits / self.temperature
        probabilities = np.exp(scaled - _log_sum_exp(scaled))
        # The energy: the higher it is, the less the image is like those trained on.
        unlike = float(-_log_sum_exp(logits))
        order = np.argsort(-probabilities, kind="stable")
        said: dict[str, Any] = {
            "label": self.names[order[0]],
            "probability": float(probabilities[order[0]]),
            "probabilities": {self.names[each]: float(probabilities[each]) for each in order},
            "unlike": None if self.threshold is None else unlike > self.threshold,
            "unlike_score": unlike,
        }
        if coverage is not None and self.scores:
            # Split conformal prediction (Angelopoulos and Bates 2021, section 1): classes join from the likeliest
            # on, while those before them sum up to no more than a quantile of the scores.
            needed = int(np.ceil((len(self.scores) + 1) * coverage - 1e-9))
            limit = self.scores[needed - 1] if needed <= len(self.scores) else np.inf
            before = np.concatenate([[0.0], np.cumsum(probabilities[order])[:-1]])
            inside = np.minimum(before, 1.0) <= limit
            said["set"] = [self.names[each] for each, is_in in zip(order, inside, strict=True) if is_in]
        return said


def _log_sum_exp(values: Any) -> Any:
    top = values.max()
    return top + np.log(np.exp(values - top).sum())


def main(arguments: list[str] | None = None) -> int:
    """Print a line of JSON for each image; 1 where one could not be read."""
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description="Classify images. Prints a line of JSON for each.")
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    parser.add_argument("--model", type=Path, default=here / "model.onnx")
    parser.add_argument(
        "--coverage",
        type=float,
        help="also give a set of classes that holds the true one in this share of cases, such as 0.95",
    )
    given = parser.parse_args(arguments)
    if not given.model.is_file():
        parser.error(f"there is no model at {given.model}")
    try:
        model = Model(given.model)
    except Exception as error:  # ONNX Runtime has many, and a file of another tool lacks the description
        parser.error(
            f"{given.model} is not a model that Foveate exported ({type(error).__name__}: {error})".splitlines()[0]
        )
    if given.coverage is not None and not 0 < given.coverage < 1:
        parser.error("--coverage must be above 0 and below 1")
    if given.coverage is not None and not model.scores:
        parser.error("this model has no prediction sets: leave --coverage out")
    bad = False
    for start in range(0, len(given.images), BATCH):
        for each in model.predict(given.images[start : start + BATCH], given.coverage):
            print(json.dumps(each))
            bad = bad or "reason" in each
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
