import mmap
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from foveate.data.check import audit, pooled
from foveate.data.dataset import Dataset, align_classes, load_dataset
from foveate.data.opening import open_source
from foveate.errors import DataError
from foveate.settings import DataConfig

WriteFolder = Callable[..., Path]
Encode = Callable[..., bytes]

CONFIG = DataConfig()


def counts(dataset: Dataset) -> dict[str, list[int]]:
    """Images of each class in each split."""
    return {
        name: np.bincount(dataset.labels[indices], minlength=len(dataset.class_names)).tolist()
        for name, indices in dataset.splits.items()
    }


def save_npz(folder: Path, labels: list[str], **arrays: object) -> str:
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 16, 16), np.uint8)
    path = folder / "set.npz"
    np.savez(path, images=images, labels=labels, **arrays)
    return str(path)


def test_digits() -> None:
    dataset = load_dataset("digits", CONFIG)
    assert dataset.name == dataset.location == "digits"
    assert dataset.images.shape == (1797, 16, 16, 3)
    assert {name: len(indices) for name, indices in dataset.splits.items()} == {
        "train": 1151,
        "validation": 287,
        "test": 359,
    }
    assert not dataset.mirror_safe


def test_a_folder_end_to_end(write_folder: WriteFolder) -> None:
    root = write_folder({"train/cat": 10, "train/dog": 10, "test/cat": 2, "test/dog": 3})
    (root / "train/cat/bad.png").write_bytes(b"")
    dataset = load_dataset(str(root), CONFIG)
    assert counts(dataset) == {"train": [8, 8], "validation": [2, 2], "test": [2, 3]}
    assert [(bad.id, bad.reason) for bad in dataset.bad] == [("train/cat/bad.png", "zero bytes")]
    assert dataset.images.shape == (26, 20, 20, 3)
    assert dataset.labels.dtype == np.int64
    bad = list(dataset.ids).index("train/cat/bad.png")
    assert all(bad not in indices for indices in dataset.splits.values())
    assert all((np.diff(indices) > 0).all() for indices in dataset.splits.values())


def test_torch_takes_the_images_as_they_are(write_folder: WriteFolder) -> None:
    import torch

    dataset = load_dataset(str(write_folder({"cat": 5, "dog": 5})), CONFIG)
    held: Any = dataset.images
    while isinstance(held, np.ndarray):
        held = held.base
    assert isinstance(held.obj if isinstance(held, memoryview) else held, mmap.mmap)
    assert torch.from_numpy(dataset.images).shape == (10, 20, 20, 3)


@pytest.mark.parametrize(("side", "size"), [(8, 16), (40, 40), (90, 64)])
def test_the_size_is_the_typical_side_within_bounds(side: int, size: int, tmp_path: Path, encode: Encode) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(3):
            (tmp_path / name / f"{number}.png").write_bytes(encode(number, size=(side, side + 10)))
    assert load_dataset(str(tmp_path), CONFIG).images.shape[1:] == (size, size, 3)
    assert load_dataset(str(tmp_path), DataConfig(size=24)).images.shape[1:] == (24, 24, 3)


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        (["", "", ""], {"train": 18, "validation": 6, "test": 6}),
        (["train", "train", "train"], {"train": 18, "validation": 6, "test": 6}),
        (["train", "train", "test"], {"train": 16, "validation": 4, "test": 10}),
        (["train", "val", "test"], {"train": 10, "validation": 10, "test": 10}),
        (["train", "val", "train"], {"train": 20, "validation": 10}),
        (["", "val", "test"], {"train": 10, "validation": 10, "test": 10}),
    ],
)
def test_what_is_not_declared_is_held_out(declared: list[str], expected: dict[str, int], tmp_path: Path) -> None:
    path = save_npz(tmp_path, ["cat", "dog"] * 15, split=np.repeat(declared, 10))
    config = DataConfig(test_fraction=0.2, val_fraction=0.25 if "test" not in declared else 0.2)
    dataset = load_dataset(path, config)
    assert {name: len(indices) for name, indices in dataset.splits.items()} == expected
    assert any("no test split" in note for note in dataset.notes) == ("test" not in expected)
    assert any("declare no split" in note for note in dataset.notes) == (declared == ["", "val", "test"])
    for indices in dataset.splits.values():
        assert len(np.unique(dataset.labels[indices])) == 2


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    declared=st.lists(st.sampled_from(["train", "val", "test", ""]), min_size=20, max_size=20),
    for_training=st.booleans(),
)
def test_every_image_is_in_one_split(declared: list[str], for_training: bool, tmp_path: Path) -> None:
    declared[:2] = ["train", "train"]
    path = save_npz(tmp_path, ["cat", "dog"] * 10, split=declared)
    dataset = load_dataset(path, CONFIG, for_training=for_training)
    assert sorted(np.concatenate(list(dataset.splits.values())).tolist()) == list(range(20))


