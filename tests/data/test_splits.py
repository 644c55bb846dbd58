import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveate.data.splits import (
    SPLITS,
    UNDECLARED,
    StoredSplits,
    group_numbers,
    grouped_split,
    hints_at_split,
    split_code,
    split_codes,
    split_words,
    stratified_split,
    stratified_subset,
)
from foveate.errors import CheckpointError, DataError

labels_lists = st.lists(st.integers(0, 5), min_size=1, max_size=200)
fractions = st.floats(0.01, 0.99)


@given(labels_lists, fractions, st.integers(0, 2**63 - 1))
def test_hold_out_divides_every_class_by_the_share(labels: list[int], fraction: float, seed: int) -> None:
    array = np.array(labels, np.int64)
    kept, held = stratified_split(array, fraction, seed)
    assert sorted([*kept, *held]) == list(range(len(labels)))
    assert (np.diff(kept) > 0).all()
    assert (np.diff(held) > 0).all()
    for label in set(labels):
        count = labels.count(label)
        expected = 0 if count == 1 else min(max(round(count * fraction), 1), count - 1)
        assert (array[held] == label).sum() == expected


@given(labels_lists, fractions, st.integers(0, 2**63 - 1))
def test_a_seed_repeats_the_split(labels: list[int], fraction: float, seed: int) -> None:
    array = np.array(labels, np.int64)
    for first, second in zip(
        stratified_split(array, fraction, seed), stratified_split(array, fraction, seed), strict=True
    ):
        assert np.array_equal(first, second)


def test_seeds_differ_and_the_draw_is_not_the_first_images() -> None:
    labels = np.zeros(100, np.int64)
    first, second = stratified_split(labels, 0.2, 0)[1], stratified_split(labels, 0.2, 1)[1]
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, np.arange(20))


def test_every_image_is_held_out_equally_often() -> None:
    counts = np.zeros(10)
    for seed in range(1000):
        counts[stratified_split(np.zeros(10, np.int64), 0.3, seed)[1]] += 1
    # 300 expected each, with a standard deviation of 14.5: five of these.
    assert abs(counts - 300).max() < 73


def test_the_paper_holds_out_a_fifth_of_each_class() -> None:
    kept, held = stratified_split(np.repeat(np.arange(10), 5000), 0.2, 0)
    labels = np.repeat(np.arange(10), 5000)
    assert np.bincount(labels[held]).tolist() == [1000] * 10
    assert len(kept) == 40_000


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("Val", "validation"),
        ("valid", "validation"),
        (" dev ", "validation"),
        ("TEST", "test"),
        *((name, "train") for name in ("training", "Train_set", "trainset", "Train images", "train[:80%]")),
        *((name, "validation") for name in ("validation", "val2017", "VAL_IMGS", "dev-set", "x_valid")),
        *((name, "test") for name in ("testing", "eval", "test1", "testset", "\uff34\uff25\uff33\uff34")),
    ],
)
def test_splits_are_known_as_users_spell_them(name: str, split: str) -> None:
    code = split_code(name)
    assert code is not None
    assert SPLITS[code] == split


def test_codes_of_a_column() -> None:
    assert split_codes(["test", "", None, "train"], str).tolist() == [2, UNDECLARED, UNDECLARED, 0]


def test_an_unknown_split_names_its_first_place() -> None:
    with pytest.raises(DataError, match=r"^row 1: split 'tset' is not one of train, val, test: correct it$"):
        split_codes(["test", "tset", "tset"], lambda row: f"row {row}")


