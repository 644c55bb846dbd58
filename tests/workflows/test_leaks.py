"""Copies that folds part are counted, exact ones and near ones, and told."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from foveate.config import resolve_config
from foveate.data.dataset import Dataset, load_dataset
from foveate.settings import DataConfig
from foveate.terminal import PlainDisplay
from foveate.workflows.campaign import load_data
from foveate.workflows.leaks import across_folds_told, copies_across_folds, copies_told


def _dataset(images: np.ndarray) -> Dataset:
    count = len(images)
    return replace(
        load_dataset("digits", DataConfig()),
        images=images,
        labels=np.arange(count) % 2,
        splits={"train": np.arange(count)},
    )


def test_exact_and_near_copies_in_two_folds_are_counted_and_those_in_one_are_not() -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (8, 8, 8, 3), np.uint8)
    images = coarse.repeat(8, axis=1).repeat(8, axis=2)
    images[1] = images[0]
    images[3] = np.clip(images[2].astype(int) + rng.integers(-3, 4, images[2].shape), 0, 255)
    dataset = _dataset(images)
    parted, together = [[0, 2, 4, 6], [1, 3, 5, 7]], [[0, 1, 4, 6], [2, 3, 5, 7]]
    assert copies_across_folds(dataset, [np.array(each) for each in parted]) == 4
    assert copies_across_folds(dataset, [np.array(each) for each in together]) == 0
    small = _dataset(images[:, ::2, ::2])  # of small images near copies are not looked for
    assert copies_across_folds(small, [np.array(each) for each in parted]) == 2


def test_a_campaign_is_told_of_copies_before_it_trains(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3), ("test", 3)):
        for label in ("cat", "dog"):
            place = tmp_path / split / label
            place.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(place / f"{number}.png")
    for copy in ("val/cat/1.png", "test/cat/1.png", "test/cat/2.png"):
        (tmp_path / copy).write_bytes((tmp_path / "train" / "cat" / "0.png").read_bytes())
    out = io.StringIO()
    load_data(tmp_path, resolve_config("small", settings={"size": 16, "device": "cpu"}), None, PlainDisplay(out))
    assert "1 of 6 validation images are copies of images that it is trained on" in out.getvalue()
    assert "2 of 6 test images are copies of images that it is trained or validated on" in out.getvalue()


def test_the_line_is_there_only_where_there_are_copies() -> None:
    dataset = _dataset(np.zeros((2, 8, 8, 3), np.uint8))
    assert across_folds_told(dataset, 0) is None
    told = across_folds_told(dataset, 4)
    assert told is not None
    assert told.startswith("of 4 images there is a copy or a near copy in another fold")


def test_copies_with_another_label_make_figures_wrong_and_not_too_good() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 8, 8, 3), np.uint8)
    images[4] = images[0]  # of the same label
    images[5] = images[2]  # of the other one
    dataset = replace(_dataset(images), splits={"train": np.arange(4), "validation": np.arange(4, 8)})

    def told(*validation: int) -> str | None:
        split = replace(dataset, splits={**dataset.splits, "validation": np.array(validation)})
        return copies_told(split, "validation", split, ("train",), "it is trained on")

    assert told(6, 7) is None
    copies = "validation images are copies of images that it is trained on"
    assert told(4, 6) == f"1 of 2 {copies}: on others it will do worse"
    fix = "the figures are wrong until the labels are corrected, or the copies removed"
    assert told(5, 6) == f"1 of 2 {copies}, with another label: {fix}"
    assert told(4, 5) == f"2 of 2 {copies}, 1 of them with another label: {fix}"
