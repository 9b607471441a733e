"""A run as a terminal shows it: base and tuned side by side, samples; and runs as a list."""

import shutil
from pathlib import Path
from typing import Any

from hone.config.dump import leaves_of
from hone.config.load import load_config
from hone.errors import HoneError, printable
from hone.report import code_section
from hone.report.blocks import Sample, Samples
from hone.report.folder import Folder, read_folder
from hone.report.next_steps import steps_after
from hone.report.paths import typed
from hone.report.takeaways import lower_loss
from hone.report.verdict import verdict_of
from hone.results import ClassReport, Level, Measurement, SideBySide, side_by_side
from hone.runs import RESOLVED, Run, living_status
from hone.show import (
    ENOUGH_TEXTS,
    NO_INTERVAL,
    change_line,
    class_scores,
    code_lines,
    estimate,
    plural,
    table,
    unmeasured_classes,
)

ROW_KEYS = ("run", "status", "base", "data", "last_loss", "metric", "before", "after", "seconds")
SHOWN_CLASSES = 12  # of a confusion matrix
SAMPLE_LINES = 8  # of each generation that is shown
SHOWN_SAMPLES = 2
NEXT = 3  # steps


def before_after(run: Run) -> str:
    """What changed, base and tuned side by side, samples, and what to do next."""
    folder = read_folder(run.folder)
    base, tuned = folder.base, folder.tuned
    parts = ["\n".join(map(plain, verdict_of(folder).sentences))]
    if last := tuned or base:
        parts += [_levels(folder), _about(last)]
        if last.classes is not None and len(last.classes.classes) <= SHOWN_CLASSES:
            parts.append(_confusion(last.classes))
    if folder.comparison:
        parts.append(change_line(folder.comparison))
    if programs := code_lines(folder.code.get("base"), folder.code.get("tuned"), folder.code_comparison):
        parts.append("\n".join(map(printable, programs)))
    if last and last.n_texts >= ENOUGH_TEXTS:
        parts.append(_quality(base, tuned))
    parts += _samples(folder)
    parts += [*map(plain, lower_loss(folder)), _afterwards(folder)]
    return "\n\n".join(parts)


def plain(text: str) -> str:
    """A sentence of the report in characters that every terminal has, and none that drives it.

    >>> plain("0 → 40; −1.5")
    '0 -> 40; -1.5'
    """
    for fine, coarse in (("→", "->"), ("−", "-"), ("\N{NO-BREAK SPACE}", " ")):
        text = text.replace(fine, coarse)
    return " ".join(printable(text).split())


def _afterwards(folder: Folder) -> str:
    """Where everything is, and the next commands: the last lines of a training."""
    lines = [f"model:   {typed(folder.path)}", f"report:  {typed(folder.path / 'report.html')}"]
    for name, step in zip(["next:", "or:", "or:"], steps_after(folder)[:NEXT]):
        lines += [f"{name:9}{plain(step.text)}", *([f"           {step.command}"] if step.command else [])]
    return "\n".join(lines)


def _levels(folder: Folder) -> str:
    """A row for each model, a column for each metric; and, of a classifier, what the most frequent class would give."""
    last = list(folder.measured.values())[-1]
    rows = [
        [name, *(estimate(found.metrics.get(key), level.kind.form) for key, level in last.metrics.items())]
        for name, found in folder.measured.items()
    ]
    if last.classes is not None:
        always = [f"always '{printable(last.classes.majority_class)}'", f"{last.classes.majority_accuracy:.3f}"]
        rows.insert(0, [*always, *[""] * (len(last.metrics) - 1)])
    return table(["", *(level.kind.title for level in last.metrics.values())], rows)


def _about(found: Measurement) -> str:
    return (
        f"over {plural(found.n_items, f'held-out {found.item}')}, {found.n_tokens:,} tokens; "
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
        [name, *map(str, counts), *class_scores(one)]
        for name, counts, one in zip(names, found.confusion, found.classes.values())
    ]
    shown = table(["true \\ answered", *names, "precision", "recall", "F1"], lines)
    return f"{shown}\n-: no held-out rows of this class" if unmeasured_classes(found) else shown


