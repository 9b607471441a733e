"""How often the statistics of `hone compare` are right: simulated comparisons of two models of known difference.

    python benchmarks/statistics_check.py [--simulations 2000]

False positives: how often two models that are alike get p < 5 % (a test may be below 5 %, never above). Coverage: how
often a 95 % interval holds the true value. Power: how often an effect of the minimum detectable size is found.
Each share is printed with its own 95 % interval and the number of simulated comparisons. Flips are drawn 400 times here
(hone compare: 10,000), which keeps the level and the two minutes.
"""

import argparse
import time
from collections.abc import Callable, Iterator

import numpy as np

from hone.results import Estimate, Kind
from hone.show import estimate, table
from hone.statistics.intervals import (
    mcnemar,
    minimum_detectable_mean,
    minimum_detectable_share,
    ratio_interval,
    share_difference_interval,
    sign_flip,
    wilson_interval,
)
from hone.statistics.paired import Metric, compare_metrics

LOSS = Kind(heading="loss", higher_is_better=False)
EXACT_MATCH = Kind(heading="exact match", higher_is_better=True, top=1.0)
FEW, MANY = 12, 200  # items
Draw = Callable[[np.random.Generator, int], np.ndarray]
DIFFERENCES: dict[str, Draw] = {  # of two models that are alike
    "normal": lambda rng, n: rng.normal(0, 1, n),
    "log-normal, items too": lambda rng, n: (
        rng.lognormal(0, 0.5, n) * (rng.lognormal(0, 0.5, n) - rng.lognormal(0, 0.5, n))
    ),
    "skewed (exponential)": lambda rng, n: rng.exponential(1, n) - 1,  # the same mean, but not alike to an item
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=2000)
    n_simulations = parser.parse_args().simulations
    began = time.perf_counter()
    rows = []
    for check in (false_positives, coverage, power):
        for name, n, aim, hits in check(n_simulations):
            found = wilson_interval(int(np.sum(hits)), len(hits))
            shown = estimate(found, ".1%")
            rows.append([check.__name__.replace("_", " "), name, str(n), aim, shown, f"{len(hits):,}"])
    print(table(["", "of", "items", "aim", "found", "comparisons"], rows))
    print(f"{time.perf_counter() - began:.0f} s")


Checked = Iterator[tuple[str, int, str, list[bool]]]


def false_positives(times: int) -> Checked:
    for n in (FEW, MANY):
        for name, draw in DIFFERENCES.items():
            rng = np.random.default_rng(n)
            hits = [sign_flip(draw(rng, n), resamples=400, seed=i) < 0.05 for i in range(times)]
            yield f"sign flip, {name}", n, "5 %", hits
        for differing in (0.1, 0.4):
            draws = np.random.default_rng(n).multinomial(n, [differing / 2, differing / 2, 1 - differing], times)
            hits = [mcnemar(a, b) < 0.05 for a, b, _ in draws]
            yield f"McNemar, {differing:.0%} differ", n, "<= 5 %", hits
    yield "any of 3 metrics, Holm", FEW, "<= 5 %", _several(times)


def _several(times: int) -> list[bool]:
    """Three metrics of 12 alike items: is any called better or worse? 500 are enough, at 10,000 flips each."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(min(times, 500)):
        sides = [{name: Metric(LOSS, rng.lognormal(0, 0.5, FEW)) for name in ("loss", "other loss")} for _ in "ab"]
        for side in sides:
            side["exact_match"] = Metric(EXACT_MATCH, rng.integers(0, 2, FEW))
        result = compare_metrics(sides[0], sides[1])
        found.append(any(metric.verdict != "not distinguishable" for metric in result.values()))
    return found


def coverage(times: int) -> Checked:
    for n in (FEW, MANY):
        for name, draw in DIFFERENCES.items():
            rng = np.random.default_rng(n + 1)
            found = [ratio_interval(draw(rng, n), np.ones(n), resamples=400, seed=i) for i in range(times)]
            yield f"difference, {name}", n, "95 %", _holds(found, 0.0)
        rng, found = np.random.default_rng(n + 2), []
        for i in range(times):
            tokens = rng.lognormal(5, 0.6, n)
            found.append(ratio_interval(tokens * rng.gamma(9, 1 / 3, n), tokens, positive=True, resamples=400, seed=i))
        yield "loss of documents of uneven length", n, "95 %", _holds(found, 3.0)
        for only_a, only_b in ((0.05, 0.05), (0.05, 0.25)):
            draws = np.random.default_rng(n).multinomial(n, [only_a, only_b, 1 - only_a - only_b], times)
            found = [share_difference_interval(a, b, n) for a, b, _ in draws]
            yield f"shares, {only_a:.0%} against {only_b:.0%}", n, ">= 95 %", _holds(found, only_b - only_a)
        right = np.random.default_rng(n).binomial(n, 0.3, times)
        yield "one share of 30 %", n, "95 %", _holds([wilson_interval(int(k), n) for k in right], 0.3)


def _holds(found: list[Estimate], truth: float) -> list[bool]:
    return [i.low is not None and i.high is not None and i.low <= truth <= i.high for i in found]


def power(times: int) -> Checked:
    for n in (FEW, MANY):
        rng, effect = np.random.default_rng(n + 3), minimum_detectable_mean(1.0, n)
        hits = [sign_flip(rng.normal(effect, 1, n), resamples=400, seed=i) < 0.05 for i in range(times)]
        yield f"sign flip, normal, effect {effect:.2f} spreads", n, "80 %", hits
        differing = round(0.5 * n)
        effect = minimum_detectable_share(n, differing)
        only_b = np.random.default_rng(n).binomial(differing, (1 + effect * n / differing) / 2, times)
        hits = [mcnemar(differing - int(k), int(k)) < 0.05 for k in only_b]
        yield f"McNemar, {differing} differ, effect {effect:.2f}", n, "80 %", hits


if __name__ == "__main__":
    main()
