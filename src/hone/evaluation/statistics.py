"""Intervals for ratios of sums over items (loss = nats / tokens), resampling whole items.

Tokens of one document are not independent, documents are: so documents are what is resampled.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

FEW = 10  # below this many items resampling says little,
MANY = 5000  # above this many it says what the central limit theorem says at once: Student t on either side


@dataclass(frozen=True)
class Interval:
    """A point estimate with its interval; low and high are None when one item is all there is."""

    value: float
    low: float | None
    high: float | None
    n_items: int

    def map(self, function: Callable[[float], float]) -> "Interval":
        """The interval of an increasing function of the value, such as exp."""
        return Interval(
            function(self.value),
            None if self.low is None else function(self.low),
            None if self.high is None else function(self.high),
            self.n_items,
        )


def ratio_interval(
    numerator: np.ndarray,
    denominator: np.ndarray,
    *,
    positive: bool = False,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Interval of sum(numerator) / sum(denominator) over items (n,).

    From FEW to MANY items: bias-corrected accelerated bootstrap over items (scipy.stats.bootstrap, Efron 1987), by
    percentile where that is degenerate. Otherwise: Student t on the linearised ratio (Cochran 1977, section 6.4), on
    its logarithm if it is known to be `positive` (a loss), so that no bound falls below zero.

    >>> ratio_interval(np.array([2.0, 4.0]), np.array([1.0, 2.0])).value
    2.0
    """
    from scipy import stats

    numerator, denominator = numerator.astype(np.float64), denominator.astype(np.float64)
    n = len(numerator)
    value = float(numerator.sum() / denominator.sum())
    if n < 2:
        return Interval(value, None, None, n)
    residuals = (numerator - value * denominator) / denominator.mean()
    if not FEW <= n <= MANY or np.allclose(residuals, residuals[0]):
        half = float(stats.t.ppf(0.5 + confidence / 2, n - 1) * residuals.std(ddof=1) / np.sqrt(n))
        if positive and value > 0:
            factor = float(np.exp(min(half / value, 700.0)))
            return Interval(value, value / factor, value * factor, n)
        return Interval(value, value - half, value + half, n)

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
            return Interval(value, float(result.low), float(result.high), n)
    return Interval(value, None, None, n)


def wilson_interval(n_right: int, n: int, confidence: float = 0.95) -> Interval:
    """Interval of a share of n independent yes-or-no items (Wilson 1927): sensible also at 0, at 1 and for few items.

    >>> [round(x, 3) for x in (wilson_interval(8, 10).low, wilson_interval(8, 10).high)]
    [0.49, 0.943]
    """
    from scipy import stats

    bounds = stats.binomtest(n_right, n).proportion_ci(confidence, method="wilson")
    return Interval(n_right / n, float(bounds.low), float(bounds.high), n)
