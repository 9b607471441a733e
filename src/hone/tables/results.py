"""Comparisons, repeated trainings, graded programs and public benchmarks as a terminal shows them."""

from pathlib import Path

from hone.errors import HoneError, printable
from hone.results import Comparison, Difference
from hone.results.benchmarks import CodeMeasurement, PassAtK, PublicScores
from hone.results.repeat import Repeat, RepeatedMetric, SeedChange
from hone.show import NO_INTERVAL, estimate, may_miss, plural, table

NONE = "[no interval]"


# ---- comparisons -----------------------------------------------------------------------------------------------------


def comparison_text(found: Comparison, code: Comparison | None = None) -> str:
    """What `hone compare` prints: a sentence, a row for each metric, and how they are to be read.

    Args:
        code: the same two by the unit tests of their programs.
    """
    return printable("\n\n".join([sentence(found, code), _metrics(found, code), "\n".join(_notes(found, code))]))


def sentence(found: Comparison, code: Comparison | None = None) -> str:
    """'tuned is better than base in pass rate and loss; not distinguishable in accuracy.'"""
    by_verdict: dict[str, list[str]] = {"better": [], "worse": [], "not distinguishable": []}
    for change in _changes(found, code).values():
        by_verdict[change.verdict].append(change.kind.heading)
    a, b = names(found)
    (first, headings), *rest = [(verdict, headings) for verdict, headings in by_verdict.items() if headings]
    if first == "not distinguishable":
        return f"{b} and {a} are not distinguishable in {_listed(headings)}."
    others = "".join(f"; {verdict} in {_listed(headings)}" for verdict, headings in rest)
    return f"{b} is {first} than {a} in {_listed(headings)}{others}."


def names(found: Comparison) -> tuple[str, str]:
    """What the two are called: their paths as given, of absolute ones the ends that tell them apart.

    >>> from hone.results import Comparison, Difference
    >>> names(Comparison.model_construct(a="/out/seed-1/run", b="/out/seed-2/run"))
    ('seed-1/run', 'seed-2/run')
    """
    if not (Path(found.a).is_absolute() or Path(found.b).is_absolute()):
        return found.a, found.b
    a, b = (Path(name).parts for name in (found.a, found.b))
    for n in range(1, max(len(a), len(b)) + 1):
        if a[-n:] != b[-n:]:
            return "/".join(a[-n:]), "/".join(b[-n:])
    return found.a, found.b


def _changes(found: Comparison, code: Comparison | None) -> dict[str, Difference]:
    return {**(code.metrics if code else {}), **found.metrics}


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _metrics(found: Comparison, code: Comparison | None) -> str:
    changes, (a, b) = _changes(found, code), names(found)
    several = any(change.p_adjusted != change.p_value for change in changes.values())
    heading = ["", a, b, f"{b} - {a}, paired", "p", *(["p, Holm"] if several else []), "MDE", f"{b} is"]
    rows = []
    for name, change in changes.items():
        form = change.kind.form
        called = f"{name} ({change.kind.unit})" if change.kind.unit else name  # as --fail-if-worse wants it
        levels = [estimate(level, form, NO_INTERVAL) for level in (change.a, change.b)]
        difference = estimate(change.difference, f"+{form}", NO_INTERVAL)
        p = [f"{p:.2g}" for p in (change.p_value, change.p_adjusted)[: 1 + several]]
        effect = change.minimum_detectable_effect
        rows.append([called, *levels, difference, *p, "-" if effect is None else f"{effect:.2g}", change.verdict])
    return table(heading, rows)


def _notes(found: Comparison, code: Comparison | None) -> list[str]:
    """How the table is to be read, and what was left out of it."""
    level, item = found.confidence_level, found.item
    a, b = names(found)
    notes = [
        f"over {plural(found.n_items, item)}, the same for both; in brackets {level:.0%} intervals over {item}s; "
        f"MDE: the minimum detectable effect, which so many {item}s show 8 times in 10"
    ]
    if code:
        notes.append(f"{_listed([change.kind.heading for change in code.metrics.values()])}: over "
                     f"{plural(code.n_items, code.item)}, by the unit tests of the programs")  # fmt: skip
    for side, left_out in ((a, found.only_in_a), (b, found.only_in_b)):
        if left_out:
            notes.append(f"left out: {len(left_out):,} {item}s that only {side} has, as {left_out[0]}")
    for note in found.notes:
        for full, short in sorted([(found.a, a), (found.b, b)], key=lambda pair: -len(pair[0])):
            note = note.replace(full, short)
        notes.append(note)
    if 2.0 ** (1 - found.n_items) >= 1 - level:
        notes.append("so few items cannot show any difference: hold more out, or grade more tasks")
    return [*notes, *filter(None, [may_miss(found)])]


