"""Folds hold out each image once, spread every class evenly and never part a group."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from foveate.data.dataset import Dataset, load_dataset
from foveate.data.folds import StoredFolds, check_units, draw_folds, fold_units, hold_out, most_folds
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
    alone = np.arange(len(labels))
    folds = draw_folds(labels, alone, count, seed)
    assert folds.shape == labels.shape
    assert set(folds.tolist()) == set(range(count))
    for label in range(len(sizes)):
        counts = np.bincount(folds[labels == label], minlength=count)
        assert counts.max() - counts.min() <= 1
    assert (folds == draw_folds(labels, alone, count, seed)).all()


@given(groups=st.integers(6, 20), count=st.integers(2, 3), seed=st.integers(0, 1000))
def test_groups_stay_together_and_every_fold_leaves_each_class_to_train_on(
    groups: int, count: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    of_images = np.concatenate([np.repeat(group, rng.integers(2, 6)) for group in range(groups)])
    labels = (of_images + rng.integers(0, 2, len(of_images))) % 2
    assume(all(len(np.unique(of_images[labels == label])) >= count for label in (0, 1)))
    folds = draw_folds(labels, of_images, count, seed)
    for group in range(groups):
        assert len(set(folds[of_images == group])) == 1
    for fold in range(count):
        assert set(labels[folds != fold]) == {0, 1}


def _joined(labels: list[int], pixels: list[int], groups: list[str] | None = None, test: int = 0) -> Dataset:
    """Images of one value each, of which the last `test` are the test split."""
    images = np.broadcast_to(np.array(pixels, np.uint8)[:, None, None, None], (len(pixels), 8, 8, 3))
    places = np.arange(len(labels))
    kept = len(labels) - test
    return replace(
        load_dataset("digits", DataConfig()),
        images=images,
        labels=np.array(labels),
        class_names=("cat", "dog"),
        groups=None if groups is None else tuple(groups),
        splits={"train": places[:kept], **({"test": places[kept:]} if test else {})},
    )


def test_copies_and_groups_that_hang_together_are_one_unit() -> None:
    labels, pixels = [0, 0, 1, 0, 1, 1, 0], [1, 2, 1, 3, 4, 5, 5]
    assert fold_units(_joined(labels, [1, 2, 3, 4, 5, 6, 7])).tolist() == list(range(7))
    assert fold_units(_joined(labels, pixels)).tolist() == [0, 1, 0, 2, 3, 4, 4]
    assert fold_units(_joined(labels, pixels, ["a", "b", "", "a", "b", "", ""])).tolist() == [0, 1, 0, 0, 1, 2, 2]
    assert fold_units(_joined(labels, [1, 2, 3, 4, 5, 6, 7], [*"abab", "", "", ""])).tolist() == [
        0,
        1,
        0,
        1,
        2,
        3,
        4,
    ]
    assert fold_units(_joined(labels, pixels, test=1)).tolist() == [0, 1, 0, 2, 3, 4]


@given(copies=st.lists(st.integers(0, 11), min_size=24, max_size=24), seed=st.integers(0, 1000))
def test_copies_share_a_fold(copies: list[int], seed: int) -> None:
    pixels = [*copies, *range(100, 124)]
    joined = _joined([number % 2 for number in range(48)], pixels)
    folds = draw_folds(joined.labels, fold_units(joined), 3, seed)
    for value in set(pixels):
        assert len({int(fold) for fold, each in zip(folds, pixels, strict=True) if each == value}) == 1


@pytest.mark.parametrize(
    ("joined", "told"),
    [
        (
            _joined([0, 0, 0, 1, 1, 1, 1, 1, 0], list(range(9)), test=1),
            r"the class cat has 3 images in train and validation \(1 more image is in the test split\), and each "
            "fold holds out one or more: give --folds 3 or fewer, or add images",
        ),
        (
            _joined([0] * 3 + [1] * 6, list(range(9)), ["a", "a", "b", *"cdefgh"]),
            "the class cat has 2 groups in train and validation, and each fold holds out one or more: "
            "give --folds 2, ",
        ),
        (_joined([0] * 3 + [1] * 6, [0, 0, *range(1, 8)]), "the class cat has 2 different images in"),
        (_joined([0] + [1] * 6, list(range(7))), "the class cat has 1 image in train and validation; a fold that"),
    ],
)
def test_more_folds_than_a_class_has_images_or_groups_are_refused(joined: Dataset, told: str) -> None:
    units = fold_units(joined)
    with pytest.raises(DataError, match=told):
        check_units(joined, units, 5)
    if told.startswith("the class cat has 2"):
        check_units(joined, units, 2)


def test_what_cannot_be_parted_is_refused_with_an_advice_that_can_be_followed() -> None:
    labels, units = np.array([1, 1, 1, 0, 0, 1, 1, 0, 0]), np.array([0, 0, 0, 1, 1, 1, 1, 2, 2])
    with pytest.raises(DataError, match="some to train on: add images"):  # fewer than 2 folds are none
        draw_folds(labels, units, 2, 0)


def test_stored_folds_are_those_that_were_drawn_and_damage_is_told(tmp_path: Path) -> None:
    joined = load_dataset("digits", DataConfig()).for_final()
    train = joined.splits["train"]
    drawn = draw_folds(joined.labels[train], fold_units(joined), 3, 0)
    stored = StoredFolds.write(tmp_path, joined, drawn, 3)
    for fold, indices in enumerate(stored.held_out(joined)):
        assert (indices == train[drawn == fold]).all()
    other = replace(joined, splits={"train": train[1:]})
    with pytest.raises(CheckpointError, match="does not fit the splits"):
        stored.held_out(other)
    stored.path.write_bytes(stored.path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="damaged"):
        stored.held_out(joined)


def test_one_training_image_in_five_is_held_out_and_no_other_is_touched() -> None:
    digits = load_dataset("digits", DataConfig())
    train = digits.splits["train"]
    parts = hold_out(digits, 5, seed=3)
    assert parts is not None
    assert sorted(np.concatenate([parts["train"], parts["validation"]])) == train.tolist()
    assert len(parts["validation"]) == pytest.approx(len(train) / 5, abs=2)
    grouped = replace(digits, groups=[str(index % 40) for index in range(len(digits.labels))])
    parts = hold_out(grouped, 5, seed=3)
    assert parts is not None
    assert not {index % 40 for index in parts["train"]} & {index % 40 for index in parts["validation"]}
    assert hold_out(replace(digits, splits={"train": train[:30]}), 5, seed=3) is None


def test_how_many_folds_can_be_drawn_is_known_by_drawing_them() -> None:
    pixels = list(range(20))
    assert most_folds(_joined([0] * 10 + [1] * 10, pixels), 0) == 5
    assert most_folds(_joined([0] * 17 + [1] * 3, pixels), 0) == 3
    assert most_folds(_joined([0] * 19 + [1], pixels), 0) == 0
    groups = [f"{number // 5}" for number in range(20)]  # two of each class
    assert most_folds(_joined([0] * 10 + [1] * 10, pixels, groups), 0) == 2
    assert most_folds(_joined([0] * 18 + [1] * 2, [*range(18), 18, 18]), 0) == 0  # copies share a fold
