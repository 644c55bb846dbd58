"""Pairs judged together: the quantiles against SciPy, the pooled spread against analyses of variance."""

import math
import operator

import numpy as np
import pytest
from scipy import stats

from foveate.comparison.pooling import Family, Rule, Spread, pooled_spread


def against_one(rule: Rule, arms: int, sets: int = 1) -> Family:
    return Family(rule, tuple((place, 0) for place in range(1, arms)), arms, sets)


class TestQuantile:
    @pytest.mark.parametrize("rule", ["blocks", "dunnett", "pairs", "seeds"])
    def test_of_one_pair_it_is_students(self, rule: Rule) -> None:
        assert against_one(rule, 2).quantile(0.05, 7) == pytest.approx(stats.t.ppf(0.975, 7))

    @pytest.mark.parametrize(("arms", "freedom"), [(3, 4), (5, 10), (5, 60), (10, 18)])
    def test_of_several_it_is_dunnetts(self, arms: int, freedom: int) -> None:
        """SciPy's multivariate t gives the chance that all of them stay below it."""
        pairs = arms - 1
        quantile = against_one("dunnett", arms).quantile(0.05, freedom)
        shape = 0.5 * (np.eye(pairs) + 1)
        inside = stats.multivariate_t(shape=shape, df=freedom, seed=0).cdf(
            np.full(pairs, quantile), lower_limit=np.full(pairs, -quantile)
        )
        assert inside == pytest.approx(0.95, abs=0.002)

    def test_with_controls_it_is_what_is_drawn(self) -> None:
        """Differences that depend on each other wholly: four pairs of four arms."""
        pairs, freedom = ((1, 0), (1, 3), (2, 0), (2, 3)), 4
        quantile = Family("blocks", pairs, 4).quantile(0.05, freedom)
        generator = np.random.default_rng(7)
        drawn = generator.standard_normal((200_000, 4))
        spread = np.sqrt(2 * generator.chisquare(freedom, 200_000) / freedom)
        largest = np.max([abs(drawn[:, one] - drawn[:, two]) / spread for one, two in pairs], axis=0)
        assert np.mean(largest > quantile) == pytest.approx(0.05, abs=0.002)

    def test_bonferroni_shares_alpha_among_pairs_and_sets(self) -> None:
        family = against_one("pairs", 4, sets=2)
        assert family.comparisons == 6
        assert family.quantile(0.05, 5) == pytest.approx(stats.t.ppf(1 - 0.05 / 12, 5))

    def test_dunnett_is_narrower_than_bonferroni_and_wider_than_one_pair(self) -> None:
        quantile = operator.methodcaller("quantile", 0.05, 10)
        alone, together, each = map(
            quantile, (against_one("pairs", 2), against_one("blocks", 6), against_one("pairs", 6))
        )
        assert alone < together < each
        assert quantile(against_one("blocks", 6, sets=3)) > together

    def test_degrees_of_freedom(self) -> None:
        assert [against_one(rule, 5).freedom(3) for rule in ("blocks", "dunnett", "pairs", "seeds")] == [
            8,
            10,
            2,
            2,
        ]


class TestSpread:
    accuracies = np.random.default_rng(0).normal(0.8, 0.01, (4, 5)) + np.array([0, 0.01, 0.02, 0.03])[:, None]

    def test_without_blocks_it_is_the_variance_within_arms(self) -> None:
        spread = pooled_spread(self.accuracies, blocks=False)
        within = self.accuracies.var(axis=1, ddof=1).mean()
        assert spread == Spread(pytest.approx(math.sqrt(2 * within)), 16)

    def test_with_blocks_it_is_that_of_all_pairs_of_arms(self) -> None:
        spread = pooled_spread(self.accuracies, blocks=True)
        pairs = [
            (self.accuracies[one] - self.accuracies[two]).var(ddof=1) for one in range(4) for two in range(one)
        ]
        assert spread == Spread(pytest.approx(math.sqrt(np.mean(pairs))), 12)

    def test_of_two_arms_it_is_the_paired_one(self) -> None:
        two = self.accuracies[:2]
        spread = pooled_spread(two, blocks=True)
        assert spread == Spread(pytest.approx((two[1] - two[0]).std(ddof=1)), 4)

    def test_what_a_seed_gives_to_all_arms_is_taken_out_by_blocks_alone(self) -> None:
        moved = self.accuracies + np.array([0, 0.1, -0.1, 0.2, 0.3])
        assert pooled_spread(moved, blocks=True) == Spread(
            pytest.approx(pooled_spread(self.accuracies, blocks=True).sd), 12
        )
        assert pooled_spread(moved, blocks=False).sd > 5 * pooled_spread(self.accuracies, blocks=False).sd

    @pytest.mark.parametrize("blocks", [True, False])
    def test_runs_that_failed_are_left_out(self, blocks: bool) -> None:
        """As an analysis of variance by least squares has it, unbalanced."""
        pd = pytest.importorskip("pandas")
        formula = pytest.importorskip("statsmodels.formula.api")
        holes = self.accuracies.copy()
        holes[0, 1] = holes[2, 3] = holes[3, 3] = np.nan
        rows = [(a, s, holes[a, s]) for a in range(4) for s in range(5) if not np.isnan(holes[a, s])]
        model = "y ~ C(a) + C(s)" if blocks else "y ~ C(a)"
        fitted = formula.ols(model, pd.DataFrame(rows, columns=["a", "s", "y"])).fit()
        spread = pooled_spread(holes, blocks=blocks)
        assert spread == Spread(pytest.approx(math.sqrt(2 * fitted.mse_resid)), int(fitted.df_resid))

    def test_an_arm_without_a_run_changes_nothing(self) -> None:
        more = np.vstack([self.accuracies, np.full((1, 5), np.nan)])
        assert pooled_spread(more, blocks=True) == Spread(
            pytest.approx(pooled_spread(self.accuracies, blocks=True).sd), 12
        )

    @pytest.mark.parametrize("accuracies", [np.full((2, 3), np.nan), np.array([[0.5], [0.6]])])
    def test_what_has_no_spread(self, accuracies: np.ndarray) -> None:
        assert pooled_spread(accuracies, blocks=True) is None
