"""Plain-text tables and coloured tokens for the command line; reads run folders, never imports torch."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.errors import HoneError
from hone.runs import RESOLVED, Run

if TYPE_CHECKING:
    from hone.data.views import TokenDataset
    from hone.doctor import Check

ROW_KEYS = ("run", "status", "base", "data", "last_loss", "base_loss", "tuned_loss", "seconds")
SAMPLE_LINES = 14  # of each generation shown beside the numbers


def table(header: list[str], rows: list[list[str]]) -> str:
    """Columns aligned on the left, two spaces apart."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in [header, *rows]]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def before_after(run: Run) -> str:
    """Base and tuned side by side, the verdict, the generations, and where the model is."""
    results = {name: run.read_eval(name) for name in ("base", "tuned")}
    parts = []
    measured = {name: result for name, result in results.items() if result is not None}
    if measured:
        keys = (("loss", ".3f"), ("perplexity", ",.2f"), ("bits_per_byte", ".3f"))
        rows = [[name, *(_cell(result, key, form) for key, form in keys)] for name, result in measured.items()]
        parts.append(table(["", "loss (nats/token)", "perplexity", "bits per byte"], rows))
        tuned = next(iter(measured.values()))
        parts.append(
            f"over {tuned['n_items']:,} held-out {tuned['item']}s, {tuned['n_tokens']:,} tokens; "
            f"in brackets {tuned['confidence_level']:.0%} intervals over {tuned['item']}s"
        )
    if compare := run.read_eval("compare"):
        interval = compare["loss_difference_interval"]
        bounds = f" [{interval[0]:+.3f}, {interval[1]:+.3f}]" if interval else ""
        parts.append(
            f"tuned - base, paired: {compare['loss_difference']:+.3f}{bounds} nats/token: {compare['verdict']}"
        )
    parts += [_sample(sample) for sample in _samples(run)]
    parts.append(f"model: {run.folder}\n  try it:  hone generate {run.folder} --prompt '…'")
    return "\n\n".join(parts)


def _cell(result: dict[str, Any], key: str, form: str) -> str:
    interval = result[f"{key}_interval"]
    if result[key] is None:
        return "-"
    return f"{result[key]:{form}}" + (f" [{interval[0]:{form}}, {interval[1]:{form}}]" if interval else "")


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


def printable(text: str) -> str:
    """Control characters spelled out: model output must not drive the terminal.

    >>> printable("a\\x1b[2J")
    'a\\\\x1b[2J'
    """
    return "".join(c if c in "\n\t" or c.isprintable() else f"\\x{ord(c):02x}" for c in text)


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
    row: dict[str, Any] = {"run": str(run.folder), "status": _alive(status), "base": None, "data": None}
    if (run.folder / RESOLVED).is_file():
        config = load_config(run.folder / RESOLVED)
        files = config.data.train_file
        row["base"] = config.model.model_name_or_path or f"{config.model.model_type} (scratch)"
        row["data"] = str(files[0] if isinstance(files, list) else files) if files else config.data.dataset_name
    row["last_loss"] = metrics[-1]["loss"] if metrics else None
    row["base_loss"], row["tuned_loss"] = base["loss"] if base else None, tuned["loss"] if tuned else None
    row["seconds"] = status.get("seconds")
    return row


def _alive(status: dict[str, Any]) -> str:
    """A run that says it is running but whose process is gone was killed."""
    import psutil

    name = str(status.get("status", "unknown"))
    return "killed" if name == "running" and not psutil.pid_exists(int(status.get("pid", -1))) else name


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


def colour_tokens(dataset: "TokenDataset", tokenizer: Any, *, colour: bool) -> str:
    """Examples as text, supervised tokens told apart from masked ones: green and grey, or ⟦brackets⟧ without colour.

    The end token and other special tokens are shown by name; a token that counts but prints as nothing stays visible.
    """
    rows = []
    for index in range(len(dataset)):
        item = dataset[index]
        # the first token has no label because nothing precedes it; it is shown as what the mask says of it
        mask = item["labels"] >= 0
        if len(mask) > 1:
            mask[0] = mask[1] if dataset.split.supervised is None else bool(mask[0])
        runs: list[tuple[bool, list[int]]] = []
        for token, supervised in zip(item["input_ids"].tolist(), mask.tolist()):
            if not runs or runs[-1][0] != supervised:
                runs.append((supervised, []))
            runs[-1][1].append(token)
        text = "".join(_paint(printable(tokenizer.decode(ids)), supervised, colour) for supervised, ids in runs)
        count = int((item["labels"] >= 0).sum())
        rows.append(f"--- example {index + 1}: {len(item['input_ids'])} tokens, {count} supervised\n{text}")
    legend = _paint("supervised", True, colour) + " " + _paint("masked", False, colour)
    return "\n".join([*rows, f"--- {legend}"])


def _paint(text: str, supervised: bool, colour: bool) -> str:
    if colour:
        return f"\x1b[{'32' if supervised else '90'}m{text}\x1b[0m"
    return f"⟦{text}⟧" if supervised else text
