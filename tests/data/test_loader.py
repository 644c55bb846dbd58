import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.data.loader import Loader, channel_statistics


def loader(count: int, batch: int, seed: int | None, total: int = 60) -> Loader:
    """Images whose every pixel is their index, so that a batch tells where it comes from."""
    images = np.broadcast_to(np.arange(total, dtype=np.uint8)[:, None, None, None], (total, 2, 2, 3)).copy()
    return Loader(images, np.arange(total) % 7, np.arange(count) * total // count, batch, seed)


def seen(batches: object) -> list[int]:
    return [int(image[0, 0, 0]) for images, _ in batches for image in images]  # type: ignore[attr-defined]


@settings(deadline=None)
@given(count=st.integers(1, 60), batch=st.integers(1, 70), seed=st.none() | st.integers(0, 5), data=st.data())
def test_an_epoch_is_every_image_once_and_any_position_can_be_taken_up(
    count: int, batch: int, seed: int | None, data: st.DataObject
) -> None:
    source = loader(count, batch, seed)
    whole = list(source.epoch(3))
    assert len(whole) == len(source)
    assert sorted(seen(whole)) == source.indices.tolist()
    start = data.draw(st.integers(0, len(source)))
    rest = list(source.epoch(3, start=start))
    assert seen(rest) == seen(whole[start:])
    assert all(len(images) == batch for images, _ in whole[:-1])


def test_batches_are_channels_last_uint8_with_their_own_labels() -> None:
    for images, labels in loader(60, 16, seed=1).epoch():
        assert images.dtype == torch.uint8
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert images.shape[1:] == (3, 2, 2)
        assert (images[:, 0, 0, 0] % 7 == labels).all()


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    first = seen(loader(60, 8, seed=1).epoch(1))
    assert first == seen(loader(60, 16, seed=1).epoch(1))
    orders = [first, seen(loader(60, 8, seed=1).epoch(2)), seen(loader(60, 8, seed=2).epoch(1))]
    assert len({tuple(order) for order in orders}) == 3
    assert seen(loader(60, 8, seed=None).epoch(1)) == seen(loader(60, 8, seed=None).epoch(2))


def test_torchs_global_generator_is_not_drawn_from() -> None:
    before = torch.get_rng_state()
    list(loader(60, 8, seed=1).epoch())
    assert torch.equal(before, torch.get_rng_state())


@settings(deadline=None)
@given(seed=st.integers(0, 99), chunk=st.integers(1, 50))
def test_channel_statistics_are_numpys(seed: int, chunk: int) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (40, 3, 4, 3), dtype=np.uint8)
    indices = np.arange(0, 40, 3)
    mean, std = channel_statistics(images, indices, chunk=chunk)
    np.testing.assert_allclose(mean, images[indices].mean((0, 1, 2)) / 255, atol=1e-12)
    np.testing.assert_allclose(std, images[indices].std((0, 1, 2)) / 255, atol=1e-9)


def test_channel_statistics_of_one_colour_are_without_deviation() -> None:
    mean, std = channel_statistics(np.full((3, 2, 2, 3), 51, np.uint8), np.arange(3))
    assert mean == (0.2, 0.2, 0.2)
    assert std == (0.0, 0.0, 0.0)
