"""How long a run is made: by given rates, and by rates that an injected clock gives. Nothing here is timed."""

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foveate.config import Config, resolve_config
from foveate.data.dataset import load_dataset
from foveate.errors import ConfigError
from foveate.settings import DataConfig
from foveate.training.device import DeviceData
from foveate.training.fit import Fit
from foveate.training.length import (
    MINUTE_ON_TWO_CORES,
    Counts,
    Rates,
    default_images,
    forecast,
    full_length,
    measure_rates,
    plan,
)
from foveate.training.settings import resolve_settings

CPU = torch.device("cpu")
MINUTE = resolve_config("minute")
SMALL_SET = Counts(train=245, validation=153, measured=153)
EVEN = Rates(size=64, step_s=0.01, small_step_s=0.005, measure_s=0.003)


@pytest.fixture(scope="module")
def digits() -> DeviceData:
    return DeviceData.load(load_dataset("digits", DataConfig(size=16)), CPU)


def test_a_forecast_adds_steps_at_both_sizes_and_every_time_that_validation_is_asked() -> None:
    counts = Counts(train=1000, validation=200, measured=200)
    # Two epochs; validation after each, and once without the attention; the report, and a save an epoch.
    expected = 2000 * (0.5 * 0.005 + 0.5 * 0.01) + 3 * 200 * 0.003 + 4.0 + 2 * 0.1
    one_pass = MINUTE.replacing(passes_per_epoch=1)
    assert forecast(one_pass, EVEN, counts, 2000, 64) == pytest.approx(expected)
    assert forecast(one_pass, EVEN, counts, 2000, 32) == pytest.approx((expected - 4.2) / 4 + 4.2)


def test_without_validation_only_the_end_is_measured() -> None:
    counts = Counts(train=1000, validation=0, measured=200)
    twin = resolve_config("minute-twin", settings={"resize_until": 0.0, "passes_per_epoch": 1})
    assert forecast(twin, EVEN, counts, 1000, 64) == pytest.approx(10 + 200 * 0.003 + 4.1)


class TestPlan:
    def test_fewer_images_are_shown_first(self) -> None:
        found = plan(MINUTE, EVEN, SMALL_SET, 300, size=64)
        assert found.size == 64
        assert found.full / 4 < found.images_seen < found.full == 88_000
        assert 298 < found.seconds <= 300
        assert found.full_s > 600

    def test_then_the_size_is_lowered_so_far_that_a_quarter_of_them_is_shown(self) -> None:
        found = plan(MINUTE, EVEN, SMALL_SET, 100, size=64)
        assert 32 <= found.size < 64
        assert found.images_seen >= 22_000
        assert 90 < found.seconds <= 100
        larger = forecast(MINUTE, EVEN, SMALL_SET, 22_000, found.size + 1)
        assert larger > 100

    def test_a_size_that_is_given_stays(self) -> None:
        found = plan(MINUTE, EVEN, SMALL_SET, 100, size=64, size_given=True)
        assert found.size == 64
        assert 0 < found.images_seen < 22_000

    def test_below_the_smallest_size_fewer_are_shown(self) -> None:
        found = plan(MINUTE, EVEN, SMALL_SET, 20, size=64)
        assert found.size == 32
        assert 0 < found.images_seen < 22_000

    def test_small_images_stay_as_they_are(self) -> None:
        rates = Rates(size=16, step_s=0.01, small_step_s=0.005, measure_s=0.003)
        assert plan(MINUTE, rates, SMALL_SET, 20, size=16).size == 16

    def test_there_is_a_most(self) -> None:
        assert plan(MINUTE, EVEN, SMALL_SET, 1e6, size=64).images_seen == 4 * 88_000

    def test_a_length_in_epochs_is_one_in_images(self) -> None:
        small = resolve_config("small")
        assert full_length(small, SMALL_SET) == 20 * 245
        assert plan(small, EVEN, SMALL_SET, 1e6, size=64).images_seen >= 4 * 20 * 245

    @pytest.mark.parametrize("seconds", [-3.0, 0.0, 2.0])
    def test_no_time_for_a_step_is_refused_with_what_suffices(self, seconds: float) -> None:
        with pytest.raises(ConfigError, match=r"one step and its measurement take about .*: give --time 50s"):
            plan(MINUTE, EVEN, SMALL_SET, seconds, size=64)

    @given(
        st.floats(15, 5000), st.integers(16, 256), st.integers(20, 50_000), st.integers(0, 5_000), st.booleans()
    )
    def test_a_plan_ends_in_time_and_leaves_no_more_than_a_step_unless_it_is_at_its_most(
        self, seconds: float, size: int, train: int, validation: int, given_size: bool
    ) -> None:
        counts = Counts(train, validation, validation)
        try:
            found = plan(MINUTE, EVEN, counts, seconds, size=size, size_given=given_size)
        except ConfigError:
            return
        assert found.seconds <= seconds
        assert found.images_seen % 250 == 0
        assert found.size <= size
        more = forecast(MINUTE, EVEN, counts, found.images_seen + 250, found.size)
        assert more > seconds or found.images_seen == 4 * 88_000


