"""The first sentence of a report: better, worse, or what kept it from being known; never more than was measured."""

from hone.report.blocks import Verdict
from hone.report.folder import Folder
from hone.report.text import estimate, p_text
from hone.results import Comparison, Kind
from hone.results.repeat import Repeat
from hone.runs import living_status
from hone.show import plural

TONES = {"better": "good", "worse": "bad"}


def verdict_of(folder: Folder) -> Verdict:
    """What happened, in one sentence."""
    state = living_status(folder.status)
    if folder.repeat is not None and not folder.measured:
        return _repeated(folder.repeat)
    if state != "finished" and folder.tuned is None:
        return _unfinished(folder, state)
    if folder.comparison is not None:
        return _compared(folder.comparison)
    if not folder.measured:
        return Verdict("Not measured", "there are no held-out numbers, so the change is unknown")
    return Verdict("Not compared", _alone(folder))


def _unfinished(folder: Folder, state: str) -> Verdict:
    last = folder.metrics[-1].get("step") if folder.metrics else None
    place = f"at step {last:,}" if last is not None else "before its first log line"
    again = "the same `hone train` command goes on from its last checkpoint"
    if state == "failed":
        return Verdict("Failed", f"{place}: {folder.status.get('error') or 'no reason was written'}", "bad")
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


def _compared(found: Comparison) -> Verdict:
    first = found.metrics[found.headline]
    change, kind = first.difference, first.kind
    if found.verdict in TONES:
        word, size = ("fell", change.negated()) if change.value < 0 else ("rose", change)
        sentence = f"{kind.heading} {word} by {estimate(size, kind.form)}{_unit(kind)}"
    else:
        sentence = f"{kind.heading} changed by {estimate(change, f'+{kind.form}')}{_unit(kind)}"
    sentence += f" over {plural(found.n_items, f'held-out {found.item}')}; p {p_text(first.p_adjusted)}"
    if first.minimum_detectable_effect is not None:
        sentence += f"; minimum detectable effect {first.minimum_detectable_effect:.2g}"
    return Verdict(found.verdict.capitalize(), sentence, TONES.get(found.verdict, "open"))


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
