"""The preset where none is asked for."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.workflows.test_length import Said

from foveate.data.opening import open_source
from foveate.workflows.defaults import default_preset, preset_of


@pytest.fixture
def pictures(tmp_path: Path) -> Callable[[int], str]:
    """A folder of two classes of pictures with a shorter side."""

    def make(side: int) -> str:
        for name in ("a", "b"):
            (tmp_path / str(side) / name).mkdir(parents=True)
            for number in range(2):
                pixels = np.full((side, side + 20, 3), 40 * number, np.uint8)
                Image.fromarray(pixels).save(tmp_path / str(side) / name / f"{number}.png")
        return str(tmp_path / str(side))

    return make


@pytest.fixture
def has_weights(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    def patch(has: bool) -> None:
        monkeypatch.setattr("foveate.workflows.defaults.has_packaged_weights", lambda _: has)

    return patch


def test_photographs_start_from_a_network_that_knows_imagenet(
    pictures: Callable[[int], str], has_weights: Callable[[bool], None]
) -> None:
    has_weights(True)
    preset, line = default_preset(open_source(pictures(96), None), ["seed", "data.val_fraction", "device"])
    assert preset == "photos"
    assert line is not None
    assert "typical side 96 px" in line


def test_without_the_weights_it_is_said_what_would_help(
    pictures: Callable[[int], str], has_weights: Callable[[bool], None]
) -> None:
    has_weights(False)
    preset, line = default_preset(open_source(pictures(96), None), [])
    assert preset == "minute"
    assert line is not None
    assert 'pip install "foveate[pretrained]"' in line


def test_settings_of_a_network_are_meant_for_one_from_scratch(
    pictures: Callable[[int], str], has_weights: Callable[[bool], None]
) -> None:
    has_weights(True)
    preset, line = default_preset(open_source(pictures(200), None), ["seed", "train.epochs"])
    assert preset == "minute"
    assert line is not None
    assert "as train.epochs is given: --preset photos" in line


def test_settings_that_only_a_backbone_has_ask_for_its_preset() -> None:
    said = Said()
    assert preset_of(["seed", "train.weights", "backbone"], said) == "photos"
    assert said.lines == ["preset photos, as train.weights is given"]
    assert preset_of(["seed", "epochs"], said) is None


def test_images_without_detail_are_trained_at_their_own_size(
    pictures: Callable[[int], str], has_weights: Callable[[bool], None]
) -> None:
    has_weights(True)
    for source in (open_source(pictures(95), None), open_source("digits", None)):
        assert default_preset(source, []) == ("minute", None)
