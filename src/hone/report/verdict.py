"""The first sentence of a report: better, worse, or what kept it from being known; never more than was measured."""

from typing import Any

from hone.evaluation.columns import CHANGES
from hone.report.blocks import Verdict
from hone.report.folder import Folder
from hone.report.text import number, with_interval
from hone.runs import living_status

UNITS = {"nats/token": "nats a token", "nats/row": "nats a row"}  # as in a sentence
TONES = {"better": "good", "worse": "bad"}


def verdict_of(folder: Folder) -> Verdict:
    """What happened, in one sentence."""
    state = living_status(folder.status)
    if folder.repeat is not None and folder.base is None and folder.tuned is None:
        return _repeated(folder.repeat)
    if state != "finished" and folder.tuned is None:
        return _unfinished(folder, state)
    if folder.compare is not None:
        return _compared(folder.compare, folder.task)
    if folder.tuned is None and folder.base is None:
        return Verdict("Not measured", "there are no held-out numbers, so nothing can be said of the change")
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
    for name, found in (("base", folder.base), ("tuned", folder.tuned)):
        if found and found.get("loss") is not None:
            parts.append(f"{name} has a loss of {with_interval(found['loss'], found.get('loss_interval'), '.3f')}")
    over = over_items(folder.tuned or folder.base or {})
    why = "the base was not measured" if folder.base is None else "the tuned model was not measured"
    if folder.base and folder.tuned:
        why = "their paired comparison is missing"
    return f"{why}, so nothing can be said of the change; {' and '.join(parts)}{over}"


def _compared(compare: dict[str, Any], task: str) -> Verdict:
    key, unit = CHANGES[task][0]
    word = str(compare["verdict"])
    change, interval = compare[f"{key}_difference"], compare.get(f"{key}_difference_interval")
    name = key.replace("_", " ")
    unit = _unit(key, unit)
    if word in TONES:
        fell = change < 0
        bounds = sorted(abs(bound) for bound in interval) if interval else None
        told = f"{name} {'fell' if fell else 'rose'} by {number(abs(change), '.3f')}{unit}"
        told += f" [{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds else ""
    else:
        bounds_text = f" [{number(interval[0], '+.3f')}, {number(interval[1], '+.3f')}]" if interval else ""
        told = f"{name} changed by {number(change, '+.3f')}{unit}{bounds_text}"
    told += over_items(compare)
    if (p := p_value(compare, key)) is not None:
        told += f"; p {p_text(p)}"
    if (smallest := compare.get(f"{key}_detectable")) is not None:
        told += f"; the smallest change such a comparison finds 8 times in 10 is {smallest:.2g}"
    return Verdict(word.capitalize(), told, TONES.get(word, "open"))


def _repeated(found: dict[str, Any]) -> Verdict:
    """Of `hone repeat`: the mean change over seeds, with an interval over other seeds and other items."""
    change = found["change"]
    if change is None:
        return Verdict("Not compared", "the base was not measured, so nothing can be said of the change")
    over = f" over {change['n_seeds']} seed{'s' * (change['n_seeds'] != 1)} and {change['n_items']:,} held-out"
    told = f"{found['metric'].replace('_', ' ')} changed by {with_interval(change['mean'], change['interval'], '+.3f')}"
    told += f"{_unit(found['metric'], found['unit'])} on average{over} {found['item']}s"
    if change.get("sign_flip_p") is not None:
        told += f"; p {p_text(change['sign_flip_p'])} over seeds"
    word = str(change["verdict"])
    return Verdict(word.capitalize(), told, TONES.get(word, "open"))


def _unit(key: str, unit: str) -> str:
    """' nats a token'; nothing for a metric that is its own unit."""
    return "" if unit.lower() == key.replace("_", " ") else f" {UNITS.get(unit, unit)}"


def p_value(compare: dict[str, Any], key: str) -> float | None:
    """The p of the difference of `key`, adjusted for the number of metrics where that was done."""
    names = (f"{key}_p_adjusted", f"{key}_p_value", "mcnemar_p_value" if key == "accuracy" else "")
    return next((float(compare[name]) for name in names if compare.get(name) is not None), None)


def p_text(p: float) -> str:
    """
    >>> p_text(0.00004), p_text(0.0312)      # with spaces that no line is broken at
    ('<\xa00.0001', '=\xa00.031')
    """
    return "<\N{NO-BREAK SPACE}0.0001" if p < 0.0001 else f"=\N{NO-BREAK SPACE}{p:.2g}"


def over_items(found: dict[str, Any]) -> str:
    """' over 33 held-out documents'; nothing where they were not counted."""
    n = found.get("n_items")
    return "" if n is None else f" over {n:,} held-out {found.get('item', 'item')}{'' if n == 1 else 's'}"
