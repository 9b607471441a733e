"""pass@k against the product formula and against drawing samples; undefined where there are too few."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hone.grading.pass_at_k import pass_at_k, pass_rates


def product_formula(n: int, c: int, k: int) -> float:
    """1 - prod(1 - k / i for i in n-c+1 .. n), as published with HumanEval."""
    return 1.0 if n - c < k else 1.0 - math.prod(1.0 - k / i for i in range(n - c + 1, n + 1))


@given(st.integers(1, 300), st.floats(0, 1), st.floats(0, 1))
def test_equals_the_product_formula(n: int, right: float, drawn: float) -> None:
    c, k = round(right * n), max(1, round(drawn * n))
    assert pass_at_k(n, c, k) == pytest.approx(product_formula(n, c, k), abs=1e-12)


def test_equals_the_share_of_draws_with_a_pass() -> None:
    for n in range(1, 8):
        for c in range(n + 1):
            for k in range(1, n + 1):
                draws = list(combinations([True] * c + [False] * (n - c), k))
                assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws), abs=1e-12)


def test_vectorised_and_undefined() -> None:
    n, c = np.array([10, 10, 3, 5]), np.array([0, 10, 1, 2])
    assert pass_at_k(n, c, 5)[[0, 1, 3]] == pytest.approx([0.0, 1.0, 1.0])
    assert np.isnan(pass_at_k(n, c, 5)[2])
    assert math.isnan(pass_at_k(0, 0, 1))
    assert pass_at_k(10, [1, 2], 1) == pytest.approx([0.1, 0.2])
    for n, c, k in ((3, 4, 1), (3, -1, 1), (3, 1, 0)):
        with pytest.raises(ValueError):
            pass_at_k(n, c, k)


def test_estimates_with_intervals() -> None:
    found = pass_rates([(1, 1)] * 30 + [(1, 0)] * 70, (1, 10))
    assert found[1].estimate is not None and found[1].estimate.value == pytest.approx(0.3)
    assert found[1].estimate.bounds == pytest.approx((0.2189, 0.3958), abs=1e-4)  # Wilson
    assert (found[10].estimate, found[10].n_too_few) == (None, 100)
    counts = [(20, i % 7) for i in range(60)]
    for k, rate in pass_rates(counts, (1, 10, 20)).items():
        assert rate.estimate and rate.estimate.bounds
        assert rate.estimate.value == pytest.approx(np.mean([product_formula(n, c, k) for n, c in counts]))
        assert 0 <= rate.estimate.bounds[0] < rate.estimate.value < rate.estimate.bounds[1] <= 1
    sure, alone = pass_rates([(5, 5)] * 3, (5,))[5].estimate, pass_rates([(2, 1)], (1,))[1].estimate
    assert sure and alone and (sure.high, alone.low) == (1.0, None)
    assert pass_rates([], (1,))[1].estimate is None


def test_the_interval_covers() -> None:
    """Of 200 sets of 40 tasks, some 95 % have the true pass@1 in their interval."""
    random, covered = np.random.default_rng(0), 0
    for _ in range(200):
        chances = random.beta(0.5, 1.0, size=40)  # mean 1/3
        counts = [(8, int(c)) for c in random.binomial(8, chances)]
        found = pass_rates(counts, (1,))[1].estimate
        assert found and found.bounds
        covered += found.bounds[0] <= 1 / 3 <= found.bounds[1]
    assert 180 <= covered <= 199


@pytest.mark.parametrize(("tasks", "mean", "alike"), [(5, 0.05, 0.3), (10, 0.02, 50.0), (20, 0.05, 2.0)])
def test_the_interval_covers_low_rates_of_few_tasks(tasks: int, mean: float, alike: float) -> None:
    """Student's t held the truth in 15 to 85 % of such draws: where nothing has passed its interval has no width."""
    random = np.random.default_rng(tasks)
    chances = random.beta(mean * alike, (1 - mean) * alike, (400, tasks))
    covered = 0
    for row in random.binomial(10, chances):
        found = pass_rates([(10, int(c)) for c in row], (1,))[1].estimate
        assert found and found.bounds and 0 <= found.bounds[0] <= found.value <= found.bounds[1] <= 1
        covered += found.bounds[0] <= mean <= found.bounds[1]
    assert covered / 400 >= 0.93


def test_nothing_passed_is_not_known_to_be_nothing() -> None:
    found = pass_rates([(10, 0)] * 10, (1, 10))
    assert all(
        rate.estimate and rate.estimate.bounds == pytest.approx((0, 0.2775), abs=1e-4) for rate in found.values()
    )
    same = pass_rates([(2, 1)] * 8, (1,))[1].estimate
    assert same and same.bounds and same.bounds[0] < 0.35 < 0.65 < same.bounds[1]