def test_images_without_a_split_are_of_the_training_split_where_others_have_one(tmp_path: Path) -> None:
    for split, expected in (
        ([""] * 6 + ["val", "val"], {"train": [3, 3], "validation": [1, 1]}),
        (["train"] * 2 + [""] * 4 + ["test"] * 2, {"train": [3, 3], "test": [1, 1]}),
        ([""] * 8, {"all": [4, 4]}),
    ):
        path = save_npz(tmp_path, ["cat", "dog"] * 4, split=split)
        assert counts(load_dataset(path, CONFIG, for_training=False)) == expected


def test_the_seed_and_the_size_choose_splits_and_pixels_alone(write_folder: WriteFolder) -> None:
    root = str(write_folder({"cat": 20, "dog": 20}))
    first, again = load_dataset(root, CONFIG), load_dataset(root, CONFIG)
    other = load_dataset(root, DataConfig(split_seed=1, size=18))
    assert all(np.array_equal(first.splits[name], again.splits[name]) for name in first.splits)
    assert not np.array_equal(first.splits["test"], other.splits["test"])
    assert first.fingerprint == again.fingerprint == other.fingerprint


def test_the_fingerprint_is_of_contents_labels_splits_and_names(write_folder: WriteFolder, tmp_path: Path) -> None:
    root = write_folder({"cat": 3, "dog": 3})
    prints = [load_dataset(str(root), CONFIG).fingerprint]
    root.rename(tmp_path / "moved")
    assert load_dataset(str(tmp_path / "moved"), CONFIG).fingerprint == prints[0]
    (tmp_path / "moved/dog").rename(tmp_path / "moved/hound")
    prints.append(load_dataset(str(tmp_path / "moved"), CONFIG).fingerprint)
    (tmp_path / "moved/cat/0002.png").rename(tmp_path / "moved/hound/0000-0.png")
    prints.append(load_dataset(str(tmp_path / "moved"), CONFIG).fingerprint)
    (tmp_path / "moved/hound/0000-0.png").write_bytes((tmp_path / "moved/cat/0000.png").read_bytes())
    prints.append(load_dataset(str(tmp_path / "moved"), CONFIG).fingerprint)
    prints += [
        load_dataset(save_npz(tmp_path, ["cat", "dog"] * 3, split=split), CONFIG).fingerprint
        for split in (["train"] * 6, ["train"] * 4 + ["test"] * 2)
    ]
    # npz contents differ by their split array in any case, a folder's by its names
    assert len(set(prints)) == len(prints)


def test_to_evaluate_nothing_is_held_out_or_refused(write_folder: WriteFolder) -> None:
    root = write_folder({"cat": 3})
    (root / "cat/bad.png").write_text("bad")
    (root / "cat/worse.png").write_text("bad")
    dataset = load_dataset(str(root), CONFIG, for_training=False)
    assert counts(dataset) == {"all": [3]}
    assert len(dataset.bad) == 2
    declared = load_dataset(str(write_folder({"train/cat": 1, "test/dog": 1}, "b")), CONFIG, for_training=False)
    assert counts(declared) == {"train": [1, 0], "test": [0, 1]}


def test_a_class_missing_in_a_split_is_noted(write_folder: WriteFolder) -> None:
    root = write_folder({"train/cat": 4, "train/dog": 4, "val/cat": 1, "test/dog": 1})
    assert load_dataset(str(root), CONFIG).notes == ("no image of dog in validation", "no image of cat in test")


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ({"cat": 3}, r"has one class, cat: training needs images of two or more$"),
        ({"cat": 3, "dog": 0}, r"class dog is empty, it has no images: add some, or remove the class$"),
        (
            {"train/cat": 3, "train/dog": 3, "val/cow": 1},
            r"class cow has images in validation but none to train on",
        ),
        ({"train/cat": 3, "train/dog": 0, "test/dog": 1}, r"class dog has images in test but none to train on"),
        ({"test/cat": 3, "test/dog": 3}, r"has no training images: add a train split"),
        ({"cat": 1, "dog": 1}, r"has too few images to hold some out: give every class three"),
    ],
)
def test_what_cannot_be_trained_on(folders: dict[str, int], message: str, write_folder: WriteFolder) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(str(write_folder(folders)), CONFIG)
    assert "\n" not in str(caught.value)