def worse(found: Comparison, metric: str, code: Comparison | None = None) -> str | None:
    """Why `--fail-if-worse METRIC` fails; None where B is not worse, as far as the items show.

    Raises:
        HoneError: the metric was not compared.
    """
    changes = _changes(found, code)
    change = changes.get(metric)
    if change is None:
        what = f"'{metric}' was not compared"
        raise HoneError(what, where="--fail-if-worse", fix=f"name one of {', '.join(changes)}")
    if change.verdict != "worse":
        return None
    difference = estimate(change.difference, f"+{change.kind.form}", NO_INTERVAL)
    return f"{metric} is worse: {difference} {change.kind.noun}, p = {change.p_adjusted:.2g}"


# ---- repeated trainings ----------------------------------------------------------------------------------------------


def repeat_text(found: Repeat, folder: Path | None = None) -> str:
    """The seeds one by one, then what they show together; of `hone.training.repeat.repeat`."""
    rows = [
        [
            f"{run.seed}",
            estimate(run.tuned, ".4f"),
            estimate(run.change, "+.4f"),
            run.verdict or "-",
            "-" if run.seconds is None else f"{run.seconds:.0f} s",
        ]
        for run in found.runs
    ]
    metric = found.metrics[found.headline]
    header = ["seed", f"tuned ({metric.kind.noun})", "tuned - base, paired", "verdict", "time"]
    parts = [table(header, rows), "\n".join(_together(found))]
    return "\n\n".join([*parts, f"runs and repeat.json: {folder}"] if folder else parts)


def _together(found: Repeat) -> list[str]:
    """All seeds together, in sentences."""
    metric = found.metrics[found.headline]
    tuned, change, item = metric.tuned, metric.change, metric.item
    level = f"{found.confidence_level:.0%}"
    lines = [
        f"each over the same {tuned.n_items:,} held-out {item}s; in brackets {level} intervals over {item}s",
        f"the seed changes: {', '.join(found.seed_changes)}; not which {item}s are held out "
        f"(split_seed {found.split_seed})",
    ]
    if found.base_depends_on_seed:
        lines.append("the base has random weights too: each seed is compared with its own start")
    for seed, spread in found.same_seed_spread.items():
        lines.append(f"seed {seed} trained again: values at most {spread:.2g} apart")
    mean = estimate(tuned.mean, ".4f", NONE)
    lines += ["", f"tuned: mean {mean} {metric.kind.noun} over {_over(metric)}"]
    lines += [_mean_change(metric, change)] if change else []
    if tuned.n_seeds < 2:
        lines.append("one seed: the seed variance is unknown, so the change cannot be told from it")
    elif change:
        lines += _what_seeds_show(change, level)
    for name, other in found.metrics.items():
        if name != found.headline and other.change:
            lines.append(f"also {_mean_change(other, other.change)}")
    return lines


def _over(metric: RepeatedMetric) -> str:
    return f"{plural(metric.tuned.n_seeds, 'seed')} and {plural(metric.tuned.n_items, metric.item)}"


def _mean_change(metric: RepeatedMetric, change: SeedChange) -> str:
    """'tuned - base: mean -1.3091 [-1.3546, -1.2635] nats/token over 6 seeds and 30 documents: better'."""
    mean = estimate(change.mean, "+.4f", NONE)
    return f"tuned - base: mean {mean} {metric.kind.noun} over {_over(metric)}: {change.verdict}"


