"""What a report is made of, before it is HTML or Markdown: sections of blocks, every string in them plain text.

Nothing here is escaped: the two renderers (`page.py`, `markdown.py`) escape everything they are given.

>>> Section("Cost", [Table(["", "found"], [["time", "0:34"]])])      # doctest: +SKIP
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

Pieces = list[tuple[str, bool]]  # text, and whether it is marked as different


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Table:
    """Cells as text. align: one letter a column, l or r. shades: 0 to 1 for each cell, None without."""

    kind: ClassVar[str] = "table"
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    align: str = ""
    caption: str = ""
    shades: Sequence[Sequence[float | None]] | None = None

    def right(self, column: int) -> bool:
        """Whether a column holds numbers, aligned on the right; by default all but the first do."""
        return self.align[column] == "r" if self.align else column > 0

    def shade(self, row: int, column: int) -> float | None:
        return self.shades[row][column] if self.shades else None


@dataclass(frozen=True)
class Figure:
    """A drawing: title (what is on the vertical axis), inline SVG of our own, coloured by the page."""

    title: str
    svg: str


@dataclass(frozen=True)
class Figures:
    """Drawings with the numbers behind them; only the numbers where drawings cannot be shown."""

    kind: ClassVar[str] = "figures"
    figures: Sequence[Figure]
    numbers: Table


@dataclass(frozen=True)
class Sample:
    """One prompt, what should follow it, and what was written by each model (name -> text in pieces)."""

    title: str
    prompt: str
    reference: str | None
    answers: dict[str, Pieces]


@dataclass(frozen=True)
class Samples:
    kind: ClassVar[str] = "samples"
    samples: Sequence[Sample]


@dataclass(frozen=True)
class Grid:
    """One mark an item, with its name; `legend` says what each mark means."""

    kind: ClassVar[str] = "grid"
    marks: Sequence[tuple[str, str]]
    legend: dict[str, str]


@dataclass(frozen=True)
class Code:
    """A listing to look things up in, folded away where that can be done."""

    kind: ClassVar[str] = "code"
    title: str
    text: str
    language: str = ""


Block = Text | Table | Figures | Samples | Grid | Code


@dataclass(frozen=True)
class Section:
    title: str
    blocks: list[Block] = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    """The first sentence: 'Better' and 'loss fell by …'. tone: good, bad or open (neither is shown)."""

    word: str
    rest: str
    tone: str = "open"


@dataclass(frozen=True)
class Report:
    """All of it. subtitle: what was trained, in a line; notes: what could not be read."""

    name: str
    subtitle: str
    verdict: Verdict
    sections: list[Section]
    notes: list[str]
