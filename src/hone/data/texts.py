"""The bare texts of files, for what looks at text alone: a tokenizer is trained on them, or measured."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hone.data.sources import read_rows
from hone.errors import HoneError


def texts(paths: Sequence[Path], column: str | None = None) -> Iterator[str]:
    """Text files whole; of rows one column, else `text`, else every text in the row (prompt, completion, messages …).

    Raises:
        HoneError: no such file, a bad row, or a row without a text in that column.
    """
    for row in read_rows(paths, on_bad_row="error", on_skip=lambda reason, where: None):
        name = column or ("text" if "text" in row.columns else None)
        found = list(_strings(row.columns.get(name) if name else row.columns))
        if name and not found:
            columns = ", ".join(row.columns)
            raise HoneError(f"no text in column '{name}'", where=row.where, fix=f"columns here: {columns}")
        yield from found


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
