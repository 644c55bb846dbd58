import re

import numpy as np
import pytest

from foveate.data.cue import CUE_SIDE, DIGIT_SIDE, CueConfig, CuePictures, draw_cue, open_cue
from foveate.data.dataset import load_dataset
from foveate.data.digits import PixelBlock, open_digits
from foveate.data.opening import open_source
from foveate.data.source import Source
from foveate.errors import DataError
from foveate.settings import DataConfig


def drawn(size: int = 32, distance: int = 14, images: int = 2000, seed: int = 0) -> CuePictures:
    """Pictures to train on."""
    return draw_cue(CueConfig(size=size, distance=distance, images=images, seed=seed))["train"]


def images_of(source: Source) -> np.ndarray:
    block = source.blocks[0]
    assert isinstance(block, PixelBlock)
    return block.pixels


def test_the_usual_set_is_the_same_everywhere() -> None:
    source = open_cue("cue")
    assert source.content.digest == "e0ab94e1bc86e0494c1084ee13214d91f79f944ec653bd6b7fd73a7533efa649"
    assert len(source.labels) == len(set(source.ids)) == 14_000
    assert np.bincount(source.declared).tolist() == [10_000, 2000, 2000]
    assert (source.name, source.location, source.side) == ("cue", "cue", 32)
    assert source.class_names == tuple("0123456789")
    assert not source.mirror_safe


def test_another_seed_draws_other_pictures() -> None:
    first, second = (open_cue(f"cue:images=50,seed={seed}") for seed in (1, 2))
    assert first.content.digest != second.content.digest
    assert first.content.digest == open_cue("cue:seed=1,images=50").content.digest


