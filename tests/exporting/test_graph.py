"""Networks as ONNX: every kind there is gives what it gives in torch, for any number of images."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import pytest
import torch
from tests import exported
from torch import nn

from foveate.checkpoint import Checkpoint
from foveate.confidence import energy
from foveate.config import preset_names, resolve_config
from foveate.errors import ExportError
from foveate.exporting.graph import described, to_int8, to_onnx
from foveate.inference.network import NetworkEngine
from foveate.inference.onnx import OnnxEngine
from foveate.inference.onnx_file import OPERATORS
from foveate.model.build import build_model
from foveate.preprocessing import Preprocessing
from foveate.settings import AttentionKind, HeadKind, ModelConfig


def engine_of(config: ModelConfig, size: int) -> NetworkEngine:
    """A network whose statistics and gate are not those that it began with."""
    network = build_model(config, (0.4, 0.5, 0.6), (0.1, 0.2, 0.3), num_classes=3, size=size)
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.uniform_(-0.2, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)  # type: ignore[union-attr]
    for name, parameter in network.named_parameters():
        if name.endswith("gate"):
            parameter.data.fill_(0.7)
        elif name.startswith("head.") and not parameter.any():  # it begins at zero, and all logits with it
            parameter.data.normal_(generator=generator)
    return NetworkEngine(Checkpoint(network.eval(), config, exported.NAMES, Preprocessing(size)), "fp32")


def check(engine: NetworkEngine, path: Path) -> None:
    """Write the network; compare all outputs, of one image and of many."""
    size = engine.about.size
    model = to_onnx(engine.network, size, 0.7)
    card = exported.card(imgsz=(size, size), weights=engine.about.digest)
    path.write_bytes(described(model, card))
    file = OnnxEngine(path)
    for count in (1, 5):
        images = exported.images(count, size=size)
        wanted = engine.logits(images)
        logits, probabilities, unlike = file.outputs(images)
        scale = max(1.0, float(np.abs(wanted).max()))
        np.testing.assert_allclose(logits, wanted, atol=2e-5 * scale)
        np.testing.assert_allclose(probabilities, exported.CONFIDENCE.probabilities(wanted), atol=5e-5 * scale)
        np.testing.assert_allclose(unlike, energy(wanted), atol=2e-5 * scale)
    small = exported.card(imgsz=(size, size), weights=engine.about.digest, precision="int8")
    images = exported.images(32, size=size)
    path.write_bytes(described(to_int8(model, images), small))
    off = np.abs(OnnxEngine(path).logits(images) - engine.logits(images)).mean()
    assert off < 0.2 * engine.logits(images).std()


def tiny(**changes: Any) -> ModelConfig:
    stages = [{"filters": 8, "kernels": [3, 3]}, {"filters": 16, "kernels": [3, 3]}]
    return ModelConfig.model_validate({"stages": stages, "hidden": 6, **changes})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "mode"), [*((kind, "replace") for kind in get_args(AttentionKind)), ("luong_scaled", "residual")]
)
def test_every_kind_of_attention_gives_what_it_gives_in_torch(kind: str, mode: str, tmp_path: Path) -> None:
    # A side that the pools do not divide.
    check(engine_of(tiny(attention=kind, attention_mode=mode, attention_stage=1), 19), tmp_path / "model.onnx")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "block"), [*((head, "normed") for head in get_args(HeadKind)), ("mean_max", "plain")]
)
def test_every_head_and_block_gives_what_it_gives_in_torch(head: str, block: str, tmp_path: Path) -> None:
    check(engine_of(tiny(head=head, block=block, whiten=2, activation="silu"), 16), tmp_path / "model.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("preset", [name for name in preset_names() if "-" not in name])
def test_every_preset_gives_what_it_gives_in_torch(preset: str, tmp_path: Path) -> None:
    # Those with a dash are its networks too: of `photos`, trained in other ways, and twins without attention.
    check(engine_of(resolve_config(preset).model, 32), tmp_path / "model.onnx")


def test_the_file_holds_nothing_of_the_machine_that_made_it() -> None:
    for content in (exported.plain(), to_int8(exported.plain(), exported.images(16))):
        proto = onnx.load_model_from_string(content)
        assert proto.producer_name == "foveate"
        assert all(not each.metadata_props and not each.doc_string for each in proto.graph.node)
        assert {each.op_type for each in proto.graph.node} <= OPERATORS
        for secret in (b"site-packages", b"/tests/", str(Path.home()).encode(), b".py", b"/tmp"):
            assert secret not in content


def test_the_same_network_gives_the_same_bytes() -> None:
    again = to_onnx(exported.network().network, exported.SIZE, exported.CONFIDENCE.temperature)
    assert again == exported.plain()


def test_eight_bits_are_written_for_convolutions_alone_with_seven_of_them_used(tmp_path: Path) -> None:
    content = to_int8(exported.plain(), exported.images(64))
    proto = onnx.load_model_from_string(content)
    weights = {each.name: onnx.numpy_helper.to_array(each) for each in proto.graph.initializer}
    quantized = [each for each in weights.values() if each.dtype == np.int8 and each.ndim == 4]
    convolutions = [each for each in proto.graph.node if each.op_type == "Conv"]
    assert len(quantized) == len(convolutions) > 0
    # On AVX2 pairs of 8-bit products are added in 16 bits: weights of all 8 bits overflow there.
    assert all(each.min() >= -64 and each.max() <= 64 for each in quantized)
    scales = [each for name, each in weights.items() if name.endswith("weight_scale")]
    assert all(each.ndim == 1 for each in scales)
    assert any(len(each) > 1 for each in scales)
    path = tmp_path / "model.onnx"
    path.write_bytes(described(content, exported.card(precision="int8")))
    images = exported.images(100, seed=1)
    here, there = OnnxEngine(path).logits(images), exported.network().logits(images)
    assert (here.argmax(1) == there.argmax(1)).mean() > 0.9


class _Sorted(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.sort(images.float().mean((2, 3)).numpy()))


def test_a_network_that_onnx_has_no_operator_for_is_one_line() -> None:
    with pytest.raises(ExportError, match="cannot write this network as ONNX") as caught:
        to_onnx(_Sorted(), 16, None)
    assert "\n" not in str(caught.value)
