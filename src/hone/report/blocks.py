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

    @property
    def stacks(self) -> bool:
        """Whether a row reads well as a card on a phone: not in a matrix, whose columns are to be compared."""
        return self.shades is None

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
class Mark:
    """What the unit tests say of an answer: 'passes', 'fails: NameError …'. right: None where it was not graded."""

    text: str
    right: bool | None = None


@dataclass(frozen=True)
class Sample:
    """One prompt, what should follow it, and what was written by each model (name -> text in pieces)."""

    title: str
    prompt: str
    reference: str | None
    answers: dict[str, Pieces]
    marks: dict[str, Mark] = field(default_factory=dict)


@dataclass(frozen=True)
class Samples:
    """Samples under a line that says which. folded: only looked up, so folded away, and left out of Markdown."""

    kind: ClassVar[str] = "samples"
    samples: Sequence[Sample]
    title: str = ""
    folded: bool = False


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


@dataclass(frozen=True)
class Point:
    """A sentence, and the command that does what it says, if it says so."""

    text: str
    command: str = ""


@dataclass(frozen=True)
class Points:
    """A list of sentences."""

    kind: ClassVar[str] = "points"
    points: Sequence[Point]


@dataclass(frozen=True)
class Word:
    """A word of the field, what it means in one sentence, and what `hone explain` knows it by."""

    word: str
    meaning: str
    explained_as: str

    @property
    def command(self) -> str:
        return f"hone explain {self.explained_as}"


@dataclass(frozen=True)
class Words:
    kind: ClassVar[str] = "words"
    words: Sequence[Word]


@dataclass(frozen=True)
class Links:
    """Files of the run, by their path in its folder, and what they hold. Only names of our own: they become links."""

    kind: ClassVar[str] = "links"
    files: dict[str, str]


Block = Text | Table | Figures | Samples | Grid | Code | Points | Words | Links


@dataclass(frozen=True)
class Section:
    title: str
    blocks: list[Block] = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    """The first sentence: 'Better' and '0 → 40 of 190 tasks pass …'. tone: good, bad or open (neither is shown).

    also: the same for what was measured besides, a sentence each.
    """

    word: str
    rest: str
    tone: str = "open"
    also: tuple[str, ...] = ()

    @property
    def sentences(self) -> list[str]:
        """All of it: what a terminal and a model card say first."""
        return [f"{self.word}: {self.rest}.", *self.also]


@dataclass(frozen=True)
class Report:
    """All of it. subtitle: what was trained, in a line; notes: what could not be read."""

    name: str
    subtitle: str
    verdict: Verdict
    sections: list[Section]
    notes: list[str]
