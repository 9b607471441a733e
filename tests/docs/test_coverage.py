"""docs/coverage.md: every row of the five sources, none missing, each with a page or a command that exists."""

import re

from markdown_pages import DOCS, sections
from test_commands import commands_of

ROWS = {"S0": 26, "S1": 21, "S2": 25, "S3": 19, "S4": 50}
NEEDS = {"", "hub", "GPU", "GPU, hub"}


def test_every_row_names_a_page_or_a_command() -> None:
    """That pages and commands exist is checked with those of all guides (test_links.py, test_commands.py)."""
    page = DOCS / "coverage.md"
    rows = [row for section in sections(page) for table in section.tables for row in table[1:]]
    assert [row[0] for row in rows] == [f"{source}.{n}" for source, last in ROWS.items() for n in range(1, last + 1)]
    assert not [row for row in rows if not re.search(r"\]\[|\]\(|`hone ", row[2])]
    assert {row[3] for row in rows} <= NEEDS
    assert len(list(commands_of(page))) > 60