@pytest.mark.parametrize(("size", "distance"), [(16, 6), (16, 10), (32, 6), (32, 14), (32, 26), (65, 31)])
def test_cue_and_digits_are_where_they_are_said_to_be(size: int, distance: int) -> None:
    made = drawn(size, distance, images=60, seed=size)
    assert made.images.shape == (60, size, size, 3)
    rows = made.digits[:, :, 0] - made.cues[:, None, 0]
    assert (made.digits[:, :, 1] - made.cues[:, None, 1] == distance).all()
    assert (abs(rows) <= distance).all()
    assert (rows[:, 1] - rows[:, 0] >= DIGIT_SIDE).all()  # one above the other, without touching
    assert (made.cues[:, 1] - CUE_SIDE // 2 <= 4).all()  # at the left
    for image, cue, digits in zip(made.images, made.cues, made.digits, strict=True):
        lit = np.zeros((size, size), bool)
        for (row, column), half in ((cue, CUE_SIDE // 2), *((each, DIGIT_SIDE // 2) for each in digits)):
            assert half <= row <= size - half
            assert half <= column <= size - half
            lit[row - half : row + half, column - half : column + half] = True
        assert not image[~lit].any()  # nothing lies elsewhere
        patch = image[cue[0] - 2 : cue[0] + 2, cue[1] - 2 : cue[1] + 2]
        assert (patch == patch[0, 0]).all()
        assert patch.any()


def test_the_label_is_the_digit_of_the_cues_colour() -> None:
    made, digits = drawn(images=500), open_digits()
    for number in range(500):
        row, column = made.cues[number]
        cue = made.images[number, row, column]
        found = []
        for which in range(2):
            row, column = made.digits[number, which]
            patch = made.images[number, row - 4 : row + 4, column - 4 : column + 4].reshape(-1, 3)
            brightest = patch[patch.sum(1).argmax()]
            if (brightest.argmax(), brightest.argmin()) == (cue.argmax(), cue.argmin()):
                found.append(which)
        assert found == [made.read[number]]
        assert digits.labels[made.sources[number, found[0]]] == made.labels[number]


def test_without_its_cue_a_picture_does_not_say_which_digit_is_to_be_read() -> None:
    made, digits = drawn(images=20_000), open_digits()
    each = np.arange(20_000)
    classes = digits.labels[made.sources]
    rows, columns = made.digits[:, :, 0], made.digits[:, :, 1]
    centres = made.images[each[:, None], rows, columns]
    orange_first = (
        centres[:, 0, 0].astype(int) + centres[:, 1, 2] > centres[:, 0, 2].astype(int) + centres[:, 1, 0]
    )
    chance = 3 * 0.5 / 20_000**0.5  # three standard errors
    guesses = (np.zeros(20_000, int), (~orange_first).astype(int), (classes[:, 0] < classes[:, 1]).astype(int))
    for guess in guesses:  # the upper one, the orange one, the larger one
        assert abs((guess == made.read).mean() - 0.5) < chance
        right = classes[each, guess] == made.labels
        assert right.mean() == pytest.approx(0.55, abs=3 * chance)  # half, and where both are equal
    assert (classes[:, 0] == classes[:, 1]).mean() == pytest.approx(0.1, abs=chance)


def test_classes_are_balanced_in_each_split() -> None:
    source = open_cue("cue")
    for code in range(3):
        counts = np.bincount(source.labels[source.declared == code])
        assert len(counts) == 10
        assert np.ptp(counts) <= 1


def test_a_digit_that_is_tested_on_is_in_no_picture_to_train_on() -> None:
    first, second = (
        {split: set(np.unique(each.sources)) for split, each in draw_cue(CueConfig(seed=seed)).items()}
        for seed in range(2)
    )
    assert not first["train"] & first["validation"]
    assert not first["train"] & first["test"]
    assert not first["validation"] & first["test"]
    assert sum(map(len, first.values())) == 1797  # each is shown somewhere
    assert first == second  # no seed shows for training what another keeps for the test


@pytest.mark.parametrize(
    ("text", "config"),
    [
        ("cue", CueConfig()),
        ("cue:", CueConfig()),
        ("cue:distance=20", CueConfig(distance=20)),
        ("cue: size = 64 , seed = 3", CueConfig(size=64, distance=28, seed=3)),
        ("cue:size=64,distance=14", CueConfig(size=64)),
        ("cue:size=16,images=100", CueConfig(size=16, distance=7, images=100)),
    ],
)
def test_a_name_says_what_is_drawn(text: str, config: CueConfig) -> None:
    assert CueConfig.parse(text) == config
    assert CueConfig.parse(config.text) == config
    assert CueConfig(distance=14, images=10_000).text == "cue"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cue:sise=64", "'sise' is not one of size, distance, images, seed; did you mean 'size'?: write it as in"),
        ("cue:64", "'64' is not one of size"),
        ("cue:size", "size needs a whole number, as in cue:size=64"),
        ("cue:size=-4", "size needs a whole number"),
        ("cue:size=1e2", "size needs a whole number"),
        ("cue:size=64,size=64", "size is given twice"),
        ("cue:size=8", "size=8 is not between 16 and 384"),
        ("cue:distance=5", "distance=5 is not between 6 and 26, where"),
        ("cue:distance=27", "distance=27 is not between 6 and 26, where"),
        ("cue:images=10", "images=10 is too few"),
        ("cue:images=999999999", "take too much memory: give at most 499,321"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_a_line(text: str, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)) as error:
        open_source(text, None)
    assert "\n" not in str(error.value)


def test_a_large_canvas_says_that_it_is_shrunk() -> None:
    assert "without --size 96 they are shrunk to 64 px" in open_cue("cue:size=96,images=50").notes[0]
    assert not open_cue("cue:size=64,images=50").notes


def test_it_is_loaded_as_any_data_set() -> None:
    dataset = load_dataset("cue:size=16,distance=8,images=100", DataConfig())
    assert dataset.name == "cue-size16-distance8-images100"
    assert load_dataset(dataset.location, DataConfig()).fingerprint == dataset.fingerprint
    assert {split: len(rows) for split, rows in dataset.splits.items()} == {
        "train": 100, "validation": 20, "test": 20,
    }  # fmt: skip
    assert np.array_equal(dataset.images, images_of(open_cue(dataset.location)))
