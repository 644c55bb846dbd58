import subprocess
import sys
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from foveate.config import resolve_config
from foveate.errors import ConfigError
from foveate.model.build import BLOCK, build_model, forward_bytes, outline_model
from foveate.model.layers import layer_table
from foveate.settings import Activation, AttentionKind, AttentionMode, BlockKind, HeadKind, ModelConfig

FIGURE_3_1 = [
    ((32, 32, 3), 0),
    ((32, 32, 64), 1792),
    ((32, 32, 64), 36928),
    ((32, 32, 64), 256),
    ((16, 16, 64), 0),
    ((16, 16, 64), 0),
    ((16, 16, 256), 409856),
    ((16, 16, 256), 1638656),
    ((16, 16, 256), 1024),
    ((5, 5, 256), 0),
    ((5, 5, 256), 0),
    ((6400,), 0),
    ((512,), 3277312),
    ((512,), 0),
    ((10,), 5130),
]


def preset(name: str) -> ModelConfig:
    return resolve_config(name).model


def test_paper_is_figure_3_1_to_the_letter() -> None:
    table = layer_table(build_model(preset("paper"), num_classes=10, size=32), 32)
    assert [(row.output_shape, row.params) for row in table.rows] == FIGURE_3_1
    kinds = [row.kind for row in table.rows]
    assert kinds == [
        "Normalize", "Conv2d", "Conv2d", "BatchNorm2d", "MaxPool2d", "LuongRowAttention2d", "Conv2d", "Conv2d",
        "BatchNorm2d", "MaxPool2d", "Dropout", "Flatten", "Linear", "Dropout", "Linear",
    ]  # fmt: skip
    assert (table.total, table.trainable, table.non_trainable) == (5_370_954, 5_370_314, 640)


def test_the_table_holds_exactly_the_blocks_that_settings_may_name() -> None:
    assert set(BLOCK) == set(get_args(BlockKind))


def test_the_table_of_a_fast_network_counts_every_parameter_once() -> None:
    network = build_model(preset("minute"), num_classes=10, size=32)
    table = layer_table(network, 32)
    kinds = [row.kind for row in table.rows]
    assert kinds[:4] == ["Normalize", "WhiteningConv2d", "Conv2d", "MaxPool2d"]
    assert kinds.count("GatedResidual") == 1
    assert kinds[-3:] == ["AdaptiveMaxPool2d", "Flatten", "Linear"]
    assert sum(row.params for row in table.rows) == table.total
    assert table.trainable == sum(p.numel() for p in network.parameters() if p.requires_grad)
    whitening = 24 * 3 * 2 * 2
    norms = 2 * (32 + 128 + 128)  # two a stage
    assert table.non_trainable == whitening + norms * 3  # running mean and variance, and the fixed scale
    assert table.rows[1].output_shape == (31, 31, 24)


def test_table_leaves_the_network_as_it_was() -> None:
    network = build_model(preset("small"), num_classes=3, size=32).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    layer_table(network, 32)
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


@settings(max_examples=20)
@given(
    size=st.integers(16, 96),
    classes=st.integers(2, 200),
    kind=st.sampled_from(get_args(AttentionKind)),
)
def test_small_works_at_any_size_and_any_number_of_classes(size: int, classes: int, kind: str) -> None:
    config = resolve_config("small", settings={"attention": kind}).model
    network = build_model(config, num_classes=classes, size=size)
    logits = network(torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8))
    assert logits.shape == (2, classes)
    assert logits.isfinite().all()


