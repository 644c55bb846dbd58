import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from foveate.data.npz import open_npz
from foveate.data.source import Source
from foveate.data.splits import UNDECLARED
from foveate.errors import DataError
from foveate.progress import untracked

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), np.uint8)


def save(folder: Path, compressed: bool = False, **arrays: Any) -> Path:
    path = folder / "set.npz"
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


def pixels(source: Source) -> list[NDArray[np.uint8]]:
    return [np.asarray(image) for block in source.blocks for image in block.images()]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("shape", [(4, 6, 5), (4, 6, 5, 1), (4, 6, 5, 3)])
def test_images_and_labels(shape: tuple[int, ...], compressed: bool, tmp_path: Path) -> None:
    images = PIXELS[..., 0].reshape(shape) if shape[3:] != (3,) else PIXELS
    source = open_npz(save(tmp_path, compressed, images=images, labels=[2, 7, 2, 10]), untracked)
    assert source.name == "set"
    assert source.class_names == ("2", "7", "10")
    assert source.labels.tolist() == [0, 1, 0, 2]
    assert source.declared.tolist() == [UNDECLARED] * 4
    assert source.ids[1] == "set.npz#images[1]"
    assert np.array_equal(pixels(source), images)


def test_optional_arrays(tmp_path: Path) -> None:
    path = save(
        tmp_path,
        images=PIXELS,
        labels=[1, 0, 1, 0],
        class_names=["dog", "cat"],
        split=["train", "val", "test", ""],
        group=[1, 1, 2, 2],
    )
    source = open_npz(path, untracked)
    assert [source.class_names[label] for label in source.labels] == ["cat", "dog", "cat", "dog"]
    assert source.class_names == ("dog", "cat")
    assert source.declared.tolist() == [0, 1, 2, UNDECLARED]
    assert source.groups == ("1", "1", "2", "2")


def test_string_labels(tmp_path: Path) -> None:
    source = open_npz(save(tmp_path, images=PIXELS, labels=["b", "a", "b", "c"]), untracked)
    assert source.class_names == ("a", "b", "c")
    assert source.labels.tolist() == [1, 0, 1, 2]


def test_keras_layout(tmp_path: Path) -> None:
    path = save(
        tmp_path,
        x_train=PIXELS[:2],
        y_train=[[1], [0]],
        x_test=PIXELS[2:3],
        y_test=[[1]],
        x_val=PIXELS[3:],
        y_val=[[0]],
    )
    source = open_npz(path, untracked)
    assert source.labels.tolist() == [1, 0, 0, 1]
    assert source.declared.tolist() == [0, 0, 1, 2]
    assert np.array_equal(pixels(source), PIXELS[[0, 1, 3, 2]])
    assert source.ids[2:] == ["set.npz#x_val[0]", "set.npz#x_test[0]"]


def test_an_empty_part_is_none(tmp_path: Path) -> None:
    empty = {"x_test": PIXELS[:0], "y_test": np.array([], np.float64)}
    source = open_npz(save(tmp_path, x_train=PIXELS, y_train=[1, 0, 1, 0], **empty), untracked)
    assert source.declared.tolist() == [0] * 4
    assert len(source.blocks) == 1


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"labels": [0]}, "has no array images: save it with images and labels"),
        ({"images": PIXELS}, "has no array labels"),
        ({"x_train": PIXELS}, "has no array y_train"),
        ({"images": PIXELS, "labels": [0, 1]}, r"labels is int64 \(2,\): .* each of the 4 images"),
        ({"images": PIXELS, "labels": [0.5] * 4}, "labels is float64"),
        ({"images": PIXELS / 255, "labels": [0] * 4}, r"images is float64 \(4, 6, 5, 3\): save it as uint8"),
        ({"images": PIXELS.transpose(0, 3, 1, 2).copy(), "labels": [0] * 4}, r"images is uint8 \(4, 3, 6, 5\)"),
        ({"images": np.asfortranarray(PIXELS), "labels": [0] * 4}, "images is in Fortran order"),
        (
            {"images": PIXELS, "labels": np.array([None] * 4)},
            "labels holds pickled objects, which are never opened",
        ),
        ({"images": np.array([None]), "labels": [0]}, "images holds pickled objects"),
        ({"images": PIXELS, "labels": [0] * 4, "split": ["train"]}, "split has 1 values for 4 images"),
        (
            {"images": PIXELS, "labels": [0] * 4, "split": ["train", "x", "", ""]},
            "image 1: split 'x' is not one of train",
        ),
        ({"images": PIXELS, "labels": [0, 1, 2, 0], "class_names": ["a", "b"]}, "image 2: label 2 is not in 0…1"),
        ({"images": PIXELS[:0], "labels": np.array([], np.int64)}, "has no images: its arrays are empty"),
    ],
)
def test_faults(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as caught:
        open_npz(save(tmp_path, **arrays), untracked)
    assert "\n" not in str(caught.value)


def test_a_newer_version_of_npy_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        archive.writestr("images.npy", b"\x93NUMPY\x03\x00")
        archive.writestr("labels.npy", b"")
    with pytest.raises(DataError, match=r"images is of .npy version \(3, 0\)"):
        open_npz(tmp_path / "set.npz", untracked)


@pytest.mark.parametrize("keep", [0, 100, 0.5, -30])
def test_a_cut_off_archive(keep: float, tmp_path: Path) -> None:
    path = save(tmp_path, images=PIXELS, labels=[0] * 4)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(DataError, match=r"^cannot read .*set\.npz: .*: copy or download it again$"):
        open_npz(path, untracked)


def test_pixels_that_do_not_fit_their_checksum(tmp_path: Path) -> None:
    path = save(tmp_path, images=PIXELS, labels=[0] * 4)
    data = bytearray(path.read_bytes())
    data[300] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"^cannot read .*CRC.*: copy or download it again$"):
        pixels(open_npz(path, untracked))


