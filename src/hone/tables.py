"""Plain-text tables and coloured tokens for the command line; reads run folders, never imports torch."""

import json
import shlex
import shutil
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.errors import HoneError
from hone.evaluation.columns import COLUMNS, ENOUGH_TEXTS, changes, code_lines
from hone.runs import RESOLVED, Run, living_status
from hone.show import duration, printable, size, table, with_bounds

if TYPE_CHECKING:
    from hone.cache import Entry
    from hone.data.dataset import Dataset
    from hone.doctor import Check
    from hone.planning.plan import Plan

ROW_KEYS = ("run", "status", "base", "data", "last_loss", "base_loss", "tuned_loss", "seconds")
SHOWN_CLASSES = 12  # of a confusion matrix
SAMPLE_LINES = 14  # of each generation shown beside the numbers


def before_after(run: Run) -> str:
    """Base and tuned side by side, the verdict, the generations, and where the model is."""
    results = {name: run.read_eval(name) for name in ("base", "tuned")}
    parts = []
    measured = {name: result for name, result in results.items() if result is not None}
    task = "causal"
    if measured:
        tuned = list(measured.values())[-1]
        task = tuned.get("task", task)
        columns = [column for column in COLUMNS[task] if column[1] in tuned]
        rows = [[name, *(_cell(result, key, form) for _, key, form in columns)] for name, result in measured.items()]
        if task == "classification":
            share = f"{tuned['majority_accuracy']:.3f}"
            rows.insert(0, [f"always '{printable(tuned['majority_class'])}'", share, *[""] * (len(columns) - 1)])
        parts.append(table(["", *(heading for heading, _, _ in columns)], rows))
        parts.append(
            f"over {tuned['n_items']:,} held-out {tuned['item']}s, {tuned['n_tokens']:,} tokens; "
            f"in brackets {tuned['confidence_level']:.0%} intervals over {tuned['item']}s"
        )
        if task == "classification" and len(tuned["classes"]) <= SHOWN_CLASSES:
            parts.append(_confusion(tuned))
    if compare := run.read_eval("compare"):
        parts.append(changes(compare))
    if programs := code_lines(run.read_eval):
        parts.append("\n".join(programs))
    parts += _quality(results)
    parts += [_sample(sample) for sample in _samples(run)]
    quoted = shlex.quote(str(run.folder))
    use = f"hone predict {quoted} --text '…'" if task == "classification" else f"hone generate {quoted} -p '…'"
    parts.append(f"model: {run.folder}\n  try it:  {use}")
    return "\n\n".join(parts)


def _quality(results: dict[str, dict[str, Any] | None]) -> list[str]:
    """What the written texts are like, where there are enough of them to say so."""
    found = {name: result.get("generation_quality") for name, result in results.items() if result}
    if not any(quality and quality["n_texts"] >= ENOUGH_TEXTS for quality in found.values()):
        return []
    from hone.metrics.generation_quality import side_by_side

    return [table(*side_by_side(found.get("base"), found.get("tuned")))]


def _confusion(result: dict[str, Any]) -> str:
    """Rows of each class (down) by what was answered (across), with precision, recall and F1."""
    names = [printable(name) for name in result["classes"]]
    lines = [
        [name, *map(str, counts), *(f"{numbers[key]:.3f}" for key in ("precision", "recall", "f1"))]
        for name, counts, numbers in zip(names, result["confusion"], result["classes"].values())
    ]
    return table(["true \\ answered", *names, "precision", "recall", "F1"], lines)


def _cell(result: dict[str, Any], key: str, form: str) -> str:
    interval = result.get(f"{key}_interval")
    if result.get(key) is None:
        return "-"
    return with_bounds(result[key], interval, form)


