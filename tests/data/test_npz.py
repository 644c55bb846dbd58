import zipfile
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
        ({"images": PIXELS, "labels": [0] * 4, "split": ["train", "x", "", ""]}, "image 1: split 'x' is none"),
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