def test_an_array_shorter_than_its_header_says(tmp_path: Path) -> None:
    path = save(tmp_path, images=PIXELS, labels=[0] * 4)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data[:-10] if name == "images.npy" else data)
    with pytest.raises(DataError, match="images is cut off"):
        pixels(open_npz(path, untracked))


def test_one_image_is_held_at_a_time(tmp_path: Path) -> None:
    import tracemalloc

    path = save(tmp_path, images=np.zeros((4000, 64, 64, 3), np.uint8), labels=[0] * 4000)  # 49 MB
    tracemalloc.start()
    count = sum(1 for block in open_npz(path, untracked).blocks for _ in block.images())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 4000
    assert peak < 3 << 20


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("x_train", "y_train", "x_valid", "y_valid"), [0, 1]),
        (("x_train", "y_train", "x_validation", "y_validation"), [0, 1]),
        (("x_train", "y_train", "x_dev", "y_dev", "x_eval", "y_eval"), [0, 1, 2]),
        (("X_train", "Y_train", "X_test", "y_TEST"), [0, 2]),
        (("train_images", "train_labels", "val_images", "val_labels", "test_images", "test_labels"), [0, 1, 2]),
        (("x_training", "y_training", "x_testing", "y_testing"), [0, 2]),
        (("x", "y"), [UNDECLARED]),
        (("x_val", "y_val", "x_validation", "y_validation"), [1, 1]),
    ],
)
def test_arrays_of_splits(names: tuple[str, ...], expected: list[int], tmp_path: Path) -> None:
    arrays = {
        name: [0, 1, 0, 1] if "y" in name.lower().split("_") or "labels" in name else PIXELS for name in names
    }
    source = open_npz(save(tmp_path, **arrays), untracked)
    assert source.declared.tolist() == [code for code in expected for _ in range(4)]
    joined = ("x_val, x_validation are all taken for the validation split",)
    assert source.notes == (joined if expected == [1, 1] else ())


