"""docs/files: a page per command, with the arguments and options of today, and the parts that every page has."""

from pathlib import Path
from types import ModuleType

import pytest
from markdown_pages import DOCS, ROOT, sections

from conftest import load_script

PAGES = DOCS / "files"
PARTS = ["**What**", "**Why**", "**How**", "**Benefit**", "**Trade-off**"]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return load_script(ROOT / "tools" / "command_pages.py")


def test_each_command_has_a_page_and_each_page_a_command(tool: ModuleType) -> None:
    names = {name for _, names in tool.command_names() for name in names}
    assert {page.stem for page in PAGES.glob("*.md")} == names | {"index", "plain-loop"}


def test_the_written_parts_are_those_of_the_code(tool: ModuleType) -> None:
    stale = [str(page.relative_to(ROOT)) for page, _ in tool.out_of_date()]
    assert not stale, f"run `make docs`: {stale}"


def test_options_stand_with_their_defaults(tool: ModuleType, tmp_path: Path) -> None:
    block = tool.command_block("grade")
    assert "## Usage\n\n```bash\nhone grade tasks.jsonl " in block, "the examples of its help"
    assert "hone grade TASKS [SAMPLES] [OPTIONS]" in block
    assert "- `--timeout X`: Seconds a program may compute. Default: `3.0`." in block
    assert "- `--epochs N`: how often every row is read. Default: `3`." in tool.plain_loop_block()
    page = tmp_path / "page.md"
    page.write_text(f"by hand\n{tool.BEGIN}\nold\n{tool.END}\nby hand too\n")
    assert tool.renewed(page, "new") == f"by hand\n{tool.BEGIN}\n\nnew\n\n{tool.END}\nby hand too\n"


def test_lines_break_between_words_and_never_in_code(tool: ModuleType) -> None:
    text = "word " * 22 + "`hone repeat my.yaml --seeds 3` end"
    assert tool.wrapped(text)[1] == "`hone repeat my.yaml --seeds 3` end"


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_parts_of_a_page(page: Path) -> None:
    headings = [one.heading for one in sections(page) if one.level == 2]
    assert headings[-1] == "Read next"
    if page.stem != "index":
        text = page.read_text(encoding="utf-8")
        assert headings[:2] == ["Usage", "Arguments and options"]
        assert [part for part in PARTS if f"\n- {part}: " not in text] == []
        assert "```bash\n" in text
