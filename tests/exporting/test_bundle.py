"""A bundle: it holds what it says, and says what it holds."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import yaml
from PIL import Image
from tests import exported

from foveate.data.decode import resize_array
from foveate.exporting.bundle import bundle_files
from foveate.exporting.proof import Certificate, ProofData, Score
from foveate.inference.predictor import Predictor
from foveate.preprocessing import Fit, Preprocessing


def certificate(**changes: Any) -> Certificate:
    values: dict[str, Any] = {
        "model": "run_1",
        "weights": "0" * 64,
        "classes": 3,
        "size": 16,
        "date": "2026-11-26",
        "proved": True,
        "passed": True,
        "data": ProofData(
            name="pets | *mine*", split="validation", images=1234, fingerprint="0" * 64, held_out=True
        ),
        "torch": Score(accuracy=0.8604, interval=(0.8535, 0.8671)),
        "files": (),
        "versions": {},
    }
    return Certificate(**{**values, **changes})


def test_the_modules_that_decode_are_copied_letter_by_letter() -> None:
    made = bundle_files(exported.card(), certificate(), {})
    copied = {name for name in made if name.startswith("foveate/") and not name.endswith("__init__.py")}
    assert "foveate/data/decode.py" in copied
    for name in copied:
        assert made[name] == files("foveate").joinpath(name.removeprefix("foveate/")).read_bytes()


@pytest.mark.parametrize("fit", get_args(Fit))
def test_the_card_and_the_script_say_and_do_what_the_file_says(
    fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from foveate.exporting.bundled_predict import main

    told = bundle_files(exported.card(fit), certificate(), {})["README.md"].decode()
    assert ("centre" in told, "grey" in told, "whatever its sides" in told) == tuple(
        fit == each for each in ("crop", "pad", "squash")
    )
    model = exported.write(tmp_path / "model.onnx", fit=fit)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 50, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    assert main(["--model", str(model), str(tmp_path / "wide.png")]) == 0
    said = json.loads(capsys.readouterr().out)["probabilities"]
    square = resize_array(pixels, Preprocessing(exported.SIZE, fit))
    (expected,) = Predictor(exported.network()).of_pixels(["wide"], square[None], {})
    assert expected.probabilities is not None
    assert [said[name] for name in exported.NAMES] == pytest.approx(expected.probabilities.tolist(), abs=1e-5)


def test_the_card_is_read_by_the_hub_and_has_figures_with_intervals() -> None:
    text = bundle_files(exported.card(license="apache-2.0"), certificate(), {"attention": "luong"})["README.md"]
    _, front, body = text.decode().split("---\n", 2)
    told = yaml.safe_load(front)
    assert told["license"] == "apache-2.0"
    assert told["pipeline_tag"] == "image-classification"
    assert told["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.8604
    assert "85.35% to 86.71%" in body
    assert "1,234 images" in body
    assert "luong" in body
    assert "python predict.py photo.jpg --coverage 0.95\n" in body


@pytest.mark.parametrize("held_out", [True, False, None])
def test_the_hub_is_given_no_accuracy_on_images_that_were_trained_on(held_out: bool | None) -> None:
    data = ProofData(name="pets", split="validation", images=24, fingerprint="0" * 64, held_out=held_out)
    _, front, body = (
        bundle_files(exported.card(), certificate(data=data), {})["README.md"].decode().split("---\n", 2)
    )
    seen = held_out is False
    assert ("model-index" in yaml.safe_load(front)) is not seen
    assert ("The network was also trained on these images: the accuracies are too high" in body) is seen
    assert ("measured on images that it was trained on: expect less" in body) is seen
    assert ("measured on images like those it was trained on" in body) is not seen
    assert (data.trained_on in certificate(data=data).lines) is not held_out
    assert ("not known whether" in body) is (held_out is None)


def test_names_of_any_kind_do_no_harm_in_the_card() -> None:
    names = ("<script>alert(1)</script>", "![x](http://example.org/x.png)", "---", "=1+1", "🦊" * 300)
    made = bundle_files(exported.card(names=names), certificate(), {})["README.md"].decode()
    assert "<script>" not in made
    assert "![x](" not in made
    assert "pets \\| \\*mine\\*" in made
    assert made.count("\n---\n") == 1  # the end of the front matter alone


def test_a_card_of_what_is_unproved_says_so() -> None:
    bare = exported.card(confidence=type(exported.CONFIDENCE)())
    made = bundle_files(bare, certificate(proved=False, data=None, torch=None), {})["README.md"].decode()
    for line in ("exported unproved", "not calibrated", "no prediction sets", "licence is not known"):
        assert line in made
    assert "--coverage" not in made


def test_requirements_are_pinned_and_few() -> None:
    lines = bundle_files(exported.card(), certificate(), {})["requirements.txt"].decode().splitlines()
    assert [line.split("==")[0] for line in lines] == ["numpy", "onnxruntime", "pillow", "simplejpeg"]
    assert all(line.split("==")[1] for line in lines)


@pytest.mark.parametrize("arguments", [["--coverage", "1.5", "x.png"], ["--model", "none.onnx", "x.png"], []])
def test_the_script_refuses_a_wrong_request(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from foveate.exporting.bundled_predict import main

    model = exported.write(tmp_path / "model.onnx")
    given = arguments if "--model" in arguments or not arguments else ["--model", str(model), *arguments]
    with pytest.raises(SystemExit) as caught:
        main(given)
    assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err
