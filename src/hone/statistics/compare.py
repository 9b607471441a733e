"""`hone compare`: two runs, a run's base and tuned model, or two files of graded programs, on the same items.

Reads files only, no model: eval/<name>.items.json of runs, the results of `hone grade`. Two models measured on
different items are refused, because then luck with the items looks like a difference of the models.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.errors import HoneError
from hone.runs import Run
from hone.statistics.paired import METRICS, Metric, compare_metrics, metrics_of

if TYPE_CHECKING:
    from collections.abc import Mapping

SAME_ITEMS = "measure both on the same rows: the same validation_file, template, max_length and eval settings"


@dataclass(frozen=True)
class Measured:
    """One model: its name, its metrics, what an item is, and what tells whether the items are another model's too.

    fingerprint: of the items' texts, None in older runs. sizes: (n,) tokens of each item. ids: of graded tasks.
    """

    name: str
    metrics: dict[str, Metric]
    item: str
    fingerprint: str | None = None
    sizes: np.ndarray | None = None
    ids: list[str] = field(default_factory=list)


def compare(a: "Run | str | Path", b: "Run | str | Path | None" = None, *, confidence: float = 0.95) -> dict[str, Any]:
    """How B is beside A, or, of one run alone, its tuned model beside its base.

    Returns:
        a, b (names); metrics, name -> values, intervals, difference, p, mde and verdict (`statistics.paired`);
        sentence; verdict, the first metric's; n_items, item; only_in_a, only_in_b (graded tasks that only one has).

    Raises:
        HoneError: something is not there, or the items differ.
    """
    first = _path(a)
    if b is None:
        left, right = of_run(first, "base"), of_run(first, "tuned")
    else:
        left, right = measured(first), measured(_path(b))
    only_a, only_b = [i for i in left.ids if i not in set(right.ids)], [i for i in right.ids if i not in set(left.ids)]
    left, right = same_items(left, right)
    metrics = compare_metrics(left.metrics, right.metrics, confidence=confidence)
    if not metrics:
        has = ", ".join(left.metrics), ", ".join(right.metrics)
        raise HoneError(f"no metric in common: {has[0]} beside {has[1]}", where=right.name, fix="compare alike tasks")
    headline = next(iter(metrics.values()))
    return {
        "a": left.name,
        "b": right.name,
        "sentence": sentence(left.name, right.name, metrics),
        "verdict": headline["verdict"],
        "n_items": headline["n_items"],
        "item": left.item,
        "confidence_level": confidence,
        "only_in_a": only_a,
        "only_in_b": only_b,
        "metrics": metrics,
    }


def _path(source: "Run | str | Path") -> Path:
    return source.folder if isinstance(source, Run) else Path(source)


def measured(path: Path) -> Measured:
    """The tuned model of a run folder, or the graded programs of a file."""
    return of_run(path, "tuned") if path.is_dir() else of_results(path)


def of_run(folder: Path, name: str) -> Measured:
    """The model `name` (base or tuned) of a run."""
    run = Run(folder)
    if not folder.exists():
        raise HoneError("no such folder", where=str(folder), fix="name a run folder; `hone runs` lists them")
    items = run.read_eval(f"{name}.items")
    if items is None:
        fix = "let `hone train` finish it with validation data (validation_file=… or validation_split_percentage=10)"
        if folder.is_file():
            fix = "two files of graded programs can be compared, one run, or two"
        raise HoneError(
            f"holds no measurement of its {name} model (eval/{name}.items.json)", where=str(folder), fix=fix
        )
    where = str(folder / "eval" / f"{name}.items.json")
    try:
        metrics = metrics_of(items)
        sizes = np.array(items.get("n_tokens", items.get("true")))
        for metric in metrics.values():
            if metric.name not in METRICS:
                raise ValueError(f"{metric.name!r} is no metric")
            if metric.numerator.shape != metric.weights.shape or not np.isfinite(metric.numerator).all():
                raise ValueError(f"{metric.name}: lists of different lengths, or values that are no numbers")
            if not (np.isfinite(metric.weights).all() and (metric.weights >= 0).all() and metric.weights.sum() > 0):
                raise ValueError(f"{metric.name}: tokens or bytes below 0, or none at all")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        fix = "remove the folder eval/ there, and give the same `hone train` command again"
        raise HoneError(f"not the numbers of items ({error})", where=where, fix=fix) from error
    told = str(folder) if name == "tuned" else f"{folder} ({name})"
    return Measured(told, metrics, str(items.get("kind", "item")), items.get("fingerprint"), sizes)


def of_results(path: Path) -> Measured:
    """Graded programs, by task: the share of its samples that passed."""
    from hone.data.sources import read_rows

    passed: dict[str, list[bool]] = {}
    for row in read_rows([path], on_bad_row="error", on_skip=lambda reason, where: None):
        task, verdict = row.columns.get("task_id"), row.columns.get("passed")
        if task is None or not isinstance(verdict, bool):
            fix = "name a run folder, or the file of results that `hone grade TASKS SAMPLES` wrote (*_results.jsonl)"
            raise HoneError("a graded program has `task_id` and `passed`", where=row.where, fix=fix)
        passed.setdefault(str(task), []).append(verdict)
    if not passed:
        raise HoneError("no results", where=str(path), fix="grade some samples: hone grade TASKS SAMPLES")
    shares = np.array([np.mean(verdicts) for verdicts in passed.values()])
    return Measured(str(path), {"passed": Metric("passed", shares)}, "task", ids=list(passed))


def same_items(a: Measured, b: Measured) -> tuple[Measured, Measured]:
    """Both on the items that both have, in one order, with the metrics that can be compared.

    Raises:
        HoneError: they were measured on different items.
    """
    if bool(a.ids) != bool(b.ids):
        raise HoneError("a run and a file of graded programs have nothing in common", where=b.name, fix=SAME_ITEMS)
    if a.ids:
        both = [task for task in a.ids if task in set(b.ids)]
        if not both:
            fix = f"grade both on the same tasks (the first are '{a.ids[0]}' and '{b.ids[0]}')"
            raise HoneError(f"no task is also in {a.name}", where=b.name, fix=fix)
        return _chosen(a, both), _chosen(b, both)
    n = [len(next(iter(side.metrics.values())).numerator) for side in (a, b)]
    if a.item != b.item or n[0] != n[1]:
        what = f"measured on {n[1]:,} {b.item}s, and {a.name} on {n[0]:,} {a.item}s"
        raise HoneError(what, where=b.name, fix=SAME_ITEMS)
    alike = np.array_equal(a.sizes, b.sizes)  # type: ignore[arg-type]
    known = a.fingerprint is not None and b.fingerprint is not None
    if (a.fingerprint != b.fingerprint) if known else not alike:
        raise HoneError(f"measured on other {b.item}s than {a.name}", where=b.name, fix=SAME_ITEMS)
    if "accuracy" in a.metrics or alike:
        return a, b
    return _without_tokens(a), _without_tokens(b)


def _chosen(side: Measured, tasks: list[str]) -> Measured:
    at = {task: i for i, task in enumerate(side.ids)}
    chosen = side.metrics["passed"].numerator[[at[task] for task in tasks]]
    return Measured(side.name, {"passed": Metric("passed", chosen)}, side.item, ids=tasks)


def _without_tokens(side: Measured) -> Measured:
    """The same texts in other tokens: a loss per token would compare the tokenizers."""
    kept = {name: metric for name, metric in side.metrics.items() if name != "loss"}
    return Measured(side.name, kept, side.item, side.fingerprint, side.sizes, side.ids)


def sentence(a: str, b: str, metrics: "Mapping[str, dict[str, Any]]") -> str:
    """'out/b is better than out/a in accuracy; not distinguishable in loss.'"""
    said: dict[str, list[str]] = {"better": [], "worse": [], "not distinguishable": []}
    for name, result in metrics.items():
        said[result["verdict"]].append(spoken(name))
    if len(said["not distinguishable"]) == len(metrics):
        return f"{b} and {a} are not distinguishable in {_listed(said['not distinguishable'])}."
    (first, names), *rest = [(verdict, names) for verdict, names in said.items() if names]
    others = "".join(f"; {verdict} in {_listed(names)}" for verdict, names in rest)
    return f"{b} is {first} than {a} in {_listed(names)}{others}."


def spoken(name: str) -> str:
    """A metric's name in a sentence."""
    return name.replace("_", " ") if METRICS[name].unit.find("/") > 0 else METRICS[name].unit


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def table_of(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Heading and rows of what `compare` returns: a metric each, numbers with their intervals."""
    several = any(found["p_adjusted"] != found["p_value"] for found in result["metrics"].values())
    heading = ["", "A", "B", "B - A, paired", "p", *(["p, Holm"] if several else []), "shows from", "B is"]
    rows = []
    for name, found in result["metrics"].items():
        called = f"{name} ({found['unit']})" if name == "loss" else name  # as --fail-if-worse wants it
        values = [with_interval(found, key, sign) for key, sign in (("a", ""), ("b", ""), ("difference", "+"))]
        p = [f"{found[key]:.2g}" for key in ("p_value", "p_adjusted")[: 1 + several]]
        mde = "-" if found["mde"] is None else f"{found['mde']:.2g}"
        rows.append([called, *values, *p, mde, found["verdict"]])
    return heading, rows


def with_interval(found: dict[str, Any], key: str, sign: str = "") -> str:
    """'3.120 [3.010, 3.240]'."""
    interval = found[f"{key}_interval"]
    told = f" [{interval[0]:{sign}.3f}, {interval[1]:{sign}.3f}]" if interval else " [one item: no interval]"
    return f"{found[key]:{sign}.3f}{told}"


def notes(result: dict[str, Any]) -> list[str]:
    """How the table is to be read, and what was left out of it."""
    level, item = result["confidence_level"], result["item"]
    told = [
        f"over {result['n_items']:,} {item}s, the same for both; in brackets {level:.0%} intervals over {item}s; "
        f"'shows from': the smallest change that so many {item}s show 8 times in 10"
    ]
    for side, key in (("A", "only_in_a"), ("B", "only_in_b")):
        if left_out := result[key]:
            told.append(f"left out: {len(left_out):,} {item}s that only {side} has, as {left_out[0]}")
    if 2.0 ** (1 - result["n_items"]) >= 1 - level:
        told.append("so few items cannot show any difference: hold more out, or grade more tasks")
    return told


def failed(result: dict[str, Any], metric: str) -> str | None:
    """Why `--fail-if-worse METRIC` fails; None where B is not worse, as far as it can be told.

    Raises:
        HoneError: the metric was not compared.
    """
    found = result["metrics"].get(metric)
    if found is None:
        what = f"'{metric}' was not compared"
        raise HoneError(what, where="--fail-if-worse", fix=f"name one of {', '.join(result['metrics'])}")
    if found["verdict"] != "worse":
        return None
    return (
        f"{metric} is worse: {with_interval(found, 'difference', '+')} {found['unit']}, p = {found['p_adjusted']:.2g}"
    )
