"""docs/troubleshooting.md quotes what hone says, and names every contradiction that config/checks.py refuses."""

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest
from markdown_pages import DOCS, ROOT, sections

PAGE = DOCS / "troubleshooting.md"
SOURCE = ROOT / "src" / "hone"
ASIDE = re.compile(r'"([^"]*…[^"]*|[^"]{8,})"')  # a message between quotes


def text_of(node: ast.expr) -> str:
    """A string of the source, … for what is put into it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(value) for value in node.values)
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    return "…"


@cache
def strings() -> list[str]:
    """Every string of src/hone, formatted ones with … in place of values."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted(SOURCE.rglob("*.py"))]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant | ast.JoinedStr)]
    return list({text_of(node) for node in nodes})


def quoted() -> Iterator[tuple[str, str]]:
    """(heading, message) of the cells under `hone says`, and of quotations in other tables' first columns."""
    for one in sections(PAGE):
        for table in one.tables:
            column = next((i for i, name in enumerate(table[0]) if "hone says" in name), None)
            for row in table[1:] if column is not None else []:
                yield from ((one.heading, message) for message in ASIDE.findall(row[column].replace("`", "")))


def said(message: str) -> bool:
    """Whether one string of the source has the words of the message, in order."""
    parts = [re.escape(part) for part in message.split("…") if part.strip(" '():,;")]
    return any(re.search(".*?".join(parts), text, re.S) for text in strings())


def test_many_messages_are_quoted() -> None:
    assert len(list(quoted())) > 60


@pytest.mark.parametrize(("heading", "message"), list(quoted()), ids=lambda value: value[:40])
def test_hone_says_so(heading: str, message: str) -> None:
    assert said(message), f"{heading}: nothing in src/hone says: {message}"
