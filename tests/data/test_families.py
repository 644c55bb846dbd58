"""The families of augmentation: each by its definition, each image for itself, and none at no strength."""

import colorsys
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from foveate.data.augment import build_augment
from foveate.data.families import (
    FAMILIES,
    MIXES,
    colour_batch,
    cutmix_batch,
    erase_batch,
    filter_batch,
    gridmask_batch,
    mix_batch,
    mixup_batch,
    rand_batch,
)
from foveate.settings import AugmentConfig, ExtraFamily


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int = 8, side: int = 16, seed: int = 0) -> Tensor:
    """uint8 images in channels_last memory, as the loader gives them."""
    pixels = torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=generator(seed))
    return pixels.permute(0, 3, 1, 2)


def test_the_tables_hold_exactly_the_families_that_settings_may_name() -> None:
    assert set(FAMILIES) | set(MIXES) == set(get_args(ExtraFamily))
    assert not set(FAMILIES) & set(MIXES)


@pytest.mark.parametrize("family", FAMILIES.values())
class TestEveryFamily:
    def test_no_strength_changes_nothing(self, family: Any) -> None:
        images = pictures()
        torch.testing.assert_close(family(images, generator(), strength=0.0), images.float(), atol=1e-3, rtol=0)

    def test_it_repeats_itself_and_stays_on_the_scale(self, family: Any) -> None:
        images = pictures(64)
        out = family(images, generator(3), strength=1.0)
        assert torch.equal(out, family(images, generator(3), strength=1.0))
        assert not torch.equal(out, family(images, generator(4), strength=1.0))
        assert out.shape == images.shape
        assert out.dtype == torch.float32
        assert out.min() >= 0
        assert out.max() <= 255

    def test_each_image_draws_for_itself(self, family: Any) -> None:
        same = pictures(1).expand(80, -1, -1, -1)
        out = family(same, generator(), strength=1.0)
        assert len({tuple(image.flatten().tolist()) for image in out}) > 30  # erasing leaves half as they were

    def test_images_do_not_see_each_other(self, family: Any) -> None:
        images, others = pictures(6), pictures(6, seed=9)
        mixed = torch.cat([images[:3], others[3:]])
        whole, half = (family(each, generator(), strength=0.7) for each in (images, mixed))
        assert torch.equal(whole[:3], half[:3])

    def test_images_need_not_be_square(self, family: Any) -> None:
        assert family(pictures()[:, :, :7], generator(), strength=0.5).shape == (8, 3, 7, 16)


def test_a_filter_blurs_or_sharpens_between_its_bounds() -> None:
    images = pictures(200)
    out = filter_batch(images, generator(), strength=1.0)
    rough = lambda batch: batch.float().diff(dim=-1).abs().mean((1, 2, 3))  # noqa: E731
    smoother = rough(out) < rough(images)
    assert 40 < smoother.sum() < 100  # a third
    # A single white pixel, whole blur: the binomial kernel.
    dot = torch.zeros(1000, 3, 5, 5)
    dot[:, :, 2, 2] = 160
    blurred = filter_batch(dot, generator(), strength=1.0)
    most = blurred[blurred[:, 0, 2, 2].argmin(), 0]
    kernel = torch.outer(torch.tensor([1.0, 2, 1]), torch.tensor([1.0, 2, 1])) * 10
    torch.testing.assert_close(most[1:4, 1:4], kernel, atol=1.0, rtol=0)


class TestColour:
    def test_grey_keeps_its_hue_and_black_stays_black(self) -> None:
        grey = torch.full((50, 3, 4, 4), 100.0)
        out = colour_batch(grey, generator(), strength=0.6)
        assert (out.amax(1) - out.amin(1)).max() < 0.5
        assert torch.equal(
            colour_batch(torch.zeros(5, 3, 4, 4), generator(), strength=1.0), torch.zeros(5, 3, 4, 4)
        )

    def test_it_is_hue_saturation_contrast_and_brightness(self) -> None:
        """One image's draws, applied one after another by their definitions."""
        image = pictures(1).float() * 0.2 + 100  # far from the ends of the scale
        strength = 0.3
        draws = (strength * (2 * torch.rand(4, 1, generator=generator(5)) - 1)).numpy().ravel()
        brightness, contrast, saturation = 1 + 0.8 * draws[:3]
        pixels = image[0].permute(1, 2, 0).numpy().astype(float)
        grey = pixels @ np.array([0.299, 0.587, 0.114])
        saturated = grey[..., None] + saturation * (pixels - grey[..., None])
        angle = draws[3] * np.pi / 2
        turned = np.array([_hue_turned(pixel, angle) for pixel in saturated.reshape(-1, 3)]).reshape(pixels.shape)
        expected = brightness * (grey.mean() + contrast * (turned - grey.mean()))
        got = colour_batch(image, generator(5), strength=strength)[0].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(got, expected, atol=0.3)

    def test_against_kornia(self) -> None:
        """Brightness and saturation alone, which it defines alike."""
        enhance = pytest.importorskip("kornia.enhance")
        images = pictures(4).float() * 0.3 + 80
        draws = 0.5 * (2 * torch.rand(4, 4, generator=generator(1)) - 1)
        out = colour_batch(images, generator(1), strength=0.5)
        # Undo hue by comparing luma, which hue and saturation leave as it is.
        luma = lambda batch: enhance.adjust_saturation(batch / 255, 0.0)  # noqa: E731
        assert luma(out).shape == images.shape
        weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
        brightness, contrast = (1 + 0.8 * draws[:2]).view(2, -1, 1, 1, 1).unbind()
        before, after = ((weights * batch).sum(1, keepdim=True) for batch in (images, out))
        mean = before.mean((1, 2, 3), keepdim=True)
        torch.testing.assert_close(after, brightness * (mean + contrast * (before - mean)), atol=0.05, rtol=0)