def _samples(run: Run) -> list[dict[str, Any]]:
    path = run.folder / "eval" / "samples.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def _sample(sample: dict[str, Any]) -> str:
    """One prompt, then base and tuned next to each other."""
    width = max(30, (shutil.get_terminal_size((110, 24)).columns - 5) // 2)
    left, right = (_lines(sample[name], width) for name in ("base", "tuned"))
    height = min(SAMPLE_LINES, max(len(left), len(right)))
    left, right = (lines + [""] * (height - len(lines)) for lines in (left, right))
    body = [f"  {a:{width}}| {b}".rstrip() for a, b in zip(left[:height], right[:height])]
    prompt = [f"  {line}" for line in _lines(sample["prompt"], 2 * width)]
    return "\n".join(["prompt:", *prompt, f"  {'base':{width}}| tuned", f"  {'-' * width}+-{'-' * width}", *body])


def _lines(text: str, width: int) -> list[str]:
    """Lines of model output, made safe for a terminal and wrapped at `width`."""
    lines = printable(text).strip("\n").expandtabs(4).split("\n")
    return [line[at : at + width - 1] for line in lines for at in range(0, max(len(line), 1), width - 1)]


def run_row(run: Run) -> dict[str, Any]:
    """What `hone runs` says of one run; one whose files are damaged is listed as that, and hides no other."""
    try:
        return _run_row(run)
    except HoneError as error:
        row: dict[str, Any] = dict.fromkeys(ROW_KEYS)
        return {**row, "run": str(run.folder), "status": "damaged", "error": str(error)}


def _run_row(run: Run) -> dict[str, Any]:
    from hone.config.load import load_config

    status, metrics = run.status, [line for line in run.metrics() if line.get("loss") is not None]
    base, tuned = run.read_eval("base"), run.read_eval("tuned")
    row: dict[str, Any] = {"run": str(run.folder), "status": living_status(status), "base": None, "data": None}
    if (run.folder / RESOLVED).is_file():
        config = load_config(run.folder / RESOLVED)
        files = config.data.train_file
        row["base"] = config.model.model_name_or_path or f"{config.model.model_type} (scratch)"
        row["data"] = str(files[0] if isinstance(files, list) else files) if files else config.data.dataset_name
    row["last_loss"] = metrics[-1]["loss"] if metrics else None
    row["base_loss"], row["tuned_loss"] = base["loss"] if base else None, tuned["loss"] if tuned else None
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


def checks_table(checks: "list[Check]") -> str:
    marks = {"ok": "ok", "warn": "!", "fail": "FAIL"}
    lines = [table(["", "what", "found"], [[marks[c.status], c.name, c.value] for c in checks])]
    lines += [f"{c.name}: {c.advice}" for c in checks if c.advice]
    return "\n".join(lines)


def colour_tokens(dataset: "Dataset", tokenizer: Any, *, colour: bool) -> str:
    """Examples as text, supervised tokens told apart from masked ones: green and grey, or ⟦brackets⟧ without colour.

    The end token and other special tokens are shown by name; a token that counts but prints as nothing stays visible.
    """
    rows = []
    for index in range(len(dataset)):
        ids, mask, note = dataset.preview(index)
        runs: list[tuple[bool, list[int]]] = []
        for token, supervised in zip(ids.tolist(), mask.tolist()):
            if not runs or runs[-1][0] != supervised:
                runs.append((supervised, []))
            runs[-1][1].append(token)
        text = "".join(_paint(printable(tokenizer.decode(part)), supervised, colour) for supervised, part in runs)
        about = note or f"{dataset.n_supervised()[index]} supervised"
        rows.append(f"--- example {index + 1}: {len(ids)} tokens, {about}\n{text}")
    legend = _paint("supervised", True, colour) + " " + _paint("masked", False, colour)
    return "\n".join([*rows, f"--- {legend}"])


def _paint(text: str, supervised: bool, colour: bool) -> str:
    if colour:
        return f"\x1b[{'32' if supervised else '90'}m{text}\x1b[0m"
    return f"⟦{text}⟧" if supervised else text


def cache_text(entries: "list[Entry]", root: Path) -> str:
    """What `hone cache` lists, and how much it is in all."""
    if not entries:
        return f"nothing is kept in {root}"
    rows = [
        [
            entry.kind,
            size(entry.n_bytes),
            datetime.fromtimestamp(entry.used).strftime("%Y-%m-%d"),
            printable(entry.about),
        ]
        for entry in entries
    ]
    total = size(sum(entry.n_bytes for entry in entries))
    ways = "hone cache --remove prefix, or tokens, answers, all; --older-than 30"
    return f"{table(['kind', 'size', 'written', 'of'], rows)}\n{total} in {root}; to be rid of it: {ways}"


def repeat_text(found: dict[str, Any], folder: Path) -> str:
    """The seeds one by one, then what they tell together; of `hone.training.repeat.repeat`."""
    from hone.statistics.seed_variance import told

    rows = [
        [
            f"{row['seed']}",
            _cell(row, "tuned", ".4f"),
            _cell(row, "change", "+.4f"),
            row["verdict"] or "-",
            "-" if row["seconds"] is None else f"{row['seconds']:.0f} s",
        ]
        for row in found["runs"]
    ]
    header = ["seed", f"tuned ({found['unit']})", "tuned - base, paired", "verdict", "time"]
    return "\n\n".join([table(header, rows), told(found), f"runs and repeat.json: {folder}"])


def grades_text(summary: dict[str, Any]) -> str:
    """pass@k with intervals, verdicts, how programs and tests were kept apart; of `hone.grading.grade.summary`."""
    n = summary["n_samples"]
    rows = [[printable(verdict), f"{count}", f"{count / n:.1%}"] for verdict, count in summary["verdicts"].items()]
    lines = [_pass_at_k(summary["pass_at_k"]), table(["verdict", "samples", "share"], rows)]
    notes = [f"{n:,} samples of {summary['n_tasks']:,} tasks; in brackets 95% intervals over tasks"]
    if alone := summary["trust"].get("same-process"):
        parts = [
            f"{trust}: {_pass_at_k(found).replace(chr(10), ', ')}"
            for trust, found in summary["pass_at_k_by_trust"].items()
        ]
        notes.append(
            f"{alone} samples shared a process with their tests, which need the program's own objects: "
            f"a program could fake that verdict\n  " + "\n  ".join(parts)
        )
    if missing := summary["tasks_without_samples"]:
        names = ", ".join(map(printable, missing[:3])) + (" …" if len(missing) > 3 else "")
        notes.append(f"note: {len(missing)} tasks have no sample and are not counted: {names}")
    if "none" in summary["isolation"]:
        notes.append("isolation: NONE: the programs ran as you")
    return "\n\n".join([*lines, "\n".join(notes)])


def _pass_at_k(found: dict[str, Any]) -> str:
    lines = []
    for k, item in found.items():
        bounds = f" [{item['interval'][0]:.3f}, {item['interval'][1]:.3f}]" if item["interval"] else ""
        text = "-" if item["value"] is None else f"{item['value']:.3f}{bounds}"
        few = item["tasks_with_too_few_samples"]
        lines.append(
            f"pass@{k}: {text}" + (f" ({few} of {item['n_tasks']} tasks have fewer than {k} samples)" if few else "")
        )
    return "\n".join(lines)


def plan_text(plan: "Plan") -> str:
    """What `hone plan` prints: what trains, how long, in how much memory, on how much disk, and what to lower."""
    schedule, disk = plan.schedule, plan.disk
    about = "" if schedule.exact else "about "
    parts = [
        f"model: {plan.model}, method {plan.method}, on {plan.device}",
        group_table(plan),
        f"data: {about}{schedule.n_examples:,} examples, {about}{schedule.epoch_tokens:,} tokens an epoch, "
        f"{schedule.supervised_tokens:,} supervised; {schedule.validation_tokens:,} tokens to measure ({schedule.how})",
        f"steps: {schedule.steps:,} in {schedule.epochs:.4g} epochs, {schedule.steps_per_epoch:,} an epoch; "
        f"{about}{schedule.tokens:,} tokens; the fullest micro-batch has {schedule.largest:,}",
        f"accelerations: {'; '.join(plan.accelerations) or 'none'}",
        _memory_text(plan),
        f"disk: {size(disk.total)} at most: model {size(disk.model)}, checkpoints {disk.kept} x "
        f"{size(disk.checkpoint)}; free: {size(disk.free)}"
        + ("" if disk.total <= disk.free else "  NOT ENOUGH: lower save_total_limit"),
        _time_text(plan),
    ]
    return "\n\n".join(parts)


def group_table(plan: "Plan") -> str:
    """Groups of tensors that train, then those that are frozen."""
    rows, side = [], None
    for group in plan.groups:
        mark = "" if group.trains == side else "trains" if group.trains else "frozen"
        side = group.trains
        rows.append(
            [mark, group.name, f"{group.n_tensors}", f"{group.n_parameters:,}", f"{group.share:.4%}", group.note]
        )
    total = sum(group.n_parameters for group in plan.groups)
    trained = sum(group.n_parameters for group in plan.groups if group.trains)
    summary = f"{trained:,} of {total:,} parameters train ({trained / total:.4%})"
    return table(["", "", "tensors", "parameters", "share", ""], rows) + "\n" + summary


def _memory_text(plan: "Plan") -> str:
    memory = plan.memory
    parts = [("weights", memory.weights), ("gradients", memory.gradients), ("optimizer", memory.optimizer)]
    if memory.activations is not None and memory.logits is not None:
        parts += [("activations", memory.activations), ("logits and loss", memory.logits)]
    times = [("a training step", memory.training), ("an evaluation", memory.evaluation), ("loading", memory.loading)]
    rows = [[name, size(value)] for name, value in [*parts, *((f"in all, at once, in {n}", v) for n, v in times if v)]]
    if memory.gaps:
        rows.append(["kept between the blocks", size(memory.gaps)])
    lines = [table(["memory", "at the fullest"], rows)]
    if memory.untraced:
        lines.append(
            f"at least: the step of this model cannot be followed ({memory.untraced}), activations come on top"
        )
    verdict = "it fits" if memory.fits else "IT DOES NOT FIT"
    lines.append(f"needed {size(memory.total)}, free {size(memory.free)}: {verdict}")
    for change in plan.changes:
        settings = " ".join(
            f"{key}={str(value).lower() if value is True else value}" for key, value in change.settings.items()
        )
        lines.append(f"  {size(change.total):>9}{'  fits' if change.fits else '      '}  with {settings}")
    if plan.changes and not plan.changes[-1].fits:
        lines.append(
            "  no setting makes it fit here: take a smaller model, shorter rows (max_length), or another machine"
        )
    return "\n".join(lines)


def _time_text(plan: "Plan") -> str:
    timing = plan.timing
    if timing is None:
        return "time: not measured; --measure takes two real steps"
    total = timing.train_s + timing.evaluations * timing.evaluation_s
    return (
        f"time: about {duration(total)}: {plan.schedule.steps:,} steps of {timing.step_s:.2f} s at "
        f"{timing.tokens_per_s:,.0f} tokens/s ({duration(timing.train_s)}), {timing.evaluations} evaluations of about "
        f"{duration(timing.evaluation_s)}; generations and saving come on top\n"
        f"memory of the two steps, measured: {size(timing.peak_memory)}"
    )