def test_too_many_bad_images(write_folder: WriteFolder) -> None:
    root = write_folder({"cat": 10, "dog": 9})
    (root / "cat/bad.png").write_text("bad")
    assert len(load_dataset(str(root), CONFIG).bad) == 1  # 5 % exactly
    (root / "dog/bad.png").write_text("bad")
    with pytest.raises(
        DataError, match=r"^2 of 21 images .* more than max_bad=0.05 allows \(cat/bad\.png: not a JPEG"
    ):
        load_dataset(str(root), CONFIG)
    assert len(load_dataset(str(root), DataConfig(max_bad=0.1)).bad) == 2


def test_a_class_whose_images_are_all_bad(write_folder: WriteFolder) -> None:
    root = write_folder({"cat": 5, "dog": 0})
    (root / "dog/bad.png").write_text("bad")
    with pytest.raises(DataError, match="no image of class dog can be read: convert or repair them"):
        load_dataset(str(root), DataConfig(max_bad=1))


def test_not_one_image_can_be_read(write_folder: WriteFolder) -> None:
    root = write_folder({"cat": 0})
    (root / "cat/a.txt").write_text("bad")
    with pytest.raises(DataError, match=r"none of its images can be read; the first, cat/a\.txt: not a JPEG"):
        load_dataset(str(root), CONFIG, for_training=False)


def test_csv_lists_a_missing_image(write_folder: WriteFolder, tmp_path: Path) -> None:
    write_folder({"x": 20})
    rows = [f"pets/x/{number:04}.png,{'cat' if number % 2 else 'dog'},g{number % 3}" for number in range(20)]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["image,label,group", *rows, "pets/x/gone.png,cat,g0"]))
    dataset = load_dataset(str(table), CONFIG)
    assert [(bad.id, bad.reason) for bad in dataset.bad] == [("pets/x/gone.png", "missing file")]
    assert dataset.groups is not None
    assert dataset.groups[:4] == ("g0", "g1", "g2", "g0")


def test_parquet_by_folder_and_file(tmp_path: Path, encode: Encode) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {"image": pa.array([encode(seed) for seed in range(10)], pa.binary()), "label": ["cat", "dog"] * 5}
    )
    (tmp_path / "set/data").mkdir(parents=True)
    (tmp_path / "set/README.md").write_text("about")
    pq.write_table(table, tmp_path / "set/data/train-00000-of-00001.parquet")
    folder = load_dataset(str(tmp_path / "set"), CONFIG)
    file = load_dataset(str(tmp_path / "set/data/train-00000-of-00001.parquet"), CONFIG)
    assert folder.name == "set"
    assert folder.ids[0] == "data/train-00000-of-00001.parquet#0"
    assert file.ids[0] == "train-00000-of-00001.parquet#0"
    assert folder.fingerprint == file.fingerprint


def test_a_table_among_the_images_makes_no_parquet(write_folder: WriteFolder) -> None:
    root = write_folder({"cat": 10, "dog": 10})
    (root / "cat/stray.parquet").write_text("stray")
    assert [bad.id for bad in load_dataset(str(root), CONFIG).bad] == ["cat/stray.parquet"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("pest", r"^there is no data set .*pest: did you mean .*pets\?$"),
        ("zzz", r"give cifar10, digits, cue, a folder or a file$"),
        ("none/zzz", r"give cifar10, digits, cue, a folder or a file$"),
        (
            "table.xlsx",
            r"table\.xlsx is not a data set: give a folder of images, a \.csv, \.parquet or \.npz file$",
        ),
    ],
)
def test_not_found(data: str, message: str, write_folder: WriteFolder, tmp_path: Path) -> None:
    write_folder({"cat": 1})
    (tmp_path / "table.xlsx").write_text("")
    with pytest.raises(DataError, match=message):
        load_dataset(str(tmp_path / data), CONFIG)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