def _hue_turned(pixel: np.ndarray, angle: float) -> np.ndarray:
    y, i, q = colorsys.rgb_to_yiq(*pixel)
    turned = complex(i, q) * np.exp(1j * angle)
    # colorsys clips to 0…1: the inverse by its definition.
    matrix = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
    return np.linalg.solve(matrix, [y, turned.real, turned.imag])


def test_erasing_leaves_half_alone_and_makes_rectangles_of_noise() -> None:
    images = torch.full((400, 3, 20, 20), 300.0)  # off the scale: what is erased shows
    out = erase_batch(images, generator(), strength=1.0)
    erased = (out != 300).any(1)
    share = erased.float().mean((1, 2))
    assert 150 < (share > 0).sum() < 230
    assert share.max() <= 0.42
    for where in erased[share > 0][:20]:
        rows, columns = where.any(1), where.any(0)
        assert torch.equal(where, rows.unsqueeze(1) & columns.unsqueeze(0))


def test_gridmask_deletes_squares_at_even_distances() -> None:
    images = torch.zeros(200, 3, 64, 64)
    out = gridmask_batch(images, generator(), strength=1.0)
    deleted = out[:, 0] == 127.5
    assert 0.25 < deleted.float().mean() < 0.45  # 0.6² and what is cut off
    for where in deleted[:20]:
        rows, columns = where.any(1), where.any(0)
        assert torch.equal(where, rows.unsqueeze(1) & columns.unsqueeze(0))
        starts = torch.where(rows[1:] & ~rows[:-1])[0].diff()
        assert starts.numel() < 2 or starts.max() - starts.min() <= 1


class TestMixes:
    def test_mixup_is_a_mean_of_an_image_and_the_next(self) -> None:
        images = pictures(5)
        out, share = mixup_batch(images, generator())
        weight = share.view(-1, 1, 1, 1)
        expected = weight * images.float() + (1 - weight) * images.float().roll(-1, 0)
        torch.testing.assert_close(out, expected, atol=1e-3, rtol=0)
        assert 0.4 < mixup_batch(pictures(2000, 2), generator())[1].mean() < 0.6

    def test_cutmix_is_a_rectangle_of_the_next_and_tells_its_share(self) -> None:
        images = torch.arange(50.0).view(-1, 1, 1, 1).expand(-1, 3, 12, 12)
        out, share = cutmix_batch(images, generator())
        cut = out[:, 0] != images[:, 0]
        torch.testing.assert_close(share, 1 - cut.float().mean((1, 2)))
        assert torch.equal(out, torch.where(cut.unsqueeze(1), images.roll(-1, 0), images))
        assert share.min() < 0.3
        assert share.max() > 0.9

    def test_of_several_each_image_gets_one(self) -> None:
        images = pictures(100)
        out, share = mix_batch(images, [mixup_batch, cutmix_batch], generator())
        is_cut = torch.tensor([bool(torch.isin(one, torch.arange(256.0)).all()) for one in out])
        assert 30 < is_cut.sum() < 70
        assert share.shape == (100,)

    def test_targets_are_mixed_as_the_images_are(self) -> None:
        config = AugmentConfig(family="crop", flip=0.0, shift=0.0, augmentations=("mixup",))
        images, labels = pictures(6), torch.tensor([0, 1, 2, 2, 0, 1])
        turn = torch.zeros(6, dtype=torch.bool)
        out, targets = build_augment(config, 3)(images, labels, turn, generator(), generator())
        expected, share = mixup_batch(images, generator())
        assert torch.equal(out, expected)
        assert targets.shape == (6, 3)
        torch.testing.assert_close(targets.sum(1), torch.ones(6))
        for row in range(6):
            one_hot = torch.zeros(3)
            one_hot[labels[row]] += share[row]
            one_hot[labels[(row + 1) % 6]] += 1 - share[row]
            torch.testing.assert_close(targets[row], one_hot)


def test_families_come_in_the_order_given_after_the_geometric_one() -> None:
    images, labels, turn = pictures(6), torch.arange(6), torch.zeros(6, dtype=torch.bool)
    still = {"family": "crop", "flip": 0.0, "shift": 0.0, "strength": 1.0}
    one, other = (
        build_augment(AugmentConfig(augmentations=extra, **still), 6)(
            images, labels, turn, generator(), generator()
        )[0]
        for extra in (("erase", "filter"), ("filter", "erase"))
    )
    assert not torch.equal(one, other)


def test_rand_gives_each_image_two_of_the_families() -> None:
    images = torch.full((300, 3, 16, 16), 90.0)
    images[:, 0, ::2] = 140
    out = rand_batch(images, generator(), strength=1.0)
    changed = (out != images).flatten(1).any(1)
    assert changed.float().mean() > 0.8
    gridded = (out == 127.5).all(1).flatten(1).any(1)
    assert 90 < gridded.sum() < 200  # half
