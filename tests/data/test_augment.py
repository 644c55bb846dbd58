import math
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from foveate.data import augment
from foveate.data.augment import build_augment, crop_batch, resize_batch, resized_crop_batch
from foveate.data.loader import Loader
from foveate.settings import AugmentConfig, AugmentFamily

PAPER = {"flip": 0.5, "shift": 0.1, "rotation": 15.0, "zoom": 0.1}
NOTHING = {"flip": 0.0, "shift": 0.0, "rotation": 0.0, "zoom": 0.0}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int, side: int = 16, seed: int = 0) -> Tensor:
    """uint8 images in channels_last memory, as the loader gives them."""
    pixels = torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=generator(seed))
    return pixels.permute(0, 3, 1, 2)


def geometric(images: Tensor, draws: torch.Generator, **settings: float) -> Tensor:
    """The affine family as settings make it."""
    return augmented(images, torch.zeros(len(images), dtype=torch.bool), draws, **settings)


def augmented(images: Tensor, turn: Tensor, draws: torch.Generator, **settings: Any) -> Tensor:
    """Images as settings make them; their labels stay."""
    labels = torch.arange(len(images))
    out, targets = build_augment(AugmentConfig(**settings), len(images))(images, labels, turn, draws, draws)
    assert targets is labels
    return out


def coins(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, generator=generator(seed)) < 0.5


def test_a_seed_repeats_it_and_another_does_not() -> None:
    images = pictures(8)
    first = geometric(images, generator(1), **PAPER)
    assert torch.equal(first, geometric(images, generator(1), **PAPER))
    assert not torch.equal(first, geometric(images, generator(2), **PAPER))


def test_each_image_draws_its_own_transformation() -> None:
    same = pictures(1).expand(64, -1, -1, -1)
    out = geometric(same, generator(0), **PAPER)
    assert len({tuple(image.flatten().tolist()) for image in out}) == 64


def test_an_image_is_not_touched_by_what_its_neighbours_are() -> None:
    images = pictures(6)
    others = pictures(6, seed=9)
    others[2] = images[2]
    a, b = geometric(images, generator(4), **PAPER), geometric(others, generator(4), **PAPER)
    assert torch.equal(a[2], b[2])
    assert not torch.equal(a[1], b[1])


def test_the_input_is_left_alone_and_successive_batches_differ() -> None:
    images = pictures(4)
    before, draws = images.clone(), generator(0)
    first, second = geometric(images, draws, **PAPER), geometric(images, draws, **PAPER)
    assert torch.equal(images, before)
    assert not torch.equal(first, second)


def test_the_number_of_draws_does_not_depend_on_the_settings() -> None:
    some, none = generator(0), generator(0)
    geometric(pictures(5), some, **PAPER)
    geometric(pictures(5), none, **NOTHING)
    assert torch.equal(some.get_state(), none.get_state())


@settings(max_examples=30)
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
    out = geometric(images, generator(seed), flip=flip, shift=shift, rotation=rotation, zoom=zoom)
    assert out.shape == images.shape
    assert out.dtype == torch.float32
    assert out.is_contiguous(memory_format=torch.channels_last)
    # Interpolation and edge repetition invent no pixel outside the image's own range.
    assert (out.amin((2, 3)) >= images.float().amin((2, 3)) - 1e-3).all()
    assert (out.amax((2, 3)) <= images.float().amax((2, 3)) + 1e-3).all()


def test_nothing_changes_nothing() -> None:
    images = pictures(3)
    assert torch.equal(geometric(images, generator(0), **NOTHING), images.float())


def test_flip_alone_mirrors_the_stated_share() -> None:
    images = pictures(400, side=4)
    out = geometric(images, generator(0), **{**NOTHING, "flip": 0.25})
    mirrored = torch.isclose(out, images.float().flip(3), atol=1e-2).flatten(1).all(1)
    kept = torch.isclose(out, images.float(), atol=1e-2).flatten(1).all(1)
    assert (mirrored | kept).all()
    assert 70 <= int(mirrored.sum()) <= 130  # 100 ± 3.5 standard deviations


def test_shift_alone_moves_the_content_and_repeats_the_edge() -> None:
    images = torch.zeros(64, 3, 20, 20)
    images[:, :, :, 10:] = 100.0
    out = geometric(images, generator(3), **{**NOTHING, "shift": 0.2})
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
    out = geometric(images, generator(0), **{**NOTHING, "rotation": 90.0})[:, 0]
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
    sides = geometric(images, generator(0), **{**NOTHING, "zoom": 0.2})[:, 0].sum((1, 2)).sqrt()
    assert sides.min() >= 17 / 1.2 - 0.3
    assert sides.max() <= 17 / 0.8 + 0.3
    assert sides.max() - sides.min() > 3


