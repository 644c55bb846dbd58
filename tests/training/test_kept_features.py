"""Features are computed once, kept, and found again for the same pixels and weights alone."""

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

import foveate
from foveate.config import resolve_config
from foveate.data.dataset import load_dataset
from foveate.model.network import AttentionCNN
from foveate.progress import untracked
from foveate.settings import DataConfig
from foveate.training import kept_features as module
from foveate.training.device import DeviceData
from foveate.training.fit import Fit
from foveate.training.kept_features import kept_features
from foveate.training.regression import classifier_logits
from foveate.training.settings import resolve_settings


@pytest.fixture
def fit() -> Fit:
    whole = load_dataset("digits", DataConfig(size=16))
    dataset = replace(whole, splits={name: each[:40] for name, each in whole.splits.items()})
    settings = {"backbone": "resnet18", "weights": None, "size": 16}
    config = resolve_settings(resolve_config("photos", settings=settings), dataset)
    return Fit(config, DeviceData.load(dataset, torch.device("cpu")))


def _features(fit: Fit, *, maps: bool = False) -> module.KeptFeatures:
    network = cast("AttentionCNN", fit.state.model)
    return kept_features(network, fit.data, fit.config, untracked, pool=None if maps else network.head.pool)


def test_they_are_kept_and_the_test_split_is_not_among_them(
    fit: Fit, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _features(fit)
    splits = fit.data.dataset.splits
    assert first.indices.tolist() == sorted([*splits["train"], *splits["validation"]])
    (kept,) = (own_cache / "features").iterdir()
    assert [each.kind for each in foveate.list_cache() if each.path == kept] == ["features"]
    monkeypatch.setattr(module, "_outputs", lambda *_: pytest.fail("computed again"))
    again = _features(fit)
    assert torch.equal(again.features, first.features)
    assert (first.kept, again.kept) == (False, True)
    parted = fit.data.with_splits({"train": first.indices[::2], "held_out": first.indices[1::2]})
    fit.data = parted
    assert torch.equal(_features(fit).features, first.features)


def test_maps_are_kept_beside_vectors_in_half_precision(
    fit: Fit, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pooled, maps = _features(fit).features, _features(fit, maps=True).features
    assert (maps.dtype, maps.ndim) == (torch.float16, 4)
    torch.testing.assert_close(maps.float().mean((1, 2)), pooled, rtol=2e-3, atol=2e-3)
    assert len(list((own_cache / "features").iterdir())) == 2
    monkeypatch.setattr(module, "_outputs", lambda *_: pytest.fail("computed again"))
    assert torch.equal(_features(fit, maps=True).features, maps)


def test_damaged_ones_and_those_of_other_weights_or_pixels_are_computed_again(fit: Fit, own_cache: Path) -> None:
    first = _features(fit)
    (kept,) = (own_cache / "features").iterdir()
    kept.write_bytes(kept.read_bytes()[:-1])
    assert torch.equal(_features(fit).features, first.features)
    with torch.no_grad():
        next(fit.state.model.stem.parameters()).mul_(2)
    assert not torch.equal(_features(fit).features, first.features)
    images = fit.data.dataset.images.copy()
    images[fit.data.dataset.splits["train"][0], 0, 0, 0] ^= 255
    fit.data = replace(fit.data, dataset=replace(fit.data.dataset, images=images))
    _features(fit)
    assert len(list((own_cache / "features").iterdir())) == 3
    assert len(foveate.clear_cache().removed) >= 3
    assert not list((own_cache / "features").iterdir())


def test_an_epoch_says_whether_features_were_kept_before(fit: Fit) -> None:
    (computed,) = fit.epochs()
    (kept,) = Fit(fit.config, fit.data).epochs()
    assert (computed.features_kept, kept.features_kept) == (False, True)


def test_the_fitted_classifier_answers_from_them_as_the_network_does(fit: Fit) -> None:
    list(fit.epochs())
    logits = classifier_logits(fit.state, fit.data, "validation", fit.config)
    theirs, _ = fit.data.logits(fit.state.model, "validation", fit.config)
    np.testing.assert_allclose(logits, theirs, atol=1e-3)
