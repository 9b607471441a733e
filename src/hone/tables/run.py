"""A run as a terminal shows it: base and tuned side by side, samples; and runs as a list."""

import shlex
import shutil
from pathlib import Path
from typing import Any

from hone.config.load import load_config
from hone.errors import HoneError
from hone.results import ClassReport, Level, Measurement, SideBySide, side_by_side
from hone.runs import RESOLVED, Run, living_status
from hone.show import ENOUGH_TEXTS, NO_INTERVAL, change_line, code_lines, estimate, printable, table

ROW_KEYS = ("run", "status", "base", "data", "last_loss", "base_loss", "tuned_loss", "seconds")
SHOWN_CLASSES = 12  # of a confusion matrix
SAMPLE_LINES = 14  # of each generation that is shown


def before_after(run: Run) -> str:
    """Base and tuned side by side, the verdict, the samples, and where the model is."""
    base, tuned = run.base, run.tuned
    parts = []
    if last := tuned or base:
        parts += [_levels(base, tuned), _about(last)]
        if last.classes is not None and len(last.classes.classes) <= SHOWN_CLASSES:
            parts.append(_confusion(last.classes))
    if change := run.comparison:
        parts.append(change_line(change))
    if programs := code_lines(*run.code()):
        parts.append("\n".join(programs))
    if last and last.n_texts >= ENOUGH_TEXTS:
        parts.append(_quality(base, tuned))
    parts += [_sample(sample) for sample in side_by_side(base, tuned) if sample.base is not None]
    use = str(run.status.get("try_it", "")).replace("{run}", shlex.quote(str(run.folder)))
    parts.append(f"model: {run.folder}" + (f"\n  try it:  {use}" if use else ""))
    return "\n\n".join(parts)


def _levels(base: Measurement | None, tuned: Measurement | None) -> str:
    """A row for each model, a column for each metric; and, of a classifier, what the most frequent class would give."""
    measured = {name: found for name, found in (("base", base), ("tuned", tuned)) if found}
    last = list(measured.values())[-1]
    rows = [
        [name, *(estimate(found.metrics.get(key), level.kind.form) for key, level in last.metrics.items())]
        for name, found in measured.items()
    ]
    if last.classes is not None:
        always = [f"always '{printable(last.classes.majority_class)}'", f"{last.classes.majority_accuracy:.3f}"]
        rows.insert(0, [*always, *[""] * (len(last.metrics) - 1)])
    return table(["", *(level.kind.title for level in last.metrics.values())], rows)


def _about(found: Measurement) -> str:
    return (
        f"over {found.n_items:,} held-out {found.item}s, {found.n_tokens:,} tokens; "
        f"in brackets {found.confidence_level:.0%} intervals over {found.item}s"
    )


def _quality(base: Measurement | None, tuned: Measurement | None) -> str:
    """What the written texts are like: each number of both; what only one has is left empty."""
    both = [found.quality if found else {} for found in (base, tuned)]
    counts = sorted({found.n_texts for found in (base, tuned) if found})
    rows = []
    for name in dict.fromkeys(name for found in both for name in found):
        cells = [_of_texts(found[name]) if name in found else "" for found in both]
        rows.append([next(found[name] for found in both if name in found).kind.heading, *cells])
    return table([f"over {' and '.join(f'{n:,}' for n in counts)} written texts", "base", "tuned"], rows)


def _of_texts(found: Level) -> str:
    return estimate(found, found.kind.form, NO_INTERVAL) + (f" (of {found.n_items})" if found.n_items else "")


def _confusion(found: ClassReport) -> str:
    """Rows of each class (down) by what was answered (across), with precision, recall and F1."""
    names = [printable(name) for name in found.classes]
    lines = [
        [name, *map(str, counts), *(f"{number:.3f}" for number in (one.precision, one.recall, one.f1))]
        for name, counts, one in zip(names, found.confusion, found.classes.values())
    ]
    return table(["true \\ answered", *names, "precision", "recall", "F1"], lines)


def _sample(sample: SideBySide) -> str:
    """One prompt, then base and tuned next to each other."""
    width = max(30, (shutil.get_terminal_size((110, 24)).columns - 5) // 2)
    left, right = (_lines(text or "", width) for text in (sample.base, sample.tuned))
    height = min(SAMPLE_LINES, max(len(left), len(right)))
    left, right = (lines + [""] * (height - len(lines)) for lines in (left, right))
    body = [f"  {a:{width}}| {b}".rstrip() for a, b in zip(left[:height], right[:height])]
    prompt = [f"  {line}" for line in _lines(sample.prompt, 2 * width)]
    return "\n".join(["prompt:", *prompt, f"  {'base':{width}}| tuned", f"  {'-' * width}+-{'-' * width}", *body])


def _lines(text: str, width: int) -> list[str]:
    """Lines of model output, made safe for a terminal and wrapped at `width`."""
    lines = printable(text).strip("\n").expandtabs(4).split("\n")
    return [line[at : at + width - 1] for line in lines for at in range(0, max(len(line), 1), width - 1)]


def run_row(run: Run) -> dict[str, Any]:
    """What `hone runs` says of one run; a damaged one is listed as that, and hides no other."""
    try:
        return _run_row(run)
    except HoneError as error:
        row: dict[str, Any] = dict.fromkeys(ROW_KEYS)
        return {**row, "run": str(run.folder), "status": "damaged", "error": str(error)}


def _run_row(run: Run) -> dict[str, Any]:
    status, metrics = run.status, [line for line in run.metric_lines() if line.get("loss") is not None]
    row: dict[str, Any] = {"run": str(run.folder), "status": living_status(status), "base": None, "data": None}
    if (run.folder / RESOLVED).is_file():
        config = load_config(run.folder / RESOLVED)
        files = config.data.train_file
        row["base"] = config.model.model_name_or_path or f"{config.model.model_type} (scratch)"
        row["data"] = str(files[0] if isinstance(files, list) else files) if files else config.data.dataset_name
    row["last_loss"] = metrics[-1]["loss"] if metrics else None
    for name, found in (("base_loss", run.base), ("tuned_loss", run.tuned)):
        row[name] = found.value("loss") if found and "loss" in found.metrics else None
    row["seconds"] = status.get("seconds")
    return row


def runs_table(found: list[Run]) -> str:
    if not found:
        return "no runs here"
    rows, damaged = [], []
    for row in map(run_row, found):
        damaged += [row["error"]] if "error" in row else []
        change = f"{_number(row['base_loss'])} -> {_number(row['tuned_loss'])}"
        base, data = (Path(str(row[key] or "-")).name for key in ("base", "data"))
        seconds = "-" if row["seconds"] is None else f"{row['seconds']:.0f} s"
        rows.append([row["run"], row["status"], base, data, _number(row["last_loss"]), change, seconds])
    return "\n".join([table(["run", "status", "base", "data", "last loss", "base -> tuned", "time"], rows), *damaged])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
