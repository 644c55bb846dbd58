import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from foveate.data.augment import geometric_batch

PAPER = {"flip": 0.5, "shift": 0.1, "rotation": 15.0, "zoom": 0.1}
NOTHING = {"flip": 0.0, "shift": 0.0, "rotation": 0.0, "zoom": 0.0}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int, side: int = 16, seed: int = 0) -> Tensor:
    """uint8 images in channels_last memory, as the loader gives them."""
    pixels = torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=generator(seed))
    return pixels.permute(0, 3, 1, 2)


def test_a_seed_repeats_it_and_another_does_not() -> None:
    images = pictures(8)
    first = geometric_batch(images, generator(1), **PAPER)
    assert torch.equal(first, geometric_batch(images, generator(1), **PAPER))
    assert not torch.equal(first, geometric_batch(images, generator(2), **PAPER))


def test_each_image_draws_its_own_transformation() -> None:
    same = pictures(1).expand(64, -1, -1, -1)
    out = geometric_batch(same, generator(0), **PAPER)
    assert len({tuple(image.flatten().tolist()) for image in out}) == 64


def test_an_image_is_not_touched_by_what_its_neighbours_are() -> None:
    images = pictures(6)
    others = pictures(6, seed=9)
    others[2] = images[2]
    a, b = geometric_batch(images, generator(4), **PAPER), geometric_batch(others, generator(4), **PAPER)
    assert torch.equal(a[2], b[2])
    assert not torch.equal(a[1], b[1])


def test_the_input_is_left_alone_and_successive_batches_differ() -> None:
    images = pictures(4)
    before, draws = images.clone(), generator(0)
    first, second = geometric_batch(images, draws, **PAPER), geometric_batch(images, draws, **PAPER)
    assert torch.equal(images, before)
    assert not torch.equal(first, second)


def test_the_number_of_draws_does_not_depend_on_the_settings() -> None:
    some, none = generator(0), generator(0)
    geometric_batch(pictures(5), some, **PAPER)
    geometric_batch(pictures(5), none, **NOTHING)
    assert torch.equal(some.get_state(), none.get_state())


@settings(deadline=None, max_examples=30)
@given(
    count=st.integers(1, 5),
    side=st.integers(2, 24),
    seed=st.integers(0, 99),
    flip=st.floats(0, 1),
    shift=st.floats(0, 0.9),
    rotation=st.floats(0, 180),
    zoom=st.floats(0, 0.9),
)
def test_shape_scale_and_memory_format_are_kept(
    count: int, side: int, seed: int, flip: float, shift: float, rotation: float, zoom: float
) -> None:
    images = pictures(count, side)
    out = geometric_batch(images, generator(seed), flip=flip, shift=shift, rotation=rotation, zoom=zoom)
    assert out.shape == images.shape
    assert out.dtype == torch.float32
    assert out.is_contiguous(memory_format=torch.channels_last)
    # Interpolation and edge repetition invent no pixel outside the image's own range.
    assert (out.amin((2, 3)) >= images.float().amin((2, 3)) - 1e-3).all()
    assert (out.amax((2, 3)) <= images.float().amax((2, 3)) + 1e-3).all()


def test_nothing_changes_nothing() -> None:
    images = pictures(3)
    assert torch.equal(geometric_batch(images, generator(0), **NOTHING), images.float())


def test_flip_alone_mirrors_the_stated_share() -> None:
    images = pictures(400, side=4)
    out = geometric_batch(images, generator(0), **{**NOTHING, "flip": 0.25})
    mirrored = torch.isclose(out, images.float().flip(3), atol=1e-2).flatten(1).all(1)
    kept = torch.isclose(out, images.float(), atol=1e-2).flatten(1).all(1)
    assert (mirrored | kept).all()
    assert 70 <= int(mirrored.sum()) <= 130  # 100 ± 3.5 standard deviations


def test_shift_alone_moves_the_content_and_repeats_the_edge() -> None:
    images = torch.zeros(64, 3, 20, 20)
    images[:, :, :, 10:] = 100.0
    out = geometric_batch(images, generator(3), **{**NOTHING, "shift": 0.2})
    edge = (out[:, 0, 10] < 50).sum(1)
    assert edge.min() >= 10 - 4
    assert edge.max() <= 10 + 4
    assert len(edge.unique()) > 4
    assert torch.allclose(out[..., 0], torch.zeros(()))
    assert torch.allclose(out[..., -1], torch.full((), 100.0))


def test_rotation_alone_keeps_the_distance_from_the_centre() -> None:
    side = 33
    images = torch.zeros(32, 3, side, side)
    images[:, :, 16, 26] = 255.0  # ten pixels right of the centre
    out = geometric_batch(images, generator(0), **{**NOTHING, "rotation": 90.0})[:, 0]
    y, x = torch.meshgrid(torch.arange(side) - 16.0, torch.arange(side) - 16.0, indexing="ij")
    mass = out.sum((1, 2))
    cx, cy = (out * x).sum((1, 2)) / mass, (out * y).sum((1, 2)) / mass
    torch.testing.assert_close(torch.hypot(cx, cy), torch.full((32,), 10.0), atol=0.3, rtol=0)
    angles = torch.atan2(cy, cx)
    assert angles.abs().max() <= math.pi / 2 + 0.05
    assert angles.max() > 0.9
    assert angles.min() < -0.9


def test_zoom_alone_scales_about_the_centre() -> None:
    side = 33
    images = torch.zeros(64, 3, side, side)
    images[:, :, 8:25, 8:25] = 1.0  # a square of side 17
    sides = geometric_batch(images, generator(0), **{**NOTHING, "zoom": 0.2})[:, 0].sum((1, 2)).sqrt()
    assert sides.min() >= 17 / 1.2 - 0.3
    assert sides.max() <= 17 / 0.8 + 0.3
    assert sides.max() - sides.min() > 3


@pytest.mark.parametrize("turn", [90.0])
def test_non_square_images_are_turned_rigidly(turn: float) -> None:
    images = torch.zeros(64, 1, 21, 41)
    images[:, :, 10, 28] = 1.0  # eight pixels right of the centre
    out = geometric_batch(images, generator(5), **{**NOTHING, "rotation": turn})[:, 0]
    y, x = torch.meshgrid(torch.arange(21) - 10.0, torch.arange(41) - 20.0, indexing="ij")
    mass = out.sum((1, 2))
    radius = torch.hypot((out * x).sum((1, 2)) / mass, (out * y).sum((1, 2)) / mass)
    torch.testing.assert_close(radius, torch.full((64,), 8.0), atol=0.3, rtol=0)
