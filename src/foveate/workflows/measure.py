"""A trained network measured on images with labels: the figures, every image's probabilities, and the page."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import nn

from foveate.checkpoint import Checkpoint, save_confidence, weights_digest
from foveate.confidence import Confidence, fit_confidence
from foveate.config import Config
from foveate.data.corruptions import CORRUPTIONS, SEVERITIES, Corrupted
from foveate.data.dataset import Dataset
from foveate.data.folds import OUT_OF_FOLD, most_folds
from foveate.data.splits import group_numbers
from foveate.evaluation import Report, score, score_ablation
from foveate.inference.network import MORE_MEMORY, ViewsAveraged, out_of_memory_explained
from foveate.inference.receptive_field import effective_field, effective_side
from foveate.metrics import point_metrics
from foveate.model.receptive_field import sight
from foveate.progress import Track
from foveate.report.caveats import wide
from foveate.training.device import DeviceData
from foveate.training.measured import ReceptiveField
from foveate.training.runs import RunFolder


@dataclass(frozen=True)
class Measurement:
    """A run's network, and the images that it is measured on."""

    config: Config
    """Of the run."""
    checkpoint: Checkpoint
    data: DeviceData
    split: str
    weights: Path | None = None
    """The network's file, which keeps the confidence once it is fitted on validation; None: nothing is fitted."""
    corrupted: DeviceData | None = None
    """The images of the split that are measured under corruptions too."""
    own: bool = True
    """Whether they are of the data that the run was trained on, in its splits."""
    logits: NDArray[np.float32] | None = None
    """[N, K], where these very weights were asked about the split already; None: they are asked."""

    def measure(self, track: Track) -> "Measured":
        """Score the split.

        Raises:
            OutOfMemoryError: when memory runs out.
            TrainingError: for logits that are not finite.
        """
        with out_of_memory_explained(MORE_MEMORY, f"measuring the {self.split} split"):
            return self._measured(track)

    def _measured(self, track: Track) -> "Measured":
        model, dataset, split = self.checkpoint.model, self.data.dataset, self.split
        labels = dataset.labels[dataset.splits[split]]
        logits = self.logits
        if logits is None:
            logits, _ = self.data.logits(model, split, self.config, track=track)
        variants = self._variants(track)
        report = score_split(dataset, split, logits)  # which refuses logits that are not finite
        confidence = self.checkpoint.confidence
        # What was fitted stays: copies of the file, on this machine or another, must not come to differ from it.
        if self.weights is not None and split == "validation" and confidence == Confidence():
            seed, grouped = self.config.data.split_seed, bool(dataset.groups)
            confidence = fit_confidence(logits, labels, seed=seed, grouped=grouped)
            save_confidence(self.weights, confidence)
        found: dict[str, Any] = {**report.to_dict(), "variants": variants, "gate": model.gate}
        found["calibration"] = calibration(logits, labels, confidence)
        found["receptive_field"] = self._receptive_field().model_dump(mode="json")
        if self.own and split == "validation" and wide(report.intervals["accuracy"]):
            found["most_folds"] = most_folds(dataset.for_final(), self.config.data.split_seed)
        if self.corrupted is not None:
            found["corruptions"] = self._under_corruptions(self.corrupted, track)
        return Measured(self, logits, found, confidence)

    def _variants(self, track: Track) -> dict[str, Any]:
        """The split as the network sees it in several views, and without its attention."""
        model, variants = self.checkpoint.model, {}

        def add(network: nn.Module, name: str) -> None:
            label = f"{self.split}, {name}"
            logits = self.data.logits(network, self.split, self.config, label=label, track=track)
            variants[name] = asdict(score_ablation(*logits))

        if self.config.train.tta_views > 1:
            mirror = bool(self.config.augment.flip)
            add(ViewsAveraged(model, mirror=mirror), f"mean of {6 if mirror else 3} views")
        if self.config.model.has_attention:
            with model.without_attention():
                add(model, "attention taken out")
        return variants

    def _receptive_field(self) -> ReceptiveField:
        """How far the network sees, in theory and on some images of the split."""
        model, size = self.checkpoint.model, self.data.dataset.size
        split = self.data.dataset.splits[self.split]
        rows = split[np.linspace(0, len(split) - 1, min(len(split), _gradients(size)), dtype=np.int64)]
        images = torch.from_numpy(self.data.dataset.images[rows]).permute(0, 3, 1, 2).to(self.data.device)
        own = effective_side(effective_field(model, images))
        without = None
        if self.config.model.has_attention:
            with model.without_attention():
                without = effective_side(effective_field(model, images))
        seen = sight(model, size)
        return ReceptiveField(
            convolutions=seen.convolutions,
            before_attention=seen.before_attention,
            attention_reach=seen.reach,
            effective=round(own, 1),
            effective_without_attention=None if without is None else round(without, 1),
            images=len(rows),
        )

    def _under_corruptions(self, images: DeviceData, track: Track) -> dict[str, Any]:
        """Accuracy of the images as they are, and by kind and severity of corruption."""
        model = self.checkpoint.model

        def accuracy(network: nn.Module, label: str) -> float:
            logits, labels = images.logits(network, self.split, self.config, label=label, track=track)
            return float((logits.argmax(axis=1) == labels).mean())

        found = {
            kind: [
                accuracy(Corrupted(model, kind, severity), f"{kind}, severity {severity}")
                for severity in range(1, SEVERITIES + 1)
            ]
            for kind in CORRUPTIONS
        }
        return {
            "images": len(images.dataset.splits[self.split]),
            "clean": accuracy(model, "as they are"),
            "mean": mean(value for values in found.values() for value in values),
            "accuracy": found,
            "weights": weights_digest(model),
        }


