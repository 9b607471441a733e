"""Intervals, tests and minimum detectable effects over items: documents, rows or tasks.

Tokens of one document are not independent, documents are: so whole items are what is resampled, flipped and counted.
Two models are always compared on the same items, by the differences of each item (`statistics.paired` puts the parts
together). Nothing here knows what a metric is.

>>> sign_flip(np.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.0]))      # 2 of the 2**6 ways of flipping are as far from 0
0.03125
"""

from collections.abc import Sequence

import numpy as np
from scipy import stats
from scipy.optimize import brentq

from hone.results import Estimate

# Below FEW items Student's t holds the truth more often than resampling (benchmarks/statistics_check.py); above MANY
# both say the same, and t at once.
FEW, MANY = 500, 5000
MARGIN = 11  # of the second look of `mean_test`: its p times 1 + 11 / n
SECOND_LOOK = 6.5  # what it costs: the smallest change that is found is 1 + (6.5 / n)**2 times Student's


def ratio_interval(
    numerator: np.ndarray,
    denominator: np.ndarray,
    *,
    positive: bool = False,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Estimate of sum(numerator) / sum(denominator) over items (n,).

    From FEW to MANY items: bias-corrected accelerated bootstrap over items (scipy.stats.bootstrap, Efron 1987), by
    percentile where that is degenerate. Otherwise: Student t with the jackknife's standard error, on the logarithm if
    the ratio is known to be `positive` (a loss), so that no bound falls below zero.

    >>> ratio_interval(np.array([2.0, 4.0]), np.array([1.0, 2.0])).value
    2.0
    """
    numerator, denominator = numerator.astype(np.float64), denominator.astype(np.float64)
    n = len(numerator)
    value = float(numerator.sum() / denominator.sum())
    residuals = influence(numerator, denominator)
    if n < 2 or not np.isfinite(residuals).all():
        return Estimate(value=value)
    if not FEW <= n <= MANY or np.allclose(residuals, residuals[0]):
        half = float(stats.t.ppf(0.5 + confidence / 2, n - 1) * residuals.std(ddof=1) / np.sqrt(n))
        if positive and value > 0:
            factor = float(np.exp(min(half / value, 700.0)))
            return Estimate(value=value, low=value / factor, high=value * factor)
        return Estimate(value=value, low=value - half, high=value + half)

    def ratio(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
        return a.sum(axis=axis) / b.sum(axis=axis)

    for method in ("BCa", "percentile"):
        with np.errstate(all="ignore"):
            result = stats.bootstrap(
                (numerator, denominator),
                ratio,
                paired=True,
                vectorized=True,
                batch=max(1, 2_000_000 // n),  # bounds the memory of the resamples
                n_resamples=resamples,
                confidence_level=confidence,
                method=method,
                rng=np.random.default_rng(seed),
            ).confidence_interval
        if np.isfinite(result.low) and np.isfinite(result.high):
            return Estimate(value=value, low=float(result.low), high=float(result.high))
    return Estimate(value=value)


def influence(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """(n,) how much each item moves the ratio of the sums; their standard deviation / sqrt(n) is its standard error.

    By leaving each item out in turn (the jackknife, Quenouille 1956); for equal denominators, value minus mean. Not
    finite where one item has the whole denominator.
    """
    total, n = denominator.sum(), len(numerator)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (numerator - numerator.sum() / total * denominator) * (n - 1) / (total - denominator)
    return np.asarray(found, dtype=np.float64)


def wilson_interval(n_right: int, n: int, confidence: float = 0.95) -> Estimate:
    """A share of n independent yes-or-no items; Wilson's interval (1927): sensible also at 0, at 1 and for few items.

    >>> [round(x, 3) for x in wilson_interval(8, 10).bounds]
    [0.49, 0.943]
    """
    bounds = stats.binomtest(n_right, n).proportion_ci(confidence, method="wilson")
    return Estimate(value=n_right / n, low=float(bounds.low), high=float(bounds.high))


def share_difference_interval(only_a: int, only_b: int, n: int, confidence: float = 0.95) -> Estimate:
    """Share B - share A of n items that both answered; adjusted Wald interval (Bonett and Price 2012), wide at 0 too.

    Args:
        only_a, only_b: items that A alone, and B alone, got right.

    >>> [round(x, 3) for x in share_difference_interval(2, 10, 30).bounds]
    [0.038, 0.462]
    """
    a, b = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    half = float(stats.norm.ppf(0.5 + confidence / 2) * np.sqrt((a + b - (b - a) ** 2) / (n + 2)))
    return Estimate(value=(only_b - only_a) / n, low=max(b - a - half, -1.0), high=min(b - a + half, 1.0))


def sign_flip(differences: np.ndarray, *, resamples: int = 10_000, seed: int = 0) -> float:
    """Two-sided p of "A and B are the same to each item": which of the two an item's values belong to is a coin flip.

    Exact where 2**n <= resamples (then never below 2 / 2**n), drawn at random up to MANY items, Student's t above.

    Args:
        differences: (n,) B - A of each item; the statistic is their mean.
    """
    differences = np.asarray(differences, dtype=np.float64)
    n = len(differences)
    if n < 2 or not differences.any():
        return 1.0
    if n > MANY:
        error = max(differences.std(ddof=1) / np.sqrt(n), np.finfo(float).tiny)
        return float(2 * stats.t.sf(abs(differences.mean()) / error, n - 1))
    found = stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",  # of one sample: its signs
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, 2_000_000 // n),  # bounds the memory
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def mean_test(differences: np.ndarray, alpha: float = 0.05, *, resamples: int = 10_000, seed: int = 0) -> float:
    """Two-sided p of "the items' differences have a mean of 0": the sign flip, and what skewness leaves of it.

    The sign flip holds its level where A and B are alike to each item. Where the mean is 0 but a few items differ
    much, it calls 9 to 15 % of alike models different at 12 items. So where its p is below alpha, a second look may
    raise it: the bootstrap of the skewness-corrected t (Hall 1992), times 1 + MARGIN / n. With that
    normal, exponential, gamma and log-normal differences (skewness 6) give 6 % at most; MARGIN was chosen by these
    simulations. No test can see a rare large difference of which none was drawn: 27 % at 12 items
    (benchmarks/statistics_check.py: "not held").
    """
    p = sign_flip(differences, resamples=resamples, seed=seed)
    if p >= alpha or len(differences) >= FEW:
        return p
    second = skewed_mean(differences, resamples=resamples, seed=seed) * (1 + MARGIN / len(differences))
    return min(1.0, max(p, second))


def skewed_mean(differences: np.ndarray, *, resamples: int = 10_000, seed: int = 0) -> float:
    """Two-sided p of a mean of 0 by the bootstrap of Hall's (1992) transformation of t, which allows for skewness.

    Equal-tailed: of the resamples around the mean, how many are as far out on this side, twice.
    """
    x = np.asarray(differences, dtype=np.float64)
    seen = float(_transformed(x[None])[0])
    n, rng = len(x), np.random.default_rng(seed)
    centred, batch = x - x.mean(), max(1, 2_000_000 // n)  # bounds the memory
    parts = [min(batch, resamples - done) for done in range(0, resamples, batch)]
    drawn = np.concatenate([_transformed(centred[rng.integers(0, n, (part, n))]) for part in parts])
    return float(min(1.0, 2 * (min((drawn <= seen).sum(), (drawn >= seen).sum()) + 1) / (resamples + 1)))


def _transformed(x: np.ndarray) -> np.ndarray:
    """(rows,) of (rows, n): mean / spread, made symmetric by the sample's own skewness."""
    n, mean = x.shape[1], x.mean(1)
    spread = np.maximum(x.std(1), np.finfo(float).tiny ** 0.25)
    skew = ((x - mean[:, None]) ** 3).mean(1) / spread**3
    w = mean / spread
    return np.asarray(w + skew * w**2 / 3 + skew**2 * w**3 / 27 + skew / (6 * n))


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p for yes-or-no items (McNemar 1947): of those where A and B differ, half are A's by chance.

    Args:
        only_a, only_b: items that A alone, and B alone, got right.

    >>> mcnemar(0, 6)
    0.03125
    """
    return float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p of several tests at once (Holm 1979): each below 0.05 with a chance of 5 % that any is so by chance.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        worst = max(worst, min(1.0, p_values[i] * (len(p_values) - rank)))
        adjusted[i] = worst
    return adjusted


def minimum_detectable_mean(spread: float, n: int, *, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest mean difference that n items show with this power in a two-sided test (Bloom 1995).

    Infinite for so few items that no p of `sign_flip` can be below alpha (fewer than 6 for 0.05). For few items a
    little above Student's: see SECOND_LOOK.

    Args:
        spread: standard deviation of the items' differences.

    >>> round(minimum_detectable_mean(1.0, 164), 3)
    0.22
    """
    if 2.0 ** (1 - n) >= alpha:
        return float("inf")
    students = (stats.t.ppf(1 - alpha / 2, n - 1) + stats.t.ppf(power, n - 1)) * spread / np.sqrt(n)
    return float(students * (1 + (SECOND_LOOK / n) ** 2))


def minimum_detectable_share(n: int, discordant: int, *, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest difference of two shares that McNemar's exact test on n paired yes-or-no items shows.

    Given that `discordant` of the items differ, and at least as many as the test needs (6 for alpha 0.05).
    Infinite where n is smaller than that.

    >>> round(minimum_detectable_share(164, 20), 3)
    0.073
    """
    needed = 1
    while 2.0 ** (1 - needed) >= alpha:
        needed += 1
    if n < needed:
        return float("inf")
    differing = max(discordant, needed)
    rejected = int(stats.binom.ppf(alpha / 2, differing, 0.5))  # at most so many on the other side
    while stats.binom.cdf(rejected, differing, 0.5) > alpha / 2:
        rejected -= 1
    share = brentq(lambda p: stats.binom.cdf(rejected, differing, 1 - p) - power, 0.5, 1.0)
    return float((2 * share - 1) * differing / n)
