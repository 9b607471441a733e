"""Where the text of a stored document stands: the store holds tokens alone, so the rows are read once more.

>>> from hone.data.records import Pair
>>> found = [(Row({}, "data/train.jsonl", 7), Pair("Double 4.", "8"))]
>>> places_of(["### Instruction:\\nDouble 4.\\n\\n### Response:\\n8"], found)
['train.jsonl:7']
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from hone.data.records import Example, Labelled
from hone.data.sources import Row

ENOUGH = 0.5  # of a text's characters in one row: no other row is likely to hold as many


def places_of(texts: Sequence[str], rows: Iterable[tuple[Row, Example]]) -> list[str | None]:
    """File and line of the row that each text was formatted from; None where no row is it.

    A row is it if all its strings stand in the text: headings, roles and end tokens are the template's.
    """
    best: list[tuple[int, str | None]] = [(0, None) for _ in texts]
    waiting = set(range(len(texts)))
    for row, example in rows:
        parts = [part.strip() for part in _strings(example)]
        for i in list(waiting):
            size = _shared(texts[i], parts)
            if size > best[i][0]:
                best[i] = (size, _short(row))
            if size > ENOUGH * len(texts[i]):
                waiting.discard(i)
        if not waiting:
            break
    return [where for _, where in best]


def _shared(text: str, parts: Sequence[str]) -> int:
    """Characters of the text that a row's parts make up; 0 unless all of them are in it."""
    if all(part in text for part in parts):
        return sum(map(len, parts))
    return len(text) if len(text.strip()) and any(text.strip() in part for part in parts) else 0  # a piece of it


def _short(row: Row) -> str:
    """The file's name and line: whole paths would fill a terminal's line, and do not belong in a published run."""
    name = Path(row.source).name
    return f"{name}:{row.line}" if row.line else name


def _strings(example: Example) -> Iterator[str]:
    for field in fields(example):
        if isinstance(example, Labelled) and field.name == "label":  # is not in the text
            continue
        value: Any = getattr(example, field.name)
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from (message.content for message in value)
