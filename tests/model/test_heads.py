"""Heads that pool over positions, against NumPy."""

import numpy as np
import pytest
import torch

from foveate.config import resolve_config
from foveate.errors import ConfigError
from foveate.model.build import build_model
from foveate.model.heads import POOLING, AttentionPool, LinearHead


@pytest.fixture
def maps() -> torch.Tensor:
    return torch.randn(3, 5, 4, 6, generator=torch.Generator().manual_seed(0))


def test_poolings_are_what_they_are_called(maps: torch.Tensor) -> None:
    positions = maps.flatten(2).numpy()
    mean, largest = positions.mean(2), positions.max(2)
    np.testing.assert_allclose(POOLING["mean"](5)(maps).numpy(), mean, rtol=1e-5)
    np.testing.assert_allclose(POOLING["mean_max"](5)(maps).numpy(), np.hstack([mean, largest]), rtol=1e-5)


def test_attention_pool_is_the_mean_at_first_and_then_weighs_by_its_query(maps: torch.Tensor) -> None:
    pool = AttentionPool(5)
    np.testing.assert_allclose(pool(maps).detach(), maps.mean((2, 3)), rtol=1e-5, atol=1e-6)
    pool.query.data = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0])
    positions = maps.flatten(2).numpy().astype(np.float64)
    scores = np.einsum("bcn,c->bn", positions, pool.query.detach().numpy()) / np.sqrt(5)
    weights = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose(
        pool(maps).detach(), np.einsum("bcn,bn->bc", positions, weights), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(pool.attention_map(maps).detach().flatten(1), weights, rtol=1e-4)


def test_a_linear_head_begins_at_equal_logits(maps: torch.Tensor) -> None:
    head = LinearHead(POOLING["mean_max"](5), 7)
    head.draw_weights(torch.Generator())
    assert torch.equal(head(maps), torch.zeros(3, 7))


def test_without_attention_a_weighted_mean_is_plain() -> None:
    config = resolve_config("small", settings={"head": "attention_pool", "attention": "none"})
    network = build_model(config.model, num_classes=3, size=32).eval()
    with torch.no_grad():
        network.head.classifier.weight.normal_(generator=torch.Generator().manual_seed(1))
        network.head.pool.query.normal_(generator=torch.Generator().manual_seed(2)).mul_(20)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    assert network.attention is network.head.pool
    with torch.no_grad():
        whole = network(images)
        with network.without_attention():
            plain = network(images)
        mean = network.head.classifier(network.features(images).mean((2, 3)))
        assert torch.allclose(plain, mean, atol=1e-6)
        assert not torch.allclose(whole, plain, atol=1e-3)
        assert torch.equal(network(images), whole)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"backbone": "resnet18"}, "has stages of its own"),
        ({"backbone": "resnet18", "stages": []}, "takes a head that pools"),
        ({"stages": []}, "give one stage at least"),
        ({"freeze": "all"}, "is for a backbone"),
        ({"weights": "imagenet"}, "is for a backbone"),
        ({"optimizer": "logistic_regression"}, "features of a frozen backbone"),
    ],
)
def test_what_does_not_go_together_is_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        resolve_config("small", settings=settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"epochs": 3}, "sees each image once"),
        ({"augmentation": True}, "sees each image once"),
        ({"attention": "luong"}, "features of a frozen backbone"),
        ({"head": "attention_pool"}, "features of a frozen backbone"),
        ({"freeze": "first"}, "features of a frozen backbone"),
    ],
)
def test_a_regression_takes_no_more_than_it_can_use(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        resolve_config("photos", settings=settings)