@dataclass(frozen=True)
class Measured:
    """What a measurement came to."""

    of: Measurement
    logits: NDArray[np.float32]
    """[N, K]"""
    found: dict[str, Any]
    """As `metrics.json` keeps it."""
    confidence: Confidence

    def write(self, folder: RunFolder, *, name: str | None = None) -> None:
        """Put the measurements, every image's probabilities and the page into a run's folder.

        Args:
            name: of the folder, where it is still another.

        Raises:
            OutOfMemoryError: when memory runs out.
        """
        with out_of_memory_explained("free some memory, or use a machine with more", "drawing the page"):
            self._write(folder, name)

    def _write(self, folder: RunFolder, name: str | None) -> None:
        from foveate.report.html import write_page  # with matplotlib, which takes a second to import
        from foveate.report.run_folder import page_of_run

        of, dataset, found = self.of, self.of.data.dataset, self.found
        folder.predictions.write(of.split, dataset, softmax(self.logits, axis=1))
        before = folder.read_metrics().get(of.split, {}).get("corruptions", {})
        if "corruptions" not in found and before.get("weights") == weights_digest(of.checkpoint.model):
            found = {**found, "corruptions": before}  # of the same network
        folder.write_metrics(of.split, found)
        checkpoint = replace(of.checkpoint, confidence=self.confidence)
        write_page(page_of_run(folder, checkpoint, of.config, dataset, name=name), folder.report)


def _gradients(size: int) -> int:
    """Of how many images of a side the gradient is taken: few of large ones, so that it takes a second at most."""
    return int(np.clip(16 * 64**2 // size**2, 4, 16))


def score_split(dataset: Dataset, split: str, logits: NDArray[np.float32]) -> Report:
    """The report of a split's logits [N, K]; TrainingError where they are not finite.

    Of out-of-fold logits the intervals are those of other groups, as groups are what the folds part.
    """
    indices = dataset.splits[split]
    groups = [dataset.groups[index] for index in indices] if dataset.groups else None
    clusters = group_numbers(groups) if groups and split == OUT_OF_FOLD else None
    return score(logits, dataset.labels[indices], dataset.class_names, groups, clusters=clusters)


def calibration(
    logits: NDArray[np.float32], labels: NDArray[np.int64], confidence: Confidence
) -> dict[str, float] | None:
    """Loss and calibration error at the fitted temperature; None where none was fitted."""
    if confidence.temperature is None:
        return None
    scaled = point_metrics(logits / confidence.temperature, labels)
    return {
        "loss": scaled["loss"],
        "expected_calibration_error": scaled["expected_calibration_error"],
        "temperature": confidence.temperature,
    }
