"""Two models on the same items, metric by metric: difference, interval, p, what could have been shown, and a verdict.

The one rule of "better", for a training's own before and after and for `hone compare`: B is better (or worse) than A
where p, adjusted for the number of metrics, is below 1 - confidence, and the interval of the difference leaves 0 out.
Everything else is "not distinguishable", which is not the same as "no change": `mde` says how large a change had to be
to be seen. What the items' numbers mean is in METRICS and `metrics_of`; the formulas are in `statistics.intervals`.

>>> a, b = (Metric("passed", np.array(answers)) for answers in ([0, 0, 0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1, 1, 1]))
>>> found = compare_metrics({"passed": a}, {"passed": b})["passed"]
>>> found["difference"], found["p_value"], found["verdict"]
(0.875, 0.015625, 'better')
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from hone.statistics.intervals import (
    Interval,
    detectable,
    detectable_share,
    holm,
    influence,
    mcnemar,
    ratio_interval,
    share_difference_interval,
    sign_flip,
    wilson_interval,
)

POWER = 0.8  # the chance with which `mde` would be found


class Kind(NamedTuple):
    """unit: what one is called. higher_is_better. top: no value lies above it."""

    unit: str
    higher_is_better: bool
    top: float | None


METRICS = {
    "accuracy": Kind("accuracy", True, 1.0),
    "passed": Kind("pass rate", True, 1.0),
    "loss": Kind("nats/token", False, None),
    "bits_per_byte": Kind("bits/byte", False, None),
    "exact_match": Kind("exact match", True, 1.0),
    "chrf_mean": Kind("chrF", True, 100.0),
    "rouge_l": Kind("ROUGE-L", True, 1.0),
}
# The same nats over bytes, and no second question: it shares the loss's p, and does not count as one metric more.
RESTATED = {"bits_per_byte": "loss"}


@dataclass(frozen=True)
class Metric:
    """One of METRICS on each item: sum(numerator) / sum(weight) is its value; both (n,), weight 1 where not given."""

    name: str
    numerator: np.ndarray
    weight: np.ndarray | None = None

    @property
    def weights(self) -> np.ndarray:
        return np.ones(len(self.numerator)) if self.weight is None else self.weight.astype(np.float64)

    @property
    def yes_no(self) -> bool:
        return self.weight is None and bool(np.isin(self.numerator, (0, 1)).all())


def metrics_of(items: Mapping[str, Any]) -> dict[str, Metric]:
    """The metrics of an eval/<name>.items.json, whatever its task; the first one is the headline."""
    found = []
    nll = np.array(items["nll"], dtype=np.float64)
    if "true" in items:
        found.append(Metric("accuracy", np.array(items["true"]) == np.array(items["predicted"])))
    found.append(Metric("loss", nll, np.array(items["n_tokens"]) if "n_tokens" in items else None))
    if any(items.get("n_bytes", ())):
        found.append(Metric("bits_per_byte", nll / math.log(2), np.array(items["n_bytes"])))
    found += [Metric(name, np.array(values)) for name, values in items.get("written", {}).items()]
    return {metric.name: metric for metric in found}


def compare_metrics(
    a: Mapping[str, Metric], b: Mapping[str, Metric], *, confidence: float = 0.95, resamples: int = 2000
) -> dict[str, dict[str, Any]]:
    """What `paired` finds of each metric that both have, with `p_adjusted` (Holm) and `verdict`: how B is beside A.

    A metric in which so few items differ that its p cannot be below 1 - confidence can give no false alarm, so it
    does not count as one metric more (Tarone 1990).
    """
    found = {name: paired(a[name], b[name], confidence=confidence, resamples=resamples) for name in a if name in b}
    asked = [name for name in found if RESTATED.get(name) not in found]
    counted = [name for name in asked if 2.0 ** (1 - found[name]["n_differing"]) < 1 - confidence]
    adjusted = {name: found[name]["p_value"] for name in asked}
    adjusted |= zip(counted, holm([adjusted[name] for name in counted]), strict=True)
    for name, result in found.items():
        result["p_adjusted"] = adjusted[name if name in adjusted else RESTATED[name]]
        result["verdict"] = verdict(
            result["p_adjusted"],
            result["difference_interval"],
            alpha=1 - confidence,
            higher_is_better=METRICS[name].higher_is_better,
        )
    return found


def before_after(
    base: Mapping[str, Any], tuned: Mapping[str, Any], *, confidence: float = 0.95, resamples: int = 2000
) -> dict[str, Any]:
    """eval/compare.json: tuned beside base on the same items, from the numbers of each; the headline's at the top.

    `metrics` has what `compare_metrics` finds, with a = base and b = tuned; differences are tuned - base.
    """
    a, b = metrics_of(base), metrics_of(tuned)
    metrics = compare_metrics(a, b, confidence=confidence, resamples=resamples)
    headline = next(iter(metrics.values()))
    result: dict[str, Any] = {
        "task": "classification" if "true" in tuned else "seq2seq" if "written" in tuned else "causal"
    }
    for name, found in metrics.items():
        told = ("difference", "difference_interval", "p_value", "p_adjusted")
        result |= {f"{name}_{key}": found[key] for key in told} | {f"{name}_detectable": found["mde"]}
    if "true" in tuned:
        result |= {"only_tuned_right": headline["only_b"], "only_base_right": headline["only_a"]}
        result["mcnemar_p_value"] = headline["p_value"]
    return result | {
        **{key: headline[key] for key in ("p_value", "p_adjusted", "mde", "power", "n_items")},
        "item": tuned["kind"],
        "confidence_level": confidence,
        "verdict": headline["verdict"],
        "metrics": metrics,
    }


def verdict(p: float, interval: list[float] | None, *, alpha: float, higher_is_better: bool) -> str:
    """'better', 'worse' or 'not distinguishable', of a difference with this (adjusted) p and interval."""
    if interval is None or p >= alpha or interval[0] <= 0 <= interval[1]:
        return "not distinguishable"
    return "better" if (interval[0] > 0) == higher_is_better else "worse"


def paired(a: Metric, b: Metric, *, confidence: float = 0.95, resamples: int = 2000) -> dict[str, Any]:
    """A and B with intervals, B - A with its interval, p, and the smallest difference these items show (mde).

    Yes-or-no items: McNemar's exact test; else the differences' signs are flipped. mde is None where no difference
    could be shown (fewer than 6 items) or none was seen to judge by (every item differs by the same).
    """
    n = len(a.numerator)
    assert a.name == b.name and len(b.numerator) == n, "the same metric of the same items"
    alpha = 1 - confidence
    if a.yes_no and b.yes_no:
        right_a, right_b = a.numerator.astype(bool), b.numerator.astype(bool)
        only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
        levels = [wilson_interval(int(right.sum()), n, confidence) for right in (right_a, right_b)]
        change = share_difference_interval(only_a, only_b, n, confidence)
        p, test = mcnemar(only_a, only_b), "McNemar"
        mde = detectable_share(n, only_a + only_b, power=POWER, alpha=alpha)
        counts = {"n_differing": only_a + only_b, "only_a": only_a, "only_b": only_b}
    else:
        levels = [_level(metric, confidence, resamples) for metric in (a, b)]
        differences, weights = _differences(a, b)
        change = ratio_interval(differences, weights, confidence=confidence, resamples=resamples)
        p, test = sign_flip(differences), "sign flip"
        mde = detectable(_spread(differences, weights), n, power=POWER, alpha=alpha)
        counts = {"n_differing": int(np.count_nonzero(differences))}
    per_row = a.name == "loss" and a.weight is None  # of a classifier
    result: dict[str, Any] = {"unit": "nats/row" if per_row else METRICS[a.name].unit}
    for name, interval in (("a", levels[0]), ("b", levels[1]), ("difference", change)):
        result |= {name: interval.value, f"{name}_interval": bounds(interval)}
    shown = mde if 0 < mde < math.inf else None
    return {**result, "p_value": p, "test": test, **counts, "mde": shown, "power": POWER, "n_items": n}


def _differences(a: Metric, b: Metric) -> tuple[np.ndarray, np.ndarray]:
    """(n,) numerators and weights whose ratio is value B - value A.

    Where the weights are equal, that is the items' differences over the common weights. Two tokenizers may weigh an
    item a little differently (the first token of a document has no loss): then each over its own.
    """
    weights = [metric.weights / metric.weights.mean() for metric in (a, b)]
    numerators = [metric.numerator / metric.weights.mean() for metric in (a, b)]
    return numerators[1] - numerators[0], (weights[0] + weights[1]) / 2


def _spread(differences: np.ndarray, weights: np.ndarray) -> float:
    """Standard deviation over items; 0 where there is none, also where it cannot be told, or is rounding."""
    if len(differences) < 2:
        return 0.0
    spread = float(np.std(influence(differences, weights), ddof=1))
    return spread if np.isfinite(spread) and spread > 1e-12 * np.abs(differences).max() else 0.0


def _level(metric: Metric, confidence: float, resamples: int) -> Interval:
    kind = METRICS[metric.name]
    found = ratio_interval(
        metric.numerator.astype(np.float64),
        metric.weights,
        positive=not kind.higher_is_better,
        confidence=confidence,
        resamples=resamples,
    )
    if kind.top is None or found.low is None or found.high is None:
        return found
    return Interval(found.value, max(found.low, 0.0), min(found.high, kind.top), found.n_items)


def bounds(interval: Interval) -> list[float] | None:
    """[low, high] for JSON, None where there are none."""
    return None if interval.low is None or interval.high is None else [interval.low, interval.high]
