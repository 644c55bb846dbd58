"""Folds hold out each image once, spread every class evenly and never part a group."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from foveate.data.dataset import load_dataset
from foveate.data.folds import StoredFolds, draw_folds
from foveate.errors import CheckpointError, DataError
from foveate.settings import DataConfig


@given(
    sizes=st.lists(st.integers(2, 30), min_size=2, max_size=4),
    count=st.integers(2, 8),
    seed=st.integers(0, 2**40),
)
def test_each_image_is_held_out_once_and_classes_are_balanced_within_one(
    sizes: list[int], count: int, seed: int
) -> None:
    assume(min(sizes) >= count)
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    folds = draw_folds(labels, None, count, seed)
    assert folds.shape == labels.shape
    assert set(folds.tolist()) == set(range(count))
    for label in range(len(sizes)):
        counts = np.bincount(folds[labels == label], minlength=count)
        assert counts.max() - counts.min() <= 1
    assert (folds == draw_folds(labels, None, count, seed)).all()


@given(groups=st.integers(6, 20), count=st.integers(2, 3), seed=st.integers(0, 1000))
def test_groups_stay_together_and_every_fold_leaves_each_class_to_train_on(
    groups: int, count: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    of_images = np.concatenate([np.repeat(group, rng.integers(2, 6)) for group in range(groups)])
    labels = (of_images + rng.integers(0, 2, len(of_images))) % 2
    names = [f"p{group}" for group in of_images]
    assume(all(len(np.unique(of_images[labels == label])) >= count for label in (0, 1)))
    folds = draw_folds(labels, names, count, seed)
    for group in range(groups):
        assert len(set(folds[of_images == group])) == 1
    for fold in range(count):
        assert set(labels[folds != fold]) == {0, 1}


@pytest.mark.parametrize(
    ("groups", "told"),
    [(None, "the smallest class has 3 images"), (["a", "a", "b", *"cdefgh"], "the smallest class has 2 groups")],
)
def test_more_folds_than_a_class_has_images_or_groups_are_refused(groups: list[str] | None, told: str) -> None:
    with pytest.raises(DataError, match=told):
        draw_folds(np.array([0, 0, 0, 1, 1, 1, 1, 1, 1]), groups, 5, 0)


def test_stored_folds_are_those_that_were_drawn_and_damage_is_told(tmp_path: Path) -> None:
    joined = load_dataset("digits", DataConfig()).for_final()
    train = joined.splits["train"]
    drawn = draw_folds(joined.labels[train], None, 3, 0)
    stored = StoredFolds.write(tmp_path, joined, drawn, 3)
    for fold, indices in enumerate(stored.held_out(joined)):
        assert (indices == train[drawn == fold]).all()
    other = replace(joined, splits={"train": train[1:]})
    with pytest.raises(CheckpointError, match="does not fit the splits"):
        stored.held_out(other)
    stored.path.write_bytes(stored.path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="damaged"):
        stored.held_out(joined)
