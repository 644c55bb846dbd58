import itertools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foveate.data import loader as loader_module
from foveate.data.dataset import load_dataset
from foveate.data.loader import Batch, Loader, channel_statistics, preload, to_device
from foveate.settings import DataConfig

SEEDS = st.none() | st.integers(0, 5)


def loader(count: int, batch: int, seed: int | None, total: int = 60, passes: int = 1) -> Loader:
    """Images whose every pixel is their index, so that a batch tells where it comes from."""
    images = torch.arange(total, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 2, 2, 3).contiguous()
    indices = np.arange(count) * total // count
    return Loader(images, torch.arange(total) % 7, indices, batch, seed, passes)


def seen(batches: Iterable[Batch]) -> list[int]:
    return [int(image[0, 0, 0]) for batch in batches for image in batch.images]


def turns(batches: Iterable[Batch]) -> dict[int, list[bool]]:
    """For each image, whether it was its turn, each time it was shown."""
    found: dict[int, list[bool]] = {}
    for batch in batches:
        for image, turn in zip(batch.images[:, 0, 0, 0].tolist(), batch.turn.tolist(), strict=True):
            found.setdefault(image, []).append(turn)
    return found


@given(count=st.integers(1, 60), batch=st.integers(1, 200), seed=SEEDS, passes=st.integers(1, 4), data=st.data())
def test_an_epoch_is_every_image_once_a_pass_and_any_position_can_be_taken_up(
    count: int, batch: int, seed: int | None, passes: int, data: st.DataObject
) -> None:
    source = loader(count, batch, seed, passes=passes)
    whole = list(source.epoch(3))
    assert len(whole) == len(source) == math.ceil(count * passes / batch)
    order = seen(whole)
    for each in range(passes):
        assert sorted(order[each * count : (each + 1) * count]) == source.indices.tolist()
    start = data.draw(st.integers(0, len(source)))
    stop = data.draw(st.integers(start, len(source)))
    part = list(source.epoch(3, start=start, stop=stop))
    assert len(part) == stop - start
    assert seen(part) == seen(whole[start:stop])
    assert [batch.turn.tolist() for batch in part] == [batch.turn.tolist() for batch in whole[start:stop]]


@given(count=st.integers(1, 60), batch=st.integers(1, 200), passes=st.integers(1, 4))
def test_batches_differ_by_one_image_at_most(count: int, batch: int, passes: int) -> None:
    source = loader(count, batch, seed=0, passes=passes)
    sizes = [len(each.labels) for each in source.epoch()]
    assert max(sizes) <= batch
    assert min(sizes) >= max(sizes) - 1
    assert [source.images_before(step) for step in range(len(source) + 1)] == np.cumsum([0, *sizes]).tolist()


def test_batches_are_channels_last_uint8_with_their_own_labels() -> None:
    for images, labels, turn in loader(60, 16, seed=1).epoch():
        assert images.dtype == torch.uint8
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert images.shape[1:] == (3, 2, 2)
        assert (images[:, 0, 0, 0] % 7 == labels).all()
        assert labels.dtype == torch.int64
        assert (turn.dtype, turn.shape) == (torch.bool, labels.shape)


def test_the_order_depends_on_seed_and_pass_alone() -> None:
    first = seen(loader(60, 8, seed=1).epoch(1))
    assert first == seen(loader(60, 16, seed=1).epoch(1))
    orders = [first, seen(loader(60, 8, seed=1).epoch(2)), seen(loader(60, 8, seed=2).epoch(1))]
    assert len({tuple(order) for order in orders}) == 3
    assert seen(loader(60, 8, seed=None).epoch(1)) == seen(loader(60, 8, seed=None).epoch(2))
    # Passes are numbered through: how many make an epoch changes nothing of what is shown.
    three = loader(60, 8, seed=1, passes=3)
    assert seen(three.epoch(2)) == [
        image for each in (4, 5, 6) for image in seen(loader(60, 8, seed=1).epoch(each))
    ]


@given(
    count=st.integers(1, 60),
    batch=st.integers(1, 70),
    seed=st.integers(0, 99),
    passes=st.integers(1, 3),
    epoch=st.integers(1, 4),
)
def test_each_image_has_its_turn_in_every_other_pass(
    count: int, batch: int, seed: int, passes: int, epoch: int
) -> None:
    source = loader(count, batch, seed, passes=passes)
    two = turns([*source.epoch(epoch), *source.epoch(epoch + 1)])
    assert set(two) == set(source.indices.tolist())
    for shown in two.values():
        assert len(shown) == 2 * passes
        assert all(now is not then for now, then in itertools.pairwise(shown))


