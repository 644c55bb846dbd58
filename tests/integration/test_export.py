"""Export from a run or a weights file: the files, the proof, and what is refused."""

import json
import shutil
import subprocess
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests import exported
from tests.hostile_models import CLASSES, CONFIG, SIZE
from tests.integration.conftest import Outcome

import foveate as api
from foveate.checkpoint import checkpoint_metadata
from foveate.errors import CheckpointError, ConfigError, DataError, ExportError, OutputError
from foveate.exporting import proof
from foveate.inference.onnx_file import read_onnx
from foveate.inference.predictor import Predictor
from foveate.preprocessing import Preprocessing
from foveate.workflows import export as workflow

SETTINGS: dict[str, Any] = {
    "epochs": 2,
    "stages": [{"filters": 8, "kernels": [3], "pool": 2}, {"filters": 12, "kernels": [3], "pool": 2}],
    "hidden": 16,
    "lr": 0.01,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    return api.train("digits", preset="small", runs=folder, name="d", **SETTINGS).path


def test_a_run_is_exported_with_its_proof(run: Path, tmp_path: Path) -> None:
    done = api.export(run, tmp_path / "out", int8=True, licence="apache-2.0")
    assert {each.name for each in done.path.iterdir()} == {
        "model.onnx",
        "model-int8.onnx",
        "certificate.json",
        "certificate.html",
    }
    told = json.loads((done.path / "certificate.json").read_text())
    validation = json.loads((run / "metrics.json").read_text())["validation"]
    assert told["passed"]
    assert told["proved"]
    assert told["data"]["held_out"]
    assert told["data"]["images"] == validation["n"] == 287  # all of them
    assert told["torch"]["accuracy"] == validation["accuracy"]
    assert told["torch"]["interval"] == pytest.approx(validation["intervals"]["accuracy"])
    plain, small = (file["measured"] for file in told["files"])
    assert plain["equal_classes"] == 1
    assert plain["largest_difference"]["logits"] < 1e-3
    assert small["equal_classes"] > 0.95
    assert small["passed"]
    assert told["data"]["calibrated_on"] == "512 train images"
    for name, precision in (("model.onnx", "fp32"), ("model-int8.onnx", "int8")):
        _, card = read_onnx(done.path / name)
        assert card.precision == precision
        assert card.license == "apache-2.0"
        assert card.proof is not None
        assert card.weights == told["weights"]
        assert card.proof.images == 287
    page = done.page.read_text()
    assert "Proved" in page
    assert str(tmp_path) not in page


def test_what_was_exported_predicts_as_the_run_does(run: Path, tmp_path: Path) -> None:
    done = api.export(run, tmp_path / "out")
    images = list(exported.images(50, size=8))
    here, there = (Predictor.load(each).predict(images, coverage=0.9) for each in (done.model, run))
    assert [(each.label, each.set, each.unlike) for each in here] == [
        (each.label, each.set, each.unlike) for each in there
    ]


def test_a_file_that_goes_beyond_its_bound_is_not_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, foveate: Callable[..., Outcome]
) -> None:
    def damaged(network: Any, size: int, temperature: float | None) -> bytes:
        network.head.classifier.bias.data[3] += 100
        try:
            return real(network, size, temperature)
        finally:
            network.head.classifier.bias.data[3] -= 100

    real = workflow.to_onnx
    monkeypatch.setattr(workflow, "to_onnx", damaged)
    done = foveate("export", run, "--to", tmp_path / "out", "--bundle")
    assert done.status == 1
    assert "get another class than in torch" in done.err
    assert done.err.count("\n") == 1
    assert {each.name for each in (tmp_path / "out").iterdir()} == {"certificate.json", "certificate.html"}
    assert "Failed: no model was written" in (tmp_path / "out" / "certificate.html").read_text()
    assert json.loads((tmp_path / "out" / "certificate.json").read_text())["passed"] is False


