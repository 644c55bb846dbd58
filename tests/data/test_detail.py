"""The detail that pictures hold: real ones, as they are and enlarged."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foveate.data.detail import sufficient_side, sufficient_side_of
from foveate.data.source import file_blocks

Pictures = list[Image.Image]
SCALES = ("NEAREST", "BILINEAR", "BICUBIC", "LANCZOS")
PNG, JPEG75, JPEG90 = {"format": "PNG"}, {"format": "JPEG", "quality": 75}, {"format": "JPEG", "quality": 90}
WAYS = [(side, scale, saved) for side in (128, 224) for scale in SCALES for saved in (PNG, JPEG75, JPEG90)]
QUICK = [(224, "NEAREST", JPEG75), (128, "BILINEAR", PNG), (128, "BICUBIC", JPEG90)]


@pytest.fixture(scope="session")
def small(cifar10_images: Callable[[str, int], tuple[np.ndarray, np.ndarray]]) -> Pictures:
    """Real ones of 32 px."""
    return [Image.fromarray(each) for each in cifar10_images("test", 16)[0]]


def written(folder: Path, pictures: Pictures, **saved: object) -> list[str]:
    paths = [folder / f"{number}.img" for number in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        picture.save(path, **saved)  # type: ignore[arg-type]
    return list(map(str, paths))


@pytest.mark.parametrize(
    ("side", "scale", "saved"),
    [pytest.param(*way, marks=[] if way in QUICK else pytest.mark.slow) for way in WAYS],
)
def test_enlarged_pictures_hold_no_more_than_they_had(
    small: Pictures, side: int, scale: str, saved: dict[str, object], tmp_path: Path
) -> None:
    enlarged = [each.resize((side, side), Image.Resampling[scale]) for each in small]
    assert sufficient_side(file_blocks(written(tmp_path, enlarged, **saved))) == 32


@pytest.mark.parametrize("scale", ["BILINEAR", "BICUBIC"])
def test_enlarged_pictures_need_not_be_square(small: Pictures, scale: str, tmp_path: Path) -> None:
    enlarged = [each.resize((336, 224), Image.Resampling[scale]) for each in small]
    assert sufficient_side(file_blocks(written(tmp_path, enlarged, format="JPEG", quality=90))) == 32


def test_pictures_as_they_are_hold_what_their_size_shows(small: Pictures, tmp_path: Path) -> None:
    assert sufficient_side(file_blocks(written(tmp_path, small, format="PNG"))) is None


@pytest.mark.slow
def test_photographs_are_not_accused_and_enlarged_ones_are(ants_bees: Path, tmp_path: Path) -> None:
    paths = sorted(ants_bees.rglob("*.jpg"))
    assert sufficient_side(file_blocks(list(map(str, paths)))) is None
    some = [Image.open(path).convert("RGB") for path in paths[::25]]
    shrunk = [each.resize((96, 96), Image.Resampling.BILINEAR) for each in some]
    (tmp_path / "own").mkdir()
    assert sufficient_side(file_blocks(written(tmp_path / "own", shrunk, format="JPEG", quality=90))) is None
    enlarged = [each.resize((224, 224), Image.Resampling.BICUBIC) for each in shrunk]
    assert sufficient_side(file_blocks(written(tmp_path, enlarged, format="JPEG", quality=90))) == 96


def test_it_is_told_of_pixels_and_bytes_too_and_not_of_what_cannot_be_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    enlarged = coarse.resize((128, 128), Image.Resampling.BICUBIC)
    encoded = io.BytesIO()
    enlarged.save(encoded, format="PNG")
    assert sufficient_side_of(np.asarray(enlarged)) == sufficient_side_of(encoded.getvalue()) == 32
    assert sufficient_side_of(rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)) is None
    assert sufficient_side_of(b"no picture") is None
    assert sufficient_side_of(encoded.getvalue()[:2000]) is None
    assert sufficient_side_of(np.full((128, 128, 3), 7, np.uint8)) in (None, 32)  # one colour: any side shows it


def test_a_few_pictures_tell_nothing(tmp_path: Path) -> None:
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    paths = written(tmp_path, [coarse.resize((128, 128))] * 7, format="PNG")
    assert sufficient_side(file_blocks(paths)) is None
