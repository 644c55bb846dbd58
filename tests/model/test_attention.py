from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from foveate.config import AttentionKind
from foveate.model.attention import (
    ATTENTION,
    GatedResidual,
    LuongAttention2d,
    LuongRowAttention2d,
    LuongScaledAttention2d,
)

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 6), st.integers(1, 6))


def features(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def attend(queries: np.ndarray, keys: np.ndarray, values: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """Luong's dot score by its definition, one position at a time."""
    out = np.zeros_like(values)
    for i, query in enumerate(queries):
        scores = np.array([float(np.dot(query, key)) * scale for key in keys])
        weights = np.exp(scores - scores.max())
        out[i] = (weights / weights.sum()) @ values
    return out


def test_the_table_holds_exactly_the_kinds_that_settings_may_name() -> None:
    assert set(ATTENTION) == set(get_args(AttentionKind))


@settings(deadline=None, max_examples=25)
@given(SHAPES)
def test_luong_equals_its_definition_over_all_positions(shape: tuple[int, int, int, int]) -> None:
    images = features(shape)
    got = LuongAttention2d()(images)
    assert got.shape == images.shape
    for image, attended in zip(images.double().numpy(), got.numpy(), strict=True):
        tokens = image.reshape(shape[1], -1).T
        np.testing.assert_allclose(attended.reshape(shape[1], -1).T, attend(tokens, tokens, tokens), atol=1e-5)


@settings(deadline=None, max_examples=25)
@given(SHAPES)
def test_luong_row_equals_its_definition_within_each_row(shape: tuple[int, int, int, int]) -> None:
    images = features(shape)
    got = LuongRowAttention2d()(images)
    assert got.shape == images.shape
    for image, attended in zip(images.double().numpy(), got.numpy(), strict=True):
        for row in range(shape[2]):
            tokens = image[:, row].T
            np.testing.assert_allclose(attended[:, row].T, attend(tokens, tokens, tokens), atol=1e-5)


@settings(deadline=None, max_examples=25)
@given(SHAPES, st.integers(0, 99))
def test_luong_scaled_equals_its_definition_with_projected_scores(
    shape: tuple[int, int, int, int], seed: int
) -> None:
    images, module = features(shape, seed), LuongScaledAttention2d(shape[1])
    module.init_weights(torch.Generator().manual_seed(seed))
    project_q, project_k = (
        conv.weight.detach().double().numpy()[:, :, 0, 0] for conv in (module.query, module.key)
    )
    assert len(project_q) == 16  # of 128 channels or fewer
    got = module(images).detach()
    assert got.shape == images.shape
    for image, attended in zip(images.double().numpy(), got.numpy(), strict=True):
        tokens = image.reshape(shape[1], -1).T
        expected = attend(tokens @ project_q.T, tokens @ project_k.T, tokens, scale=16**-0.5)
        np.testing.assert_allclose(attended.reshape(shape[1], -1).T, expected, atol=1e-5)


def test_the_rank_of_learned_scores_grows_with_the_channels() -> None:
    assert LuongScaledAttention2d(256).query.weight.shape == (32, 256, 1, 1)


def test_a_row_does_not_see_other_rows_but_luong_sees_all() -> None:
    images = features((1, 4, 3, 5))
    changed = images.clone()
    changed[:, :, 2] += 1
    row, whole = LuongRowAttention2d(), LuongAttention2d()
    torch.testing.assert_close(row(images)[:, :, :2], row(changed)[:, :, :2])
    assert not torch.allclose(whole(images)[:, :, :2], whole(changed)[:, :, :2])


KINDS = [kind for kind in get_args(AttentionKind) if kind != "none"]


@pytest.mark.parametrize("kind", KINDS)
def test_asked_weights_are_those_that_were_used(kind: AttentionKind) -> None:
    module = ATTENTION[kind](5)
    images = features((2, 5, 4, 3))
    weights = module.attention_weights(images)
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    values = images.permute(0, 2, 3, 1) if kind == "luong_row" else images.flatten(2).transpose(1, 2)
    attended = (weights @ values).reshape(2, 4, 3, 5).permute(0, 3, 1, 2)
    torch.testing.assert_close(module(images), attended, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_definition(kind: AttentionKind) -> None:
    images = features((2, 3, 3, 4)).double().requires_grad_()
    assert torch.autograd.gradcheck(ATTENTION[kind](3).double(), (images,))


@pytest.mark.parametrize("kind", get_args(AttentionKind))
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_any_kind_serves_in_anyones_network(kind: AttentionKind, memory_format: torch.memory_format) -> None:
    network = nn.Sequential(nn.Conv2d(3, 6, 3), ATTENTION[kind](6), nn.Conv2d(6, 2, 3))
    images = features((2, 3, 9, 8)).to(memory_format=memory_format)
    network(images).sum().backward()
    assert all(bool(p.grad is not None and p.grad.isfinite().all()) for p in network.parameters())


def test_scores_too_large_for_exp_stay_finite() -> None:
    images = features((1, 64, 4, 4)) * 1e3
    for kind in KINDS:
        module = ATTENTION[kind](64)
        assert module(images).isfinite().all()
        assert module.attention_weights(images).isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_residual_begins_as_the_identity_and_its_gate_gets_a_gradient(kind: AttentionKind) -> None:
    images = features((2, 5, 4, 3))
    module = GatedResidual(ATTENTION[kind](5))
    assert torch.equal(module(images), images)
    (module(images) * features((2, 5, 4, 3), seed=1)).sum().backward()
    assert module.gate.grad is not None
    expected = (module.attention(images) * features((2, 5, 4, 3), seed=1)).sum()
    torch.testing.assert_close(module.gate.grad, expected.detach())
    assert module.gate.grad.abs() > 1e-3
    with torch.no_grad():
        module.gate.fill_(0.5)
        torch.testing.assert_close(module(images), images + 0.5 * module.attention(images))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", KINDS)
def test_the_memory_format_changes_nothing(kind: AttentionKind, memory_format: torch.memory_format) -> None:
    module, images = ATTENTION[kind](6), features((2, 6, 4, 5))
    torch.testing.assert_close(module(images.to(memory_format=memory_format)), module(images))