@pytest.mark.parametrize("turn", [90.0])
def test_non_square_images_are_turned_rigidly(turn: float) -> None:
    images = torch.zeros(64, 1, 21, 41)
    images[:, :, 10, 28] = 1.0  # eight pixels right of the centre
    out = geometric(images, generator(5), **{**NOTHING, "rotation": turn})[:, 0]
    y, x = torch.meshgrid(torch.arange(21) - 10.0, torch.arange(41) - 20.0, indexing="ij")
    mass = out.sum((1, 2))
    radius = torch.hypot((out * x).sum((1, 2)) / mass, (out * y).sum((1, 2)) / mass)
    torch.testing.assert_close(radius, torch.full((64,), 8.0), atol=0.3, rtol=0)


def reference(images: np.ndarray, shift: int, down: int, right: int, *, mirror: bool) -> np.ndarray:
    """[…, H, W]: padded by reflection, the window at an offset of -shift…shift cut out, mirrored."""
    *more, height, width = images.shape
    padded = np.pad(images, (*((0, 0) for _ in more), (shift, shift), (shift, shift)), mode="reflect")
    window = padded[..., shift + down : shift + down + height, shift + right : shift + right + width]
    return window[..., ::-1] if mirror else window


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width", "shift"), [(6, 9, 2), (8, 8, 1), (7, 7, 3), (5, 5, 0)])
def test_crops_are_those_of_numpy_and_every_offset_occurs(height: int, width: int, shift: int) -> None:
    count = 60 * (2 * shift + 1) ** 2
    images = torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=generator(1))
    images, mirror = images.permute(0, 3, 1, 2), coins(count)
    out = crop_batch(images, mirror, generator(0), shift=shift)
    assert (out.dtype, out.shape) == (torch.uint8, images.shape)
    assert out.is_contiguous(memory_format=torch.channels_last)
    moves = range(-shift, shift + 1)
    mirrored, found = mirror.numpy()[:, None, None, None], []
    for down, right in ((down, right) for down in moves for right in moves):
        both = [reference(images.numpy(), shift, down, right, mirror=each) for each in (True, False)]
        found.append((out.numpy() == np.where(mirrored, *both)).all(axis=(1, 2, 3)))
    fitting = np.stack(found)  # [offsets, images]
    assert fitting.any(axis=0).all()
    first = fitting.argmax(axis=0)
    assert len({*zip(mirror.tolist(), first.tolist(), strict=True)}) == 2 * (2 * shift + 1) ** 2
    # Evenly: each offset is expected 60 times, of which 6 standard deviations are 46.
    assert np.abs(np.bincount(first, minlength=len(fitting)) - 60).max() < 46


def test_the_furthest_shift_is_one_less_than_the_side() -> None:
    images, mirror = pictures(200, side=4), coins(200)
    out = crop_batch(images, mirror, generator(0), shift=3)
    offsets = [(down, right) for down in range(-3, 4) for right in range(-3, 4)]
    for image, mirrored, got in zip(images.numpy(), mirror.tolist(), out.numpy(), strict=True):
        assert any(np.array_equal(got, reference(image, 3, *offset, mirror=mirrored)) for offset in offsets)


def test_crops_keep_the_type_and_the_input_and_a_seed_repeats_them() -> None:
    images, mirror = pictures(32), coins(32)
    before = images.clone()
    first = crop_batch(images, mirror, generator(1), shift=2)
    assert torch.equal(images, before)
    assert torch.equal(first, crop_batch(images, mirror, generator(1), shift=2))
    assert not torch.equal(first, crop_batch(images, mirror, generator(2), shift=2))
    # In any memory format and type.
    plain = images.contiguous().float()
    assert torch.equal(first.float(), crop_batch(plain, mirror, generator(1), shift=2))
    draws = generator(1)
    assert not torch.equal(crop_batch(images, mirror, draws, shift=2), crop_batch(images, mirror, draws, shift=2))


def cropped(turn: Tensor, draws: torch.Generator, images: Tensor, **settings: Any) -> Tensor:
    return augmented(images, turn, draws, family="crop", **settings)


