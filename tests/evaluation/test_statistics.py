"""Intervals and tests against scipy, against a calculation by hand, and by how often they are right."""

import math

import numpy as np
import pytest
from scipy import stats

from hone.statistics.intervals import (
    FEW,
    MANY,
    SECOND_LOOK,
    holm,
    influence,
    mcnemar,
    mean_test,
    minimum_detectable_mean,
    minimum_detectable_share,
    ratio_interval,
    share_difference_interval,
    sign_flip,
    skewed_mean,
)


def test_value_is_the_ratio_of_sums_not_the_mean_of_ratios() -> None:
    interval = ratio_interval(np.array([1.0, 30.0]), np.array([1.0, 10.0]))
    assert interval.value == 31 / 11


def test_few_items_by_hand() -> None:
    """Equal denominators: the ratio is a mean, and the interval Student's."""
    values = np.array([1.0, 2.0, 3.0, 4.0])
    interval = ratio_interval(values, np.ones(4))
    half = stats.t.ppf(0.975, 3) * np.std(values, ddof=1) / 2
    assert interval.low == pytest.approx(2.5 - half)
    assert interval.high == pytest.approx(2.5 + half)


def test_a_loss_has_no_bound_below_zero() -> None:
    interval = ratio_interval(np.array([1.0, 9.0]), np.ones(2), positive=True)
    assert interval.low is not None
    assert interval.high is not None
    assert 0 < interval.low < 5 < interval.high
    assert interval.low * interval.high == pytest.approx(25), "symmetric on the logarithm"


