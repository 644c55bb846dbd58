"""The bundle: the files that let an exported model run without Foveate and without torch."""

import html
from collections.abc import Mapping
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from foveate.exporting.proof import Certificate, Score
from foveate.inference.onnx_file import Card
from foveate.parsing import yaml_text
from foveate.preprocessing import FITS, Fit

_MODULES = (
    "data/container.py",
    "data/decode.py",
    "data/foreign.py",
    "data/formats.py",
    "data/ifd.py",
    "data/jpeg.py",
    "data/png.py",
    "data/tiff.py",
    "errors.py",
    "files.py",
    "preprocessing.py",
)
"""The modules that decode an image, copied as they are; a test imports them where nothing else is installed."""
_PACKAGES = ("numpy", "onnxruntime", "pillow", "simplejpeg")
_FITTED: Mapping[Fit, str] = {
    "crop": "the largest square in the centre of an image",
    "pad": "a whole image in the middle of a grey square",
    "squash": "a whole image, made square whatever its sides",
}
_DOCKERFILE = """\
FROM python:3.12-slim
WORKDIR /model
COPY requirements.txt ./
RUN pip install --no-cache-dir -r requirements.txt
COPY . ./
USER 65534
ENTRYPOINT ["python", "predict.py"]
"""


def bundle_files(card: Card, certificate: Certificate, description: Mapping[str, Any]) -> dict[str, bytes]:
    """Each file of a bundle but the model and its certificate, by its path within.

    Args:
        card: of the 32-bit file.
        certificate: what the export proved.
        description: of the network, as rows of the model card: what it is, in words.
    """
    package = files("foveate")
    copied = {f"foveate/{name}": package.joinpath(name).read_bytes() for name in _MODULES}
    return {
        **copied,
        "foveate/__init__.py": b'"""Of Foveate, what decodes images: copied from it, unchanged."""\n',
        "foveate/data/__init__.py": b"",
        "predict.py": package.joinpath("exporting/bundled_predict.py").read_bytes(),
        "requirements.txt": "".join(f"{name}=={version(name)}\n" for name in _PACKAGES).encode(),
        "Dockerfile": _DOCKERFILE.encode(),
        "README.md": _readme(card, certificate, description).encode(),
    }


def _readme(card: Card, certificate: Certificate, description: Mapping[str, Any]) -> str:
    """The model card, as the Hugging Face hub reads it: YAML between two lines of dashes, then Markdown."""
    front: dict[str, Any] = {
        **({"license": card.license} if card.license else {}),
        "library_name": "onnx",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "onnx", "foveate"],
    }
    calibrated = "" if card.confidence.temperature is None else "calibrated "
    torch, data = certificate.torch, certificate.data
    if torch and data and data.held_out is not False:  # what the hub lists is how good a model is on other images
        front["model-index"] = [
            {
                "name": certificate.model,
                "results": [
                    {
                        "task": {"type": "image-classification"},
                        "dataset": {"name": data.name, "type": data.name, "split": data.split},
                        "metrics": [{"type": "accuracy", "value": torch.accuracy}],
                    }
                ],
            }
        ]
    fit = FITS[card.preprocessing.resize]
    lines = [
        "---",
        yaml_text(front).rstrip(),
        "---",
        "",
        f"# {_plain(certificate.model)}",
        "",
        f"A small network that sorts images into {len(card.names)} classes, made by Foveate {card.version}.",
        "",
        "```sh",
        "pip install -r requirements.txt",
        f"python predict.py photo.jpg{' --coverage 0.95' if card.confidence.scores else ''}",
        "```",
        "",
        'Or `docker build -t model . && docker run --rm -v "$PWD/images:/images:ro" model /images/photo.jpg`.',
        "It prints a line of JSON for each image.",
        "",
        "## What it takes and gives",
        "",
        f"- In: `images`, uint8 `[N, 3, {card.imgsz[0]}, {card.imgsz[1]}]`, RGB: {_FITTED[fit]}, resized by "
        "Pillow's bilinear filter with antialiasing (`foveate/data/decode.py`).",
        f"- Out: `logits` and {calibrated}`probabilities`, float32 `[N, K]`; `unlike`, float32 `[N]`: the higher, "
        "the less an image resembles those that it was trained on.",
        "- Everything else that is needed lies in the file's metadata, as JSON.",
        "",
        "## Classes",
        "",
        *(f"{number}. {_plain(name)}" for number, name in enumerate(card.names)),
        "",
        "## The network",
        "",
        *(f"- {_plain(str(name))}: {_plain(str(value))}" for name, value in description.items()),
        "",
        "## How good it is",
        "",
        *_measured(certificate),
        "",
        "## Limits",
        "",
        *(f"- {line}" for line in _limits(card, certificate)),
    ]
    return "\n".join(lines) + "\n"


def _measured(certificate: Certificate) -> list[str]:
    data, torch = certificate.data, certificate.torch
    if data is None or torch is None:
        return ["It was exported unproved: nobody measured whether it gives what the trained network gives."]
    rows = [
        f"On {data.images:,} images of {_plain(data.name)} (split: {_plain(data.split)}). "
        f"{data.trained_on.capitalize()}.",
        "",
        "| | accuracy | 95 % interval | same class as the trained network |",
        "|---|---|---|---|",
        f"| the trained network, in torch | {_score(torch)} | |",
    ]
    rows += [
        f"| `{each.name}` | {_score(each.measured.score)} | {each.measured.equal_classes:.2%} |"
        for each in certificate.files
        if each.measured
    ]
    undecided = [
        f"`{each.name}`: {line}." for each in certificate.files if (line := certificate.open_question(each))
    ]
    for line in undecided:
        rows += ["", line]
    return [*rows, "", "`certificate.html` and `certificate.json` have the details."]


def _score(score: Score) -> str:
    low, high = score.interval
    return f"{score.accuracy:.2%} | {low:.2%} to {high:.2%}"


def _limits(card: Card, certificate: Certificate) -> list[str]:
    confidence = card.confidence
    said = ["It always names one of its classes, also for an image that shows none of them."]
    if confidence.told is not None:
        said.append(f"What its confidence lacks: {confidence.told}.")
    if confidence.unlike is not None:
        said.append(
            "The warning that an image is unlike those it was trained on was set so that 1 % of validation "
            "images get it; many images that are unlike them get none."
        )
    if confidence.scores:
        said.append(
            f"Prediction sets were fitted on {len(confidence.scores):,} images; what they promise holds on "
            "average, and for images like those."
            + (
                " Those came in groups, whose images are alike: the coverage may be lower."
                if confidence.grouped
                else ""
            )
        )
    if certificate.data is not None:
        said.append(
            "Its accuracy was measured on images that it was trained on: expect less on others."
            if certificate.data.held_out is False
            else "Its accuracy was measured on images like those it was trained on; on others it may be lower."
        )
    if card.started_from is not None:
        said.append(f"Its training started from {_plain(card.started_from.words)}.")
    if card.license is None:
        said.append("Its licence is not known: ask whoever gave it to you.")
    return said


def _plain(text: str) -> str:
    """Text as Markdown shows it letter by letter, whatever it holds."""
    escaped = html.escape(text, quote=False)
    return "".join(f"\\{each}" if each in "\\`*_{}[]()#+-.!|~" else each for each in escaped)