@settings(max_examples=40)
@given(
    size=st.integers(16, 64),
    whiten=st.integers(0, 5),
    block=st.sampled_from(get_args(BlockKind)),
    activation=st.sampled_from(get_args(Activation)),
    kind=st.sampled_from(get_args(AttentionKind)),
    mode=st.sampled_from(get_args(AttentionMode)),
    head=st.sampled_from(get_args(HeadKind)),
)
def test_any_parts_go_together(
    size: int,
    whiten: int,
    block: BlockKind,
    activation: Activation,
    kind: AttentionKind,
    mode: AttentionMode,
    head: HeadKind,
) -> None:
    stages = [{"filters": 5, "kernels": [3, 3]}, {"filters": 7, "kernels": [3, 1, 3], "pool": 3}]
    chosen = {"block": block, "activation": activation, "attention": kind, "attention_mode": mode, "head": head}
    config = resolve_config("small", settings={"stages": stages, "whiten": whiten, "hidden": 9, **chosen}).model
    network = build_model(config, num_classes=3, size=size)
    images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    network.init_whitening(images)
    logits = network(images)
    assert logits.shape == (2, 3)
    logits.square().sum().backward()
    assert all(
        bool(p.grad is not None and p.grad.isfinite().all()) for p in network.parameters() if p.requires_grad
    )
    assert (network.gate is None) is (kind == "none" or mode == "replace")


@pytest.mark.parametrize("kind", get_args(AttentionKind))
@pytest.mark.parametrize("name", ["paper", "small", "minute", "best"])
def test_an_outline_is_the_network_without_its_memory(name: str, kind: AttentionKind) -> None:
    config = resolve_config(name, settings={"attention": kind, "hidden": 8}).model
    network, outline = (make(config, num_classes=3, size=24) for make in (build_model, outline_model))
    described = {name: (tensor.shape, tensor.dtype) for name, tensor in outline.state_dict().items()}
    assert described == {name: (tensor.shape, tensor.dtype) for name, tensor in network.state_dict().items()}
    assert all(tensor.is_meta for tensor in outline.parameters())


