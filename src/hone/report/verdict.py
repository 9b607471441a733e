"""The first sentence of a report, of a model card and of the terminal: better, worse, or what kept it from being known.

What the user asked for comes first: programs that pass their tests, then the headline of the held-out items (accuracy
of a classifier), then the loss. It never says more than was measured.
"""

from hone.report.blocks import Verdict
from hone.report.folder import Folder
from hone.report.paths import tidied
from hone.report.text import estimate, p_text
from hone.results import Comparison, Difference, Kind
from hone.results.repeat import Repeat
from hone.runs import living_status
from hone.show import least_p, plural, shows, too_few

TONES = {"better": "good", "worse": "bad"}


def verdict_of(folder: Folder) -> Verdict:
    """What happened, in one sentence; and in one more for each other thing that was measured."""
    state = living_status(folder.status)
    if folder.repeat is not None and not folder.measured:
        return _repeated(folder.repeat)
    if state != "finished" and folder.tuned is None:
        return _unfinished(folder, state)
    if found := [*_programs(folder), *_held_out(folder.comparison)]:
        (first, sentence), *others = found
        also = tuple(f"{verdict.capitalize()}: {rest}." for verdict, rest in others)
        return Verdict(first.capitalize(), sentence, TONES.get(first, "open"), also)
    if not folder.measured:
        return Verdict("Not measured", "there are no held-out numbers, so the change is unknown")
    return Verdict("Not compared", _alone(folder))


def _unfinished(folder: Folder, state: str) -> Verdict:
    last = folder.metrics[-1].get("step") if folder.metrics else None
    place = f"at step {last:,}" if last is not None else "before its first log line"
    again = "the same `hone train` command goes on from its last checkpoint"
    if state == "failed":
        why = tidied(str(folder.status.get("error") or "no reason was written"), folder)
        return Verdict("Failed", f"{place}: {why}", "bad")
    if state in ("interrupted", "killed"):
        return Verdict(state.capitalize(), f"{place}; {again}", "bad")
    if state == "running":
        return Verdict("Still running", f"last seen {place}")
    return Verdict("Unknown", f"the folder has no status; the last log line is {place}")


def _alone(folder: Folder) -> str:
    """Only one of the two was measured, or their comparison is lost."""
    parts = []
    for name, found in folder.measured.items():
        level = next(iter(found.metrics.values()))
        article = "an" if level.kind.heading[0].lower() in "aeiou" else "a"
        parts.append(f"{name} has {article} {level.kind.heading} of {estimate(level, level.kind.form)}")
    last = folder.tuned or folder.base
    over = f" over {plural(last.n_items, f'held-out {last.item}')}" if last else ""
    why = "the base was not measured" if folder.base is None else "the tuned model was not measured"
    if folder.base and folder.tuned:
        why = "their paired comparison is missing"
    return f"{why}, so the change is unknown; {' and '.join(parts)}{over}"


# ---- a verdict and its sentence, for each thing that was compared ----------------------------------------------------


def passing(folder: Folder) -> tuple[int, int, int] | None:
    """Tasks that base and tuned solve, of how many; None without both, or where a task has more than one answer."""
    base, tuned = (folder.code.get(name) for name in ("base", "tuned"))
    if folder.code_comparison is None or base is None or tuned is None:
        return None
    common = [task for task in base.passed if task in tuned.passed]
    if any(len(found.passed[task]) != 1 for found in (base, tuned) for task in common):
        return None
    before, after = (sum(found.passed[task][0] for task in common) for found in (base, tuned))
    return before, after, len(common)


def _programs(folder: Folder) -> list[tuple[str, str]]:
    found = folder.code_comparison
    if found is None:
        return []
    change = found.metrics[found.headline]
    if counts := passing(folder):
        before, after, n = counts
        sentence = f"{before:,} → {after:,} of {plural(n, found.item)} pass"
        if change.only_a:
            sentence += f" ({change.only_b:,} newly, {change.only_a:,} no longer)"
    else:
        sentence = f"{_moved(change)} over {plural(found.n_items, found.item)}"
    return [(change.verdict, sentence + _evidence(change, found))]


def _held_out(found: Comparison | None) -> list[tuple[str, str]]:
    """The headline, and the loss where it is not the headline."""
    if found is None:
        return []
    names = dict.fromkeys([found.headline, *(["loss"] if "loss" in found.metrics else [])])
    over = f" over {plural(found.n_items, f'held-out {found.item}')}"
    changes = [found.metrics[name] for name in names]
    return [(change.verdict, f"{_moved(change)}{over}{_evidence(change, found)}") for change in changes]


def _moved(found: Difference) -> str:
    """'loss fell by 1.250 [1.100, 1.400] nats a token'; 'changed by' where the items do not show which way."""
    change, kind = found.difference, found.kind
    if found.verdict in TONES:
        word, size = ("fell", change.negated()) if change.value < 0 else ("rose", change)
        return f"{kind.heading} {word} by {estimate(size, kind.form)}{_unit(kind)}"
    return f"{kind.heading} changed by {estimate(change, f'+{kind.form}')}{_unit(kind)}"


def _evidence(found: Difference, comparison: Comparison) -> str:
    """'; p = 0.017'; and where nothing was shown, what so many items could have shown."""
    evidence = f"; p {p_text(found.p_adjusted)}"
    if found.verdict in TONES:
        return evidence
    shown = shows(found, comparison.item, comparison.confidence_level)
    return "; ".join(filter(None, [evidence, shown, _halves(found, comparison)]))


def _halves(found: Difference, comparison: Comparison) -> str:
    """Why nothing is shown although the interval leaves out 0: p has to be small as well."""
    bounds, alpha = found.difference.bounds, 1 - comparison.confidence_level
    if bounds is None or bounds[0] <= 0 <= bounds[1] or found.p_adjusted < alpha:
        return ""
    both = f"both must hold: the interval leaves out 0 and p <\N{NO-BREAK SPACE}{alpha:.2g}"
    if not too_few(found.n_items, comparison.confidence_level):
        return both
    least = p_text(least_p(found.n_items)).removeprefix("=\N{NO-BREAK SPACE}")
    return f"{both}, and with {plural(found.n_items, comparison.item)} p cannot be below {least}"


def _repeated(found: Repeat) -> Verdict:
    """Of `hone repeat`: the mean change over seeds, with an interval over other seeds and other items."""
    metric = found.metrics[found.headline]
    change, kind = metric.change, metric.kind
    if change is None:
        return Verdict("Not compared", "the base was not measured, so the change is unknown")
    over = f" over {plural(change.n_seeds, 'seed')} and {plural(change.n_items, f'held-out {metric.item}')}"
    sentence = f"{kind.heading} changed by {estimate(change.mean, f'+{kind.form}')}{_unit(kind)} on average{over}"
    if change.sign_flip_p is not None:
        sentence += f"; p {p_text(change.sign_flip_p)} over seeds"
    return Verdict(change.verdict.capitalize(), sentence, TONES.get(change.verdict, "open"))


def _unit(kind: Kind) -> str:
    """' nats a token'; nothing for a metric that is its own unit."""
    return f" {kind.unit.replace('/', ' a ')}" if kind.unit else ""
