"""docs/reading-a-report.md explains each section of a report, in its order, with its columns and marks."""

import inspect
import re

from markdown_pages import DOCS, section, sections

from hone.report import code_section, evaluation_sections, verdict
from hone.report.build import SECTIONS

PAGE = DOCS / "reading-a-report.md"


def title_of(make: object) -> str:
    """The title that a function of the report gives its section."""
    found = re.findall(r"Section\((?:\"([^\"]+)\"|CODE)", inspect.getsource(make))  # type: ignore[arg-type]
    return next(iter(filter(None, found)), code_section.CODE)


def test_each_section_in_its_order() -> None:
    headings = [one.heading for one in sections(PAGE) if one.level == 2]
    titles = [title_of(make) for make in SECTIONS]
    assert headings[1 : 1 + len(titles)] == titles
    assert headings[1 + len(titles)] == "Not in this report"


def test_columns_and_marks() -> None:
    columns = re.search(r'head = \["", "base", ([^\]]+)\]', inspect.getsource(evaluation_sections.metrics))
    assert columns
    explained = section(PAGE, "Held-out data, before and after").text
    assert all(name in explained for name in re.findall(r'"([^"]+)"', columns[1]))
    marks = section(PAGE, code_section.CODE).tables[0][1:]
    assert [mark for mark, _ in marks] == list(code_section.BOTH)
    assert all(meaning.startswith(code_section.BOTH[mark]) for mark, meaning in marks)


def test_words_of_the_verdict() -> None:
    text, source = section(PAGE, "The first sentence: the verdict"), inspect.getsource(verdict)
    words = [word for row in text.tables[1][1:] for word in row[0].split(", ")]
    ours = {word for word in words if f'"{word}"' in source or f'"{word.lower()}"' in source}
    assert set(words) - ours <= {"Not distinguishable"}, "what nothing in the report says"
    assert all(words in source and words in text.prose for words in ("held-out", "; p ", "pass"))
