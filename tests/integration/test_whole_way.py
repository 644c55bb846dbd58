"""From images to answers, the whole way: every form of a trained network gives one answer for the same image."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.special import softmax
from tests.serving.conftest import served

from foveate.data.dataset import load_dataset
from foveate.data.decode import decode_file
from foveate.errors import ConfigError
from foveate.exporting.web import read_assets
from foveate.inference.predictor import Predictor
from foveate.preprocessing import RESIZES, Fit, Preprocessing
from foveate.records import printable
from foveate.settings import DataConfig

Foveate = Callable[..., Any]

NAMES = (
    "</script><script>alert(1)</script>",
    "=1+1",
    "🦊" * 60,
    "../../up",
    "a,b\"c'd",
    "{{ 7*7 }}",
    "<img src=x onerror=alert(1)>",
    "x" * 300,
    "\u202egnp.exe",
    "-0",
)
"""Of classes, that try to do harm in a page, a table, a path, a template."""
KNOWN_AS = tuple(map(printable, NAMES))
BATCH = 64


@pytest.fixture(params=["digits", "cifar10"])
def images(request: pytest.FixtureRequest) -> tuple[NDArray[np.uint8], NDArray[np.int64], int]:
    """Images [N, 32, 32, 3] and labels, and how many of them, from the first on, are to be trained on."""
    if request.param == "cifar10":
        first = request.getfixturevalue("cifar10_images")
        (train, labels), (test, others) = first("train", 3000), first("test", 2000)
        return np.concatenate([train, test]), np.concatenate([labels, others]), len(train)
    data = load_dataset("digits", DataConfig(size=32))
    chosen = np.concatenate([data.splits["train"], data.splits["test"]])
    return data.images[chosen], data.labels[chosen], len(data.splits["train"])


@pytest.mark.slow
def test_all_forms_of_a_network_give_one_answer(
    foveate: Foveate, tiny: list[str], tmp_path: Path, images: tuple[NDArray[np.uint8], NDArray[np.int64], int]
) -> None:
    pixels, labels, trained = images
    arrays = {"x_train": pixels[:trained], "y_train": labels[:trained]}
    arrays |= {"x_test": pixels[trained:], "y_test": labels[trained:], "class_names": np.array(NAMES)}
    np.savez(tmp_path / "data.npz", **arrays)  # type: ignore[arg-type]
    assert foveate("train", "data.npz", "--size", 32, "--epochs", 2, "--name", "run", *tiny).status == 0
    run, tested = tmp_path / "runs" / "train" / "run", pixels[trained:]

    # What the others are held against: the figures of the test split.
    assert foveate("evaluate", run, "--final").status == 0
    table = pq.read_table(run / "predictions.parquet").to_pylist()
    expected = [row["predicted"] for row in table if row["split"] == "test"]
    assert len(expected) == len(tested)
    assert len(set(expected)) > 3
    logits = np.concatenate([Predictor.load(run).engine.logits(part) for part in _batches(tested)])
    highest = np.sort(logits, axis=1)[:, -2:]
    clear = highest[:, 1] - highest[:, 0] > 1e-4  # below, the order of additions decides

    def same(found: list[str]) -> bool:
        agree = np.array(found) == np.array(expected)
        return bool(agree[clear].all()) and bool(agree.mean() > 0.999)

    files = _write_files(tmp_path / "photos", tested)
    assert foveate("predict", run, "photos", "--parquet", "by-run.parquet").status == 0
    assert same(_labels(tmp_path / "by-run.parquet"))

    assert foveate("explain", run, files[0], files[1], "--name", "maps").status == 0
    assert "<script>alert" not in (tmp_path / "runs" / "explain" / "maps" / "explain.html").read_text()

    web = ("--web", "--no-int8") if _has_assets() else ()
    assert foveate("export", run, "--to", "out", "--bundle", *web).status == 0
    if web:
        assert "<script>alert" not in (tmp_path / "out" / "index.html").read_text()
    assert foveate("predict", "out/model.onnx", "photos", "--parquet", "by-onnx.parquet").status == 0
    assert same(_labels(tmp_path / "by-onnx.parquet"))

    bundled = subprocess.run(
        [sys.executable, "predict.py", *map(str, files)],
        cwd=tmp_path / "out",
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert same([json.loads(line)["label"] for line in bundled.stdout.splitlines()])

    with served(tmp_path / "out" / "model.onnx", "--decoders", "1") as server, server.client() as client:
        inferred = [_infer(client, batch) for batch in _batches(tested)]
        assert same([KNOWN_AS[index] for index in np.concatenate(inferred).argmax(axis=1)])
        for file, label, is_clear in list(zip(files, expected, clear, strict=True))[:100]:
            told = client.post("/predict", content=file.read_bytes()).json()["predictions"][0]["label"]
            assert told == label or not is_clear


@pytest.mark.slow
def test_all_forms_squash_pictures_that_are_not_square_alike(
    foveate: Foveate, tiny: list[str], tmp_path: Path
) -> None:
    fit: Fit = "squash"
    files = _write_photographs(tmp_path / "photos")
    setting = ("--size", 32, "--set", f"fit={fit}")
    assert foveate("train", "photos", *setting, "--epochs", 2, "--name", "run", *tiny).status == 0
    run = tmp_path / "runs" / "train" / "run"

    # What the others are held against: pixels that were decoded one by one, and asked about together.
    predictor = Predictor.load(run)
    assert predictor.about.preprocessing == Preprocessing(32, fit)
    pixels = np.stack([decode_file(file, Preprocessing(32, fit)) for file in files])
    logits = predictor.engine.logits(pixels)
    expected = predictor.about.confidence.probabilities(logits)
    cropped = np.stack([decode_file(file, Preprocessing(32)) for file in files])
    assert (pixels != cropped).any(axis=(1, 2, 3)).mean() > 0.8  # else nothing below could fail
    trained = load_dataset("photos", DataConfig(size=32, fit=fit))
    assert [trained.images[trained.ids.index(f"{each.parent.name}/{each.name}")].tolist() for each in files] == (
        pixels.tolist()
    )

    def same(found: Any) -> bool:
        return bool(np.abs(np.array(found, float) - expected).max() < 1e-4)

    def table(name: str) -> list[list[float]]:
        return [row["probabilities"] for row in pq.read_table(tmp_path / name).to_pylist()]

    assert same([each.probabilities for each in predictor.predict(files)])
    assert same([each.probabilities for each in predictor.predict([file.read_bytes() for file in files])])
    assert same([each.probabilities for each in predictor.predict([Image.open(file) for file in files])])
    for workers in (0, 2):
        streamed = predictor.predict_files(map(str, files), workers=workers)
        assert same([each.probabilities for each in streamed])
    assert foveate("predict", run, *files, "--all", "--parquet", "by-run.parquet").status == 0
    assert same(table("by-run.parquet"))

    assert foveate("export", run, "--to", "out", "--bundle", "--no-int8").status == 0
    assert foveate("predict", "out/model.onnx", *files, "--all", "--parquet", "by-onnx.parquet").status == 0
    assert same(table("by-onnx.parquet"))
    bundled = subprocess.run(
        [sys.executable, "predict.py", *map(str, files)],
        cwd=tmp_path / "out",
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=True,
    )
    told = [json.loads(line)["probabilities"] for line in bundled.stdout.splitlines()]
    assert same([[each[name] for name in ("blue", "green", "red")] for each in told])

    # On other data, and by a file of which no run is known: the same images, the same figures.
    assert foveate("evaluate", run, "photos", "--name", "by-run").status == 0
    assert foveate("evaluate", "out/model.onnx", "photos", "--name", "by-file").status == 0
    weights = run / "weights" / "best.safetensors"
    assert foveate("evaluate", weights, "photos", "--name", "by-weights").status == 0
    for name in ("by-file", "by-weights"):
        found = _measured(tmp_path / "runs" / "evaluate" / name, files)
        assert np.abs(np.array(found) - softmax(logits, axis=1)).max() < 1e-4

    assert foveate("explain", weights, files[0], "--method", "gradcam", "--name", "maps").status == 0
    (map_of_first,) = (tmp_path / "runs" / "explain" / "maps").glob("*.png")
    with Image.open(map_of_first) as drawn:
        assert drawn.width == drawn.height  # drawn over the square that the network sees

    with served(tmp_path / "out" / "model.onnx", "--decoders", "1") as server, server.client() as client:
        about = client.get("/about").json()
        assert about["fit"] == fit
        described = client.get(f"/v2/models/{about['model']}").json()
        assert described["parameters"]["resize"] == RESIZES[fit]
        answers = [client.post("/predict?top_k=3", content=file.read_bytes()).json() for file in files]
        scores = [{told["label"]: told["score"] for told in each["predictions"]} for each in answers]
        assert same([[each[name] for name in ("blue", "green", "red")] for each in scores])


def _write_photographs(folder: Path) -> list[Path]:
    """Of every shape and in three formats: landscape, portrait, turned by EXIF data, a line, a square."""
    rng = np.random.default_rng(0)
    shapes = [(60, 40), (40, 60), (90, 30), (30, 90), (64, 48), (80, 1), (1, 80), (50, 50), (33, 32), (21, 57)]
    files = []
    for channel, name in enumerate(("blue", "green", "red")):
        (folder / name).mkdir(parents=True)
        for number, (width, height) in enumerate(shapes * 2):
            pixels = rng.integers(0, 160, (height, width, 3), np.uint8)
            pixels[:, : width // 2, 2 - channel] += 90  # whoever crops or mirrors it sees another picture
            exif = Image.Exif()
            exif[0x0112] = (1, 6, 3, 8)[number % 4]
            files.append(folder / name / f"{number:02}.{('jpg', 'png', 'webp')[number % 3]}")
            Image.fromarray(pixels).save(files[-1], exif=exif, quality=95)
    return files


def _measured(folder: Path, files: list[Path]) -> list[list[float]]:
    """Probabilities of the images in the table of a measurement, in the order of `files`."""
    rows = {row["image"]: row for row in pq.read_table(folder / "predictions.parquet").to_pylist()}
    names = [f"{file.parent.name}/{file.name}" for file in files]
    return [[rows[name][f"p_{each}"] for each in ("blue", "green", "red")] for name in names]


def _batches(images: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    return [images[at : at + BATCH] for at in range(0, len(images), BATCH)]


def _write_files(folder: Path, images: NDArray[np.uint8]) -> list[Path]:
    folder.mkdir()
    files = [folder / f"{number:05}.png" for number in range(len(images))]
    for file, pixels in zip(files, images, strict=True):
        Image.fromarray(pixels).save(file, compress_level=1)
    return files


def _labels(table: Path) -> list[str]:
    return [row["label"] for row in pq.read_table(table).to_pylist()]


def _infer(client: Any, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits of images [n, H, W, 3] by the Open Inference Protocol, in binary."""
    tensor = np.ascontiguousarray(batch.transpose(0, 3, 1, 2))
    given = {
        "name": "images",
        "datatype": "UINT8",
        "shape": tensor.shape,
        "parameters": {"binary_data_size": tensor.nbytes},
    }
    wanted = {"name": "logits", "parameters": {"binary_data": True}}
    head = json.dumps({"inputs": [given], "outputs": [wanted]}).encode()
    answer = client.post(
        "/v2/models/out/infer",
        content=head + tensor.tobytes(),
        headers={"Inference-Header-Content-Length": str(len(head))},
    )
    assert answer.status_code == 200, answer.text
    start = int(answer.headers["Inference-Header-Content-Length"])
    return np.frombuffer(answer.content[start:], np.float32).reshape(len(batch), -1)


def _has_assets() -> bool:
    try:
        read_assets(None)
    except ConfigError:
        return False
    return True
