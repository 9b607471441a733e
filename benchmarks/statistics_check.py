"""How often the statistics of hone are right: simulated comparisons of two models of known difference.

    python benchmarks/statistics_check.py [--simulations 1000]

False alarms: how often two models that are alike are called better or worse (a verdict may be wrong in 5 %, or less
often). Coverage: how often a 95 % interval holds the true value. Power: how often an effect of the minimum detectable
size is found. Each share is printed with its own 95 % interval and the number of simulated comparisons, all as one
Markdown table. Flips and resamples are drawn 999 times here (hone compare: 10,000), which keeps the level, and takes
some five minutes on one processor.
"""

import argparse
import time
from collections.abc import Callable, Iterator

import numpy as np

from hone.grading.pass_at_k import pass_rates
from hone.results import Estimate, Kind
from hone.show import estimate
from hone.statistics.intervals import (
    mcnemar,
    mean_test,
    minimum_detectable_mean,
    minimum_detectable_share,
    ratio_interval,
    share_difference_interval,
    wilson_interval,
)
from hone.statistics.paired import Metric, compare_metrics

LOSS = Kind(heading="loss", higher_is_better=False)
EXACT_MATCH = Kind(heading="exact match", higher_is_better=True, top=1.0)
FEW, MANY = 12, 200  # items
SMALL = (5, 6, 8, 10, 12, 16, 20, 30)
Draw = Callable[[np.random.Generator, int], np.ndarray]
RARE = "one item in ten nine times as large"
DIFFERENCES: dict[str, Draw] = {  # of two models that are alike
    "normal": lambda rng, n: rng.normal(0, 1, n),
    "log-normal, items too": lambda rng, n: (
        rng.lognormal(0, 0.5, n) * (rng.lognormal(0, 0.5, n) - rng.lognormal(0, 0.5, n))
    ),
    # the same mean, but not alike to an item
    "exponential, skewness 2": lambda rng, n: rng.exponential(1, n) - 1,
    "gamma(1/2), skewness 2.8": lambda rng, n: rng.gamma(0.5, 1, n) - 0.5,
    "log-normal, skewness 6.2": lambda rng, n: rng.lognormal(0, 1, n) - np.exp(0.5),
    # no test of few items can hold its level here: often none of the large ones is drawn
    RARE: lambda rng, n: np.where(rng.random(n) < 0.1, 9.0, -1.0) * rng.uniform(0.5, 1.5, n),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1000)
    n_simulations = parser.parse_args().simulations
    began = time.perf_counter()
    rows = []
    for check in (false_alarms, coverage, power):
        for name, n, aim, hits in check(n_simulations):
            found = wilson_interval(int(np.sum(hits)), len(hits))
            shown = estimate(found, ".1%")
            rows.append([check.__name__.replace("_", " "), name, str(n), aim, shown, f"{len(hits):,}"])
    heading = [["", "of", "items", "aim", "found", "comparisons"], ["---", "---", "--:", "---", "---", "--:"]]
    print("\n".join(f"| {' | '.join(row)} |" for row in heading + rows))
    print(f"{time.perf_counter() - began:.0f} s")


Checked = Iterator[tuple[str, int, str, list[bool]]]


def called(differences: np.ndarray, seed: int) -> bool:
    """Better or worse, by the rule of `statistics.paired`: a small p, and an interval without 0."""
    if mean_test(differences, resamples=999, seed=seed) >= 0.05:
        return False
    low, high = ratio_interval(differences, np.ones(len(differences))).bounds or (0.0, 0.0)
    return not low <= 0 <= high


def false_alarms(times: int) -> Checked:
    for n in (*SMALL, MANY):
        for name, draw in DIFFERENCES.items():
            rng = np.random.default_rng(n)
            aim = "not held" if name == RARE and n <= 30 else "<= 6 %"
            yield f"means, {name}", n, aim, [called(draw(rng, n), i) for i in range(times)]
    for n in (FEW, MANY):
        for differing in (0.1, 0.4):
            draws = np.random.default_rng(n).multinomial(n, [differing / 2, differing / 2, 1 - differing], times)
            hits = [mcnemar(a, b) < 0.05 for a, b, _ in draws]
            yield f"McNemar, {differing:.0%} differ", n, "<= 5 %", hits
    yield "any of 3 metrics, Holm", FEW, "<= 5 %", _several(times)


def _several(times: int) -> list[bool]:
    """Three metrics of 12 alike items: is any called better or worse? 300 are enough, at 10,000 flips each."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(min(times, 300)):
        sides = [{name: Metric(LOSS, rng.lognormal(0, 0.5, FEW)) for name in ("loss", "other loss")} for _ in "ab"]
        for side in sides:
            side["exact_match"] = Metric(EXACT_MATCH, rng.integers(0, 2, FEW))
        result = compare_metrics(sides[0], sides[1])
        found.append(any(metric.verdict in ("better", "worse") for metric in result.values()))
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
    yield from _pass_at_k(times)


def _pass_at_k(times: int) -> Checked:
    """Tasks whose chances differ: much (0.3: most are never solved, some always), some, or hardly."""
    rng = np.random.default_rng(7)
    for tasks in (5, 10, 20, 40, 164):
        for mean, alike in ((0.02, 0.3), (0.02, 50.0), (0.05, 2.0), (0.1, 0.3), (0.3, 2.0)):
            for samples, k in ((5, 1), (10, 5)):
                chances = rng.beta(mean * alike, (1 - mean) * alike, (times, tasks))
                truth = 1 - np.mean((1 - rng.beta(mean * alike, (1 - mean) * alike, 1_000_000)) ** k)
                passed = rng.binomial(samples, chances)
                found = [pass_rates([(samples, int(c)) for c in row], (k,))[k].estimate for row in passed]
                name = f"pass@{k} of {samples} samples, true value {truth:.3f}"
                yield name, tasks, ">= 93 %", _holds([one for one in found if one], float(truth))


def _holds(found: list[Estimate], truth: float) -> list[bool]:
    return [i.low is not None and i.high is not None and i.low <= truth <= i.high for i in found]


def power(times: int) -> Checked:
    for n in (*SMALL[1:], MANY):
        rng, effect = np.random.default_rng(n + 3), minimum_detectable_mean(1.0, n)
        hits = [called(rng.normal(effect, 1, n), i) for i in range(times)]
        yield f"means, normal, effect {effect:.2f} spreads", n, "80 %", hits
    for n in (FEW, MANY):
        differing = round(0.5 * n)
        effect = minimum_detectable_share(n, differing)
        only_b = np.random.default_rng(n).binomial(differing, (1 + effect * n / differing) / 2, times)
        hits = [mcnemar(differing - int(k), int(k)) < 0.05 for k in only_b]
        yield f"McNemar, {differing} differ, effect {effect:.2f}", n, "80 %", hits


if __name__ == "__main__":
    main()