def test_eight_bits_that_lose_too_much_leave_no_model(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    black = np.zeros((32, 16, 16, 3), np.uint8)
    real = workflow.to_int8
    monkeypatch.setattr(workflow, "to_int8", lambda model, images: real(model, black))
    with pytest.raises(ExportError, match="points of accuracy are lost"):
        api.export(run, tmp_path / "out", int8=True)
    assert not list((tmp_path / "out").glob("*.onnx"))


def test_a_weights_file_is_proved_on_other_images(
    tmp_path: Path, photographs: Callable[..., Path], foveate: Callable[..., Outcome]
) -> None:
    weights = exported.save(tmp_path / "net.safetensors")
    pets = photographs(classes=exported.NAMES[:2])
    done = foveate("export", weights, "--to", "out", "--data", pets, "--int8")
    told = json.loads((tmp_path / "out" / "certificate.json").read_text())
    assert told["data"]["held_out"] is None
    assert told["data"]["split"] == "all"
    assert told["data"]["images"] == 12
    assert told["data"]["calibrated_on"] == "12 all images"
    assert done.status == (0 if told["passed"] else 1)


def test_unproved_is_said_by_the_certificate_and_the_file(tmp_path: Path, foveate: Callable[..., Outcome]) -> None:
    weights = exported.save(tmp_path / "net.safetensors")
    done = foveate("export", weights, "--to", "out", "--unproved", "--bundle")
    assert done.status == 0
    assert "unproved" in done.out
    assert read_onnx(tmp_path / "out" / "model.onnx")[1].proof is None
    told = json.loads((tmp_path / "out" / "certificate.json").read_text())
    assert told["proved"] is False
    assert told["data"] is None
    assert "Unproved" in (tmp_path / "out" / "certificate.html").read_text()


def test_wrong_requests_are_one_line_and_nothing_is_written(
    run: Path, tmp_path: Path, photographs: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, pets = exported.save(tmp_path / "net.safetensors"), photographs()
    model = exported.write(tmp_path / "model.onnx")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    before = {each.relative_to(tmp_path) for each in tmp_path.rglob("*")}
    refused: list[tuple[type[Exception], str, Any, Path, dict[str, Any]]] = [
        (CheckpointError, "exported already", model, tmp_path / "out", {}),
        (ConfigError, "does not say which images", weights, tmp_path / "out", {}),
        (ConfigError, "exists already", run, tmp_path / "full", {}),
        (ConfigError, "exists already", run, model, {}),
        (ConfigError, "is the folder that you are in", run, Path(), {}),
        (OutputError, "a part of the path is a file", run, model / "out", {}),
        (ConfigError, "--examples", run, tmp_path / "out", {"examples": 3}),
        (ConfigError, "make web", run, tmp_path / "out", {"web": True, "web_assets": tmp_path}),
        (ConfigError, "--unproved", run, tmp_path / "out", {"unproved": True, "int8": True}),
        (ConfigError, "--unproved", run, tmp_path / "out", {"unproved": True, "data": "digits"}),
        (ConfigError, "lies within the data", weights, pets / "out", {"data": pets}),
        (CheckpointError, "no model at", tmp_path / "none", tmp_path / "out", {}),
        (CheckpointError, "is not a run", tmp_path / "full", tmp_path / "out", {}),
        (DataError, "unknown to the model", weights, tmp_path / "out", {"data": pets}),
        (DataError, "unknown to the model", run, tmp_path / "out", {"data": pets}),
    ]
    for error, told, source, to, given in refused:
        with pytest.raises(error, match=told) as caught:
            api.export(source, to, **given)
        assert "\n" not in str(caught.value)
    assert {each.relative_to(tmp_path) for each in tmp_path.rglob("*")} == before


def test_a_model_of_pixels_that_a_browser_does_not_have_gets_no_page(tmp_path: Path) -> None:
    deep = checkpoint_metadata(CONFIG, CLASSES, Preprocessing(SIZE, white=4095))
    weights = exported.save(tmp_path / "net.safetensors", **deep)
    with pytest.raises(ConfigError, match=r"--web: .* takes 4095 of theirs as white: leave --web out"):
        api.export(weights, tmp_path / "out", web=True, unproved=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_run_whose_images_are_gone_says_how_to_name_them(
    tmp_path: Path, photographs: Callable[..., Path]
) -> None:
    data = photographs()
    made = api.train(str(data), preset="small", runs=tmp_path / "runs", size=16, **SETTINGS)
    moved = data.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="by --data"):
        api.export(made.path, tmp_path / "out")
    done = api.export(made.path, tmp_path / "out", data=moved).certificate
    assert done.data is not None
    assert (done.data.split, done.data.held_out) == ("validation", True)
    shutil.copytree(moved, data)
    shutil.copy(data / "red" / "0.jpg", data / "red" / "added.jpg")
    ways = "restore the images that it had; or give other images by --data, or leave the proof out by --unproved"
    with pytest.raises(CheckpointError, match=ways):
        api.export(made.path, tmp_path / "grown")
    grown = api.export(made.path, tmp_path / "grown", data=data).certificate
    assert grown.data is not None
    assert (grown.data.split, grown.data.held_out) == ("all", None)


@pytest.mark.slow
def test_a_run_without_held_out_images_says_so(tmp_path: Path) -> None:
    made = api.train("digits", preset="small", runs=tmp_path, name="f", final=True, **SETTINGS)
    done = api.export(made.path, tmp_path / "out", bundle=True)
    assert done.certificate.data is not None
    assert done.certificate.data.held_out is False
    assert "also trained on these images" in done.page.read_text()
    assert "not calibrated" in (done.path / "README.md").read_text()


def test_the_bounds_that_are_stated_are_those_that_are_held() -> None:
    assert f"{proof.MARGIN:g}" in proof.BOUNDS["fp32"]
    assert f"{proof.LOST_POINTS:g} points" in proof.BOUNDS["int8"]


def _site(folder: Path, packages: tuple[str, ...]) -> None:
    """Links to what a bundle requires, and to what that requires: neither Foveate nor torch is among them."""
    import importlib.metadata as metadata
    import re

    waiting, done = list(packages), set()
    while waiting:
        name = waiting.pop()
        if name in done:
            continue
        done.add(name)
        found = metadata.distribution(name)
        for file in found.files or ():
            top = folder / file.parts[0]
            if file.parts[0] not in ("..", "__pycache__") and not top.exists():
                top.symlink_to(Path(str(found.locate_file(file.parts[0]))))
        waiting += [re.split(r"[ ;<>=!~\[(]", each)[0] for each in found.requires or () if "extra" not in each]


@pytest.mark.slow
def test_a_bundle_runs_without_foveate_and_torch_and_gives_the_same_of_200_images(
    run: Path, tmp_path: Path
) -> None:
    done = api.export(run, tmp_path / "out", bundle=True)
    images = tmp_path / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    kinds = ("png", "jpg", "webp", "tiff", "gif")
    for number in range(200):
        pixels = rng.integers(0, 256, (4, 5, 3), np.uint8)
        side = (int(rng.integers(5, 90)), int(rng.integers(5, 90)))
        Image.fromarray(pixels).resize(side, Image.Resampling.BICUBIC).save(
            images / f"{number:03}.{kinds[number % len(kinds)]}"
        )
    (images / "bad.png").write_bytes(b"none")
    paths = sorted(map(str, images.iterdir()))
    # A virtual environment of its own, filled without a network.
    place = tmp_path / "venv"
    venv.create(place, with_pip=False, symlinks=True)
    (site,) = (place / "lib").glob("python*/site-packages")
    required = (done.path / "requirements.txt").read_text().split()
    _site(site, tuple(each.split("==")[0] for each in required))
    python = place / "bin" / "python"
    env = {"PATH": ""}
    for absent in ("torch", "foveate", "pydantic", "yaml", "filelock"):
        tried = subprocess.run([python, "-c", f"import {absent}"], capture_output=True, check=False, env=env)
        assert b"ModuleNotFoundError" in tried.stderr
    told = subprocess.run(
        [python, done.path / "predict.py", "--coverage", "0.9", *paths],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=env,
    )
    assert told.returncode == 1
    assert told.stderr == ""
    rows = [json.loads(line) for line in told.stdout.splitlines()]
    wanted = list(Predictor.load(run).predict(paths, coverage=0.9))
    assert len(rows) == len(wanted) == 201
    for row, each in zip(rows, wanted, strict=True):
        assert row["id"] == each.id
        if each.reason is not None:
            assert row["reason"] == each.reason
            continue
        assert row["label"] == each.label
        assert row["set"] == list(each.set or ())
        assert row["unlike"] == each.unlike
        assert row["probability"] == pytest.approx(each.probability, abs=1e-5)
        assert row["unlike_score"] == pytest.approx(each.unlike_score, abs=1e-4)
