"""The words of the field: docs/concepts.md read as data, and a section of it as plain text for a terminal.

The page is the only copy. A checkout has it in docs/; setup.py puts it into a wheel, beside this package's modules.

>>> found = concept("Cross  Entropy")
>>> found.title, found.group
('Loss', 'What training does')
"""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PAGE = "concepts.md"
WIDTH = 100
_EMPHASIS = re.compile(r"\*\*([^*]+)\*\*|(?<![\w*])\*(?!\s)([^*\n]*[^*\s])\*(?!\w)")


@dataclass(frozen=True)
class Concept:
    """One section of the page. words: what it is asked for by, in lower case. text: Markdown, without its heading."""

    group: str
    title: str
    words: tuple[str, ...]
    text: str

    @property
    def anchor(self) -> str:
        """The anchor of its heading, as a repository page makes it."""
        return re.sub(r"[^\w\- ]", "", self.title.lower()).replace(" ", "-")


@cache
def concepts() -> tuple[Concept, ...]:
    """Every section of the page that has a line `<!-- explain: word, word -->`, in order."""
    found = []
    group = ""
    for part in re.split(r"^(?=##)", _page().read_text(encoding="utf-8"), flags=re.M):
        heading, _, text = part.partition("\n")
        if heading.startswith("## "):
            group = heading[3:].strip()
        elif marked := re.match(r"\s*<!-- explain: (.+?)\s-->\n", text, re.S):
            words = tuple(" ".join(word.split()) for word in marked[1].split(","))
            found.append(Concept(group, heading.lstrip("# ").strip(), words, text[marked.end() :].strip("\n")))
    return tuple(found)


def _page() -> Path:
    package = Path(__file__).resolve().parents[1]
    packed = package / PAGE
    return packed if packed.is_file() else package.parents[1] / "docs" / PAGE


def folded(name: str) -> str:
    """A name without the differences that nobody means: case, blanks, hyphens, underscores.

    >>> folded("Top-K"), folded("learning_rate")
    ('top k', 'learning rate')
    """
    return " ".join(re.sub(r"[-_\s]+", " ", name).split()).lower()


def concept(name: str) -> Concept | None:
    """The concept that goes by this word or title."""
    wanted = folded(name)
    return next((one for one in concepts() if wanted in {folded(word) for word in (one.title, *one.words)}), None)


# ---- Markdown for a terminal ----------------------------------------------------------------------------------------


def plain(markdown: str) -> str:
    """Paragraphs wrapped, tables aligned, listings indented; no links, comments or marks of emphasis.

    >>> print(plain("A *bold* claim ([Hu 2021](https://x.org)), in `lora_r`.<!-- why -->"))
      A bold claim (Hu 2021), in `lora_r`.
    """
    lines = re.sub(r"<!--.*?-->", "", markdown, flags=re.S).splitlines()
    return "\n\n".join(_block(block) for block in _blocks(lines))


def _blocks(lines: list[str]) -> Iterator[list[str]]:
    """Listings with their fences, blank lines in them included; other lines up to a blank one."""
    block: list[str] = []
    for line in [*lines, ""]:
        fenced = bool(block) and block[0].startswith("```")
        if line.startswith("```") and not fenced and block:
            yield block
            block = []
        if line.strip() or fenced:
            block.append(line)
        if block and ((line.startswith("```") and fenced) or (not line.strip() and not fenced)):
            yield block
            block = []


def _block(lines: list[str]) -> str:
    if lines[0].startswith("```"):
        return "\n".join(("      " + line).rstrip() for line in lines[1:-1])
    if lines[0].startswith("|"):
        return _table([lines[0], *lines[2:]], lines[1])
    return textwrap.fill(
        _words(" ".join(lines)),
        WIDTH,
        initial_indent="  ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _words(text: str) -> str:
    """A text without links and emphasis; what stands in back-ticks is left as it is."""
    parts = re.split(r"(`[^`]*`)", re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", text))
    return "".join(part if part.startswith("`") else _EMPHASIS.sub(lambda m: m[1] or m[2], part) for part in parts)


def _table(lines: list[str], rule: str) -> str:
    """Columns two blanks apart, aligned as the rule under the heading says."""
    rows = [[_words(cell.strip()) for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))] for line in lines]
    right = [cell.strip().endswith(":") for cell in rule.strip().strip("|").split("|")]
    widths = [max(len(row[i]) for row in rows) for i in range(len(right))]

    def laid_out(row: list[str]) -> str:
        cells = [
            cell.rjust(width) if at_right else cell.ljust(width) for cell, width, at_right in zip(row, widths, right)
        ]
        return ("    " + "  ".join(cells)).rstrip()

    heading, *body = rows
    return "\n".join([laid_out(heading), "    " + "  ".join("-" * width for width in widths), *map(laid_out, body)])
