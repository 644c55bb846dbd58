"""Images that come one by one: every one is answered, whenever it comes."""

import io
import random
import time
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from foveate.data import arriving
from foveate.data.arriving import ArrivingImages


def encoded(grey: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 20), (grey,) * 3).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> Iterator[ArrivingImages]:
    monkeypatch.setattr(arriving, "_KEPT_S", 0.01)
    made = ArrivingImages(16, workers=1, timeout_s=10)
    made.start()
    yield made
    made.close()


def test_an_image_that_comes_when_the_pause_before_it_ends_is_decoded(images: ArrivingImages) -> None:
    draws = random.Random(0)
    for number in range(300):
        time.sleep(draws.uniform(0.005, 0.015))  # around the pause after which files are emptied
        pixels = images.decode(encoded(number % 256)).result(timeout=20)
        assert np.all(pixels == number % 256)
