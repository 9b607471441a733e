"""Every relative link and anchor of the pages for people resolves; external links have the form of one."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from markdown_pages import DOCS, ROOT, anchors, links, undefined

PAGES = [
    ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "benchmarks/README.md")
]
PAGES += sorted(DOCS.rglob("*.md"))
GUIDES = [page for page in PAGES if page.parent in (DOCS, DOCS / "labs", DOCS / "files") and page.name != "log.md"]

# Where the pages lead to: the authors of what is described, and archives that last. A new one is added on purpose.
HOSTS = {
    *("arxiv.org", "doi.org", "aclanthology.org", "github.com", "huggingface.co"),
    *("pytorch.org", "download.pytorch.org"),
    *("thinkingmachines.ai", "unsloth.ai"),
    *("scikit-learn.org", "learn.microsoft.com", "www.gutenberg.org", "docs.python.org"),
}


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
        return problem_of_address(link)
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists() or not target.is_relative_to(ROOT):
        return "no such file"
    if anchor and (target.suffix != ".md" or anchor not in anchors(target)):
        return "no such heading"
    return None


def problem_of_address(link: str) -> str | None:
    """The form of an external link: https, a known host, nothing that follows the reader, no empty anchor."""
    parts = urlsplit(link)
    if parts.scheme != "https" or re.search(r"\s|[.,;:]$", link):
        return "not an https address"
    if parts.netloc not in HOSTS:
        return f"a host that HOSTS does not name: {parts.netloc}"
    if parts.query or parts.username or "//" in parts.path:
        return "has a query, a user or an empty folder"
    if link.endswith("#") or not re.fullmatch(r"[\w.-]*", parts.fragment):
        return "not an anchor"
    if parts.netloc == "arxiv.org" and not re.fullmatch(r"/abs/\d{4}\.\d{4,5}", parts.path):
        return "not the page of a paper: https://arxiv.org/abs/NUMBER"
    return None


def test_the_reading_list_names_each_page_once() -> None:
    page = DOCS / "further-reading.md"
    found = [link for link in links(page) if link.startswith("https:")]
    assert len(found) == len(set(found)) >= 25
    text = page.read_text(encoding="utf-8")
    entries = re.findall(r"^- (.+(?:\n  .+)*)", text.split("## Read next")[0], re.M)
    assert entries and all(re.match(r"\[.+\)( and \[.+\))?: ", entry) for entry in entries), "one line on each"


def test_what_is_wrong_is_found(tmp_path: Path) -> None:
    page = ROOT / "README.md"
    assert problem_of(page, "docs/nothing.md") == "no such file"
    assert problem_of(page, "CONTRIBUTING.md#nothing") == "no such heading"
    assert problem_of(page, "CONTRIBUTING.md#contributing") is None
    wrong = ["http://arxiv.org/abs/2106.09685", "https://two words.org", "https://tracker.example/x"]
    wrong += ["https://github.com/a/b?utm_source=hone", "https://github.com/a/b#", "https://arxiv.org/pdf/2106.09685"]
    wrong += ["https://github.com//b", "https://github.com/a/b.", "https://me@github.com/a/b"]
    assert [link for link in wrong if problem_of(page, link) is None] == []
    assert problem_of(page, "https://github.com/a/b#usage") is None
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
