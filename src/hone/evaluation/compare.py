"""`hone compare`: two runs, a run's base and tuned model, or two files of graded programs, on the same items.

Reads files only, no model: eval/<name>.items.json of runs, the results of `hone grade`. Two models measured on
different items are refused, because then chance in the items looks like a difference of the models.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hone.data.sources import read_rows
from hone.errors import HoneError
from hone.evaluation.differences import contamination_note, other_items
from hone.grading.pass_at_k import passed_items
from hone.models.source import check_source
from hone.results import Comparison, Items
from hone.results.benchmarks import CodeMeasurement
from hone.runs import RESOLVED, Run, refuse_without_config
from hone.statistics.paired import Metric, compare_items, compare_metrics, metrics_of

SAME_ITEMS = "measure both on the same rows: the same validation_file, template, max_length and eval settings"


@dataclass(frozen=True)
class Measured:
    """One model: its name, its metrics, what an item is, and what tells whether the items are another model's too.

    fingerprint: of the items' texts, None where it is not known. folder: of a run. ids: of graded tasks.
    """

    name: str
    metrics: dict[str, Metric]
    item: str
    fingerprint: str | None = None
    folder: Path | None = None
    ids: list[str] = field(default_factory=list)


def compare(a: "Run | str | Path", b: "Run | str | Path | None" = None, *, confidence: float = 0.95) -> Comparison:
    """How B compares with A, or, of one run alone, its tuned model with its base.

    Raises:
        HoneError: something is not there, or the items differ.
    """
    first = _path(a)
    if b is None:
        refuse_other_things(first)
        left, right = of_run(first, "base"), of_run(first, "tuned")
    else:
        left, right = measured(first), measured(_path(b))
    only_a, only_b = [i for i in left.ids if i not in set(right.ids)], [i for i in right.ids if i not in set(left.ids)]
    left, right = same_items(left, right)
    metrics = compare_metrics(left.metrics, right.metrics, confidence=confidence)
    if not metrics:
        raise HoneError(f"no metric in common with {left.name}", where=right.name, fix="compare alike tasks")
    return Comparison(
        a=left.name if b is not None else "base",
        b=right.name if b is not None else "tuned",
        item=left.item,
        n_items=next(iter(metrics.values())).n_items,
        confidence_level=confidence,
        metrics=metrics,
        only_in_a=only_a,
        only_in_b=only_b,
        notes=[note] if (note := _contamination(left, right)) else [],
    )


def _contamination(a: Measured, b: Measured) -> str:
    """What differs between two runs that were measured on the same items; nothing of base and tuned of one."""
    return contamination_note(a.folder, b.folder) if a.folder and b.folder and a.folder != b.folder else ""


def compare_code(
    a: "Run | str | Path", b: "Run | str | Path | None" = None, *, confidence: float = 0.95
) -> Comparison | None:
    """The same two by the unit tests of their programs; None where not both were asked the same tasks in one way."""
    first, second = _path(a), _path(a if b is None else b)
    if not (first.is_dir() and second.is_dir()):
        return None
    before = Run(first).read(CodeMeasurement, "base.code" if b is None else "tuned.code")
    after = Run(second).read(CodeMeasurement, "tuned.code")
    if before is None or after is None or before.about != after.about:
        return None
    common = [task for task in before.passed if task in after.passed]
    if not common:
        return None
    left, right = (passed_items({task: found.passed[task] for task in common}) for found in (before, after))
    found = compare_items(left, right, confidence=confidence)
    return found.model_copy(update={} if b is None else {"a": str(first), "b": str(second)})


def _path(source: "Run | str | Path") -> Path:
    return source.folder if isinstance(source, Run) else Path(source)


def measured(path: Path) -> Measured:
    """The tuned model of a run folder, or the graded programs of a file."""
    refuse_other_things(path)
    return of_run(path, "tuned") if path.is_dir() else of_results(path)


def refuse_other_things(path: Path) -> None:
    """Raise a HoneError for the name of a model: what is compared are measurements that lie on the disk."""
    refuse_without_config(path)
    is_model = (path / "config.json").is_file() and not (path / RESOLVED).is_file()
    if path.exists() and not is_model:
        return
    if not is_model and not path.suffix:
        check_source(str(path))  # says it of what cannot be a name of the hub
    what = "is a model, not a run" if is_model else "no such run folder, and no file of graded programs"
    fix = "`hone runs` lists your runs; models are measured one by one on the same rows: "
    raise HoneError(what, where=str(path), fix=f"{fix}hone eval {path} eval.jsonl")


def of_run(folder: Path, name: str) -> Measured:
    """The model `name` (base or tuned) of a run."""
    items = Run(folder).read(Items, f"{name}.items")
    if items is None:
        fix = "let `hone train` finish it with validation data (validation_file=… or validation_split_percentage=10)"
        if folder.is_file():
            fix = "two files of graded programs can be compared, one run, or two"
        raise HoneError(
            f"holds no measurement of its {name} model (eval/{name}.items.json)", where=str(folder), fix=fix
        )
    called = str(folder) if name == "tuned" else f"{folder} ({name})"
    return Measured(called, metrics_of(items), items.item, items.fingerprint, folder)


def of_results(path: Path) -> Measured:
    """Graded programs, by task: the share of its samples that passed."""
    passed: dict[str, list[bool]] = {}
    for row in read_rows([path], on_bad_row="error", on_skip=lambda reason, where: None):
        task, verdict = row.columns.get("task_id"), row.columns.get("passed")
        if task is None or not isinstance(verdict, bool):
            fix = "name a run folder, or the file of results that `hone grade TASKS SAMPLES` wrote (*_results.jsonl)"
            raise HoneError("a graded program has `task_id` and `passed`", where=row.where, fix=fix)
        passed.setdefault(str(task), []).append(verdict)
    if not passed:
        raise HoneError("no results", where=str(path), fix="grade some samples: hone grade TASKS SAMPLES")
    items = passed_items(passed)
    return Measured(str(path), metrics_of(items), items.item, ids=list(passed))


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
        raise _other_items(f"measured on {n[1]:,} {b.item}s, and {a.name} on {n[0]:,} {a.item}s", a, b)
    common = [name for name in a.metrics if name in b.metrics]
    alike = [name for name in common if np.array_equal(a.metrics[name].weights, b.metrics[name].weights)]
    known = a.fingerprint is not None and b.fingerprint is not None
    if (a.fingerprint != b.fingerprint) if known else alike != common:
        raise _other_items(f"measured on other {b.item}s than {a.name}", a, b)
    kept = [name for name in common if name in alike or _comparable(a.metrics[name], b.metrics[name])]
    return _with_metrics(a, kept), _with_metrics(b, kept)


def _other_items(what: str, a: Measured, b: Measured) -> HoneError:
    """The refusal, with what is known of why."""
    known = other_items(a.folder, b.folder) if a.folder and b.folder else None
    why, fix = known or ("", SAME_ITEMS)
    return HoneError(f"{what}: {why}" if why else what, where=b.name, fix=fix)


def _comparable(a: Metric, b: Metric) -> bool:
    """Whether items that weigh differently can be compared: the same texts in other tokens, but no loss per token."""
    return len(a.numerator) == len(b.numerator) and not (a.kind.per_token or b.kind.per_token)


def _with_metrics(side: Measured, names: list[str]) -> Measured:
    return replace(side, metrics={name: side.metrics[name] for name in names})


def _chosen(side: Measured, tasks: list[str]) -> Measured:
    place = {task: i for i, task in enumerate(side.ids)}
    at = [place[task] for task in tasks]
    kept = {name: Metric(metric.kind, metric.numerator[at]) for name, metric in side.metrics.items()}
    return replace(side, metrics=kept, ids=tasks)
