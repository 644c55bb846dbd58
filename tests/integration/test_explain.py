"""Explaining from the command line: maps of images, what they are worth, and what cannot be explained."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import foveate as fv
from foveate.errors import CheckpointError

Foveate = Callable[..., Any]
Photographs = Callable[..., Path]


@pytest.fixture
def run(trained: Callable[..., Path]) -> Path:
    return trained("m", 30, "--epochs", 2, "--set", "attention=luong")


def test_images_are_explained_by_every_method_on_a_page(
    foveate: Foveate, photographs: Photographs, run: Path, tmp_path: Path
) -> None:
    other = photographs("other", each=1)
    (other / "red" / "<b>broken.png").write_bytes(b"no image")
    done = foveate("explain", run, other, "--name", "e")
    assert done.status == 1
    assert "cannot be read: " in done.out
    folder = tmp_path / "runs" / "explain" / "e"
    pictures = sorted(path.name for path in folder.glob("*.png"))
    assert len(pictures) == 3 * 3
    assert {name.rsplit("-", 1)[1] for name in pictures} == {"attention.png", "gradcam.png", "occlusion.png"}
    with Image.open(folder / pictures[0]) as picture:
        assert min(picture.size) >= 224
    page = (folder / "explain.html").read_text()
    assert "<script" not in page
    assert "can be measured on a run by <code>foveate explain RUN</code>" in page


def test_a_run_that_was_trained_on_its_validation_images_is_refused(
    foveate: Foveate, photographs: Photographs, tiny: list[str], tmp_path: Path
) -> None:
    foveate("train", photographs(each=30), "--epochs", 1, "--name", "f", "--final", *tiny)
    done = foveate("explain", tmp_path / "runs" / "train" / "f", "--images", 10)
    assert done.status == 2
    assert "was trained on its validation images as well" in done.err


def test_a_verdict_is_kept_and_shown_with_maps_and_in_the_report(
    foveate: Foveate, photographs: Photographs, run: Path, tmp_path: Path
) -> None:
    done = foveate("explain", run, "--images", 10)
    assert done.status == 0, done.err
    assert "Grad-CAM is " in done.out
    kept = json.loads((run / "explanation.json").read_text())
    assert [each["method"] for each in kept["verdicts"]] == ["attention", "gradcam", "occlusion"]
    layers = [each["layer"] for each in kept["verdicts"][1]["shuffled"]]
    assert layers[0] == "head"
    assert layers[-1] in ("stage 1", "stem")
    assert "whether that means anything" in (run / "report.html").read_text()
    fv.evaluate(run)
    assert "whether that means anything" in (run / "report.html").read_text()
    folder = fv.explain(run, [photographs("other", each=1)], runs=tmp_path / "runs")
    assert "What these maps are worth" in folder.page.read_text()
    # The same twice, and none of it where the network is another.
    foveate("explain", run, "--images", 10)
    assert json.loads((run / "explanation.json").read_text()) == kept
    kept["weights"] = "0" * 64
    (run / "explanation.json").write_text(json.dumps(kept))
    fv.evaluate(run)
    assert "whether that means anything" not in (run / "report.html").read_text()


@pytest.mark.parametrize(
    "damage", [{"weights": 5}, {"verdicts": [{}]}, {"grid": [{"id": "a"}]}, {"more": 1}, {"grid": "x" * 100}]
)
def test_a_damaged_explanation_is_one_line(run: Path, damage: dict[str, Any]) -> None:
    kept = {"weights": "0" * 64, "command": "foveate", "verdicts": [], "grid": [], **damage}
    (run / "explanation.json").write_text(json.dumps(kept))
    with pytest.raises(CheckpointError, match="remove it, and run `foveate explain` again") as error:
        fv.evaluate(run)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_an_exported_file_is_explained_by_occlusion_alone(
    foveate: Foveate, photographs: Photographs, run: Path, tmp_path: Path
) -> None:
    fv.export(run, tmp_path / "out")
    other = photographs("other", each=1)
    done = foveate("explain", tmp_path / "out" / "model.onnx", other, "--name", "o")
    assert done.status == 0, done.err
    assert {path.name.rsplit("-", 1)[1] for path in (tmp_path / "runs/explain/o").glob("*.png")} == {
        "occlusion.png"
    }
    asked = foveate("explain", tmp_path / "out" / "model.onnx", other, "--method", "gradcam")
    assert (asked.status, asked.err.count("\n")) == (2, 1)
    assert "an .onnx file can be explained by occlusion alone" in asked.err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("RUN", "--images", 5), "--images 5: give 10 at least"),
        (("RUN", "--class", "red"), "--class and --name are for images"),
        (("RUN", "DATA", "--images", 20), "--images and --data-dir are for measuring"),
        (("RUN", "DATA", "--method", "lime"), "--method lime: give attention, gradcam, occlusion"),
        (("RUN", "DATA", "--class", "zebra"), "--class zebra: the model has no such class; known are blue"),
        (("RUN", "DATA", "--runs", "photographs"), "lies within the data"),
        (("RUN", "missing.png"), "there is no file or folder 'missing.png'"),
        (("WEIGHTS",), "is not a run"),
    ],
)
def test_what_cannot_be_explained_is_one_line(
    foveate: Foveate, run: Path, tmp_path: Path, words: tuple[object, ...], line: str
) -> None:
    places = {"RUN": run, "DATA": tmp_path / "photographs", "WEIGHTS": run / "weights" / "best.safetensors"}
    done = foveate("explain", *(places.get(str(word), word) for word in words))
    assert (done.status, done.err.count("\n")) == (2, 1), done.err
    assert line in done.err
