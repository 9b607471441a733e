"""Intervals against scipy, against a calculation by hand, and by how often they hold the truth."""

import math

import numpy as np
import pytest
from scipy import stats

from hone.evaluation.statistics import FEW, MANY, ratio_interval


def test_value_is_the_ratio_of_sums_not_the_mean_of_ratios() -> None:
    interval = ratio_interval(np.array([1.0, 30.0]), np.array([1.0, 10.0]))
    assert interval.value == 31 / 11
    assert interval.n_items == 2


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
    tokens = rng.integers(20, 200, 50).astype(float)
    nll = tokens * rng.normal(3, 0.4, 50)
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
    interval = ratio_interval(np.array([1.0, 2.0, 3.0]), np.ones(3)).map(math.exp)
    assert interval.low is not None
    assert interval.high is not None
    assert interval.low < interval.value < interval.high


@pytest.mark.parametrize("n", [FEW - 4, 60])
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
