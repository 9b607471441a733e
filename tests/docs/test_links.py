"""Every relative link and anchor of the pages for people resolves; external links have the form of one."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from markdown_pages import DOCS, ROOT, anchors, links, undefined

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md", *sorted(DOCS.rglob("*.md"))]
GUIDES = [page for page in PAGES if page.parent in (DOCS, DOCS / "labs") and page.name != "log.md"]


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_resolve(page: Path) -> None:
    wrong = [link for link in links(page) if (problem := problem_of(page, link)) and problem]
    assert not wrong, f"{named(page)}: {wrong}"
    assert not undefined(page)


def problem_of(page: Path, link: str) -> str | None:
    """What is wrong with a link of a page; external ones are judged by their form alone, nothing is fetched."""
    if re.match(r"[a-z]+:", link):
        parts = urlsplit(link)
        formed = parts.scheme == "https" and "." in parts.netloc and not re.search(r"\s", link)
        return None if formed else "not an https address"
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists() or not target.is_relative_to(ROOT):
        return "no such file"
    if anchor and (target.suffix != ".md" or anchor not in anchors(target)):
        return "no such heading"
    return None


def test_what_is_wrong_is_found(tmp_path: Path) -> None:
    page = ROOT / "README.md"
    assert problem_of(page, "docs/nothing.md") == "no such file"
    assert problem_of(page, "CONTRIBUTING.md#nothing") == "no such heading"
    assert problem_of(page, "CONTRIBUTING.md#contributing") is None
    assert problem_of(page, "http://example.com") and problem_of(page, "https://two words.org")
    made = tmp_path / "page.md"
    made.write_text(
        "# A `b`: c\n[x\ny](z.md) `[no](code.md)` ![p](q.svg)\n```\n# no\n```\n# A b c\n[e][f] [g][h]\n\n[h]: i.md\n"
    )
    assert links(made) == ["z.md", "q.svg", "i.md"] and undefined(made) == {"f"}
    assert anchors(made) == {"", "a-b-c", "a-b-c-1"}


@pytest.mark.parametrize("page", GUIDES, ids=named)
def test_form_of_a_guide(page: Path) -> None:
    """It says for whom it is, ends with what to read next, and its lines can be read side by side."""
    text = page.read_text(encoding="utf-8")
    assert "Use this page when" in text.split("\n## ")[0]
    assert text.rstrip().split("\n## ")[-1].startswith("Read next\n")
    assert not [line for line in text.splitlines() if len(line) > 120]