def test_the_crop_family_shifts_by_the_share_of_the_side_in_whole_pixels() -> None:
    images, turn = pictures(200, side=20), torch.zeros(200, dtype=torch.bool)
    out = cropped(turn, generator(3), images, flip=0.0, shift=0.1)
    draws = generator(3)
    torch.rand(200, generator=draws)  # for the mirror, used or not
    assert torch.equal(out, crop_batch(images, turn, draws, shift=2))
    assert torch.equal(cropped(turn, generator(3), images, flip=0.0, shift=0.0), images)


def coordinates(count: int, side: int) -> Tensor:
    """Images whose two channels hold where each pixel lies, in pixels from the left and from the top."""
    along = torch.arange(side, dtype=torch.float32)
    return torch.stack(torch.meshgrid(along, along, indexing="xy")).expand(count, 2, side, side)


def test_a_resized_crop_is_a_rectangle_of_the_image_enlarged_to_all_of_it() -> None:
    side, count = 32, 3000
    mirror = coins(count)
    out = resized_crop_batch(coordinates(count, side), mirror, generator(0), scale=0.25)
    middle = out[:, :, side // 2 - 4 : side // 2 + 4, side // 2 - 4 : side // 2 + 4]  # where no edge repeats
    across = (middle[:, 0, 0, -1] - middle[:, 0, 0, 0]) / 7
    down = (middle[:, 1, -1, 0] - middle[:, 1, 0, 0]) / 7
    assert torch.equal(across < 0, mirror)
    across = across.abs()
    assert torch.allclose(middle[:, 0], middle[:, 0, :1], atol=1e-3)  # neither turned nor sheared
    area, ratio = across * down, across / down
    assert 0.25 - 1e-3 < float(area.min()) < 0.27
    assert 0.98 < float(area.max()) < 1 + 1e-3
    assert float(area.mean()) == pytest.approx(0.625, abs=0.02)  # drawn evenly
    assert float(ratio.min()) == pytest.approx(3 / 4, abs=0.01)
    assert float(ratio.max()) == pytest.approx(4 / 3, abs=0.01)
    assert float(ratio.log().mean()) == pytest.approx(0, abs=0.02)
    for centre, length in ((middle[:, 0].mean((1, 2)), across), (middle[:, 1].mean((1, 2)), down)):
        room = (side - side * length) / 2
        offset = centre - (side - 1) / 2
        assert (offset.abs() <= room + 1e-2).all()  # all of it lies within the image
        assert float((offset / room)[room > 1].std()) == pytest.approx(1 / math.sqrt(3), abs=0.03)  # evenly


def test_a_resized_crop_of_the_whole_image_changes_nothing() -> None:
    images = pictures(20)
    out = resized_crop_batch(images, torch.zeros(20, dtype=torch.bool), generator(0), scale=1.0)
    assert torch.allclose(out, images.float(), atol=1e-2)


def test_the_resized_crop_family_takes_its_scale_from_the_settings() -> None:
    images, turn = pictures(50, side=20), torch.zeros(50, dtype=torch.bool)
    out = augmented(images, turn, generator(3), family="resized_crop", flip=0.0, crop_scale=0.5)
    draws = generator(3)
    torch.rand(50, generator=draws)  # for the mirror, used or not
    assert torch.equal(out, resized_crop_batch(images, turn, draws, scale=0.5))


@pytest.mark.parametrize("family", get_args(AugmentFamily))
def test_turns_are_taken_where_flips_alternate_and_mirroring_is_safe(family: str) -> None:
    images, turn = pictures(100), coins(100, seed=7)
    nothing = {"shift": 0.0, "rotation": 0.0, "zoom": 0.0, "crop_scale": 1.0}

    def shown(**settings: Any) -> Tensor:
        return augmented(images, turn, generator(0), family=family, **nothing, **settings).float()

    def mirrored(out: Tensor) -> list[bool]:
        flipped = torch.isclose(out, images.float().flip(3), atol=1e-2).flatten(1).all(1)
        kept = torch.isclose(out, images.float(), atol=1e-2).flatten(1).all(1)
        assert (flipped ^ kept).all()
        return flipped.tolist()

    assert mirrored(shown(flip=0.5, alternating_flip=True)) == turn.tolist()
    assert not any(mirrored(shown(flip=0.0, alternating_flip=True)))
    assert mirrored(shown(flip=0.5)) != turn.tolist()
    assert 30 < sum(mirrored(shown(flip=0.5))) < 70
    assert all(mirrored(shown(flip=1.0)))


@pytest.mark.parametrize("family", get_args(AugmentFamily))
def test_what_decides_the_mirror_does_not_change_the_other_draws(family: str) -> None:
    images, turn = pictures(50), coins(50)
    after = []
    for mirror in ({"flip": 0.5}, {"flip": 0.0}, {"flip": 0.5, "alternating_flip": True}):
        draws = generator(0)
        augmented(images, turn, draws, family=family, **mirror)
        after.append(draws.get_state())
    assert all(torch.equal(after[0], each) for each in after)


@pytest.mark.parametrize(("alternate", "passes"), [(True, 1), (True, 2), (True, 3), (False, 1)])
def test_two_passes_show_every_image_from_both_sides_only_where_flips_alternate(
    alternate: bool, passes: int
) -> None:
    """Images whose left edge holds their number and whose right edge holds 255 tell how they were shown."""
    count = 200
    pixels = torch.zeros(count, 3, 4, 3, dtype=torch.uint8)
    pixels[:, :, 0], pixels[:, :, -1] = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1), 255
    loader = Loader(pixels, torch.arange(count), np.arange(count), 16, seed=5, passes=passes)
    flips = {"family": "crop", "flip": 0.5, "shift": 0.0, "alternating_flip": alternate}

    def shown() -> list[tuple[int, bool]]:
        draws = generator(2)
        views = []
        for epoch in (1, 2):
            for images, labels, turn in loader.epoch(epoch):
                out = augmented(images, turn, draws, **flips)
                mirrored = out[:, 0, 0, 0] == 255
                number = torch.where(mirrored, out[:, 0, 0, -1], out[:, 0, 0, 0])
                assert number.tolist() == labels.tolist()
                views += list(zip(number.tolist(), mirrored.tolist(), strict=True))
        return views

    views = shown()
    assert views == shown()
    first_pass = views[:count]
    assert 70 < sum(mirrored for _, mirrored in first_pass) < 130
    for start in range(0, len(views) - count, count):
        two = views[start : start + 2 * count]
        assert (len(set(two)) == 2 * count) is alternate