class TestDefault:
    @pytest.mark.parametrize(
        "counts", [SMALL_SET, Counts(2_022, 505, 505), Counts(12_800, 3_200, 3_200), Counts(16_000, 4_000, 4_000)]
    )
    @pytest.mark.parametrize("size", [16, 32, 40, 48, 64])
    def test_it_ends_in_five_minutes_on_two_cores_and_is_the_whole_preset_where_that_does(
        self, counts: Counts, size: int
    ) -> None:
        images = default_images(MINUTE, counts, size)
        assert forecast(MINUTE, MINUTE_ON_TWO_CORES, counts, images, size) <= 270
        assert images == 88_000 or forecast(MINUTE, MINUTE_ON_TWO_CORES, counts, images + 250, size) > 270
        if size <= 32:
            assert images == 88_000

    def test_cifar10_is_trained_as_ever(self) -> None:
        assert default_images(MINUTE, Counts(40_000, 10_000, 10_000), 32) == 88_000

    def test_large_images_are_still_shown_often_enough_to_learn(self) -> None:
        assert default_images(MINUTE, SMALL_SET, 256) == 22_000


class TestMeasureRates:
    @staticmethod
    def measured(config: Config, data: DeviceData) -> tuple[Rates, int]:
        """By a clock that moves a second at each look; and how often it was looked at."""
        ticks = itertools.count()
        rates = measure_rates(resolve_settings(config, data.dataset), data, clock=lambda: float(next(ticks)))
        return rates, next(ticks)

    @pytest.fixture
    def tiny(self) -> Config:
        stages = [{"filters": 4, "kernels": [3], "pool": 2}]
        given: dict[str, Any] = {"stages": stages, "batch": 100, "head": "pooled"}
        return resolve_config("small", settings=given)

    def test_an_image_costs_its_share_of_a_step_and_few_steps_are_made(
        self, digits: DeviceData, tiny: Config
    ) -> None:
        rates, looks = self.measured(tiny, digits)
        assert rates.size == 16
        batch = len(digits.dataset.splits["train"]) / len(digits.shuffled(tiny.train))
        assert rates.step_s == pytest.approx(1 / batch, rel=0.02)
        assert rates.small_step_s == rates.step_s
        assert rates.measure_s == pytest.approx(1 / 144, rel=0.8)
        assert looks < 40

    def test_smaller_images_are_measured_where_training_begins_with_them(
        self, digits: DeviceData, tiny: Config
    ) -> None:
        _, whole = self.measured(tiny, digits)
        _, both = self.measured(tiny.replacing(resize_scale=0.75, resize_until=0.5), digits)
        assert both > whole

    def test_the_run_after_it_is_the_run_without_it(self, digits: DeviceData, tiny: Config) -> None:
        config = resolve_settings(tiny.replacing(epochs=1), digits.dataset)
        first = [each.val_loss for each in Fit(config, digits).epochs()]
        self.measured(tiny, digits)
        assert [each.val_loss for each in Fit(config, digits).epochs()] == first

    def test_without_validation_a_measured_image_costs_no_more_than_a_step(
        self, digits: DeviceData, tiny: Config
    ) -> None:
        alone = digits.with_splits({"train": digits.dataset.splits["train"]})
        rates, _ = self.measured(tiny, alone)
        assert rates.measure_s == rates.step_s
