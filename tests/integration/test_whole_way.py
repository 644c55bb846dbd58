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
from tests.serving.conftest import served

from foveate.data.dataset import load_dataset
from foveate.errors import ConfigError
from foveate.exporting.web import read_assets
from foveate.inference.predictor import Predictor
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
        (train, labels), (test, others) = first("train", 3000), first("test", 10_000)
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
