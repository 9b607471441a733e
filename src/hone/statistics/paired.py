"""Two models on the same items, metric by metric: difference, interval, p, minimum detectable effect, and a verdict.

The one rule of "better", for a training's own before and after, for programs and for `hone compare`: B is better (or
worse) than A where p, adjusted for the number of metrics, is below 1 - confidence, and the interval of the difference
leaves 0 out. Everything else is "not distinguishable", which is not the same as "no change": the minimum detectable
effect says how large a change had to be to be found. The formulas are in `statistics.intervals`; what a metric is, its
`Kind` says, which stands where the metric is measured.

>>> kind = Kind(heading="passed", higher_is_better=True, top=1.0)
>>> a, b = (Metric(kind, np.array(answers)) for answers in ([0, 0, 0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1, 1, 1]))
>>> found = compare_metrics({"passed": a}, {"passed": b})["passed"]
>>> found.difference.value, found.p_value, found.verdict
(0.875, 0.015625, 'better')
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from hone.errors import HoneError
from hone.results import Comparison, Difference, Estimate, Items, ItemValues, Kind, Level, Verdict, level_of
from hone.statistics.intervals import (
    holm,
    influence,
    mcnemar,
    mean_test,
    minimum_detectable_mean,
    minimum_detectable_share,
    ratio_interval,
    share_difference_interval,
    sign_flip,
    wilson_interval,
)

POWER = 0.8  # the chance with which the minimum detectable effect is found


@dataclass(frozen=True)
class Metric:
    """A metric on each item: sum(numerator) / sum(weight) is its value; both (n,), weight 1 where not given."""

    kind: Kind
    numerator: np.ndarray
    weight: np.ndarray | None = None

    @property
    def weights(self) -> np.ndarray:
        return np.ones(len(self.numerator)) if self.weight is None else self.weight.astype(np.float64)

    @property
    def yes_no(self) -> bool:
        """Whether each item is right or wrong."""
        return self.weight is None and bool(np.isin(self.numerator, (0, 1)).all())


def metrics_of(items: Items) -> dict[str, Metric]:
    """The metrics of an eval/<name>.items.json; the first one is the headline."""
    return {
        name: Metric(found.kind, np.array(found.numerator), None if found.weight is None else np.array(found.weight))
        for name, found in items.metrics.items()
    }


def items_of(item: str, metrics: Mapping[str, Metric]) -> Items:
    """What `metrics_of` reads."""
    lists = {
        name: ItemValues(
            kind=metric.kind,
            numerator=metric.numerator.tolist(),
            weight=None if metric.weight is None else metric.weight.tolist(),
        )
        for name, metric in metrics.items()
    }
    return Items(item=item, metrics=lists)


def level(metric: Metric, *, confidence: float = 0.95, resamples: int = 2000) -> Level:
    """One model's value as its file has it."""
    return level_of(metric.kind, estimate(metric, confidence=confidence, resamples=resamples))


def estimate(metric: Metric, *, confidence: float = 0.95, resamples: int = 2000) -> Estimate:
    """One model's value, with an interval over items that stays in the metric's range.

    Raises:
        HoneError: the model gave something that is not a number.
    """
    n, kind = len(metric.numerator), metric.kind
    if wrong := n - int(np.isfinite(metric.numerator).sum()):
        what = f"the {kind.heading} of {wrong:,} of {n:,} items is not a number"
        raise HoneError(
            what, fix="the model is damaged, or its numbers overflow: try bf16=false, or a lower learning_rate"
        )
    found = ratio_interval(
        metric.numerator.astype(np.float64),
        metric.weights,
        positive=not kind.higher_is_better,
        confidence=confidence,
        resamples=resamples,
    )
    if kind.top is None or found.low is None or found.high is None:
        return found
    return Estimate(value=found.value, low=max(found.low, 0.0), high=min(found.high, kind.top))


def compare_items(
    a: Items, b: Items, names: tuple[str, str] = ("base", "tuned"), *, confidence: float = 0.95, resamples: int = 2000
) -> Comparison:
    """Two models of which the numbers of the same items are given."""
    found = compare_metrics(metrics_of(a), metrics_of(b), confidence=confidence, resamples=resamples)
    n_items = next(iter(found.values())).n_items
    return Comparison(a=names[0], b=names[1], item=b.item, n_items=n_items, confidence_level=confidence, metrics=found)


