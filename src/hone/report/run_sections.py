"""The sections of the training itself: curves, data, cost, settings."""

import re
import statistics
from typing import Any

import numpy as np

from hone.config.dump import flow
from hone.config.schema import leaf_field, leaves, section_fields, section_names
from hone.report import figures
from hone.report.blocks import Block, Code, Figures, Section, Table, Text
from hone.report.folder import Folder
from hone.report.paths import displayed, tidied
from hone.report.text import number, shortened
from hone.results.contamination import Contamination, leaked
from hone.show import duration, few_rows, plural

INSTALL = "pip install 'hone-lm[report]'"
SHOWN_LINES = 12  # of the log, in the table of curves
SHOWN_ITEMS = 5
KINDS = {"exact": "word for word", "same code": "the same code", "near": "nearly"}  # of eval/contamination.json


def curves(folder: Folder) -> Section | None:
    """Loss, learning rate, gradient and speed over tokens."""
    if not folder.metrics:
        return None
    found = figures.curves_of(folder.metrics)
    blocks: list[Block] = [Figures(_drawings(folder, found), _log_table(folder.metrics))]
    lost = [line.get("step") for line in folder.metrics if "loss" in line and line["loss"] is None]
    if lost:
        blocks.append(Text(f"{len(lost)} log lines have a loss that is not a number, the first at step {lost[0]}."))
    if not figures.drawable():
        blocks.append(Text(f"Numbers only: the curves are drawn with matplotlib ({INSTALL})."))
    return Section("Training", blocks)


def _drawings(folder: Folder, found: figures.Curves) -> list[figures.Figure]:
    if not len(found.tokens) or not figures.drawable():  # a run too short for a log line has no curve
        return []
    base, tuned = (one.metrics.get("loss") if one else None for one in (folder.base, folder.tuned))
    drawn = [figures.loss_curve(found, base, tuned)]
    last = folder.tuned or folder.base
    for name, level in (
        list(last.metrics.items())[:1] if last else ()
    ):  # the headline, where it is another than the loss
        if name != "loss" and name in found.held_out:
            drawn.append(figures.held_out_curve(found, name, f"Held-out {level.kind.heading}"))
    for name, title in (
        ("learning_rate", "Learning rate"),
        ("grad_norm", "Gradient norm"),
        ("tokens_per_s", "Tokens a second"),
    ):
        if np.isfinite(found.training[name]).any():
            drawn.append(figures.training_curve(found, name, title))
    return drawn


def _log_table(metrics: list[dict[str, Any]]) -> Table:
    """Some of the log lines, evenly spaced, the last among them."""
    columns = (
        ("step", "step", ",.0f"),
        ("tokens", "tokens", ",.0f"),
        ("loss", "loss", ".4f"),
        ("held-out loss", "eval_loss", ".4f"),
        ("learning rate", "learning_rate", ".3g"),
        ("gradient norm", "grad_norm", ".3f"),
        ("tokens/s", "tokens_per_s", ",.0f"),
    )
    picked = sorted({round(i * (len(metrics) - 1) / max(SHOWN_LINES - 1, 1)) for i in range(SHOWN_LINES)})
    kept = [column for column in columns if any(line.get(column[1]) is not None for line in metrics)]
    rows = [[number(metrics[i].get(key), form) for _, key, form in kept] for i in picked]
    caption = f"{len(picked)} of {len(metrics):,} log lines; a loss is the mean since the line before."
    return Table([heading for heading, _, _ in kept], rows, "r" * len(kept), caption)


def data(folder: Folder) -> Section | None:
    """Files with their fingerprints, what was kept and dropped and why, what of it is in the training data too."""
    blocks: list[Block] = []
    lines = [
        line for line in data_lines(folder.log) if not (folder.contamination and line.startswith("contamination:"))
    ]
    told = [tidied(line, folder) for line in lines]
    blocks += [Text(f"{line[0].upper()}{line[1:]}.") for line in told]
    if folder.contamination:
        dropped = folder.config is not None and folder.config.data.overlap == "drop"
        blocks += contamination(folder.contamination, dropped)
    files = [
        [part, str(file.get("file", "?")), f"{file.get('bytes', 0):,}", str(file.get("sha256", ""))[:12]]
        for part, found in (folder.env.get("data") or {}).items()
        for file in found
    ]
    if files:
        blocks.append(Table(["", "file", "bytes", "SHA-256 begins"], files, "llrl"))
    return Section("Data", blocks) if blocks else None


def data_lines(log: list[str]) -> list[str]:
    """What was logged of the data at the last start, of train.log's lines."""
    logged = [line.removeprefix("data: ") for line in log if line.startswith("data: ")]
    starts = [i for i, line in enumerate(logged) if " training examples" in line]
    return logged[starts[-1] :] if starts else logged


def n_trained_on(log: list[str]) -> int | None:
    """The training examples of the last start, of train.log's lines; None where it does not say."""
    said = re.match(r"([\d,]+) training examples", next(iter(data_lines(log)), ""))
    return int(said[1].replace(",", "")) if said else None