def _what_seeds_show(change: SeedChange, level: str) -> list[str]:
    """How much is the seeds' doing, and what so many seeds can and cannot show."""
    lines = [
        f"over the {change.n_seeds} seeds alone {estimate(change.mean_on_these_items, '+.4f', NONE)}, "
        f"from {change.lowest:+.4f} to {change.highest:+.4f}; "
        f"standard deviation {estimate(change.standard_deviation, '.2g', NONE)}"
    ]
    if change.over_seed_noise is not None:
        lines.append(
            f"the change is {change.over_seed_noise:.1f} times that; two single trainings of these settings differ by "
            f"up to {change.one_seed_noise:.2g} by their seeds alone ({level})"
        )
    few = "" if change.smallest_sign_flip_p < 0.05 else "; 6 are the fewest for p < 0.05"
    lines.append(
        f"p = {change.sign_flip_p:.2g} by flipping the signs of {change.n_seeds} seeds, which cannot give less than "
        f"{change.smallest_sign_flip_p:.2g}{few}"
    )
    if change.minimum_detectable_effect is not None:
        lines.append(
            f"so many seeds and items show a change of {change.minimum_detectable_effect:.2g} four times in five, "
            "smaller ones more seldom"
        )
    return lines


# ---- programs and benchmarks -----------------------------------------------------------------------------------------


def code_text(found: CodeMeasurement) -> str:
    """pass@k with intervals, verdicts, how programs and tests were kept apart, how the answers came about."""
    n = found.n_samples
    rows = [[printable(verdict), f"{count}", f"{count / n:.1%}"] for verdict, count in found.verdicts.items()]
    notes = [f"{plural(n, 'sample')} of {plural(found.n_tasks, 'task')}; in brackets 95% intervals over tasks"]
    if alone := found.trust.get("same-process"):
        parts = [f"{trust}: {', '.join(_pass_rates(rates))}" for trust, rates in found.pass_at_k_by_trust.items()]
        notes.append(
            f"{alone} samples shared a process with their tests, which need the program's own objects: "
            f"a program could fake that verdict\n  " + "\n  ".join(parts)
        )
    if missing := found.tasks_without_samples:
        names = ", ".join(map(printable, missing[:3])) + (" …" if len(missing) > 3 else "")
        notes.append(f"note: {len(missing)} tasks have no sample and are not counted: {names}")
    if "none" in found.isolation:
        notes.append("isolation: NONE: the programs ran as you")
    rates = "\n".join(_pass_rates(found.pass_at_k))
    return "\n\n".join(
        [rates, table(["verdict", "samples", "share"], rows), "\n".join([*notes, *_how_answered(found)])]
    )


def _pass_rates(found: dict[int, PassAtK]) -> list[str]:
    lines = []
    for k, rate in found.items():
        few = f" ({rate.n_too_few} of {rate.n_tasks} tasks have fewer than {k} samples)" if rate.n_too_few else ""
        lines.append(f"pass@{k}: {estimate(rate.estimate, '.3f')}{few}")
    return lines


def _how_answered(found: CodeMeasurement) -> list[str]:
    """How the answers came about, and whether they were too short to be judged."""
    if found.about is None:
        return []
    drawn = found.about.settings
    lines = [
        f"asked by the template {found.about.template}; temperature {drawn.temperature:g}, top_p {drawn.top_p:g}, "
        f"at most {drawn.max_new_tokens} new tokens"
    ]
    if found.n_at_limit:
        lines.append(
            f"note: {found.n_at_limit} of {found.n_samples} answers were cut off there; "
            f"a higher max_new_tokens may pass more"
        )
    if no_room := found.verdicts.get("no-room"):
        lines.append(
            f"note: {no_room} answers were not asked for: the prompt fills the model's window. They count as failed"
        )
    return lines


def public_text(found: PublicScores) -> str:
    """A row for each number of lm-eval's: task, metric, value with its interval, items."""
    rows = [
        [task, metric, estimate(score, ".4f", "[lm-eval gives no error]"), f"{score.n_items:,}"]
        for task, scores in found.tasks.items()
        for metric, score in scores.items()
    ]
    note = f"in brackets {found.confidence_level:.0%} intervals; lm-eval {found.versions['lm-eval']}"
    if found.limit is not None:
        note += f"; the first {found.limit} items only: no benchmark result"
    return f"{table(['task', 'metric', 'value', 'items'], rows)}\n{note}"
