"""Examples with their supervised tokens, what is cached, and what `hone doctor` found."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hone.errors import printable
from hone.show import size, table

if TYPE_CHECKING:
    import numpy as np

    from hone.cache import Entry
    from hone.data.dataset import Dataset
    from hone.doctor import Check


class Marked(NamedTuple):
    """An example for people: its text in pieces, each supervised or not, and what is to be said of it."""

    n_tokens: int
    note: str
    pieces: list[tuple[str, bool]]


def marked(dataset: "Dataset", tokenizer: Any) -> list[Marked]:
    """Each example as the model sees it; special tokens by name, what prints as nothing spelled out."""
    found = []
    for index in range(len(dataset)):
        ids, mask, note = dataset.preview(index)
        runs: list[tuple[bool, list[int]]] = []
        for token, supervised in zip(ids.tolist(), mask.tolist()):
            if not runs or runs[-1][0] != supervised:
                runs.append((supervised, []))
            runs[-1][1].append(token)
        pieces = [(printable(tokenizer.decode(part)), supervised) for supervised, part in runs]
        found.append(Marked(len(ids), note or f"{dataset.n_supervised()[index]} supervised", pieces))
    return found


def histogram(lengths: "np.ndarray", bars: int = 12) -> list[tuple[int, int, int]]:
    """How many examples have so many tokens: (from, to, examples) of each bar.

    >>> import numpy as np
    >>> histogram(np.array([1, 2, 2, 9]), bars=3)
    [(1, 3, 3), (4, 6, 0), (7, 9, 1)]
    """
    if not len(lengths):
        return []
    low, high = int(lengths.min()), int(lengths.max())
    width = -(-(high - low + 1) // bars)
    edges = range(low, high + 1, width)
    return [(edge, edge + width - 1, int(((lengths >= edge) & (lengths < edge + width)).sum())) for edge in edges]


def colour_tokens(dataset: "Dataset", tokenizer: Any, *, colour: bool) -> str:
    """Examples as text, supervised tokens marked from masked ones: green and grey, or ⟦brackets⟧ without colour.

    The end token and other special tokens are shown by name; a token that counts but prints as nothing stays visible.
    """
    rows = []
    for number, one in enumerate(marked(dataset, tokenizer), 1):
        text = "".join(_paint(part, supervised, colour) for part, supervised in one.pieces)
        rows.append(f"--- example {number}: {one.n_tokens} tokens, {one.note}\n{text}")
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