def test_bootstrap_is_scipys() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(20, 200, FEW).astype(float)
    nll = tokens * rng.normal(3, 0.4, FEW)
    interval = ratio_interval(nll, tokens, resamples=999)
    expected = stats.bootstrap(
        (nll, tokens),
        lambda a, b, axis: a.sum(axis=axis) / b.sum(axis=axis),
        paired=True,
        n_resamples=999,
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert (interval.low, interval.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_bootstrap_and_many_agree() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(20, 200, MANY).astype(float)
    nll = tokens * rng.normal(3, 0.4, MANY)
    below = ratio_interval(nll, tokens)
    above = ratio_interval(np.append(nll, 3.0), np.append(tokens, 1.0))
    assert below.low is not None
    assert above.low is not None
    assert below.low == pytest.approx(above.low, abs=1e-3)


def test_degenerate_data_gives_a_degenerate_interval() -> None:
    interval = ratio_interval(np.full(30, 2.0), np.ones(30))
    assert (interval.low, interval.value, interval.high) == (2.0, 2.0, 2.0)
    assert ratio_interval(np.array([2.0]), np.array([1.0])).low is None


def test_map_keeps_the_order() -> None:
    interval = ratio_interval(np.array([1.0, 2.0, 3.0]), np.ones(3)).mapped(math.exp)
    assert interval.low is not None
    assert interval.high is not None
    assert interval.low < interval.value < interval.high


@pytest.mark.parametrize("n", [6, 60])
def test_coverage(n: int) -> None:
    """95 % intervals hold the true ratio in about 95 of 100 draws (here at least 88 of 100, seed fixed)."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        tokens = rng.integers(20, 200, n).astype(float)
        interval = ratio_interval(tokens * rng.gamma(9, 1 / 3, n), tokens, resamples=400)
        assert interval.low is not None
        assert interval.high is not None
        held += interval.low <= 3.0 <= interval.high
    assert held >= 176


def test_influence_is_leaving_each_out() -> None:
    """The jackknife's standard error, by the loop that defines it."""
    rng = np.random.default_rng(2)
    weights = rng.lognormal(3, 1, 9)
    values = weights * rng.normal(3, 1, 9)
    without = np.array([np.delete(values, i).sum() / np.delete(weights, i).sum() for i in range(9)])
    jackknife = math.sqrt(8 / 9 * ((without - without.mean()) ** 2).sum())
    assert influence(values, weights).std(ddof=1) / 3 == pytest.approx(jackknife)
    assert ratio_interval(np.array([1.0, 2.0]), np.array([1.0, 0.0])).low is None, "one item has the whole weight"


def test_sign_flip_by_hand_and_scipys() -> None:
    assert sign_flip(np.array([1.0, 2.0, 3.0])) == 2 / 8, "only all plus and all minus are as far from 0"
    differences = np.random.default_rng(1).normal(0.3, 1, 9)
    signs = np.array(np.meshgrid(*[[-1, 1]] * 9)).reshape(9, -1)
    means = np.abs(differences @ signs)
    assert sign_flip(differences) == pytest.approx((means >= abs(differences.sum()) - 1e-12).mean())
    many = np.random.default_rng(1).normal(0.1, 1, 300)
    assert sign_flip(many) == sign_flip(many), "the same seed, the same p"
    assert sign_flip(many) != sign_flip(many, seed=1)
    assert sign_flip(many) == pytest.approx(stats.ttest_1samp(many, 0).pvalue, abs=0.01)
    more = np.random.default_rng(1).normal(0.02, 1, MANY + 1)
    assert sign_flip(more) == pytest.approx(stats.ttest_1samp(more, 0).pvalue)


def test_sign_flip_of_equal_items() -> None:
    assert sign_flip(np.zeros(20)) == 1.0
    assert sign_flip(np.full(5, -0.1)) == 2 / 2**5
    assert sign_flip(np.full(MANY + 1, -0.1)) < 0.001
    assert sign_flip(np.array([3.0])) == 1.0


def test_mcnemar_by_hand() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(2, 10) == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert mcnemar(10, 2) == mcnemar(2, 10)


def test_holm_by_hand() -> None:
    """Sorted .005 .01 .03 .04: x4, x3, x2, x1, never falling."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def alike_by_mean(n: int, times: int) -> np.ndarray:
    """Differences with a mean of 0 of which a few are large: exponential, skewness 2."""
    return np.random.default_rng(n).exponential(1, (times, n)) - 1


@pytest.mark.slow
@pytest.mark.parametrize("n", [8, 12, 30])
def test_skewed_differences_give_no_more_false_alarms(n: int) -> None:
    """The sign flip alone calls 9 % of them different at 12 items."""
    found = [mean_test(row, resamples=499) < 0.05 for row in alike_by_mean(n, 500)]
    assert np.mean(found) <= 0.06


def test_the_second_look_only_raises_p() -> None:
    for row in alike_by_mean(12, 40):
        once, twice = sign_flip(row), mean_test(row)
        assert twice == once if once >= 0.05 else 1 >= twice >= once
    assert mean_test(np.full(6, -0.1)) == sign_flip(np.full(6, -0.1)) == 2 / 2**6, (
        "all alike: nothing speaks against it"
    )
    many = np.random.default_rng(0).normal(0.2, 1, FEW)
    assert mean_test(many) == sign_flip(many)
    clear = np.random.default_rng(0).normal(2, 1, 40)
    assert mean_test(clear) < 0.001


def test_the_second_look_by_hand() -> None:
    """Hall's transformation as published, in a loop over the same resamples."""
    x = np.random.default_rng(3).gamma(1, 1, 9) - 2
    rng, n = np.random.default_rng(0), len(x)

    def transformed(values: np.ndarray) -> float:
        spread = values.std()
        w, skew = values.mean() / spread, stats.skew(values)
        return float(w + skew * w**2 / 3 + skew**2 * w**3 / 27 + skew / (6 * n))

    drawn = np.array([transformed((x - x.mean())[row]) for row in rng.integers(0, n, (200, n))])
    seen = transformed(x)
    tails = (drawn <= seen).sum(), (drawn >= seen).sum()
    assert skewed_mean(x, resamples=200) == pytest.approx(min(1.0, 2 * (min(tails) + 1) / 201))


@pytest.mark.slow
@pytest.mark.parametrize("n", [12, 100])
def test_a_detectable_effect_is_found_at_the_stated_power(n: int) -> None:
    differences = np.random.default_rng(n).normal(minimum_detectable_mean(1.3, n), 1.3, (400, n))
    found = [mean_test(row, resamples=499) < 0.05 for row in differences]
    assert abs(np.mean(found) - 0.8) < 0.06


def test_detectable_by_power_of_the_noncentral_t() -> None:
    shift = minimum_detectable_mean(1.0, 30) / (1 + (SECOND_LOOK / 30) ** 2) * math.sqrt(30)
    critical = stats.t.ppf(0.975, 29)
    assert stats.nct.sf(critical, 29, shift) == pytest.approx(0.8, abs=0.005)
    assert (minimum_detectable_mean(1.0, 5), minimum_detectable_mean(1.0, 0)) == (math.inf, math.inf), "no p below 1/16"


@pytest.mark.parametrize(("n", "discordant"), [(12, 8), (200, 30)])
def test_a_detectable_share_is_found_at_the_stated_power(n: int, discordant: int) -> None:
    effect = minimum_detectable_share(n, discordant)
    b_right = (1 + effect * n / discordant) / 2  # of the items that differ
    only_b = np.random.default_rng(n).binomial(discordant, b_right, 2000)
    p = [mcnemar(discordant - k, k) for k in range(discordant + 1)]
    assert abs(np.mean([p[k] < 0.05 for k in only_b]) - 0.8) < 0.03


def test_detectable_share_where_nothing_differs() -> None:
    """The test rejects when six differ and all say the same: nearly 6 of n, and impossible with 5."""
    assert minimum_detectable_share(5, 5) == math.inf
    assert minimum_detectable_share(60, 0) == minimum_detectable_share(60, 6)
    assert minimum_detectable_share(60, 0) == pytest.approx((2 * 0.8 ** (1 / 6) - 1) * 6 / 60)


def test_share_difference_holds_the_truth() -> None:
    """All 2,000 draws of 40 items that differ in 10 % and 25 %; by the formula as published."""
    draws = np.random.default_rng(0).multinomial(40, [0.10, 0.25, 0.65], 2000)
    held = 0
    for only_a, only_b, _ in draws:
        found = share_difference_interval(only_a, only_b, 40)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0.15 <= found.high
    assert 0.93 <= held / 2000 <= 0.98
    same = share_difference_interval(0, 0, 30)
    assert (same.value, same.low) == (0.0, pytest.approx(-(same.high or 0)))
