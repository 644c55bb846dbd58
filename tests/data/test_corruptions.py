"""Corruptions: each does what its name says, harder with every severity, and the same each time."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from foveate.data.corruptions import CORRUPTIONS, SEVERITIES, Corrupted, corrupt

KINDS = list(CORRUPTIONS)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Photographs of a kind: smooth shapes with edges, none of them black or white all over."""
    draws = generator(1)
    coarse = torch.rand(24, 3, 6, 6, generator=draws)
    smooth = torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bicubic", align_corners=False)
    smooth[:, :, 10:20, 8:24] = torch.rand(24, 3, 1, 1, generator=draws)
    return (smooth.clamp(0.05, 0.95) * 255).to(torch.uint8)


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.float() - other.float()).square().mean())


@pytest.mark.parametrize("kind", KINDS)
def test_every_severity_is_further_than_the_one_before(kind: str, images: torch.Tensor) -> None:
    far = [distance(images, corrupt(images, kind, severity, generator())) for severity in range(1, SEVERITIES + 1)]
    assert far[0] > 0
    assert far[-1] > 1.5 * far[0]
    if kind != "pixelate":  # where the smaller grid falls matters as much, between neighbours
        assert far == sorted(far)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [16, 33, 64])
def test_any_size_stays_what_it_is(kind: str, side: int) -> None:
    pixels = torch.randint(0, 256, (3, 3, side, side), generator=generator(), dtype=torch.uint8)
    for severity in (1, SEVERITIES):
        changed = corrupt(pixels, kind, severity, generator())
        assert (changed.shape, changed.dtype) == (pixels.shape, torch.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_generator_gives_the_same(kind: str, images: torch.Tensor) -> None:
    one, two = (corrupt(images, kind, 3, generator(7)) for _ in range(2))
    assert torch.equal(one, two)


@pytest.mark.parametrize("kind", ["motion_blur", "fog", "snow", "elastic", "gaussian_noise"])
def test_each_image_has_its_own(kind: str, images: torch.Tensor) -> None:
    alike = images[:1].expand(8, -1, -1, -1)
    assert len({each.numpy().tobytes() for each in corrupt(alike, kind, 3, generator())}) == 8


@given(kind=st.sampled_from(KINDS), severity=st.integers(1, SEVERITIES), level=st.integers(0, 255))
@settings(max_examples=60)
def test_a_flat_image_is_blurred_zoomed_and_bent_to_itself(kind: str, severity: int, level: int) -> None:
    flat = torch.full((2, 3, 32, 32), level, dtype=torch.uint8)
    changed = corrupt(flat, kind, severity, generator())
    if kind in {"defocus_blur", "motion_blur", "zoom_blur", "contrast", "elastic", "pixelate", "jpeg"}:
        assert distance(flat, changed) <= 1
    if kind == "brightness":
        assert (changed >= flat).all()


class TestAgainstTheirDefinitions:
    def test_gaussian_noise_has_its_deviation(self) -> None:
        grey = torch.full((40, 3, 32, 32), 128, dtype=torch.uint8)
        noise = corrupt(grey, "gaussian_noise", 3, generator()).float() / 255 - 128 / 255
        assert noise.std().item() == pytest.approx(0.08, rel=0.02)
        assert abs(noise.mean().item()) < 1e-3

    def test_shot_noise_has_the_variance_of_counts(self) -> None:
        grey = torch.full((40, 3, 32, 32), 128, dtype=torch.uint8)
        noise = corrupt(grey, "shot_noise", 5, generator()).float() / 255
        assert noise.var().item() == pytest.approx(128 / 255 / 50, rel=0.03)

    def test_impulse_noise_makes_so_many_values_black_or_white(self) -> None:
        grey = torch.full((40, 3, 32, 32), 128, dtype=torch.uint8)
        changed = corrupt(grey, "impulse_noise", 4, generator())
        assert (changed != 128).float().mean().item() == pytest.approx(0.05, rel=0.05)
        assert set(changed.unique().tolist()) == {0, 128, 255}

    def test_contrast_is_a_share_of_the_distance_to_the_mean(self, images: torch.Tensor) -> None:
        pixels = images.double()
        expected = 0.3 * pixels + 0.7 * pixels.mean((2, 3), keepdim=True)
        assert (corrupt(images, "contrast", 4, generator()) - expected).abs().max() <= 0.51

    def test_brightness_adds_to_the_value_and_keeps_hue_and_saturation(self, images: torch.Tensor) -> None:
        changed = corrupt(images, "brightness", 3, generator()).double()
        value = images.double().amax(1)
        assert torch.allclose(changed.amax(1), (value + 0.15 * 255).clamp(max=255), atol=0.51)
        saturation = [1 - each.double().amin(1) / each.double().amax(1) for each in (images, changed)]
        assert torch.allclose(*saturation, atol=0.02)

    def test_jpeg_is_pillows(self, images: torch.Tensor) -> None:
        file = io.BytesIO()
        Image.fromarray(images[0].permute(1, 2, 0).numpy()).save(file, "JPEG", quality=50)
        expected = np.asarray(Image.open(file))
        got = corrupt(images[:1], "jpeg", 4, generator())[0].permute(1, 2, 0).numpy()
        assert np.array_equal(got, expected)

    def test_pixelate_is_a_mean_over_areas_and_back(self) -> None:
        pixels = torch.randint(0, 256, (1, 3, 20, 20), generator=generator(), dtype=torch.uint8)
        changed = corrupt(pixels, "pixelate", 5, generator()).double()
        small = torch.nn.functional.interpolate(pixels.double(), size=(13, 13), mode="area")
        assert changed.mean().item() == pytest.approx(small.mean().item(), abs=1)
        assert changed.min() >= small.min() - 0.51
        assert changed.max() <= small.max() + 0.51

    @pytest.mark.parametrize("kind", ["defocus_blur", "motion_blur", "zoom_blur"])
    def test_a_blur_loses_detail_and_keeps_the_light(self, kind: str, images: torch.Tensor) -> None:
        changed = corrupt(images, kind, 5, generator()).float()
        across = [each[..., 1:] - each[..., :-1] for each in (images.float(), changed)]
        assert across[1].square().mean() < 0.8 * across[0].square().mean()
        assert changed.mean().item() == pytest.approx(images.float().mean().item(), rel=0.03)


class TestCorrupted:
    def test_it_hands_the_network_what_corrupt_makes(self, images: torch.Tensor) -> None:
        seen: list[torch.Tensor] = []

        class Seeing(torch.nn.Module):
            def forward(self, batch: torch.Tensor) -> torch.Tensor:
                seen.append(batch)
                return batch.float().mean((2, 3))

        for _ in range(2):
            network = Corrupted(Seeing(), "fog", 2)
            network(images[:10])
            network(images[10:])
        assert torch.equal(seen[0], seen[2])
        assert torch.equal(seen[1], seen[3])
        assert seen[0].dtype == torch.uint8
        assert not torch.equal(seen[0], images[:10])
