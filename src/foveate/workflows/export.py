"""Export: a trained network as a file that other programs run, with the proof that it gives the same answers."""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveate.confidence import energy
from foveate.data.dataset import Dataset, align_classes, load_dataset
from foveate.data.splits import stratified_subset
from foveate.errors import CheckpointError, ConfigError, DataError, ExportError
from foveate.exporting.bundle import bundle_files
from foveate.exporting.graph import described, to_int8, to_onnx
from foveate.exporting.proof import BOUNDS, Certificate, FileProof, Measured, ProofData, prove, score_of
from foveate.exporting.web import read_assets, web_page
from foveate.files import new_folder
from foveate.inference.engine import BATCH, About
from foveate.inference.network import NetworkEngine
from foveate.inference.onnx import OnnxEngine, Outputs
from foveate.inference.onnx_file import Card, PreprocessingRecord, Proven
from foveate.model.build import layer_table
from foveate.preprocessing import RESIZES
from foveate.records import MAX_LINE, printable
from foveate.report.export_page import export_page
from foveate.report.html import render
from foveate.settings import DataConfig
from foveate.training.runs import RunFolder
from foveate.workflows.output import check_output_name
from foveate.workflows.request import Display, NullDisplay, check_output_dir, print_data_warnings
from foveate.workflows.run import dataset_of_run

__all__ = ["Export", "export"]

CALIBRATION_IMAGES = 512
"""Training images whose ranges 8-bit numbers are fitted to."""
MOST_EXAMPLES = 50
_NAMES = {"fp32": "model.onnx", "int8": "model-int8.onnx"}
_PACKAGES = ("foveate", "torch", "onnx", "onnxruntime", "onnxscript", "numpy", "pillow", "simplejpeg")


@dataclass(frozen=True)
class Export:
    """A folder with an exported model in it."""

    path: Path
    certificate: Certificate

    @property
    def model(self) -> Path:
        """The file in 32-bit numbers."""
        return self.path / _NAMES["fp32"]

    @property
    def web(self) -> Path:
        """The page that works offline, where it was asked for."""
        return self.path / "index.html"

    @property
    def page(self) -> Path:
        """The certificate, to read."""
        return self.path / "certificate.html"


@dataclass(frozen=True, eq=False)
class _Images:
    """The images of the proof, and those whose ranges 8-bit numbers are fitted to."""

    about: ProofData
    dataset: Dataset
    proof: NDArray[np.int64]
    calibration: NDArray[np.int64]


