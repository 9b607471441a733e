"""Examples with their supervised tokens, what is cached, and what `hone doctor` found."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.errors import printable
from hone.show import size, table

if TYPE_CHECKING:
    from hone.cache import Entry
    from hone.data.dataset import Dataset
    from hone.doctor import Check


def colour_tokens(dataset: "Dataset", tokenizer: Any, *, colour: bool) -> str:
    """Examples as text, supervised tokens marked from masked ones: green and grey, or ⟦brackets⟧ without colour.

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


def checks_table(checks: "list[Check]") -> str:
    marks = {"ok": "ok", "warn": "!", "fail": "FAIL"}
    lines = [table(["", "what", "found"], [[marks[c.status], c.name, c.value] for c in checks])]
    lines += [f"{c.name}: {c.advice}" for c in checks if c.advice]
    return "\n".join(lines)
