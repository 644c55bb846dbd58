"""Maps over images: against captum, and against networks of which it is known where they look."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam, Occlusion
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor, nn

from foveate.checkpoint import Checkpoint
from foveate.confidence import Confidence
from foveate.config import resolve_config
from foveate.errors import ConfigError
from foveate.inference.engine import BATCH, About
from foveate.inference.explanation import (
    METHODS,
    attention,
    gradcam,
    map_side,
    occlusion,
    overlay,
    unavailable,
)
from foveate.inference.network import NetworkEngine
from foveate.model.build import build_model
from foveate.preprocessing import Preprocessing
from foveate.settings import AttentionKind

KINDS = tuple(kind for kind in get_args(AttentionKind) if kind != "none")
SIZE = 16


def engine(kind: str = "luong", *, head: str = "pooled", size: int = SIZE) -> NetworkEngine:
    """A network of two small stages with initial weights."""
    stages = [{"filters": 32, "kernels": [3], "pool": 2}, {"filters": 6, "kernels": [3], "pool": 2}]
    config = resolve_config(
        "small",
        settings={"attention": kind, "attention_stage": 1, "stages": stages, "head": head, "hidden": 8},
    )
    model = build_model(config.model, num_classes=3, size=size, generator=torch.Generator().manual_seed(3)).eval()
    checkpoint = Checkpoint(
        model=model, config=config.model, class_names=("a", "b", "c"), preprocessing=Preprocessing(size),
        confidence=Confidence(),
    )  # fmt: skip
    return NetworkEngine(checkpoint)


def picture(size: int = SIZE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


class BrightCorner:
    """Class 1 is as likely as the upper left quarter is bright; it is no network in PyTorch."""

    about = About(("dark", "bright"), Preprocessing(SIZE), Confidence(), "0" * 64)
    asked = 0

    def logits(self, images: np.ndarray) -> np.ndarray:
        assert len(images) <= BATCH
        self.asked += len(images)
        bright = images[:, : SIZE // 2, : SIZE // 2].astype(np.float32).mean((1, 2, 3)) / 64
        return np.stack([np.zeros_like(bright), bright], axis=1)


def test_a_map_of_one_value_has_it_everywhere() -> None:
    """Enlarged by interpolation, one value is rounded otherwise at other places: specks that mean nothing."""
    small = engine(size=7)
    assert map_side(small, "gradcam") == 1
    for seed in range(20):
        pixels = picture(7, seed)
        values = gradcam(small, pixels, seed % 3)
        assert np.ptp(values) == 0
        assert (overlay(pixels, values) == pixels).all()


@pytest.mark.parametrize("head", ["pooled", "dense"])
def test_gradcam_is_captums(head: str) -> None:
    network, pixels = engine(head=head), picture()
    batch = torch.from_numpy(pixels[None]).permute(0, 3, 1, 2).float()
    oracle = LayerGradCam(network.network, network.network.stages)
    found = []
    for index in range(3):
        theirs = oracle.attribute(batch, index, relu_attributions=True)
        theirs = LayerGradCam.interpolate(theirs, (SIZE, SIZE), interpolate_mode="bilinear")
        found.append(gradcam(network, pixels, index))
        np.testing.assert_array_equal(found[-1], theirs.detach().numpy()[0, 0])
    assert np.ptp(found) > 0
    assert found[0].dtype == np.float32


@pytest.mark.parametrize("size", [16, 17, 30])
def test_occlusion_is_captums(size: int) -> None:
    network, pixels = engine(size=size), picture(size)

    def logs(batch: Tensor) -> Tensor:
        return network.network(batch).double().log_softmax(1)

    mean = torch.from_numpy(pixels.mean((0, 1)).round()).float()
    window, stride = -(-size // 4), -(-size // 8)
    theirs = Occlusion(logs).attribute(
        torch.from_numpy(pixels[None]).permute(0, 3, 1, 2).float(),
        target=1,
        sliding_window_shapes=(3, window, window),
        strides=(3, stride, stride),
        baselines=mean[None, :, None, None].expand(1, 3, size, size),
    )
    np.testing.assert_allclose(occlusion(network, pixels, 1), theirs[0, 0].numpy(), rtol=1e-4, atol=1e-6)


def test_occlusion_finds_what_any_engine_looks_at() -> None:
    looks = BrightCorner()
    pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
    pixels[: SIZE // 2, : SIZE // 2] = 200
    found = occlusion(looks, pixels, 1)
    assert looks.asked <= 50
    assert found[:6, :6].min() > 0 == np.abs(found[SIZE // 2 + 4 :]).max()
    assert occlusion(looks, pixels, 0)[:6, :6].max() < 0  # there it speaks against the other class


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_attention_has_a_map(kind: str) -> None:
    network = engine(kind)
    one, other = attention(network, picture()), attention(network, picture(seed=1))
    assert one.shape == (SIZE, SIZE)
    assert one.dtype == np.float32
    assert one.min() >= 0
    assert np.ptp(one) > 0
    assert not np.array_equal(one, other)
    assert map_side(network, "attention") == SIZE // 2
    assert not network.network.attention._forward_pre_hooks


def test_a_network_without_attention_says_so() -> None:
    assert engine("none").network.attention is None
    with pytest.raises(ConfigError, match="none embedded; choose the method gradcam"):
        attention(engine("none"), picture())
    assert "none embedded" in (unavailable(engine("none"), "attention") or "")
    assert unavailable(engine("none"), "gradcam") is None


class Mapless(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features * 2


class Mapped(Mapless):
    gives: Any = staticmethod(lambda features: features.mean(1))

    def attention_map(self, features: Tensor) -> Tensor:
        return self.gives(features)


@pytest.mark.parametrize(
    ("gives", "told"),
    [
        (lambda features: features, "it gave the shape"),
        (lambda features: None, "it gave the shape"),
        (lambda features: features.mean(1) * torch.nan, "must give finite values"),
        (lambda features: features @ features[0, 0, :3], "failed"),
    ],
)
def test_an_attention_of_ones_own_has_a_map_where_its_class_gives_one(gives: Any, told: str) -> None:
    network = engine()
    network.network.stages[0].attention = Mapless()
    with pytest.raises(ConfigError, match=r"Mapless gives no map of its own; .* give the class a method"):
        attention(network, picture())
    network.network.stages[0].attention = Mapped()
    assert np.ptp(attention(network, picture())) > 0
    Mapped.gives, kept = staticmethod(gives), Mapped.gives
    try:
        with pytest.raises(ConfigError, match=told):
            attention(network, picture())
    finally:
        Mapped.gives = staticmethod(kept)


@pytest.mark.parametrize("method", ["attention", "gradcam"])
def test_what_needs_torch_says_so_of_other_engines(method: str) -> None:
    with pytest.raises(ConfigError, match=f"{method}: an .onnx file can be explained by occlusion alone"):
        METHODS[method](BrightCorner(), picture(), 0)
    assert unavailable(BrightCorner(), "occlusion") is None
    assert map_side(BrightCorner(), "occlusion") == 8


def test_occlusion_and_overlay_need_no_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys\nfrom foveate.inference.explanation import occlusion, overlay\n"
        "assert 'torch' not in sys.modules"
    )
    source = Path(__file__).parents[2] / "src"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(source)})


@given(arrays(np.float32, (4, 5), elements=st.floats(-100, 100, width=32)))
@example(np.array([[2.83892e-39, *[-1] * 4], *[[-1] * 5] * 3], np.float32))  # a subnormal largest value
def test_an_overlay_colours_where_the_map_is_high(values: np.ndarray) -> None:
    pixels = np.full((4, 5, 3), 100, np.uint8)
    over = overlay(pixels, values)
    assert over.dtype == np.uint8
    low = max(values.min(), 0)
    assert np.array_equal(over[values <= low], pixels[values <= low])
    if values.max() > low:
        top = np.unravel_index(values.argmax(), values.shape)
        assert np.array_equal(over[top], np.round(0.25 * 100 + 0.75 * np.array([252, 255, 164])))
