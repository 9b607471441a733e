"""pass@k: the chance that one of k drawn samples passes, estimated without bias from n samples of which c pass.

1 - C(n-c, k) / C(n, k), as Chen et al. 2021 (arXiv 2107.03374, section 2.1) give it; undefined where n < k.

>>> round(pass_at_k(10, 3, 1), 6)
0.3
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hone.statistics.intervals import Interval, ratio_interval, wilson_interval


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


@dataclass(frozen=True)
class PassAtK:
    """pass@k over tasks, with its 95 % interval over tasks; None where a task has fewer than k samples."""

    k: int
    interval: Interval | None
    n_tasks: int
    n_too_few: int


def estimate(counts: Sequence[tuple[int, int]], ks: Iterable[int]) -> list[PassAtK]:
    """pass@k of (samples, passed) of each task.

    The interval is Wilson's where each task has one sample, else a bootstrap over tasks: samples of one task are not
    independent of each other as an answer to "how would it do on other tasks".
    """
    found = []
    n, c = (
        (np.array(column, dtype=np.int64) for column in zip(*counts)) if counts else (np.zeros(0, dtype=np.int64),) * 2
    )
    for k in ks:
        too_few = int((n < k).sum())
        if not len(n) or too_few:
            interval = None
        elif k == 1 and (n == 1).all():
            interval = wilson_interval(int(c.sum()), len(n))
        else:
            values = pass_at_k(n, c, k)
            interval = clipped(ratio_interval(values, np.ones(len(n))))
        found.append(PassAtK(k, interval, len(n), too_few))
    return found


def clipped(interval: Interval) -> Interval:
    """A share cannot leave [0, 1]; an interval for few tasks could."""
    low, high = (None if bound is None else min(max(bound, 0.0), 1.0) for bound in (interval.low, interval.high))
    return Interval(interval.value, low, high, interval.n_items)