def few_trained_on(log: list[str]) -> str:
    """That there were only few of them, and what it means; else nothing."""
    n = n_trained_on(log)
    return "" if n is None else few_rows(n)


def contamination(found: Contamination, dropped: bool) -> list[Block]:
    """Held-out items that occur in the training rows, and the worst of them; what is left of them, if dropped."""
    if found.not_searched is not None:
        return [Text(f"Not looked for held-out items in the training data: {found.not_searched}.")]
    items = plural(found.n_items, f"held-out {found.item}")
    if not found.n_contaminated:
        return [Text(f"None of the {items} is in the training rows.")]
    kinds = ", ".join(f"{count:,} {KINDS.get(kind, kind)}" for kind, count in found.by_kind.items() if count)
    counts = f"Of {items}, {leaked(found)} ({kinds})."
    caption = "The worst of them: the numbers above are too good for these items; `overlap: drop` leaves the rows out."
    if dropped:
        rows = f"{plural(len(found.rows), 'training row')} that held one of the {items} ({kinds})"
        counts = f"{rows} {'was' if len(found.rows) == 1 else 'were'} dropped; none of the items is left in training."
        caption = "The worst of what was dropped."
    worst = [
        [one.where or str(one.item), one.row_where or str(one.row), one.kind, shortened(one.text)[:200]]
        for one in found.items[:SHOWN_ITEMS]
    ]
    table = [Table(["item", "training row", "", "it begins"], worst, "rrll", caption)] if worst else []
    return [Text(counts), *table]


def cost(folder: Folder) -> Section | None:
    """Time, tokens, speed, memory, and what it ran on."""
    lines = [line for line in folder.metrics if line.get("tokens") is not None]
    rows = []
    if seconds := folder.status.get("seconds"):
        rows.append(["time, measuring included", duration(seconds)])
    if lines:
        last = lines[-1]
        rows.append(["steps", f"{folder.metrics[-1]['step']:,}"])
        at = f" (up to step {last['step']:,})" if last["step"] != folder.metrics[-1]["step"] else ""
        supervised = f", {last['supervised_tokens']:,} supervised" if "supervised_tokens" in last else ""
        rows.append(["tokens trained on", f"{last['tokens']:,}{supervised}{at}"])
        speeds = [line["tokens_per_s"] for line in lines if line.get("tokens_per_s")]
        if speeds:
            spread = f" (median of {len(speeds)} log lines, {min(speeds):,.0f} to {max(speeds):,.0f})"
            rows.append(["tokens a second", f"{statistics.median(speeds):,.0f}{spread}"])
        if peaks := [line["peak_memory_bytes"] for line in lines if line.get("peak_memory_bytes")]:
            rows.append(["peak memory", f"{max(peaks) / 1e9:.2f} GB"])
    rows += _hardware(folder.env)
    return Section("Cost", [Table(["", ""], rows, "ll")]) if rows else None


def _hardware(env: dict[str, Any]) -> list[list[str]]:
    rows = []
    if gpus := env.get("gpus"):
        rows.append(["GPUs", ", ".join(map(str, gpus))])
    if "cpu_count" in env:
        threads = f", {env['torch_threads']} threads" if "torch_threads" in env else ""
        rows.append(["processor", f"{env['cpu_count']} cores{threads}, {env.get('cpu_capability', '')}".rstrip(", ")])
    if "platform" in env:
        rows.append(["platform", f"{env['platform']}, Python {env.get('python', '?')}"])
    if versions := {name: version for name, version in (env.get("versions") or {}).items() if version}:
        rows.append(["packages", ", ".join(f"{name} {version}" for name, version in versions.items())])
    for label, key in (("commit", "git"), ("seed", "seed"), ("started", "time")):
        if env.get(key) is not None:
            rows.append([label, str(env[key])])
    return rows


def settings(folder: Folder) -> Section | None:
    """What was set, with its default; and every key. Paths are shown as seen from the run's folder."""
    config = folder.config
    if config is None:
        return None
    rows = []
    for leaf, section in leaves().items():
        value = getattr(getattr(config, section), leaf)
        default = leaf_field(leaf).get_default(call_default_factory=True)
        if value != default:
            rows.append([f"{section}.{leaf}", flow(displayed(value, folder.path)), flow(default)])
    caption = f"{len(rows)} of {len(leaves())} keys are not at their default; paths are relative to the run's folder."
    table = Table(["key", "value", "default"], rows, "lll", caption)
    return Section("Settings", [table, Code("Every key", _every_key(folder), "yaml")])


def _every_key(folder: Folder) -> str:
    lines = []
    for section in section_names():
        values = getattr(folder.settings, section)
        lines.append(f"{section}:")
        lines += [
            f"  {leaf}: {flow(displayed(getattr(values, leaf), folder.path))}" for leaf in section_fields(section)
        ]
    return "\n".join(lines)
