"""Pooled features are computed once, kept, and found again for the same pixels and weights alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import foveate
from foveate.config import resolve_config
from foveate.data.dataset import load_dataset
from foveate.progress import untracked
from foveate.settings import DataConfig
from foveate.training import pooled_features as module
from foveate.training.device import DeviceData
from foveate.training.fit import Fit
from foveate.training.pooled_features import pooled_features
from foveate.training.regression import classifier_logits
from foveate.training.settings import resolve_settings


@pytest.fixture
def fit() -> Fit:
    whole = load_dataset("digits", DataConfig(size=16))
    dataset = replace(whole, splits={name: each[:40] for name, each in whole.splits.items()})
    settings = {"backbone": "resnet18", "weights": None, "size": 16}
    config = resolve_settings(resolve_config("photos", settings=settings), dataset)
    return Fit(config, DeviceData.load(dataset, torch.device("cpu")))


def _features(fit: Fit) -> module.PooledFeatures:
    return pooled_features(fit.state.model, fit.data, fit.config, untracked)


def test_they_are_kept_and_the_test_split_is_not_among_them(
    fit: Fit, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _features(fit)
    splits = fit.data.dataset.splits
    assert first.indices.tolist() == sorted([*splits["train"], *splits["validation"]])
    (kept,) = (own_cache / "features").iterdir()
    assert [each.kind for each in foveate.list_cache() if each.path == kept] == ["features"]
    monkeypatch.setattr(module, "outputs", lambda *_, **__: pytest.fail("computed again"))
    assert np.array_equal(_features(fit).features, first.features)
    parted = fit.data.with_splits({"train": first.indices[::2], "held_out": first.indices[1::2]})
    again = pooled_features(fit.state.model, parted, fit.config, untracked)
    assert np.array_equal(again.features, first.features)


def test_damaged_ones_and_those_of_other_weights_or_pixels_are_computed_again(fit: Fit, own_cache: Path) -> None:
    first = _features(fit)
    (kept,) = (own_cache / "features").iterdir()
    kept.write_bytes(kept.read_bytes()[:-1])
    assert np.array_equal(_features(fit).features, first.features)
    with torch.no_grad():
        next(fit.state.model.stem.parameters()).mul_(2)
    assert not np.array_equal(_features(fit).features, first.features)
    images = fit.data.dataset.images.copy()
    images[fit.data.dataset.splits["train"][0], 0, 0, 0] ^= 255
    fit.data = replace(fit.data, dataset=replace(fit.data.dataset, images=images))
    _features(fit)
    assert len(list((own_cache / "features").iterdir())) == 3
    assert len(foveate.clear_cache().removed) >= 3
    assert not list((own_cache / "features").iterdir())


def test_the_fitted_classifier_answers_from_them_as_the_network_does(fit: Fit) -> None:
    list(fit.epochs())
    logits = classifier_logits(fit.state, fit.data, "validation", fit.config)
    theirs, _ = fit.data.logits(fit.state.model, "validation", fit.config)
    np.testing.assert_allclose(logits, theirs, atol=1e-3)