@given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=12), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_a_draw_has_the_number_and_the_share_of_every_class(sizes: list[int], share: float, seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    count = round(share * len(labels))
    drawn = stratified_subset(labels, count, seed)
    assert len(np.unique(drawn)) == len(drawn) == count
    assert drawn.tolist() == sorted(drawn.tolist())
    of_class = np.bincount(labels[drawn], minlength=len(sizes))
    assert count < len(sizes) or of_class.min() >= 1
    exact = count * np.array(sizes) / len(labels)
    if exact.min() >= 1:
        assert np.abs(of_class - exact).max() < 1
    assert np.array_equal(drawn, stratified_subset(labels, count, seed))


def test_fewer_are_some_of_more() -> None:
    labels = np.repeat(np.arange(10), 100)
    assert set(stratified_subset(labels, 50, 3)) < set(stratified_subset(labels, 200, 3))
    assert set(stratified_subset(labels, 200, 3)) != set(stratified_subset(labels, 200, 4))


def test_stored_splits_come_back(tmp_path: Path) -> None:
    splits = {"train": np.array([0, 2, 5]), "validation": np.array([1]), "test": np.array([4])}
    stored = StoredSplits.write(tmp_path, splits, 7)
    again = StoredSplits(tmp_path / "splits.npy", stored.sha256).read(7)
    assert {name: indices.tolist() for name, indices in again.items()} == {
        name: indices.tolist() for name, indices in splits.items()
    }


def _npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"", "damaged"),
        (b"nonsense", "damaged"),
        (_npy(np.zeros(6, np.int8)), "does not fit the data set of 7 images"),
        (_npy(np.zeros(7, np.int16)), "does not fit"),
        (_npy(np.full(7, 3, np.int8)), "does not fit"),
        (_npy(np.full(7, -2, np.int8)), "does not fit"),
        (_npy(np.zeros(10**5, np.int8)), "more than 1,031"),
        (_npy(np.zeros((7, 1), np.int8)).replace(b"(7, 1)", b"(10**12,)"), "damaged"),
    ],
)
def test_stored_splits_that_do_not_fit_are_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "splits.npy"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        StoredSplits(path, hashlib.sha256(content or b"").hexdigest()).read(7)


def test_stored_splits_that_were_changed_are_refused(tmp_path: Path) -> None:
    stored = StoredSplits.write(tmp_path, {"train": np.arange(7)}, 7)
    StoredSplits.write(tmp_path, {"train": np.arange(6), "test": np.array([6])}, 7)
    with pytest.raises(CheckpointError, match="its checksum differs"):
        stored.read(7)


@pytest.mark.parametrize("name", ["", "set", "1", "trainval", "train_test", "test tube", "contest", "tset"])
def test_what_names_no_split(name: str) -> None:
    assert split_code(name) is None


@pytest.mark.parametrize(
    ("name", "hints"),
    [
        ("PublicTest", True),
        ("test_old", True),
        ("trainval", True),
        ("hold-out", True),
        ("held out", True),
        ("unseen", True),
        ("household outing", False),
        ("contest", False),
        ("cat", False),
    ],
)
def test_what_a_person_would_take_for_a_split(name: str, hints: bool) -> None:
    assert hints_at_split(name) == hints


@given(st.text())
def test_any_name_is_one_split_or_none(name: str) -> None:
    code = split_code(name)
    assert code is None or (split_words(name) == {code} and hints_at_split(name))


@given(
    groups=st.lists(st.tuples(st.integers(1, 6), st.integers(0, 2)), min_size=1, max_size=30),
    fraction=st.floats(0.05, 0.6),
    seed=st.integers(0, 1000),
)
def test_a_grouped_split_parts_no_group_and_holds_out_no_class_as_a_whole(
    groups: list[tuple[int, int]], fraction: float, seed: int
) -> None:
    numbers = np.repeat(np.arange(len(groups)), [size for size, _ in groups])
    labels = np.repeat([label for _, label in groups], [size for size, _ in groups]).astype(np.int64)
    kept, held = grouped_split(labels, numbers, fraction, seed)
    assert sorted([*kept, *held]) == list(range(len(labels)))
    assert not set(numbers[kept]) & set(numbers[held])
    assert set(labels[kept]) == set(labels)
    for label in set(labels):
        if len({number for number, (_, each) in enumerate(groups) if each == label}) > 1:
            assert label in labels[held]


def test_a_grouped_split_of_many_groups_holds_out_the_share_that_is_asked_for() -> None:
    numbers = np.repeat(np.arange(100), 5)
    labels = (numbers % 4).astype(np.int64)
    _, held = grouped_split(labels, numbers, 0.2, 0)
    assert np.bincount(labels[held]).tolist() == [25] * 4
    assert grouped_split(labels, numbers, 0.2, 1)[1].tolist() != held.tolist()


def test_images_without_a_group_are_groups_of_their_own() -> None:
    assert group_numbers(["a", "", "a", "", "b"]).tolist() == [0, 1, 0, 2, 3]
