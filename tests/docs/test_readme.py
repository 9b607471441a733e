"""The README stays one that is read in five minutes; its commands and its Python run with those of the guides."""

import re

from markdown_pages import ROOT, sections

README = ROOT / "README.md"
LINES, WORDS, WIDTH, CELL = 110, 900, 120, 15


def test_it_is_short() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LINES
    assert len(text.split()) <= WORDS
    assert not [line for line in text.splitlines() if len(line) > WIDTH]
    cells = [cell for section in sections(README) for table in section.tables for row in table for cell in row]
    assert cells and not [cell for cell in cells if len(cell.split()) > CELL]


def test_picture_and_command_come_first() -> None:
    """Within a first screen: what it is, what it did to a model, and the command that does it here."""
    text = README.read_text(encoding="utf-8")
    picture, command = text.index("!["), text.index("make demo")
    assert picture < command
    assert text[:command].count("\n") < 20
    assert re.search(r"!\[[^\]]{20,}\]", text), "the picture's text says what it shows"


def test_it_names_every_recipe() -> None:
    from hone.config.explain import recipe_names

    (recipes,) = (section for section in sections(README) if section.heading == "Which recipe?")
    assert [row[1] for row in recipes.tables[0][1:]] and {row[1].strip("`") for row in recipes.tables[0][1:]} == set(
        recipe_names()
    )