class TestFilesThatAreNone:
    """Pipes, devices and sockets: nothing waits for them, and each is one line."""

    @pytest.mark.parametrize(
        "name", ["/dev/zero", "/dev/null", "/dev/stdin", "/proc/self/status", "/proc/self/mem"]
    )
    def test_of_the_system(self, name: str, tmp_path: Path) -> None:
        for data in (Path(name), *(tmp_path / f"x{suffix}" for suffix in (".csv", ".parquet", ".npz"))):
            if data.parent == tmp_path:
                data.symlink_to(name)
            with pytest.raises(DataError) as caught:
                load_dataset(str(data), CONFIG)
            assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("suffix", ["", ".csv", ".tsv", ".parquet", ".npz"])
    def test_as_data(self, suffix: str, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / f"pipe{suffix}")
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(str(tmp_path / f"s{suffix}"))
            for name in ("pipe", "s"):
                with pytest.raises(
                    DataError, match=r"is a device, pipe or socket: give a folder or a regular file$"
                ):
                    load_dataset(str(tmp_path / f"{name}{suffix}"), CONFIG)

    def test_as_images(self, write_folder: WriteFolder) -> None:
        root = write_folder({"cat": 20, "dog": 20})
        os.mkfifo(root / "cat/pipe.png")
        (root / "dog/zero.png").symlink_to("/dev/zero")
        dataset = load_dataset(str(root), CONFIG)
        assert [(bad.id, bad.reason) for bad in dataset.bad] == [
            ("cat/pipe.png", "not a regular file"),
            ("dog/zero.png", "not a regular file"),
        ]

    def test_a_folder_of_them(self, tmp_path: Path) -> None:
        for name in ("cat", "dog"):
            (tmp_path / "pets" / name).mkdir(parents=True)
            os.mkfifo(tmp_path / "pets" / name / "pipe.png")
        with pytest.raises(
            DataError, match=r"none of its images can be read; the first, cat/pipe\.png: not a regular file$"
        ):
            load_dataset(str(tmp_path / "pets"), CONFIG)

    @pytest.mark.parametrize("name", ["shard.parquet", "train-0.parquet"])
    def test_a_shard(self, name: str, tmp_path: Path) -> None:
        (tmp_path / "set").mkdir()
        os.mkfifo(tmp_path / "set" / name)
        with pytest.raises(DataError, match=f"cannot read .*{name}: it is not a regular file"):
            load_dataset(str(tmp_path / "set"), CONFIG)

    def test_loops_of_links(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").symlink_to("b.csv")
        (tmp_path / "b.csv").symlink_to("a.csv")
        with pytest.raises(DataError, match=r"a\.csv is a link that leads nowhere, or back to itself: repair it$"):
            load_dataset(str(tmp_path / "a.csv"), CONFIG)


def test_a_name_that_is_no_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'a\\x00b' is not a path \(embedded null byte\): give"):
        load_dataset("a\0b", CONFIG)
    with pytest.raises(DataError, match="File name too long"):
        load_dataset("a" * 5000, CONFIG)


def test_parquet_with_images_of_another_split_beside_it(
    tmp_path: Path, encode: Encode, write_folder: WriteFolder
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = write_folder({"test/cat": 1, "test/dog": 1})
    table = pa.table({"image": pa.array([encode(seed) for seed in range(10)]), "label": ["cat", "dog"] * 5})
    pq.write_table(table, root / "train-0.PARQUET")
    with pytest.raises(DataError, match=r"test/cat/0000\.png looks like a split and is not read"):
        load_dataset(str(root), CONFIG)
    pq.write_table(table, root / "testing-0.parquet")
    assert counts(load_dataset(str(root), CONFIG)) == {"train": [4, 4], "validation": [1, 1], "test": [5, 5]}


def test_testing_images_are_tested_on(write_folder: WriteFolder) -> None:
    root = write_folder({"Training/cat": 15, "Training/dog": 15, "Testing/cat": 10, "Testing/dog": 10})
    assert counts(load_dataset(str(root), CONFIG)) == {"train": [12, 12], "validation": [3, 3], "test": [10, 10]}


def test_a_misspelt_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"^there is no data set cifra10: did you mean cifar10\?$"):
        load_dataset("cifra10", CONFIG)


def test_a_folder_that_may_not_be_read(tmp_path: Path, write_folder: WriteFolder, unprivileged: None) -> None:
    with pytest.raises(DataError, match=r"^no permission to read .*: change its permissions$"):
        load_dataset(str(tmp_path / "pets"), CONFIG)


def test_the_users_folder_is_left_as_it_was(write_folder: WriteFolder) -> None:
    root = write_folder({"cat": 5, "dog": 5})
    before = sorted((path, path.stat().st_mtime_ns) for path in [root, *root.rglob("*")])
    load_dataset(str(root), CONFIG)
    assert sorted((path, path.stat().st_mtime_ns) for path in [root, *root.rglob("*")]) == before


@pytest.fixture
def animals(write_folder: WriteFolder) -> Dataset:
    return load_dataset(str(write_folder({"cat": 4, "dog": 4})), CONFIG)


def test_class_names_that_are_encoded_in_another_way_are_matched(animals: Dataset) -> None:
    composed, decomposed = "K\u00e4fer", "Ka\u0308fer"
    mac = replace(animals, class_names=("cat", decomposed))
    aligned = align_classes(mac, [composed, "cat"])
    assert aligned.class_names == (composed, "cat")
    assert aligned.labels.tolist() == [1 - label for label in animals.labels.tolist()]
    assert [note for note in aligned.notes if note not in animals.notes] == [
        f"the class {decomposed} of {animals.name} is taken for that of the model which looks the same: its "
        "letters are encoded in another way"
    ]
    # Those that are the same are matched first; what could be either is neither.
    both = align_classes(replace(animals, class_names=(composed, decomposed)), [decomposed, composed])
    assert both.labels.tolist() == aligned.labels.tolist()
    with pytest.raises(DataError, match="unknown to the model"):
        align_classes(replace(animals, class_names=("cat", "K\u212bfer")), ["cat", "K\u00c5fer", "KA\u030afer"])


def test_classes_are_aligned_by_name(animals: Dataset) -> None:
    aligned = align_classes(animals, ["cow", "dog", "cat"])
    assert aligned.class_names == ("cow", "dog", "cat")
    names: NDArray[np.str_] = np.array(aligned.class_names)[aligned.labels]
    assert names.tolist() == ["cat"] * 4 + ["dog"] * 4
    assert aligned.notes == ("pets has no image of class cow",)
    assert aligned.images is animals.images
    assert align_classes(animals, animals.class_names).notes == ()


def test_an_unknown_class_is_refused(animals: Dataset) -> None:
    with pytest.raises(
        DataError, match=r"has images of dog, unknown to the model, whose classes are cat, cow: rename"
    ):
        align_classes(animals, ["cat", "cow"])
    without = replace(animals, labels=np.zeros(8, np.int64))  # a name without images does not matter
    assert align_classes(without, ["cow", "cat"]).labels.tolist() == [1] * 8


def test_a_script_needs_no_main_guard(write_folder: WriteFolder, tmp_path: Path) -> None:
    root = write_folder({"cat": 800, "dog": 800})  # enough for workers
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys\n"
        "from foveate.config import DataConfig\n"
        "from foveate.data.dataset import load_dataset\n"
        f"print(load_dataset({str(root)!r}, DataConfig()).images.shape, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert done.stdout == "(1600, 20, 20, 3) False\n"
    assert done.stderr == ""


def test_declared_splits_that_share_groups_are_told_and_stay(write_folder: WriteFolder, tmp_path: Path) -> None:
    write_folder({"x": 20})
    splits = ["train"] * 12 + ["val"] * 4 + ["test"] * 4
    rows = [
        f"pets/x/{number:04}.png,{'cat' if number % 2 else 'dog'},{split},g{number // 5}"
        for number, split in enumerate(splits)
    ]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["image,label,split,group", *rows]))
    dataset = load_dataset(str(table), CONFIG)
    assert [len(each) for each in dataset.splits.values()] == [12, 4, 4]
    (told,) = [note for note in dataset.notes if "group" in note]
    assert told.startswith("2 groups have images in more than one split (the first, g2: train, validation)")
    source = open_source(str(table), None)
    found = audit(source, pooled(load_dataset(str(table), CONFIG, for_training=False)), CONFIG)
    assert [each.remarks for each in found if each.kind == "group_across"] == [
        {"g2": "train, validation", "g3": "validation, test"}
    ]


