"""A report as Markdown: for a terminal, a pull request, a diff. Tables and listings; the drawings are in the page.

Strings are escaped so that no text of a model becomes markup; listings stand in fences longer than any inside them.
"""

import re

from hone.errors import printable
from hone.report.blocks import (
    Block,
    Figures,
    Grid,
    Links,
    Pieces,
    Points,
    Report,
    Sample,
    Samples,
    Table,
    Text,
    Words,
)

# What would be markup within a line: emphasis, code, HTML, cells, strikethrough; the end of a link's text; entities.
INLINE = re.compile(r"[\\`*<|~]|(?<![^\W_])_|_(?![^\W_])|\](?=[(\[:])|&(?=[#\w])")
AT_START = re.compile(r"^(\d*)([#>+=.)-])")  # a heading, quote, list or rule


def to_markdown(report: Report) -> str:
    """The report, ending in a new line."""
    parts = [f"# {inline(report.name)}"]
    parts += [paragraph(report.subtitle)] if report.subtitle else []
    parts.insert(1, f"**{inline(report.verdict.word)}:** {inline(report.verdict.rest)}.")
    parts[2:2] = [paragraph(sentence) for sentence in report.verdict.also]
    for section in report.sections:
        parts += [f"## {inline(section.title)}", *(_block(block) for block in section.blocks)]
    if report.notes:
        parts += ["## Not in this report", "\n".join(f"- {inline(note)}" for note in report.notes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def inline(text: str) -> str:
    """Text within a line, its markup undone.

    >>> inline("<b>learning_rate</b> | `x` [a](b)")
    '\\\\<b>learning_rate\\\\</b> \\\\| \\\\`x\\\\` [a\\\\](b)'
    """
    line = " ".join(printable(text).split())
    return INLINE.sub(lambda match: "\\" + match[0], line)


def paragraph(text: str) -> str:
    """Text as a block of its own, no heading, quote or list whatever it begins with."""
    return AT_START.sub(r"\1\\\2", inline(text))


def fenced(text: str, language: str = "") -> str:
    """A listing in a fence that its text cannot close."""
    longest = max((len(ticks) for ticks in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{printable(text)}\n{fence}"


def _block(block: Block) -> str:
    if isinstance(block, Text):
        return paragraph(block.text)
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Figures):
        return _table(block.numbers)
    if isinstance(block, Samples):
        return _samples(block)
    if isinstance(block, Grid):
        return _grid(block)
    if isinstance(block, Points):
        return "\n".join(f"- {inline(one.text)}{_command(one.command)}" for one in block.points)
    if isinstance(block, Words):
        return "\n".join(
            f"- **{inline(one.word)}**: {inline(one.meaning)} {code_of(one.command)}" for one in block.words
        )
    if isinstance(block, Links):
        return "\n".join(f"- [{inline(name)}]({name}): {inline(what)}" for name, what in block.files.items())
    return f"{paragraph(block.title)}:\n\n{fenced(block.text, block.language)}"


def _table(table: Table) -> str:
    rules = ["--:" if table.right(i) else "---" for i in range(len(table.head))]
    lines = [_row([inline(cell) for cell in table.head]), _row(rules)]
    lines += [_row([inline(cell) for cell in row]) for row in table.rows]
    return "\n".join(lines) + (f"\n\n{paragraph(table.caption)}" if table.caption else "")


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _command(command: str) -> str:
    return f"\n  {code_of(command)}" if command else ""


def code_of(text: str) -> str:
    """Text as code within a line, between more ticks than it holds in a row."""
    ticks = "`" * (max((len(run) for run in re.findall(r"`+", text)), default=0) + 1)
    line = " ".join(printable(text).split())
    return f"{ticks} {line} {ticks}" if "`" in line else f"{ticks}{line}{ticks}"


def _samples(block: Samples) -> str:
    if block.folded:
        return paragraph(f"{block.title}: in report.html.")
    parts = [paragraph(f"{block.title}.")] if block.title else []
    return "\n\n".join([*parts, *(_sample(sample) for sample in block.samples)])


def _sample(sample: Sample) -> str:
    parts = [f"### {inline(sample.title)}"]
    parts += ["prompt", fenced(sample.prompt)] if sample.prompt else []
    for name, pieces in sample.answers.items():
        mark = f": {sample.marks[name].text}" if name in sample.marks else ""
        parts += [paragraph(f"{name}{mark}"), fenced(_joined(pieces))]
    if sample.reference is not None:
        parts += ["reference", fenced(sample.reference)]
    return "\n\n".join(parts)


def _joined(pieces: Pieces) -> str:
    return "".join(text for text, _ in pieces)


def _grid(grid: Grid) -> str:
    legend = ", ".join(f"{mark} {meaning}" for mark, meaning in grid.legend.items())
    changed = [f"- {mark} {inline(name)}" for mark, name in grid.marks if mark in "+−"]
    parts = [fenced("".join(mark for mark, _ in grid.marks)), paragraph(legend), "\n".join(changed)]
    return "\n\n".join(part for part in parts if part)
