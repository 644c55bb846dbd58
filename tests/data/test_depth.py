from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.data.files import plain_png

from foveate.data.check import audit, pooled
from foveate.data.dataset import Dataset, dataset_of, load_dataset
from foveate.data.decode import decode_file
from foveate.data.depth import faint_images, white_of
from foveate.data.opening import open_source
from foveate.data.source import file_blocks
from foveate.preprocessing import Preprocessing
from foveate.settings import DataConfig

LARGEST = 3000
"""Of a set of 12 bits."""


def write(root: Path, values: Sequence[int], *, shift: int = 0) -> Path:
    """A folder of two classes, a grey PNG of 16 bits for each value, of which the middle has the value."""
    for index, value in enumerate(values):
        path = root / ("cat", "dog")[index % 2] / f"{index:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(index).integers(0, value, (20, 20), np.uint16)
        pixels[5:15, 5:15] = value
        Image.fromarray(pixels << shift).save(path)
    return root


@pytest.fixture
def faint(tmp_path: Path) -> Path:
    return write(tmp_path / "faint", np.linspace(100, LARGEST, 20).astype(int).tolist())


def findings(root: Path, **settings: object) -> dict[str, str]:
    config = DataConfig.model_validate(settings)
    source = open_source(str(root), None)
    dataset = pooled(dataset_of(source, config, for_training=False))
    return {finding.kind: finding.text for finding in audit(source, dataset, config)}


def test_faint_images_are_found_by_check(faint: Path) -> None:
    told = findings(faint)
    assert told["faint"].startswith("20 images with more than 8 bits leave the upper bits empty")
    assert "--set data.depth=auto" in told["faint"]


def test_faint_images_are_told_in_training(faint: Path) -> None:
    assert any("--set data.depth=auto" in note for note in load_dataset(str(faint), DataConfig()).notes)
    assert load_dataset(str(faint), DataConfig(depth="auto")).notes == ()


def test_the_largest_value_of_the_set_is_white(faint: Path) -> None:
    dataset = load_dataset(str(faint), DataConfig(depth="auto"))
    middles = dataset.images[:, 10, 10, 0].astype(int)
    values = np.linspace(100, LARGEST, 20).astype(int)
    order = [int(Path(each).stem) for each in dataset.ids]
    assert abs(middles - values[order] * 255 / LARGEST).max() <= 0.5
    assert "faint" not in findings(faint, depth="auto")
    assert "duplicate_conflict" not in findings(faint, depth="auto")


def test_both_depths_are_kept_in_the_cache(faint: Path) -> None:
    def load(depth: str) -> Dataset:
        return load_dataset(str(faint), DataConfig.model_validate({"depth": depth}))

    by_format, auto = load("format"), load("auto")
    assert by_format.images.max() == LARGEST >> 8
    assert auto.images.max() == 255
    assert np.array_equal(load("format").images, by_format.images)
    assert by_format.fingerprint == auto.fingerprint


def test_one_image_that_uses_all_bits_is_enough(faint: Path) -> None:
    write(faint, [0xFFFF])
    assert "faint" not in findings(faint)
    assert white_of(file_blocks([str(path) for path in faint.rglob("*.png")]), "auto") == 0xFFFF


@pytest.mark.parametrize(("shift", "is_faint"), [(0, True), (2, True), (3, False)])
def test_up_to_14_bits_are_faint(tmp_path: Path, shift: int, is_faint: bool) -> None:
    assert ("faint" in findings(write(tmp_path / "set", [4095] * 20, shift=shift))) == is_faint


def test_dark_images_of_8_bits_are_none(tmp_path: Path) -> None:
    root = write(tmp_path / "set", [60000] * 20)
    Image.new("L", (20, 20), 3).save(root / "cat" / "dark.png")
    assert "faint" not in findings(root)
    assert white_of(file_blocks([str(root / "cat" / "dark.png")]), "auto") is None


def test_nothing_is_looked_for_in_arrays_and_bad_images(tmp_path: Path) -> None:
    path = tmp_path / "plain.png"
    path.write_bytes(plain_png())
    blocks = file_blocks([str(path), str(tmp_path / "missing.png")])
    assert not len(faint_images(blocks, np.zeros((2, 16, 16, 3), np.uint8), np.array([True, False])))
    assert white_of(blocks, "auto") is None


def test_a_white_above_what_16_bits_hold_leaves_their_images_readable(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((8, 8), 65_535, np.uint16)).save(path)
    assert decode_file(path, Preprocessing(8, white=100_000)).max() == 167  # 255 · 65,535 / 100,000