def uneven(counts: list[int], batch: int, seed: int, passes: int = 1) -> Loader:
    """So many images of each class; every second image of the data set is no training image."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), 2 * torch.tensor(counts))
    total = len(labels)
    images = torch.arange(total, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 2, 2, 3).contiguous()
    return Loader(images, labels, np.arange(0, total, 2), batch, seed, passes, balanced=True)


COUNTS = st.lists(st.integers(0, 20), min_size=1, max_size=6).filter(any)


class TestBalanced:
    @given(counts=COUNTS, seed=st.integers(0, 9), passes=st.integers(1, 3), epochs=st.integers(1, 4))
    def test_every_class_is_shown_equally_often_and_each_of_its_images_too(
        self, counts: list[int], seed: int, passes: int, epochs: int
    ) -> None:
        source = uneven(counts, 7, seed, passes)
        present = sum(count > 0 for count in counts)
        shown: list[int] = []
        for number in range(1, epochs + 1):
            shown += seen(source.epoch(number))
        assert len(shown) == sum(counts) * passes * epochs
        for first in range(0, len(shown), sum(counts)):  # pass for pass
            of_pass = np.bincount(source.labels[shown[first : first + sum(counts)]], minlength=len(counts))
            assert max(of_pass[np.array(counts) > 0]) - min(of_pass[np.array(counts) > 0]) <= (present > 1)
        times = np.bincount(shown, minlength=len(source.labels))
        assert not times[1::2].any()
        for label, count in enumerate(counts):
            if count:
                of_class = times[::2][source.labels[::2].numpy() == label]
                assert max(of_class) - min(of_class) <= 1
        of_classes = np.bincount(source.labels[shown], minlength=len(counts))[np.array(counts) > 0]
        assert max(of_classes) - min(of_classes) <= 1  # over all passes together too

    def test_the_order_depends_on_seed_and_pass_alone(self) -> None:
        counts = [30, 5, 2]
        whole = seen(uneven(counts, 4, 1).epoch(2))
        assert whole == seen(uneven(counts, 9, 1).epoch(2))
        assert whole != seen(uneven(counts, 4, 2).epoch(2))
        assert whole != seen(uneven(counts, 4, 1).epoch(1))
        assert seen(uneven(counts, 4, 1).epoch(2, start=3)) == whole[uneven(counts, 4, 1).images_before(3) :]
        assert seen(uneven(counts, 4, 1, passes=2).epoch(1))[37:] == whole
        before = torch.get_rng_state()
        list(uneven(counts, 4, 1).epoch(1))
        assert torch.equal(before, torch.get_rng_state())

    @given(counts=COUNTS, seed=st.integers(0, 9), passes=st.integers(1, 3))
    def test_an_image_is_mirrored_half_of_the_times_that_it_is_shown(
        self, counts: list[int], seed: int, passes: int
    ) -> None:
        source = uneven(counts, 7, seed, passes)
        for mirrored in turns([*source.epoch(1), *source.epoch(2)]).values():
            assert abs(2 * sum(mirrored) - len(mirrored)) <= 1


def test_half_of_the_images_have_their_turn_in_the_first_pass_by_the_seed_alone() -> None:
    def first(seed: int, batch: int) -> list[bool]:
        images = torch.zeros(10_000, 1, 1, 3, dtype=torch.uint8)
        source = Loader(images, torch.arange(10_000), np.arange(10_000), batch, seed)
        found = torch.zeros(10_000, dtype=torch.bool)
        for each in source.epoch(1):
            found[each.labels] = each.turn
        return found.tolist()

    assert 4800 < sum(first(0, 500)) < 5200  # 5000 ± 4 standard deviations
    assert first(0, 500) == first(0, 333)
    assert 4500 < sum(a != b for a, b in zip(first(0, 500), first(1, 500), strict=True)) < 5500
    assert not any(any(shown) for shown in turns(loader(60, 8, seed=None).epoch()).values())


def test_a_data_set_stays_where_it_is_on_a_cpu() -> None:
    dataset = load_dataset("digits", DataConfig())
    images, labels = preload(dataset, torch.device("cpu"))
    assert images.data_ptr() == dataset.images.ctypes.data
    assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
    assert (images.shape, labels.tolist()) == (dataset.images.shape, dataset.labels.tolist())


def test_torchs_global_generator_is_not_drawn_from() -> None:
    before = torch.get_rng_state()
    list(loader(60, 8, seed=1).epoch())
    assert torch.equal(before, torch.get_rng_state())


@given(seed=st.integers(0, 99), chunk=st.integers(1, 50))
def test_channel_statistics_are_numpys(seed: int, chunk: int) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (40, 3, 4, 3), dtype=np.uint8)
    indices = np.arange(0, 40, 3)
    mean, std = channel_statistics(images, indices, chunk=chunk)
    np.testing.assert_allclose(mean, images[indices].mean((0, 1, 2)) / 255, atol=1e-12)
    np.testing.assert_allclose(std, images[indices].std((0, 1, 2)) / 255, atol=1e-9)


def test_channel_statistics_of_many_images_are_of_some_that_are_evenly_spaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (1_000, 2, 2, 3), dtype=np.uint8)
    indices = np.arange(100, 1_000)
    monkeypatch.setattr(loader_module, "STATISTICS_OF", 10)
    few = [100, 199, 299, 399, 499, 599, 699, 799, 899, 999]
    assert channel_statistics(images, indices) == channel_statistics(images, np.array(few))


def test_channel_statistics_of_one_colour_are_without_deviation() -> None:
    mean, std = channel_statistics(np.full((3, 2, 2, 3), 51, np.uint8), np.arange(3))
    assert mean == (0.2, 0.2, 0.2)
    assert std == (0.0, 0.0, 0.0)


class Copied:
    """A tensor that notes how it is copied."""

    def __init__(self, kind: str) -> None:
        self.device, self.how = torch.device(kind), []

    def pin_memory(self) -> "Copied":
        self.how.append("pinned")
        return self

    def to(self, device: torch.device, *, non_blocking: bool = False) -> list[str]:
        return [*self.how, f"{device}{' while the program goes on' if non_blocking else ''}"]


@pytest.mark.parametrize(
    ("source", "target", "how"),
    [
        ("cpu", "cuda", ["pinned", "cuda while the program goes on"]),
        ("cuda", "cuda", ["cuda"]),
        ("cpu", "mps", ["mps"]),
        ("cpu", "cpu", ["cpu"]),
    ],
)
def test_only_copies_from_pinned_memory_to_cuda_are_not_waited_for(
    source: str, target: str, how: list[str]
) -> None:
    copied: Any = Copied(source)
    assert to_device(copied, torch.device(target)) == how
