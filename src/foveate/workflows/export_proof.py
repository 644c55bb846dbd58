"""The proof of an export: the images of it, and what the network and each file give for them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from foveate.confidence import energy
from foveate.data.dataset import Dataset
from foveate.data.splits import stratified_subset
from foveate.errors import CheckpointError, DataError, ExportError
from foveate.exporting.proof import Measured, ProofData, prove
from foveate.inference.engine import BATCH, About
from foveate.inference.network import NetworkEngine
from foveate.inference.onnx import OnnxEngine, Outputs
from foveate.records import MAX_LINE, printable
from foveate.training.runs import RunFolder
from foveate.workflows.output import refuse_within
from foveate.workflows.prepare import require_split
from foveate.workflows.request import Display
from foveate.workflows.run import dataset_of_model, dataset_to_measure
from foveate.workflows.start import start_saw

CALIBRATION_IMAGES = 512
"""Training images whose ranges 8-bit numbers are fitted to."""
NAMES = {"fp32": "model.onnx", "int8": "model-int8.onnx"}
TO_FIX = "write elsewhere with --to FOLDER"


@dataclass(frozen=True, eq=False)
class ProofImages:
    """The images of the proof, and those whose ranges 8-bit numbers are fitted to."""

    about: ProofData
    dataset: Dataset
    proof: NDArray[np.int64]
    calibration: NDArray[np.int64]


def proof_images(
    model: Path,
    to: Path,
    data: str | Path | None,
    data_dir: Path | str | None,
    about: About,
    display: Display,
    *,
    int8: bool,
) -> ProofImages:
    """The images of the proof: the run's own validation images, or those of other `data`, whose classes
    are matched by name.
    """
    held_out: bool | None = None
    seed = 0
    if model.is_dir():
        folder = RunFolder.open(model)
        config, record = folder.read_config(), folder.read_record()
        out = "other images by --data, or leave the proof out by --unproved"
        fix = f"give its new place or {out}"
        try:
            dataset, own = dataset_to_measure(folder, config, record, data, data_dir, display, fix=fix)
        except CheckpointError as error:
            raise CheckpointError(f"{error}; or give {out}") from error
        if record.class_names != about.class_names:
            raise CheckpointError(f"the weights in {model} have other classes than its run.json: restore them")
        saw = (record.final or start_saw(config, dataset, ("validation",))) if own else None
        held_out, seed = None if saw is None else not saw, config.data.split_seed
    else:
        dataset = dataset_of_model(about, str(data), data_dir, display)
    refuse_within(to, dataset.location, fix=TO_FIX)
    split = "validation" if "validation" in dataset.splits else "all"
    require_split(dataset, split, "give other --data")
    proof, calibration = dataset.splits[split], np.zeros(0, np.int64)
    calibrated = None
    if int8:
        source = "train" if "train" in dataset.splits else split
        pool = dataset.splits[source]
        # Where there are no training images, those that fit the ranges prove nothing.
        count = min(CALIBRATION_IMAGES, len(pool) if source == "train" else len(pool) // 2)
        if not count:
            raise DataError(f"{dataset.name} has too few images to fit 8-bit numbers to: leave --int8 out")
        calibration = pool[stratified_subset(dataset.labels[pool], count, seed)]
        proof = np.setdiff1d(proof, calibration)
        calibrated = f"{count} {source} images"
    return ProofImages(
        about=ProofData(
            name=as_line(dataset.name),
            split=split,
            images=len(proof),
            fingerprint=dataset.fingerprint,
            held_out=held_out,
            calibrated_on=calibrated,
        ),
        dataset=dataset,
        proof=proof,
        calibration=calibration,
    )


def measure(
    engine: NetworkEngine, contents: Mapping[str, bytes], images: ProofImages, display: Display
) -> tuple[NDArray[np.float32], dict[str, Measured]]:
    """The trained network's logits of the images of the proof, and what each file gives beside them."""
    pixels, labels = images.dataset.images, images.dataset.labels[images.proof]
    starts = range(0, len(images.proof), BATCH)
    batches = [images.proof[start : start + BATCH] for start in starts]
    with TemporaryDirectory(prefix="foveate-") as place:
        asked = {}
        for precision, content in contents.items():
            path = Path(place) / NAMES[precision]
            path.write_bytes(content)
            try:
                asked[precision] = OnnxEngine(path)  # which checks the file as every user of it will
            except CheckpointError as error:
                raise ExportError(f"the file that was made of this network is refused: {error}") from error
        torch: list[NDArray[np.float32]] = []
        found: dict[str, list[Outputs]] = {precision: [] for precision in asked}
        for batch in display.track(batches, total=len(batches), label="proof", images_each=BATCH):
            torch.append(engine.logits(pixels[batch]))
            for precision, each in asked.items():
                found[precision].append(each.outputs(pixels[batch]))
    logits = np.concatenate(torch)
    confidence = engine.about.confidence
    reference = logits, confidence.probabilities(logits), energy(logits)
    proofs = {}
    for precision, outputs in found.items():
        first, second, third = (np.concatenate(each) for each in zip(*outputs, strict=True))
        proofs[precision] = prove(precision, reference, (first, second, third), labels)
    return logits, proofs


def reasons_of(measured: Mapping[str, Measured]) -> dict[str, str]:
    """Why files failed, by their names."""
    told = {}
    for precision, each in measured.items():
        if each.passed:
            continue
        if precision == "fp32":
            told[NAMES[precision]] = f"{each.unequal_beyond_margin} images get another class than in torch"
        else:
            told[NAMES[precision]] = (
                f"{each.lost_points:.2f} points of accuracy are lost (standard error "
                f"{each.standard_error_points:.2f}): export with --no-int8"
            )
    return told


def as_line(text: str) -> str:
    """A text as one line that every reader can show; never empty."""
    return printable(text)[:MAX_LINE] or "-"