def export(
    model: Path | str,
    to: Path | str,
    *,
    int8: bool | None = None,
    bundle: bool = False,
    web: bool = False,
    web_assets: Path | str | None = None,
    examples: int = 0,
    data: str | Path | None = None,
    data_dir: Path | str | None = None,
    unproved: bool = False,
    licence: str | None = None,
    display: Display | None = None,
) -> Export:
    """Write a trained network as ONNX into a new folder, once it has proved that it gives the same answers.

    All validation images go through the network in torch and through each file under ONNX Runtime. Where a file
    goes beyond its bound (`exporting.proof.BOUNDS`), the folder holds the certificate and no model.

    Args:
        model: a run folder, or a weights file (`.safetensors`).
        to: the folder to make.
        int8: write a file in 8-bit numbers as well; None: where there is to be a page, which is faster with
            it, and images to measure it on.
        bundle: add what runs the file without Foveate and torch.
        web: add a page, index.html, that classifies images offline in a browser.
        web_assets: folder that holds onnxruntime-web; None: where `make web` puts it.
        examples: so many of the images of the proof are put into the page, for a visitor to try; none else are.
        data: images to prove it on; None: the run's own.
        data_dir: where `cifar10` lies.
        unproved: leave the proof out; the certificate and the file's metadata say so.
        licence: of the model, such as `apache-2.0`, for its metadata and its card.

    Raises:
        CheckpointError, ConfigError, DataError, OutputError: for a request that cannot be met; nothing is written.
        ExportError: when the network cannot be written as ONNX; or when the proof failed: its certificate is then
            in the folder.
    """
    display = display or NullDisplay()
    model, to = Path(model), Path(to)
    _check_request(model, to, data, int8=bool(int8), unproved=unproved, examples=examples, web=web)
    int8 = web and not unproved if int8 is None else int8
    assets = read_assets(Path(web_assets) if web_assets else None) if web else None
    checkpoint = NetworkEngine.load(model).checkpoint
    engine = NetworkEngine(checkpoint, "fp32")
    images = None if unproved else _images(model, to, data, data_dir, engine.about, display, int8=int8)
    display.say("writing the network as ONNX")
    plain = to_onnx(engine.network, engine.about.size, engine.about.confidence.temperature)
    graphs = {"fp32": plain}
    if int8 and images is not None:
        graphs["int8"] = to_int8(plain, images.dataset.images[images.calibration])
    cards = {precision: _card(engine, precision, images, licence) for precision in graphs}
    contents = {precision: described(graph, cards[precision]) for precision, graph in graphs.items()}
    reference, measured = _measure(engine, contents, images, display) if images else (None, {})
    certificate = Certificate(
        model=_name(model),
        weights=engine.about.digest,
        classes=len(engine.about.class_names),
        size=engine.about.size,
        date=cards["fp32"].date,
        proved=images is not None,
        passed=all(each.passed for each in measured.values()),
        data=images.about if images else None,
        torch=score_of(reference, images.dataset.labels[images.proof])
        if images and reference is not None
        else None,
        files=tuple(_file(precision, content, measured.get(precision)) for precision, content in contents.items()),
        versions={name: version(name) for name in _PACKAGES},
    )
    reasons = _reasons(measured)
    files: dict[str, bytes] = {
        "certificate.json": _json(certificate),
        "certificate.html": render(export_page(certificate, reasons)).encode(),
    }
    if certificate.passed:
        files |= {_NAMES[precision]: content for precision, content in contents.items()}
        if bundle:
            files |= bundle_files(cards["fp32"], certificate, _description(engine))
        if assets:
            run = "int8" if int8 else "fp32"
            pictures = _pictures(images, examples)
            files["index.html"] = web_page(certificate.model, contents[run], cards[run], assets, pictures)
    _write(to, files)
    if not certificate.passed:
        told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise ExportError(f"{told}. No model was written; the measurements are in {to / 'certificate.html'}")
    return Export(to, certificate)


def _check_request(
    model: Path, to: Path, data: str | Path | None, *, int8: bool, unproved: bool, examples: int, web: bool
) -> None:
    """Raises ConfigError or OutputError for what cannot be met, before anything is read."""
    if model.suffix.lower() == ".onnx" and not model.is_dir():
        raise ConfigError(
            f"{model} is exported already: give the run or the .safetensors file that it was made from"
        )
    if to.exists() and not (to.is_dir() and not any(to.iterdir())):
        raise ConfigError(f"{to} exists already: name a new folder by --to")
    check_output_name(to.parent, "", None)  # a place that cannot be written, before work that takes a minute
    if data is not None:
        check_output_dir(to, data, "--to")
    if unproved and data is not None:
        raise ConfigError("--unproved measures nothing, so that it takes no --data: give one of the two")
    if examples and (unproved or not web or not 0 < examples <= MOST_EXAMPLES):
        raise ConfigError(
            f"--examples {examples}: give 1 to {MOST_EXAMPLES}, with --web, and images by which it is proved"
        )
    if unproved and int8:
        raise ConfigError("--int8 is fitted to images, and can lose accuracy: it is not to be had with --unproved")
    if not unproved and data is None and model.exists() and not model.is_dir():
        raise ConfigError(
            f"{model} does not say which images it was measured on: name some by --data, "
            "or leave the proof out by --unproved"
        )


