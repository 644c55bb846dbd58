"""Export: a trained network as a file that other programs run, with the proof that it gives the same answers."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from foveate.data.splits import stratified_subset
from foveate.errors import ConfigError, ExportError
from foveate.exporting.bundle import bundle_files
from foveate.exporting.graph import described, to_int8, to_onnx
from foveate.exporting.proof import BOUNDS, Certificate, FileProof, Measured, score_of
from foveate.exporting.web import read_assets, web_page
from foveate.files import new_folder
from foveate.inference.engine import check_model
from foveate.inference.network import NetworkEngine
from foveate.inference.onnx_file import Card, PreprocessingRecord, Proven
from foveate.model.layers import layer_table
from foveate.preprocessing import RESIZES
from foveate.report.export_page import export_page
from foveate.report.html import png, render
from foveate.workflows.export_proof import NAMES, TO_FIX, ProofImages, as_line, measure, proof_images, reasons_of
from foveate.workflows.output import check_new_folder, refuse_within
from foveate.workflows.request import Display, NullDisplay, tell
from foveate.workflows.run import unfinished_told

MOST_EXAMPLES = 50
_PACKAGES = ("foveate", "torch", "onnx", "onnxruntime", "onnxscript", "numpy", "pillow", "simplejpeg")


@dataclass(frozen=True)
class Export:
    """A folder with an exported model in it."""

    path: Path
    certificate: Certificate

    @property
    def model(self) -> Path:
        """The file in 32-bit numbers."""
        return self.path / NAMES["fp32"]

    @property
    def web(self) -> Path:
        """The page that works offline, where it was asked for."""
        return self.path / "index.html"

    @property
    def page(self) -> Path:
        """The certificate, to read."""
        return self.path / "certificate.html"


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
        examples: how many images of the proof are put into the page, for a visitor to try; no others are.
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
    checkpoint = NetworkEngine.load(model).checkpoint
    if web and (white := checkpoint.preprocessing.white) is not None:
        raise ConfigError(
            f"--web: a browser gives the high byte alone of images with more than 8 bits, and {model} takes "
            f"{white} of theirs as white: leave --web out, or train with data.depth=format"
        )
    assets = read_assets(Path(web_assets) if web_assets else None) if web else None
    engine = NetworkEngine(checkpoint, "fp32")
    images = None if unproved else proof_images(model, to, data, data_dir, engine.about, display, int8=int8)
    tell(display, unfinished_told(model))
    display.say("writing the network as ONNX")
    plain = to_onnx(engine.network, engine.about.size, engine.about.confidence.temperature)
    graphs = {"fp32": plain}
    if int8 and images is not None:
        graphs["int8"] = to_int8(plain, images.dataset.images[images.calibration])
    cards = {precision: _card(engine, precision, images, licence) for precision in graphs}
    contents = {precision: described(graph, cards[precision]) for precision, graph in graphs.items()}
    reference, measured = measure(engine, contents, images, display) if images else (None, {})
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
    reasons = reasons_of(measured)
    files: dict[str, bytes] = {
        "certificate.json": _json(certificate),
        "certificate.html": render(export_page(certificate, reasons)).encode(),
    }
    if certificate.passed:
        files |= {NAMES[precision]: content for precision, content in contents.items()}
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
    check_model(model, "weights")
    check_new_folder(to)
    if data is not None:
        refuse_within(to, data, fix=TO_FIX)
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


def _card(engine: NetworkEngine, precision: Any, images: ProofImages | None, licence: str | None) -> Card:
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
        license=as_line(licence) if licence else None,
        started_from=engine.checkpoint.weights,
    )


def _pictures(images: ProofImages | None, count: int) -> list[bytes]:
    """Some images of the proof as PNG, of as many classes as there are."""
    if images is None or not count:
        return []
    chosen = stratified_subset(images.dataset.labels[images.proof], min(count, len(images.proof)), 0)
    return [png(images.dataset.images[images.proof[place]]) for place in chosen]


def _file(precision: str, content: bytes, measured: Measured | None) -> FileProof:
    return FileProof(
        name=NAMES[precision],
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
    return as_line(model.resolve().name if model.is_dir() else model.stem)
