"""How `check --labels` parts images into folds."""

from dataclasses import replace

import numpy as np
import pytest

from foveate.data.dataset import Dataset, load_dataset
from foveate.errors import DataError
from foveate.settings import DataConfig
from foveate.workflows.check import _draw_folds


def some_digits(groups: int) -> Dataset:
    """120 digits of four classes, in groups of each class's own, so many for each."""
    digits = load_dataset("digits", DataConfig())
    labels = np.arange(120) % 4
    names = tuple(f"{label}-{place // 4 % groups}" for place, label in enumerate(labels.tolist()))
    return replace(
        digits, images=digits.images[:120], labels=labels, groups=names, splits={"train": np.arange(120)}
    )


def test_images_of_one_group_and_copies_are_judged_by_one_network() -> None:
    dataset = some_digits(groups=6)
    images = dataset.images.copy()
    images[9] = images[1]  # of two groups of class 1, which so become one
    every, folds = _draw_folds(replace(dataset, images=images), 0)
    assert every.tolist() == list(range(120))
    assert sorted(set(folds.tolist())) == [0, 1, 2]
    groups = np.array(dataset.groups)
    assert all(len(set(folds[groups == group].tolist())) == 1 for group in set(groups.tolist()))
    assert folds[9] == folds[1]
    for fold in range(3):
        assert set(dataset.labels[folds != fold].tolist()) == {0, 1, 2, 3}


def test_too_few_groups_are_told() -> None:
    with pytest.raises(DataError, match="too few groups or different images for 3 folds: check without"):
        _draw_folds(some_digits(groups=2), 0)
