"""pass@k: the chance that one of k drawn samples passes, estimated without bias from n samples of which c pass.

1 - C(n-c, k) / C(n, k), as Chen et al. 2021 (arXiv 2107.03374, section 2.1) give it; undefined where n < k.

>>> round(pass_at_k(10, 3, 1), 6)
0.3
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from hone.results import Estimate, Items, Kind
from hone.results.benchmarks import PassAtK
from hone.statistics.paired import Metric, items_of

PASSED = Kind(heading="pass rate", higher_is_better=True, top=1.0)


def pass_at_k(n: Any, c: Any, k: int) -> Any:
    """The estimate for n samples of which c pass; NaN where n < k.

    Args:
        n, c: numbers or arrays that broadcast.

    Returns:
        A float for two numbers, else an array.
    """
    n, c = np.broadcast_arrays(np.asarray(n, dtype=np.int64), np.asarray(c, dtype=np.int64))
    if k < 1 or (n < 0).any() or (c < 0).any() or (c > n).any():
        raise ValueError("pass@k needs k >= 1 and 0 <= c <= n")
    none = np.ones(n.shape)  # the chance that none of k drawn samples passes
    for drawn in range(k):
        with np.errstate(invalid="ignore", divide="ignore"):
            none = none * np.where(n > drawn, np.maximum(n - c - drawn, 0) / (n - drawn), np.nan)
    found = 1.0 - none
    return float(found) if found.ndim == 0 else found


def pass_rates(counts: Sequence[tuple[int, int]], ks: Iterable[int]) -> dict[int, PassAtK]:
    """pass@k of (samples, passed) of each task, with its 95 % interval over tasks.

    Tasks are what was drawn: samples of one task are not independent of each other as an answer to "how would it do
    on other tasks". See `rate_interval`.
    """
    found = {}
    n, c = (
        (np.array(column, dtype=np.int64) for column in zip(*counts)) if counts else (np.zeros(0, dtype=np.int64),) * 2
    )
    for k in ks:
        too_few = int((n < k).sum())
        share = None
        if len(n) and not too_few:
            share = rate_interval(pass_at_k(n, c, k), int(n.sum()))
        found[k] = PassAtK(estimate=share, n_tasks=len(n), n_too_few=too_few)
    return found


def rate_interval(rates: np.ndarray, n_samples: int, confidence: float = 0.95) -> Estimate:
    """The mean of the tasks' rates with Wilson's interval for as many yes-or-no items as they are worth.

    That is Korn and Graubard's (1998) number for shares of clusters: p (1 - p) / error², with Student's correction for
    few tasks. Where few tasks pass (or fail), their spread says little: then a task counts as one item, however many
    samples it has, and as more only as ten tasks' worth of passes and failures are approached. A t interval held the
    truth in 15 to 90 % of draws of 5 to 40 tasks at rates of 2 to 5 % (benchmarks/statistics_check.py).

    >>> [round(x, 3) for x in rate_interval(np.zeros(10), 100).bounds]
    [0.0, 0.278]
    """
    tasks, mean = len(rates), float(rates.mean())
    if tasks == 1 < n_samples:
        return Estimate(value=mean)
    tail, worth = 0.5 + confidence / 2, float(tasks)
    if n_samples > tasks and 0 < mean < 1:
        worth = _worth(rates, n_samples, tail)
    z2 = float(stats.norm.ppf(tail)) ** 2
    middle, half = mean + z2 / (2 * worth), np.sqrt(z2 * (mean * (1 - mean) / worth + z2 / (4 * worth**2)))
    low, high = (float((middle + sign * half) / (1 + z2 / worth)) for sign in (-1, 1))
    return Estimate(value=mean, low=min(max(low, 0.0), mean), high=max(min(high, 1.0), mean))


def _worth(rates: np.ndarray, n_samples: int, tail: float) -> float:
    """For how many independent yes-or-no items the tasks stand, by the spread of their rates."""
    tasks, mean = len(rates), float(rates.mean())
    error, seen = float(rates.std(ddof=1) / np.sqrt(tasks)), tasks * min(mean, 1 - mean)
    most = tasks + (n_samples - tasks) * min(1.0, seen / 10)
    worth = mean * (1 - mean) / error**2 if error > 0 else float(tasks)
    return min(worth * float(stats.t.ppf(tail, n_samples - 1) / stats.t.ppf(tail, tasks - 1)) ** 2, most)


def passed_items(passed: Mapping[str, Sequence[bool]]) -> Items:
    """task_id -> whether each of its samples passed, as the numbers of items for paired tests."""
    shares = np.array([np.mean(each) for each in passed.values()])
    return items_of("task", {"passed": Metric(PASSED, shares)})