def test_an_outline_of_gigabytes_takes_neither_time_nor_the_compiler() -> None:
    script = """
import sys
from foveate.settings import ModelConfig
from foveate.model.build import forward_bytes, outline_model
stages = [{"filters": 4096, "kernels": [15, 15], "pool": 1}] * 2
config = ModelConfig.model_validate({"stages": stages, "attention": "multi_head", "hidden": 65536})
network = outline_model(config, num_classes=2, size=256)
assert sum(each.numel() for each in network.parameters()) > 10**10
assert forward_bytes(config, 256) > 10**12
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@settings(max_examples=40)
@given(
    size=st.integers(16, 40),
    whiten=st.integers(0, 3),
    block=st.sampled_from(get_args(BlockKind)),
    pool=st.integers(1, 3),
    kernels=st.sampled_from([[3], [3, 1], [3, 3, 3]]),
    head=st.sampled_from(get_args(HeadKind)),
)
def test_the_widest_step_of_a_forward_pass_is_that_of_its_layers(
    size: int, whiten: int, block: BlockKind, pool: int, kernels: list[int], head: HeadKind
) -> None:
    stages = [{"filters": 5, "kernels": kernels, "pool": pool}, {"filters": 7, "kernels": kernels}]
    config = ModelConfig.model_validate(
        {"stages": stages, "whiten": whiten, "block": block, "head": head, "hidden": 9, "attention": "none"}
    )
    network = build_model(config, num_classes=3, size=size).eval()
    steps: list[int] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _, given, out: steps.append(given[0].nbytes + out.nbytes))
    network(torch.zeros(1, 3, size, size, dtype=torch.uint8))
    assert forward_bytes(config, size) == max(steps)


@pytest.mark.parametrize(("kind", "maps"), [("multi_head", 2 * 2), ("augmented_conv", 2 * 4), ("luong", 0)])
def test_the_scores_of_all_pairs_of_positions_are_part_of_a_forward_pass(kind: AttentionKind, maps: int) -> None:
    stages = [{"filters": 64, "kernels": [1], "pool": 1}]
    config = ModelConfig.model_validate({"stages": stages, "attention": kind, "head": "pooled"})
    convolved = 4 * (3 + 64) * 32**2
    assert forward_bytes(config, 32) == max(4 * maps * 32**4, convolved)


@pytest.mark.parametrize("name", [pytest.param("paper", marks=pytest.mark.slow), "small", "minute"])
def test_the_largest_size_works(name: str) -> None:
    config = resolve_config(name, settings={"attention": "luong", "hidden": 8}).model
    network = build_model(config, num_classes=2, size=256)
    network(torch.zeros(1, 3, 256, 256, dtype=torch.uint8)).sum().backward()
    assert all(
        bool(p.grad is not None and p.grad.isfinite().all()) for p in network.parameters() if p.requires_grad
    )


def test_network_is_channels_last_and_the_same_for_the_same_generator() -> None:
    first, again, other = (
        build_model(preset("small"), num_classes=4, size=16, generator=torch.Generator().manual_seed(seed))
        for seed in (5, 5, 6)
    )
    assert all(
        module.weight.is_contiguous(memory_format=torch.channels_last)
        for module in first.modules()
        if isinstance(module, nn.Conv2d)
    )
    equal = [torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)]
    assert all(equal)
    assert not torch.equal(first.head.dense.weight, other.head.dense.weight)


@pytest.mark.parametrize("kind", ["none", "luong", "luong_row"])
def test_networks_that_differ_in_attention_alone_begin_with_the_same_weights(kind: str) -> None:
    with_, without = (
        build_model(resolve_config("minute", settings={"attention": each}).model, num_classes=4, size=16)
        for each in ("luong_scaled", kind)
    )
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    for network in (with_, without):
        network.init_whitening(images)
    shared = without.state_dict()
    for name, tensor in with_.state_dict().items():
        if ".attention." in name:
            continue
        assert torch.equal(tensor, shared.pop(name)), name
    assert all(".attention." in name for name in shared)


def test_only_standard_normalisation_takes_the_statistics() -> None:
    images = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8)
    mean, std = (0.4, 0.5, 0.6), (0.1, 0.2, 0.3)
    small = build_model(preset("small"), mean, std, num_classes=2, size=16)
    torch.testing.assert_close(
        small.normalize(images)[0, 1], (images[0, 1] / 255 - 0.5) / 0.2, atol=1e-5, rtol=1e-5
    )
    paper = build_model(preset("paper"), mean, std, num_classes=2, size=16)
    torch.testing.assert_close(paper.normalize(images), images / 255)


def test_too_few_classes_and_too_small_images_are_refused_with_the_fix() -> None:
    with pytest.raises(ConfigError, match="num_classes=1"):
        build_model(preset("small"), num_classes=1, size=32)
    deep = ModelConfig.model_validate({"stages": [{"filters": 2, "kernels": [1], "pool": 8}] * 2})
    with pytest.raises(ConfigError, match=r"size=32: the pools \(8×8\) leave nothing.*larger size"):
        build_model(deep, num_classes=2, size=32)


@pytest.mark.parametrize("preset", ["paper", "minute"])
def test_normalisation_and_dropout_can_be_switched_off_as_a_whole(preset: str) -> None:
    config = resolve_config(preset, settings={"batch_norm": False, "dropout": False}).model
    network = build_model(config, num_classes=10, size=32)
    assert not any(isinstance(module, nn.BatchNorm2d | nn.Dropout) for module in network.modules())


@pytest.mark.parametrize("kind", get_args(AttentionKind))
@pytest.mark.parametrize("name", ["paper", "minute"])
def test_the_rows_of_the_table_of_layers_sum_to_its_total(name: str, kind: AttentionKind) -> None:
    network = build_model(resolve_config(name, settings={"attention": kind}).model, num_classes=3, size=32)
    table = layer_table(network, 32)
    gate = 0 if network.gate is None else 1
    listed = {row.name: row.params for row in table.rows}
    assert len(listed) == len(table.rows)
    assert sum(listed.values()) == table.total
    assert gate == (kind != "none" and name == "minute")


def test_all_batch_normalisation_follows_the_setting() -> None:
    settings = {"attention": "residual_mask", "norm_momentum": 0.03}
    network = build_model(resolve_config("minute", settings=settings).model, num_classes=3, size=32)
    momenta = {module.momentum for module in network.modules() if isinstance(module, nn.BatchNorm2d)}
    assert momenta == {0.03}
