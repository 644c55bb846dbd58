"""The statistics: against SciPy and statsmodels on fixed numbers; by simulation where their promise is a rate."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import ndtr

from foveate.comparison.statistics import Difference, Interval, compare, conclude, sd_interval, seeds_needed


def of(per_seed: list[float]) -> Difference:
    sd = float(np.std(per_seed, ddof=1)) if len(per_seed) > 1 else None
    return Difference(float(np.mean(per_seed)), 10_000, tuple(per_seed), sd, 0.0, ())


def intervals(difference: Difference, level: float = 0.95) -> tuple[Interval, Interval]:
    """Over seeds, and over seeds and images; they do not depend on δ."""
    verdict = conclude(difference, delta=2, alpha=1 - level)  # so large a one that no number of seeds is searched
    assert verdict.interval is not None
    assert verdict.image_interval is not None
    return verdict.interval, verdict.image_interval


def students(values: list[float], level: float) -> Interval:
    """As SciPy has it."""
    interval = stats.ttest_1samp(values, 0).confidence_interval(level)
    return interval.low, interval.high


def right(generator: np.random.Generator, shape: tuple[int, ...], rate: float = 0.8) -> np.ndarray:
    return generator.random(shape) < rate


class TestCompare:
    @given(seeds=st.integers(2, 12), images=st.integers(2, 60), seed=st.integers(0, 999))
    @settings(deadline=None, max_examples=40)
    def test_the_interval_over_seeds_is_scipys(self, seeds: int, images: int, seed: int) -> None:
        generator = np.random.default_rng(seed)
        arm, other = right(generator, (seeds, images)), right(generator, (seeds, images))
        got = compare(arm, other)
        apart = arm.mean(1) - other.mean(1)
        assert got.mean == pytest.approx(apart.mean())
        assert got.per_seed == pytest.approx(tuple(apart))
        over_seeds, over_both = intervals(got)
        if apart.std(ddof=1) > 0.5 / images:
            expected = stats.ttest_rel(arm.mean(1), other.mean(1)).confidence_interval(0.95)
            assert over_seeds == pytest.approx((expected.low, expected.high))
        assert over_both[0] <= over_seeds[0] < got.mean < over_seeds[1] <= over_both[1]

    def test_the_crossed_interval_is_that_of_the_mean_squares_of_anova(self) -> None:
        pd = pytest.importorskip("pandas")
        formula = pytest.importorskip("statsmodels.formula.api")
        from statsmodels.stats.anova import anova_lm

        generator = np.random.default_rng(3)
        ease, skill = generator.normal(size=40), generator.normal(0, 0.3, size=(2, 5, 1))
        arm, other = (generator.normal(size=(5, 40)) + ease + each > 0 for each in skill)
        apart = arm.astype(float) - other
        rows = [(s, i, apart[s, i]) for s in range(5) for i in range(40)]
        table = anova_lm(formula.ols("d ~ C(s) + C(i)", pd.DataFrame(rows, columns=["s", "i", "d"])).fit())
        (of_seed, of_image, of_rest), freedom = table["mean_sq"], table["df"]
        assert of_image > of_rest
        parts = np.array([of_seed, of_image - of_rest]) / 200
        half = math.sqrt((stats.t.ppf(0.975, freedom.to_numpy()[:2]) ** 2 * parts).sum())
        _, got = intervals(compare(arm, other))
        assert got == pytest.approx((apart.mean() - half, apart.mean() + half))

    def test_mcnemar_is_the_exact_test_of_each_seed(self) -> None:
        contingency = pytest.importorskip("statsmodels.stats.contingency_tables")
        generator = np.random.default_rng(1)
        arm, other = right(generator, (4, 100), 0.9), right(generator, (4, 100), 0.8)
        for p, one, two in zip(compare(arm, other).mcnemar, arm, other, strict=True):
            table = [[(one & two).sum(), (one & ~two).sum()], [(~one & two).sum(), (~one & ~two).sum()]]
            assert p == pytest.approx(contingency.mcnemar(table, exact=True).pvalue)
        assert compare(arm, arm).mcnemar == (1.0,) * 4

    def test_of_one_seed_there_is_no_interval(self) -> None:
        got = compare(np.array([[True, False, True]]), np.array([[False, False, True]]))
        assert got.mean == pytest.approx(1 / 3)
        assert (got.sd, got.image_variance) == (None, 0.0)
        assert got.mcnemar == (1.0,)

    def test_shapes_must_agree(self) -> None:
        with pytest.raises(ValueError, match="give both as"):
            compare(np.zeros((2, 3), bool), np.zeros((2, 4), bool))

    @pytest.mark.parametrize("seeds", [3, 5, 10, 30])
    def test_both_intervals_cover_what_they_promise(self, seeds: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """2,000 studies each: 93 to 97 % of the 95 % intervals hold the truth, of two arms that are alike.

        Images differ in difficulty and arms in what they find difficult; a seed's network has a skill of its own.
        """
        # The exact tests of single seeds are no part of the intervals, and would take nine tenths of the time.
        monkeypatch.setattr(stats, "binomtest", lambda *_: SimpleNamespace(pvalue=1.0))
        generator, images, pool = np.random.default_rng(seeds), 300, 20_000
        covered = np.zeros(2)
        difficulty = generator.normal(1.5, 1.0, pool)
        own = generator.normal(0, 0.5, (2, pool))  # what an arm finds difficult, in all of its seeds
        whole = _expected(difficulty, own, 0.12)
        for _ in range(2000):
            here = generator.integers(pool, size=images)
            skill = generator.normal(0, 0.12, (2, seeds, 1))
            chance = ndtr(difficulty[here] + own[:, None, here] + skill)
            arm, other = generator.random((2, seeds, images)) < chance
            over_seeds, over_both = intervals(compare(arm, other))
            on_these = _expected(difficulty[here], own[:, here], 0.12)
            covered += [_holds(over_seeds, on_these), _holds(over_both, whole)]
        assert np.all((covered / 2000 >= 0.93) & (covered / 2000 <= 0.97)), covered / 2000


def _expected(difficulty: np.ndarray, own: np.ndarray, skill_sd: float) -> float:
    """The difference over all seeds: a normal skill within a probit widens it."""
    rates = ndtr((difficulty + own) / math.sqrt(1 + skill_sd**2)).mean(1)
    return float(rates[0] - rates[1])


def _holds(interval: tuple[float, float], value: float) -> bool:
    return interval[0] <= value <= interval[1]


class TestConclude:
    def test_inside_delta_is_no_difference_even_without_zero(self) -> None:
        verdict = conclude(of([0.001, 0.0012, 0.0011, 0.0009]), delta=0.005)
        assert verdict.answer == "no difference"
        assert verdict.interval is not None
        assert verdict.interval[0] > 0

    @pytest.mark.parametrize(("sign", "answer"), [(1, "helps"), (-1, "hurts")])
    def test_without_zero_and_not_inside_it_helps_or_hurts(self, sign: int, answer: str) -> None:
        assert conclude(of([sign * each for each in (0.011, 0.012, 0.013)]), delta=0.005).answer == answer

    def test_else_it_cannot_tell_and_says_how_many_seeds_would(self) -> None:
        verdict = conclude(of([0.02, -0.02, 0.01]), delta=0.005)
        assert verdict.answer == "inconclusive"
        assert verdict.seeds is not None
        sd = float(np.std([0.02, -0.02, 0.01], ddof=1))
        halves = [
            stats.t.ppf(0.975, seeds - 1) * sd / math.sqrt(seeds) for seeds in (verdict.seeds, verdict.seeds - 1)
        ]
        # As wide as δ it lies within ±δ, or leaves zero out.
        assert halves[0] <= 0.0025 < halves[1]

    @given(st.lists(st.floats(-0.02, 0.02), min_size=2, max_size=12))
    @settings(deadline=None, max_examples=60)
    def test_the_seeds_that_would_tell_are_more_than_there_were(self, apart: list[float]) -> None:
        verdict = conclude(of(apart), delta=0.005)
        assert (verdict.seeds is None) == (verdict.answer != "inconclusive")
        assert verdict.seeds is None or verdict.seeds > len(apart)

    def test_seeds_that_agree_by_chance_on_few_images_prove_nothing(self) -> None:
        """Two seeds that differ by one image of 287 each: no spread is seen, but nothing finer could be."""
        right = np.ones((2, 287), bool)
        worse = right.copy()
        worse[:, 0] = False
        got = compare(right, worse)
        assert got.sd == 0.5 / 287
        assert conclude(got, delta=0.001).answer == "inconclusive"

    def test_of_one_seed_nothing_can_be_told(self) -> None:
        verdict = conclude(of([0.5]), delta=0.005)
        assert (verdict.answer, verdict.interval, verdict.seeds) == ("inconclusive", None, None)

    def test_more_comparisons_widen_the_interval(self) -> None:
        apart = [0.011, 0.012, 0.015, 0.009]
        one, ten = conclude(of(apart), delta=0.005), conclude(of(apart), delta=0.005, comparisons=10)
        assert ten.level == pytest.approx(0.995)
        assert one.interval == pytest.approx(students(apart, 0.95))
        assert ten.interval == pytest.approx(students(apart, 0.995))

    def test_arms_that_are_the_same_do_not_differ(self) -> None:
        same = np.ones((3, 1000), bool)
        assert conclude(compare(same, same), delta=0.005).answer == "no difference"

    def test_of_arms_that_are_alike_few_are_called_different(self) -> None:
        generator = np.random.default_rng(0)
        answers = [conclude(of(generator.normal(0, 0.004, 5).tolist()), delta=0.001).answer for _ in range(1000)]
        called = sum(answer in ("helps", "hurts") for answer in answers)
        assert called <= stats.binom.ppf(0.999, 1000, 0.05)


class TestSeedsNeeded:
    @pytest.mark.parametrize(("sd", "delta"), [(1.0, 1.0), (0.004, 0.01), (0.004, 0.002), (3.0, 2.0)])
    def test_it_is_the_first_number_with_the_power(self, sd: float, delta: float) -> None:
        power = pytest.importorskip("statsmodels.stats.power").TTestPower()
        needed = seeds_needed(sd, delta)
        assert needed is not None
        assert power.power(delta / sd, needed, 0.05) >= 0.8
        assert needed == 2 or power.power(delta / sd, needed - 1, 0.05) < 0.8

    def test_by_simulation(self) -> None:
        needed, generator = seeds_needed(0.004, 0.004), np.random.default_rng(0)
        assert needed is not None
        seen = sum(students(generator.normal(0.004, 0.004, needed).tolist(), 0.95)[0] > 0 for _ in range(2000))
        assert 0.78 <= seen / 2000 <= 0.88

    @pytest.mark.parametrize("seeds", [2, 4, 10])
    def test_how_well_a_pilot_knows_the_spread_by_simulation(self, seeds: int) -> None:
        low, high = sd_interval(seeds)
        found = np.random.default_rng(0).normal(0, 3, (20_000, seeds)).std(axis=1, ddof=1)
        assert np.mean((low * found < 3) & (high * found > 3)) == pytest.approx(0.95, abs=0.005)

    def test_bounds(self) -> None:
        assert seeds_needed(1e-9, 0.01) == 2
        assert seeds_needed(60.0, 1.0) is None

    @pytest.mark.parametrize("ratio", [0.02, 0.05, 0.085, 0.09, 0.2])
    @pytest.mark.parametrize("level", [0.95, 0.995])
    def test_of_little_spread_it_is_what_is_simulated(self, ratio: float, level: float) -> None:
        """Where SciPy's noncentral t is no number."""
        generator = np.random.default_rng(0)
        needed = seeds_needed(ratio, 1.0, level=level)
        assert needed is not None

        def power(seeds: int) -> float:
            values = generator.normal(1.0, ratio, (20_000, seeds))
            half = stats.t.ppf((1 + level) / 2, seeds - 1) * values.std(1, ddof=1) / math.sqrt(seeds)
            return float((values.mean(1) - half > 0).mean())

        assert power(needed) > 0.79
        assert needed == 2 or power(needed - 1) < 0.81
