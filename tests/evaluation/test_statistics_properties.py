"""What holds for any numbers: intervals have their point in them, comparisons are antisymmetric, p is a p."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hone.results import Kind
from hone.statistics.intervals import holm, mcnemar, ratio_interval, share_difference_interval, wilson_interval
from hone.statistics.paired import Metric, compare_metrics, paired
from hone.statistics.seed_variance import over_seeds

SOME = settings(max_examples=60, deadline=None, derandomize=True)
LOSS = Kind(heading="loss", higher_is_better=False)
SHARE = Kind(heading="passed", higher_is_better=True, top=1.0)
VALUES = st.lists(st.floats(0.01, 10).map(lambda x: round(x, 3)), min_size=2, max_size=12)


def drawn(values: list[float], seed: int) -> tuple[Metric, Metric]:
    rng = np.random.default_rng(seed)
    weights = rng.integers(1, 9, len(values)).astype(np.float64)
    a = np.array(values) * weights
    return Metric(LOSS, a, weights), Metric(LOSS, a + rng.normal(0, 0.1, len(values)).round(3), weights)


@SOME
@given(values=VALUES, seed=st.integers(0, 99), confidence=st.sampled_from([0.8, 0.95]))
def test_an_interval_has_its_point_in_it_and_grows_with_the_scale(
    values: list[float], seed: int, confidence: float
) -> None:
    numerator = np.array(values)
    weights = np.random.default_rng(seed).integers(1, 9, len(values)).astype(np.float64)
    for positive in (False, True):
        found = ratio_interval(numerator, weights, positive=positive, confidence=confidence, resamples=200)
        if found.low is not None and found.high is not None:
            assert found.low <= found.value <= found.high and (found.low > 0 or not positive)
            scaled = ratio_interval(1000 * numerator, weights, positive=positive, confidence=confidence, resamples=200)
            ends = [scaled.value, scaled.low, scaled.high]
            assert ends == pytest.approx([1000 * found.value, 1000 * found.low, 1000 * found.high], rel=1e-6)
            wider = ratio_interval(numerator, weights, positive=positive, confidence=0.99, resamples=200)
            assert wider.low <= found.low + 1e-12 and found.high <= wider.high + 1e-12  # type: ignore[operator]


@SOME
@given(n=st.integers(1, 300), share=st.floats(0, 1))
def test_shares(n: int, share: float) -> None:
    right = round(n * share)
    found, other = wilson_interval(right, n), wilson_interval(n - right, n)
    assert 0 <= found.low <= found.value <= found.high <= 1  # type: ignore[operator]
    assert found.low == pytest.approx(1 - other.high, abs=1e-12)  # type: ignore[operator]


@SOME
@given(only_a=st.integers(0, 40), only_b=st.integers(0, 40), both=st.integers(0, 40))
def test_mcnemar_is_scipys_and_turns_with_its_sides(only_a: int, only_b: int, both: int) -> None:
    p, n = mcnemar(only_a, only_b), only_a + only_b + both
    assert 0 < p <= 1 and p == pytest.approx(mcnemar(only_b, only_a))
    if only_a + only_b:
        assert p == pytest.approx(min(1.0, 2 * stats.binom.cdf(min(only_a, only_b), only_a + only_b, 0.5)))
    if n:
        ab, ba = share_difference_interval(only_a, only_b, n), share_difference_interval(only_b, only_a, n)
        assert (ab.value, ab.low) == pytest.approx((-ba.value, -ba.high))  # type: ignore[operator]
        assert -1 <= ab.low <= ab.value <= ab.high <= 1  # type: ignore[operator]


@settings(max_examples=12, deadline=None, derandomize=True)
@given(values=VALUES, seed=st.integers(0, 99))
def test_a_against_b_is_minus_b_against_a(values: list[float], seed: int) -> None:
    a, b = drawn(values, seed)
    one, other = paired(a, b, resamples=200), paired(b, a, resamples=200)
    assert one.difference.value == pytest.approx(-other.difference.value, abs=1e-12)
    assert one.p_value == pytest.approx(other.p_value, abs=0.02) and 0 < one.p_value <= 1
    assert (one.a, one.b) == (other.b, other.a)
    assert {one.verdict, other.verdict} in ({"not distinguishable"}, {"better", "worse"})
    if one.difference.low is not None and one.difference.high is not None:
        assert one.difference.low <= one.difference.value <= one.difference.high
    scaled = [Metric(LOSS, 7 * m.numerator, m.weight) for m in (a, b)]
    again = paired(*scaled, resamples=200)
    assert again.p_value == pytest.approx(one.p_value, abs=0.01) and again.verdict == one.verdict
    order = np.random.default_rng(seed).permutation(len(values))
    mixed = paired(*(Metric(LOSS, m.numerator[order], m.weights[order]) for m in (a, b)), resamples=200)
    assert mixed.difference.value == pytest.approx(one.difference.value)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(right=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_yes_or_no_items(right: Any) -> None:
    a, b = (Metric(SHARE, np.array(side, dtype=np.float64)) for side in zip(*right, strict=True))
    found, turned = paired(a, b), paired(b, a)
    assert (found.only_a, found.only_b) == (turned.only_b, turned.only_a)
    assert found.p_value == mcnemar(found.only_a or 0, found.only_b or 0) == turned.p_value
    assert found.difference.value == pytest.approx(b.numerator.mean() - a.numerator.mean())
    same = compare_metrics({"passed": a}, {"passed": a})["passed"]
    assert same.p_adjusted == 1 and same.verdict == "not distinguishable" and same.difference.value == 0


@SOME
@given(p=st.lists(st.floats(1e-6, 1), min_size=1, max_size=8))
def test_holm_only_raises_and_keeps_the_order(p: list[float]) -> None:
    adjusted = holm(p)
    assert all(1 >= after >= before for before, after in zip(p, adjusted))
    assert [adjusted[i] for i in np.argsort(p, kind="stable")] == sorted(adjusted)
    assert max(p) <= max(adjusted) and holm([p[0]]) == [p[0]]


@SOME
@given(values=st.lists(st.lists(st.floats(-5, 5), min_size=3, max_size=3), min_size=2, max_size=6))
def test_seeds(values: list[list[float]]) -> None:
    numerators, weights = np.array(values).round(3), np.ones(3)
    found = over_seeds(numerators, weights)
    assert found.lowest - 1e-12 <= found.mean.value <= found.highest + 1e-12
    assert found.mean.low <= found.mean.value <= found.mean.high  # type: ignore[operator]
    assert found.mean.low <= found.mean_on_these_items.low + 1e-12  # type: ignore[operator]
    assert 0 <= found.p_value <= 1  # type: ignore[operator]
    turned = over_seeds(-numerators, weights)
    assert turned.mean.low == pytest.approx(-found.mean.high)  # type: ignore[operator]
