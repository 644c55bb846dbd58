"""The statistics: against SciPy and statsmodels on fixed numbers; by simulation where their promise is a rate."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import ndtr

from foveate.comparison import statistics
from foveate.comparison.pooling import Family, Rule, Spread
from foveate.comparison.statistics import Difference, Interval, Verdict, compare, spread_of
from foveate.comparison.statistics import conclude as by_family


def of(per_seed: list[float], image_sd: float = 0.0) -> Difference:
    sd = float(np.std(per_seed, ddof=1)) if len(per_seed) > 1 else None
    return Difference(float(np.mean(per_seed)), 10_000, tuple(per_seed), sd, image_sd**2, ())


def conclude(
    difference: Difference, *, delta: float, alpha: float = 0.05, comparisons: int = 1, rule: Rule = "seeds"
) -> Verdict:
    """Of a pair by its own spread; by default by the rule of earlier versions."""
    family = Family(rule, tuple((place, 0) for place in range(1, comparisons + 1)), comparisons + 1)
    return by_family(difference, family, spread_of(difference, family, None), delta=delta, alpha=alpha)


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
    @settings(max_examples=40)
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

    def test_the_images_part_is_that_of_the_jackknife_over_groups(self) -> None:
        """Less that of the rest, which the jackknife over groups finds in each seed beyond what all share."""
        generator, groups = np.random.default_rng(4), np.array([7] * 30 + [2] * 5 + [4] * 12 + [1] * 3)
        chance = generator.random((2, 1, 50)) * generator.random((2, 1, 8))[:, :, groups]
        arm, other = generator.random((2, 6, 50)) < chance
        apart = arm.astype(float) - other
        without = np.stack([apart[:, groups != each].mean(1) for each in np.unique(groups)], axis=1)
        moved = without - apart.mean(1, keepdims=True)  # [seeds, groups]
        whole = 3 / 4 * (moved.mean(0) ** 2).sum()
        rest = 3 / 4 * ((moved - moved.mean(0)) ** 2).sum() / (6 * 5)
        assert whole > rest
        got = compare(arm, other, groups)
        assert got.image_variance == pytest.approx(whole - rest)
        assert (got.groups, got.independent) == (4, 4)
        _, half = (high - got.mean for _, high in intervals(got))
        over_seeds = stats.t.ppf(0.975, 5) * apart.mean(1).std(ddof=1) / math.sqrt(6)
        assert half == pytest.approx(math.hypot(over_seeds, stats.t.ppf(0.975, 3) * math.sqrt(whole - rest)))

    def test_groups_of_one_image_each_are_images(self) -> None:
        generator = np.random.default_rng(5)
        arm, other = right(generator, (3, 40), 0.9), right(generator, (3, 40), 0.8)
        assert compare(arm, other, np.arange(40)[::-1]) == compare(arm, other)

    def test_of_one_group_images_are_counted(self) -> None:
        generator = np.random.default_rng(5)
        arm, other = right(generator, (3, 40), 0.9), right(generator, (3, 40), 0.8)
        got = compare(arm, other, np.zeros(40, np.int64))
        assert (got.groups, got.independent) == (1, 40)
        assert got.image_variance == compare(arm, other).image_variance

    def test_shapes_must_agree(self) -> None:
        with pytest.raises(ValueError, match="give one for each of 3 images"):
            compare(np.zeros((2, 3), bool), np.zeros((2, 3), bool), np.zeros(4, np.int64))
        with pytest.raises(ValueError, match="give both as"):
            compare(np.zeros((2, 3), bool), np.zeros((2, 4), bool))

    @pytest.mark.parametrize("seeds", [3, 5, 10, 30])
    def test_both_intervals_cover_what_they_promise(self, seeds: int) -> None:
        """2,000 studies each: 93 to 97 % of the 95 % intervals hold the truth, of two arms that are alike.

        Images differ in difficulty and arms in what they find difficult; a seed's network has a skill of its own.
        """
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
    @settings(max_examples=60)
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
        answers = [conclude(of(generator.normal(0, 0.004, 5).tolist()), delta=0.001).answer for _ in range(400)]
        called = sum(answer in ("helps", "hurts") for answer in answers)
        assert called <= stats.binom.ppf(0.999, 400, 0.05)


class TestNewImages:
    """The rule of today: for new seeds and new images."""

    def test_what_only_the_seeds_show_holds_on_these_images(self) -> None:
        verdict = conclude(of([0.011, 0.012, 0.013], image_sd=0.01), delta=0.005, rule="pairs")
        assert (verdict.answer, verdict.on_these_images) == ("inconclusive", "helps")
        assert verdict.interval is not None
        assert verdict.image_interval is not None
        assert verdict.image_interval[0] < 0 < verdict.interval[0]

    @pytest.mark.parametrize(("sign", "answer"), [(1, "helps"), (-1, "hurts")])
    def test_beyond_zero_and_inside_delta_it_helps_by_less(self, sign: int, answer: str) -> None:
        verdict = conclude(of([sign * each for each in (0.001, 0.0012, 0.0011)]), delta=0.005, rule="pairs")
        assert (verdict.answer, verdict.small) == (answer, True)
        verdict = conclude(of([sign * each for each in (0.011, 0.012, 0.013)]), delta=0.005, rule="pairs")
        assert (verdict.answer, verdict.small) == (answer, False)

    def test_no_difference_is_two_one_sided_tests(self) -> None:
        """Where both t tests reject a difference of δ at α, and not where either does not."""
        generator, answers = np.random.default_rng(2), set()
        for _ in range(300):
            apart = generator.normal(0, 0.004, 6)
            below = stats.ttest_1samp(apart, 0.005, alternative="less").pvalue < 0.05
            above = stats.ttest_1samp(apart, -0.005, alternative="greater").pvalue < 0.05
            verdict = conclude(of(apart.tolist()), delta=0.005, rule="pairs")
            assert (verdict.answer == "no difference" or verdict.small) == (below and above)
            answers.add(verdict.answer)
        assert answers == {"no difference", "helps", "hurts", "inconclusive"}

    def test_few_images_are_said_to_be_too_few(self) -> None:
        verdict = conclude(of([0.004, -0.004, 0.001], image_sd=0.01), delta=0.005, rule="pairs")
        assert (verdict.seeds, verdict.seeds_alike) == (None, None)
        assert verdict.images is not None
        enough = of([0.004, -0.004, 0.001], image_sd=0.01 * math.sqrt(10_000 / (1.1 * verdict.images)))
        assert conclude(enough, delta=0.005, rule="pairs").seeds_alike is not None

    def test_few_images_are_enough_for_a_large_difference(self) -> None:
        """Too few to say of every difference whether it matters; and two seeds are too few for any."""
        two = conclude(of([0.36, 0.43], image_sd=0.03), delta=0.005, rule="pairs")
        assert (two.answer, two.seeds, two.images) == ("inconclusive", None, None)
        assert two.seeds_alike is not None
        for seeds, answer in ((two.seeds_alike, "helps"), (two.seeds_alike - 1, "inconclusive")):
            values = np.arange(seeds) - (seeds - 1) / 2
            values *= np.std([0.36, 0.43], ddof=1) / values.std(ddof=1)
            told = conclude(of((0.395 + values).tolist(), image_sd=0.03), delta=0.005, rule="pairs")
            assert told.answer == answer

    @given(st.lists(st.floats(-0.02, 0.02), min_size=2, max_size=12), st.floats(0, 0.001))
    @settings(max_examples=60)
    def test_the_seeds_that_would_tell_always_do(self, apart: list[float], image_sd: float) -> None:
        """With as many seeds of the same spread, wherever the mean lies."""
        verdict = conclude(of(apart, image_sd), delta=0.005, rule="pairs")
        if verdict.seeds is None or verdict.seeds > 2_000:
            return
        assert verdict.seeds > len(apart)
        sd = float(np.std(apart, ddof=1))
        for mean in np.linspace(0, 0.006, 13):
            values = np.arange(verdict.seeds) - (verdict.seeds - 1) / 2
            values *= sd / values.std(ddof=1) if sd else 0
            told = conclude(of((mean + values).tolist(), image_sd), delta=0.005, rule="pairs")
            assert told.answer != "inconclusive"

    def test_a_pooled_spread_takes_the_place_of_a_pair_s_own(self) -> None:
        difference, spread = of([0.01, 0.02, 0.03]), Spread(0.004, 8)
        family = Family("blocks", ((1, 0), (2, 0), (3, 0), (4, 0)), 5)
        assert spread_of(difference, family, spread) == spread
        assert spread_of(difference, family, Spread(0.0, 8)) == Spread(0.5 / 10_000, 8)
        assert spread_of(of([0.01]), family, spread) is None  # what images do is not known of one seed
        verdict = by_family(difference, family, spread, delta=0.005)
        half = family.quantile(0.05, 8) * 0.004 / math.sqrt(3)
        assert verdict.interval == pytest.approx((0.02 - half, 0.02 + half))

    def test_the_correlation_by_seed_is_numpys(self) -> None:
        generator = np.random.default_rng(0)
        arm, other = right(generator, (4, 100)), right(generator, (4, 100))
        found = compare(arm, other).correlation
        assert found == pytest.approx(np.corrcoef(arm.mean(1), other.mean(1))[0, 1])
        assert compare(arm[:2], other[:2]).correlation is None
        assert compare(arm, np.ones_like(arm)).correlation is None


def test_arms_that_are_the_same_in_every_seed_have_no_correlation() -> None:
    for share in np.arange(1, 400) / 397:
        assert statistics._correlation(np.full(5, share), np.arange(5.0)) is None
    assert statistics._correlation(np.arange(5.0), np.arange(5.0)) == pytest.approx(1)