def _images(
    model: Path,
    to: Path,
    data: str | Path | None,
    data_dir: Path | str | None,
    about: About,
    display: Display,
    *,
    int8: bool,
) -> _Images:
    """The images of the proof: the run's own validation images, or those of `data`."""
    held_out: bool | None = None
    seed = 0
    if model.is_dir():
        folder = RunFolder.open(model)
        config, record = folder.read_config(), folder.read_record()
        try:
            dataset = dataset_of_run(folder, config, record, data, Path(data_dir) if data_dir else None, display)
        except DataError as error:
            if data is not None:
                raise
            raise DataError(f"{error}; or say where the run's images are now by --data") from error
        if record.class_names != about.class_names:
            raise CheckpointError(f"the weights in {model} have other classes than its run.json: restore them")
        held_out, seed = not record.final, config.data.split_seed
    else:
        dataset = load_dataset(
            str(data),
            DataConfig.of(about.preprocessing),
            data_dir=Path(data_dir) if data_dir else None,
            for_training=False,
            track=display.track,
        )
        dataset = align_classes(dataset, about.class_names)
        print_data_warnings(dataset, display)
    check_output_dir(to, dataset.location, "--to")
    split = "validation" if "validation" in dataset.splits else "all"
    if split not in dataset.splits:
        there = ", ".join(dataset.splits)
        raise DataError(f"{dataset.name} has no validation images (it has: {there}): give other --data")
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
    return _Images(
        about=ProofData(
            name=_line(dataset.name),
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


def _card(engine: NetworkEngine, precision: Any, images: _Images | None, licence: str | None) -> Card:
    about = engine.about
    return Card(
        names=about.class_names,
        imgsz=(about.size, about.size),
        preprocessing=PreprocessingRecord(
            version=1,
            resize=RESIZES[about.preprocessing.fit],
            channels="RGB",
            layout="NCHW",
            type="uint8",
            white=about.preprocessing.white,
        ),
        confidence=about.confidence,
        weights=about.digest,
        precision=precision,
        proof=Proven(images=images.about.images, split=images.about.split) if images else None,
        version=version("foveate"),
        date=datetime.now(UTC).date().isoformat(),
        license=_line(licence) if licence else None,
        started_from=engine.checkpoint.weights,
    )


def _measure(
    engine: NetworkEngine, contents: Mapping[str, bytes], images: _Images, display: Display
) -> tuple[NDArray[np.float32], dict[str, Measured]]:
    """The trained network's logits of the images of the proof, and what each file gives beside them."""
    pixels, labels = images.dataset.images, images.dataset.labels[images.proof]
    starts = range(0, len(images.proof), BATCH)
    batches = [images.proof[start : start + BATCH] for start in starts]
    with TemporaryDirectory(prefix="foveate-") as place:
        asked = {}
        for precision, content in contents.items():
            path = Path(place) / _NAMES[precision]
            path.write_bytes(content)
            try:
                asked[precision] = OnnxEngine(path)  # by the very check that whoever uses the file will make
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


def _reasons(measured: Mapping[str, Measured]) -> dict[str, str]:
    """Why files failed, by their names."""
    told = {}
    for precision, each in measured.items():
        if each.passed:
            continue
        if precision == "fp32":
            told[_NAMES[precision]] = f"{each.unequal_beyond_margin} images get another class than in torch"
        else:
            told[_NAMES[precision]] = (
                f"{each.lost_points:.2f} points of accuracy are lost (standard error "
                f"{each.standard_error_points:.2f}): export with --no-int8"
            )
    return told


def _pictures(images: _Images | None, count: int) -> list[bytes]:
    """Some images of the proof as PNG, of as many classes as there are."""
    if images is None or not count:
        return []
    chosen = stratified_subset(images.dataset.labels[images.proof], min(count, len(images.proof)), 0)
    return [_png(images.dataset.images[images.proof[place]]) for place in chosen]


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    return buffer.getvalue()


def _file(precision: str, content: bytes, measured: Measured | None) -> FileProof:
    return FileProof(
        name=_NAMES[precision],
        precision=precision,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        bound=BOUNDS[precision],
        measured=measured,
    )


def _description(engine: NetworkEngine) -> dict[str, Any]:
    """The network in a few words."""
    config = engine.checkpoint.config
    table = layer_table(engine.network, engine.about.size)
    return {
        "parameters": f"{table.total:,}",
        "attention": config.attention,
        "stages": config.backbone or ", ".join(f"{stage.filters} filters" for stage in config.stages),
        "input": f"{engine.about.size} × {engine.about.size} pixels: {RESIZES[engine.about.preprocessing.fit]}",
    }


def _write(to: Path, files: Mapping[str, bytes]) -> None:
    with new_folder(to) as folder:
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def _json(certificate: Certificate) -> bytes:
    return (json.dumps(certificate.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n").encode()


def _name(model: Path) -> str:
    """What the model is called: as its run, or as its file."""
    return _line(model.resolve().name if model.is_dir() else model.stem)


def _line(text: str) -> str:
    return printable(text)[:MAX_LINE] or "-"