def test_resizing_is_without_aliasing_and_keeps_the_scale() -> None:
    stripes = torch.zeros(2, 3, 24, 24, dtype=torch.uint8)
    stripes[..., ::2] = 200
    small = resize_batch(stripes, 12)
    assert (small.shape, small.dtype) == ((2, 3, 12, 12), torch.float32)
    assert small.is_contiguous(memory_format=torch.channels_last)
    # Stripes of one pixel cannot be seen at half the side: they blur to their mean.
    torch.testing.assert_close(small[..., 1:-1], torch.full((2, 3, 12, 10), 100.0), atol=1e-3, rtol=0)
    flat = torch.full((1, 3, 20, 20), 77, dtype=torch.uint8)
    torch.testing.assert_close(resize_batch(flat, 13), torch.full((1, 3, 13, 13), 77.0))


@settings(max_examples=15)
@given(side=st.integers(8, 40), share=st.floats(0.4, 1), seed=st.integers(0, 99))
def test_resizing_is_pillows_bilinear_to_within_its_rounding(side: int, share: float, seed: int) -> None:
    images, target = pictures(2, side, seed), round(side * share)
    got = resize_batch(images, target)
    for image, small in zip(images.permute(0, 2, 3, 1).numpy(), got.permute(0, 2, 3, 1).numpy(), strict=True):
        expected = np.asarray(Image.fromarray(image).resize((target, target), Image.Resampling.BILINEAR))
        assert np.abs(small - expected).max() <= 1.01  # Pillow rounds after each axis


def test_resizing_to_the_own_side_changes_nothing() -> None:
    images = pictures(3)
    assert torch.equal(resize_batch(images, 16), images)


@settings(max_examples=30)
@given(seed=st.integers(0, 9999), height=st.integers(2, 20), width=st.integers(2, 20), reach=st.floats(0.5, 4))
def test_a_clamped_grid_samples_what_border_padding_does(seed: int, height: int, width: int, reach: float) -> None:
    """Which MPS does not have."""
    draws = torch.Generator().manual_seed(seed)
    images = torch.rand(2, 3, height, width, generator=draws)
    grid = (2 * torch.rand(2, 7, 5, 2, generator=draws) - 1) * reach
    expected = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    for clamp in (True, False):
        got = augment._sampled(images, grid, clamp=clamp)
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
