"""pass@k: the chance that one of k drawn samples passes, estimated without bias from n samples of which c pass.

1 - C(n-c, k) / C(n, k), as Chen et al. 2021 (arXiv 2107.03374, section 2.1) give it; undefined where n < k.

>>> round(pass_at_k(10, 3, 1), 6)
0.3
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from hone.results import Items, Kind
from hone.results.benchmarks import PassAtK
from hone.statistics.intervals import wilson_interval
from hone.statistics.paired import Metric, estimate, items_of

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

    The interval is Wilson's where each task has one sample, else a bootstrap over tasks: samples of one task are not
    independent of each other as an answer to "how would it do on other tasks".
    """
    found = {}
    n, c = (
        (np.array(column, dtype=np.int64) for column in zip(*counts)) if counts else (np.zeros(0, dtype=np.int64),) * 2
    )
    for k in ks:
        too_few = int((n < k).sum())
        share = None
        if len(n) and not too_few:
            if k == 1 and (n == 1).all():
                share = wilson_interval(int(c.sum()), len(n))
            else:
                share = estimate(Metric(PASSED, pass_at_k(n, c, k)))
        found[k] = PassAtK(estimate=share, n_tasks=len(n), n_too_few=too_few)
    return found


def passed_items(passed: Mapping[str, Sequence[bool]]) -> Items:
    """task_id -> whether each of its samples passed, as the numbers of items for paired tests."""
    shares = np.array([np.mean(each) for each in passed.values()])
    return items_of("task", {"passed": Metric(PASSED, shares)})