def _samples(folder: Folder) -> list[str]:
    """Of graded programs one that newly passes and one that still fails; else two held-out prompts, continued."""
    blocks = code_section.code(folder)
    graded = [block for block in blocks.blocks if isinstance(block, Samples) and not block.folded] if blocks else []
    if graded:
        return [_program(block.samples[0], block.title) for block in graded]
    found = [one for one in side_by_side(folder.base, folder.tuned) if one.base is not None]
    return [_sample(one) for one in found[:SHOWN_SAMPLES]]


def _program(sample: Sample, title: str) -> str:
    """A graded program of each model, with what its tests say."""
    texts = {name: "".join(text for text, _ in pieces) for name, pieces in sample.answers.items()}
    said = [f"{name} {plain(mark.text)}" for name, mark in sample.marks.items()]
    kind = title.split(":")[0].lower()
    return f"{kind}, {_beside(sample.prompt or sample.title, texts['base'], texts['tuned'], said)}"


def _sample(sample: SideBySide) -> str:
    return _beside(sample.prompt, sample.base or "", sample.tuned or "", [])


def _beside(prompt: str, base: str, tuned: str, said: list[str]) -> str:
    """One prompt, then base and tuned next to each other."""
    width = max(30, (shutil.get_terminal_size((110, 24)).columns - 5) // 2)
    left, right = (_lines(text, width) for text in (base, tuned))
    height = min(SAMPLE_LINES, max(len(left), len(right)))
    left, right = (lines + [""] * (height - len(lines)) for lines in (left, right))
    body = [f"  {a:{width}}| {b}".rstrip() for a, b in zip(left[:height], right[:height])]
    asked = [f"  {line}" for line in _lines(prompt, 2 * width)]
    heads = [f"  {'base':{width}}| tuned", f"  {'-' * width}+-{'-' * width}"]
    return "\n".join(["prompt:", *asked, *said, *heads, *body])


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
    status = run.status
    row: dict[str, Any] = {"run": str(run.folder), "status": living_status(status), "base": None, "data": None}
    if (run.folder / RESOLVED).is_file():
        row["base"], row["data"] = _began_with(run.folder / RESOLVED)
    row["last_loss"] = run.last_metric("loss")
    before, after = run.base, run.tuned
    last = after or before
    row["metric"] = next(iter(last.metrics)) if last else None
    for name, found in (("before", before), ("after", after)):
        row[name] = found.value(row["metric"]) if found and row["metric"] in found.metrics else None
    row["seconds"] = status.get("seconds")
    return row


def _began_with(path: Path) -> tuple[str, str | None]:
    """The base and the data of a run's settings."""
    keys = ("model_name_or_path", "model_type", "train_file", "dataset_name")
    found = leaves_of(path.read_text(encoding="utf-8", errors="replace"), keys)
    if set(found) != set(keys):  # not as hone writes it
        config = load_config(path)
        found = {key: getattr(config.model if key.startswith("model") else config.data, key) for key in keys}
    files = found["train_file"]
    base = found["model_name_or_path"] or f"{found['model_type']} (scratch)"
    return str(base), str(files[0] if isinstance(files, list) else files) if files else found["dataset_name"]


def runs_table(found: list[Run]) -> str:
    """A line for each; before and after by the headline of its task, named where that is not the loss."""
    if not found:
        return "no runs here"
    rows, damaged = [], []
    for row in map(run_row, found):
        damaged += [row["error"]] if "error" in row else []
        metric = f"{row['metric']} " if row["metric"] not in (None, "loss") else ""
        change = f"{metric}{_number(row['before'])} -> {_number(row['after'])}"
        base, data = (Path(str(row[key] or "-")).name for key in ("base", "data"))
        seconds = "-" if row["seconds"] is None else f"{row['seconds']:.0f} s"
        rows.append([row["run"], row["status"], base, data, _number(row["last_loss"]), change, seconds])
    return "\n".join([table(["run", "status", "base", "data", "last loss", "base -> tuned", "time"], rows), *damaged])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