def compare_metrics(
    a: Mapping[str, Metric], b: Mapping[str, Metric], *, confidence: float = 0.95, resamples: int = 2000
) -> dict[str, Difference]:
    """What `paired` finds of each metric that both have, p adjusted for their number (Holm): how B compares with A.

    A metric in which so few items differ that its p cannot be below 1 - confidence can give no false alarm, so it
    does not count as one metric more (Tarone 1990); nor does one that restates another.
    """
    names = [name for name in a if name in b and a[name].kind.higher_is_better is not None]
    found = {name: paired(a[name], b[name], confidence=confidence, resamples=resamples) for name in names}
    counted = [name for name, one in found.items() if 2.0 ** (1 - one.n_differing) < 1 - confidence]
    p = adjusted({name: (one.p_value, one.kind) for name, one in found.items()}, counted)
    return {
        name: one.model_copy(
            update={"p_adjusted": p[name], "verdict": verdict(p[name], one.difference, one.kind, alpha=1 - confidence)}
        )
        for name, one in found.items()
    }


def adjusted(found: Mapping[str, tuple[float, Kind]], counted: Collection[str]) -> dict[str, float]:
    """The p of each metric, adjusted (Holm) for the number of those that count; one that restates another has its p."""
    p = {name: value for name, (value, kind) in found.items() if kind.restates not in found}
    tested = [name for name in p if name in counted]
    p |= zip(tested, holm([p[name] for name in tested]), strict=True)
    return {name: p[name if name in p else kind.restates or ""] for name, (_, kind) in found.items()}


def verdict(p: float, difference: Estimate, kind: Kind, *, alpha: float) -> Verdict:
    """How a model is that differs by this, with this (adjusted) p; a metric without a better side has no verdict."""
    bounds = difference.bounds
    if bounds is None or kind.higher_is_better is None or p >= alpha or bounds[0] <= 0 <= bounds[1]:
        return "not distinguishable"
    return "better" if (bounds[0] > 0) == kind.higher_is_better else "worse"


def paired(a: Metric, b: Metric, *, confidence: float = 0.95, resamples: int = 2000) -> Difference:
    """A and B with intervals, B - A with its interval, p, and the minimum detectable effect; p is not adjusted.

    Yes-or-no items: McNemar's exact test; shares: the sign flip; else `mean_test` of the differences. The minimum
    detectable effect is None where no difference could be found (fewer than 6 items) or none was seen to judge by
    (every item differs by the same).
    """
    n, kind, alpha = len(a.numerator), b.kind, 1 - confidence
    assert a.kind.heading == kind.heading and len(b.numerator) == n, "the same metric of the same items"
    only_a = only_b = None
    if a.yes_no and b.yes_no:
        right_a, right_b = a.numerator.astype(bool), b.numerator.astype(bool)
        only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
        levels = [wilson_interval(int(right.sum()), n, confidence) for right in (right_a, right_b)]
        change, n_differing = share_difference_interval(only_a, only_b, n, confidence), only_a + only_b
        p, test = mcnemar(only_a, only_b), "McNemar"
        effect = minimum_detectable_share(n, n_differing, power=POWER, alpha=alpha)
    else:
        levels = [estimate(metric, confidence=confidence, resamples=resamples) for metric in (a, b)]
        differences, weights = _differences(a, b)
        change = ratio_interval(differences, weights, confidence=confidence, resamples=resamples)
        n_differing = int(np.count_nonzero(differences))
        if kind.top == 1.0 and not n_differing:  # of a share: resampling zeros would claim certainty
            change = share_difference_interval(0, 0, n, confidence)
        # of shares no difference exceeds 1: a rare large one that turns the mean cannot hide
        p, test = sign_flip(differences) if kind.top == 1.0 else mean_test(differences, alpha), "sign flip"
        effect = minimum_detectable_mean(_spread(differences, weights), n, power=POWER, alpha=alpha)
    return Difference(
        kind=kind,
        a=levels[0],
        b=levels[1],
        difference=change,
        p_value=p,
        p_adjusted=p,
        test=test,
        minimum_detectable_effect=effect if 0 < effect < math.inf else None,
        power=POWER,
        n_items=n,
        n_differing=n_differing,
        only_a=only_a,
        only_b=only_b,
        verdict=verdict(p, change, kind, alpha=alpha),
    )


def _differences(a: Metric, b: Metric) -> tuple[np.ndarray, np.ndarray]:
    """(n,) numerators and weights whose ratio is value B - value A.

    Where the weights are equal, that is the items' differences over the common weights. Two tokenizers may weigh an
    item a little differently (the first token of a document has no loss): then each over its own.
    """
    weights = [metric.weights / metric.weights.mean() for metric in (a, b)]
    numerators = [metric.numerator / metric.weights.mean() for metric in (a, b)]
    return numerators[1] - numerators[0], (weights[0] + weights[1]) / 2


def _spread(differences: np.ndarray, weights: np.ndarray) -> float:
    """Standard deviation over items; 0 where there is none, also where it cannot be known, or is rounding."""
    if len(differences) < 2:
        return 0.0
    spread = float(np.std(influence(differences, weights), ddof=1))
    return spread if np.isfinite(spread) and spread > 1e-12 * np.abs(differences).max() else 0.0