def test_groups_that_cannot_be_parted_into_splits_are_refused(write_folder: WriteFolder, tmp_path: Path) -> None:
    write_folder({"x": 20})
    rows = [f"pets/x/{number:04}.png,{'cat' if number % 2 else 'dog'},g{number % 2}" for number in range(20)]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["image,label,group", *rows]))
    with pytest.raises(DataError, match="its 2 groups cannot be parted"):
        load_dataset(str(table), CONFIG)


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_declared_split_of_which_nothing_can_be_read_is_not_drawn_from_train(
    split: str, write_folder: WriteFolder
) -> None:
    folder = write_folder({"train/cat": 60, "train/dog": 60, f"{split}/cat": 1, f"{split}/dog": 1})
    for path in (folder / split).rglob("*.png"):
        path.write_bytes(b"no image")
    name = {"val": "validation"}.get(split, split)
    with pytest.raises(
        DataError, match=rf"none of the 2 images of its {name} split can be read: convert or repair"
    ):
        load_dataset(str(folder), CONFIG)


def test_a_class_that_is_spelled_otherwise_in_another_split_is_told_beside_it(write_folder: WriteFolder) -> None:
    folder = write_folder({"train/Newt": 6, "train/dog": 6, "val/newt": 2, "val/dog": 2})
    message = (
        r"class newt has images in validation but none .*; classes whose names look the same: 'Newt' and 'newt'"
    )
    with pytest.raises(DataError, match=message):
        load_dataset(str(folder), CONFIG)