LABELLED = {"x_train": PIXELS, "y_train": [0, 1, 0, 1]}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {**LABELLED, "x_extra": PIXELS, "y_extra": [0] * 4},
            "x_extra looks like a split and cannot be read as one",
        ),
        ({**LABELLED, "x_holdout": PIXELS, "y_holdout": [0] * 4}, "x_holdout looks like a split"),
        ({**LABELLED, "x_trainval": PIXELS, "y_trainval": [0] * 4}, "x_trainval looks like a split"),
        (
            {"images": PIXELS, "labels": [0] * 4, "subset": ["train", "test"] * 2},
            "subset looks like a split",
        ),
        ({"images": PIXELS, "labels": [0] * 4, "is_test": [True, False] * 2}, "is_test looks like a split"),
        ({**LABELLED, "x_test": PIXELS}, "has no array y_test: .*; it holds x_train, y_train, x_test$"),
        ({**LABELLED, "y_test": [0]}, "has no array x_test"),
        ({**LABELLED, "testset": PIXELS}, "testset looks like a split"),
        ({**LABELLED, "images": PIXELS, "labels": [0] * 4}, "names splits in two ways or for some arrays alone"),
        ({**LABELLED, "split": ["train"] * 4}, "names splits in two ways"),
        ({**LABELLED, "X_train": PIXELS}, "the names of X_train and x_train mean the same: rename one"),
        ({"data": PIXELS, "target": [0] * 4}, "has no array images and labels: .*; it holds data, target$"),
        (
            {"images": PIXELS, "labels": np.array([2**64 - 1] * 4, np.uint64)},
            r"labels\[0\]: label 18446744073709551615",
        ),
        ({"images": PIXELS, "labels": ["a", "b", "", "a"]}, "the name of a class is empty"),
        (
            {"images": PIXELS, "labels": [0] * 4, "split": np.zeros(4, np.complex128)},
            "must hold a list of strings",
        ),
        (
            {"x_train": PIXELS, "y_train": [0] * 4, "x_test": PIXELS, "y_test": ["a"] * 4},
            "integers, others are strings",
        ),
    ],
)
def test_what_cannot_be_taken(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as caught:
        open_npz(save(tmp_path, compressed=True, **arrays), untracked)
    assert "\n" not in str(caught.value)


def test_arrays_that_are_passed_over_are_noted(tmp_path: Path) -> None:
    source = open_npz(save(tmp_path, mean=[0.5], image_ids=[1, 2], label_names=["a", "b"], **LABELLED), untracked)
    assert source.notes == ("set.npz: passed over the arrays mean, image_ids, label_names",)


def test_labels_of_bytes_are_text(tmp_path: Path) -> None:
    path = save(
        tmp_path, images=PIXELS, labels=np.array([b"cat", b"dog"] * 2), split=np.array([b"train", b"test"] * 2)
    )
    source = open_npz(path, untracked)
    assert source.class_names == ("cat", "dog")
    assert source.declared.tolist() == [0, 2, 0, 2]


def test_labels_of_the_other_byte_order(tmp_path: Path) -> None:
    assert open_npz(
        save(tmp_path, images=PIXELS, labels=np.array([1, 2, 1, 2], ">i4")), untracked
    ).class_names == (
        "1",
        "2",
    )


def header(shape: object, descr: object = "|u1", version: int = 1, text: str | None = None) -> bytes:
    text = text or repr({"descr": descr, "fortran_order": False, "shape": shape})
    line = (text + " " * (-(len(text) + 11) % 64) + "\n").encode()
    return b"\x93NUMPY" + bytes([version, 0]) + len(line).to_bytes(2 if version == 1 else 4, "little") + line


IMAGES, LABELS = header((2, 4, 4)) + bytes(32), header((2,), "<i8") + bytes(16)
ZEROS = bytes(10**7)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (
            [header((3 * 10**8, 1, 1)), *[ZEROS] * 30],
            [header((3 * 10**8,)), *[ZEROS] * 30],
            "images claims 300,000,128",
        ),
        ([header((9 * 10**6, 1, 1)), ZEROS], [header((9 * 10**6,)), ZEROS], "claims to hold 9,000,000 images"),
        ([header((10**12, 4, 4))], [LABELS], "images is cut off: 16,000,000,000,000 bytes by its header, 0 here"),
        ([IMAGES], [header((10**12,), "<i8")], "labels is cut off"),
        ([header((True, 4, 4)), bytes(16)], [LABELS], r"images has the shape \(True, 4, 4\)"),
        ([IMAGES], [header((True,), "<i8"), bytes(8)], r"labels has the shape \(True,\)"),
        ([header((-1, 4, 4)), bytes(16)], [LABELS], r"images has the shape \(-1, 4, 4\)"),
        ([b"\x93NUMPY\x02\x00" + (2 * 10**9).to_bytes(4, "little"), *[ZEROS] * 100], [LABELS], "damaged header"),
        ([header(0, text="(" * 4000)], [LABELS], "images has a damaged header"),
        (
            [header((1, 9000, 3000, 3)), *[ZEROS] * 9],
            [header((1,), "<i8"), bytes(8)],
            "images claims 90,000,128 bytes",
        ),
        (
            [header((1, 5000, 4000, 3)), *[ZEROS] * 6],
            [header((1,), "<i8"), bytes(8)],
            "bytes for an image of images",
        ),
        ([IMAGES], [header((2,), "<U5000000"), *[ZEROS] * 4], "claims 40,000,000 bytes for labels"),
        ([IMAGES], [header((2,), ("<i8", (10**9,)))], "labels has a damaged header|labels is cut off"),
        ([IMAGES], [header((2,), "|O"), b"x"], "labels holds pickled objects"),
    ],
)
def test_no_more_memory_than_a_file_can_stand_for(
    images: list[bytes], labels: list[bytes], message: str, tmp_path: Path, measure_open: Callable[..., Any]
) -> None:
    with zipfile.ZipFile(tmp_path / "set.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, parts in (("images", images), ("labels", labels)):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                for part in parts:
                    member.write(part)
    told, peak, seconds = measure_open(tmp_path / "set.npz")
    assert re.search(message, told)
    assert "\n" not in told
    assert peak < 2 * (tmp_path / "set.npz").stat().st_size + (64 << 20)
    assert seconds < 1


def test_a_compression_that_numpy_does_not_write(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("images.npy", IMAGES)
        archive.writestr("labels.npy", LABELS)
    with pytest.raises(DataError, match=r"images is compressed as numpy does not: save it again"):
        open_npz(tmp_path / "set.npz", untracked)


def test_an_array_twice(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        archive.writestr("labels.npy", LABELS)
        archive.writestr("images.npy", IMAGES)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("images.npy", IMAGES)
    with pytest.raises(DataError, match="holds an array twice"):
        open_npz(tmp_path / "set.npz", untracked)


def test_a_header_that_python_2_wrote(tmp_path: Path) -> None:
    text = "{'descr': '|u1', 'fortran_order': False, 'shape': (2L, 4, 4)}"
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        archive.writestr("images.npy", header(0, text=text) + bytes(32))
        archive.writestr("labels.npy", LABELS)
    assert len(pixels(open_npz(tmp_path / "set.npz", untracked))) == 2
