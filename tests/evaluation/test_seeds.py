"""Seeds and items together: intervals that hold what they promise, on trainings made of random numbers."""

import numpy as np
import pytest
from scipy import stats

from hone.statistics.intervals import sign_flip
from hone.statistics.paired import POWER
from hone.statistics.seed_variance import over_seeds, smallest_p


def trainings(
    rng: np.random.Generator, n_seeds: int, n_items: int, *, seed: float, item: float, both: float
) -> np.ndarray:
    """(seeds, items): a part of the seed, a part of the item, a part of the pair; standard deviations as given."""
    of_seed, of_item = rng.normal(0, seed, (n_seeds, 1)), rng.normal(0, item, (1, n_items))
    return of_seed + of_item + rng.normal(0, both, (n_seeds, n_items))


def test_mean_spread_and_seed_interval_are_the_textbooks() -> None:
    numerators = np.array([[2.0, 6.0], [3.0, 9.0], [1.0, 9.0]])
    weights = np.array([1.0, 3.0])
    values = [2.0, 3.0, 2.5]
    found = over_seeds(numerators, weights)
    assert (found.mean.value, found.lowest, found.highest) == (2.5, 2.0, 3.0)
    assert found.standard_deviation and found.standard_deviation.value == pytest.approx(0.5)
    expected = stats.t.interval(0.95, 2, loc=2.5, scale=stats.sem(values))
    assert found.mean_on_these_items.bounds == pytest.approx(expected)
    assert (found.n_seeds, found.n_items) == (3, 2)


@pytest.mark.parametrize("n_seeds", [2, 3, 6])
@pytest.mark.parametrize(("seed", "item", "both"), [(0.1, 1.0, 0.3), (1.0, 1.0, 0.3), (0.01, 0.2, 1.0)])
def test_the_interval_holds_the_truth_as_often_as_it_says(n_seeds: int, seed: float, item: float, both: float) -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        found = over_seeds(trainings(rng, n_seeds, 60, seed=seed, item=item, both=both), np.ones(60))
        low, high = found.mean.bounds or (1, -1)
        held += low < 0 < high
    assert held / 1000 > 0.93  # 0.95 less three standard errors of 1,000 draws


def test_a_detectable_change_is_detected_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    effects = [
        over_seeds(trainings(rng, 6, 50, seed=1, item=0.5, both=0.1), np.ones(50)).minimum_detectable_effect or 0
        for _ in range(200)
    ]
    size = float(np.sqrt(np.mean(np.square(effects))))  # of variances the mean is right, of deviations it is too small
    found = 0
    for _ in range(500):
        drawn = over_seeds(trainings(rng, 6, 50, seed=1, item=0.5, both=0.1) + size, np.ones(50))
        found += drawn.mean.bounds is not None and drawn.mean.bounds[0] > 0
    assert found / 500 == pytest.approx(POWER, abs=0.06)


def test_two_single_trainings_lie_apart_by_seed_noise_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    inside = []
    for _ in range(400):
        drawn = trainings(rng, 8, 5, seed=1, item=3, both=0)
        apart = abs(drawn[6] - drawn[7]).mean()
        inside.append(apart <= (over_seeds(drawn[:6], np.ones(5)).one_seed_noise or 0))
    assert np.mean(inside) == pytest.approx(0.95, abs=0.03)


def test_seeds_and_items_are_never_surer_than_seeds_alone() -> None:
    rng = np.random.default_rng(3)
    for scale in (0.0, 0.01, 1.0, 10.0):
        found = over_seeds(trainings(rng, 3, 40, seed=1, item=scale, both=scale), np.ones(40))
        assert found.mean.bounds and found.mean_on_these_items.bounds
        assert np.ptp(found.mean.bounds) >= np.ptp(found.mean_on_these_items.bounds) * (1 - 1e-12)


def test_equal_seeds_leave_the_luck_of_the_items() -> None:
    row = np.random.default_rng(4).normal(1, 1, 30)
    found = over_seeds(np.stack([row] * 4), np.ones(30))
    assert found.standard_deviation and found.standard_deviation.value == found.one_seed_noise == 0.0
    assert found.mean_on_these_items.bounds == (found.mean.value, found.mean.value)
    items_alone = stats.t.interval(0.95, 29, loc=row.mean(), scale=stats.sem(row))
    assert found.mean.bounds == pytest.approx(items_alone)


def test_what_one_seed_or_one_item_cannot_tell_is_not_told() -> None:
    one_seed = over_seeds(np.array([[1.0, 2.0, 4.0]]), np.ones(3))
    assert one_seed.standard_deviation is one_seed.minimum_detectable_effect is None
    assert one_seed.mean.bounds is one_seed.mean_on_these_items.bounds is None
    one_item = over_seeds(np.array([[1.0], [2.0]]), np.ones(1))
    assert one_item.mean_on_these_items.bounds is not None
    assert one_item.mean.bounds is one_item.p_value is None


def test_the_smallest_p_is_the_tests_own() -> None:
    for n in range(2, 9):
        assert sign_flip(np.arange(1.0, n + 1)) == pytest.approx(smallest_p(n))


def test_p_value_and_interval_agree() -> None:
    rng = np.random.default_rng(5)
    for shift in np.linspace(0, 2, 20):
        found = over_seeds(trainings(rng, 4, 20, seed=1, item=1, both=1) + shift, np.ones(20))
        assert found.mean.bounds is not None and found.p_value is not None
        assert (found.p_value < 0.05) == (not found.mean.bounds[0] <= 0 <= found.mean.bounds[1])
