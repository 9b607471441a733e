"""Text of a model in a report: it stays text, in HTML and in Markdown, and nothing of it is invisible."""

import json
import re
import unicodedata
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from hone.errors import UNSEEN, printable
from hone.report.build import write_report
from hone.report.files_section import FILES
from hone.report.markdown import code_of, fenced, inline, paragraph
from hone.report.text import differences
from hone.results import Sample, json_text
from written_run import lines, measured, programs, write_run

NASTY = [
    "<script>alert(1)</script>",
    "</pre></article></main></body><h1>owned</h1>",
    "```\n# escaped\n``````\n<b>x</b>\n`````",
    "\u202egnp.exe\u2066\u2069\u200e",
    "\x1b[2J\x1b]0;title\x07",
    "a\x00b\x7f\x9b31m",
    "lone \ud800 surrogate, \u2028 line, \u200b nothing, \ufeff mark",
    "\n\n\nleading lines, trailing spaces   \n\n",
    "{{ 7 * 7 }} {% raw %}",
    "| a | b |\n| --- | --- |\n![x](http://x.example/y.png) [x](javascript:alert(1)) &lt;b&gt; **b**",
    "--><!-- \"' onload=alert(1) --> <![CDATA[ ]]> <style>*{display:none}</style> <svg onload=alert(1)>",
]


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return write_run(tmp_path / "my-run")


class Page(HTMLParser):
    """Elements in order, the text of each <pre>, everything said; complains of elements that are not closed."""

    VOID = ("meta", "use")

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[str] = []
        self.open: list[str] = []
        self.listings: list[str] = []
        self.attributes: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag == "pre":
            self.listings.append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if "pre" in self.open:
            self.listings[-1] += data


def read_page(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    assert not page.open
    return page


@pytest.fixture
def page_and_markdown(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Page, str, Page]:
    """The report of a run that says NASTY wherever it can, and the page of the same run without that."""
    monkeypatch.setattr("hone.report.samples.OPEN_SAMPLES", len(NASTY))  # folded ones are not in the Markdown
    write_report(run_folder)
    plain = read_page(run_folder / "report.html")
    everything = " ".join(NASTY)
    for name, end in (("base", ""), ("tuned", " more")):
        samples = [Sample(item=i, prompt=text, reference=text, text=text + end) for i, text in enumerate(NASTY)]
        (run_folder / "eval" / f"{name}.json").write_text(json_text(measured(5.0, samples=samples)), encoding="utf-8")
        code = programs(*(i % 2 == 0 for i in range(len(NASTY))), names=NASTY)
        code = code.model_copy(update={"verdicts": dict.fromkeys(NASTY, 1)})
        (run_folder / "eval" / f"{name}.code.json").write_text(json_text(code), encoding="utf-8")
        written = [
            {"task_id": text, "completion": text + end, "passed": i % 2 == 0, "verdict": text, "detail": text}
            for i, text in enumerate(NASTY)
        ]
        (run_folder / "eval" / f"{name}.code.jsonl").write_text(lines(written), encoding="utf-8")
    (run_folder / "train.log").write_text("".join(f"08:00:00 data: {text}\n" for text in NASTY[:3]), encoding="utf-8")
    (run_folder / "env.json").write_text(
        json.dumps({"data": {everything: [{"file": everything}]}, "platform": everything}), encoding="utf-8"
    )
    (run_folder / "status.json").write_text(json.dumps({"status": "failed", "error": everything}), encoding="utf-8")
    (run_folder / "eval/compare.json").unlink()
    (run_folder / "repeat.json").unlink()
    write_report(run_folder)
    return read_page(run_folder / "report.html"), (run_folder / "report.md").read_text(encoding="utf-8"), plain


def test_text_brings_no_element_and_no_attribute(page_and_markdown: tuple[Page, str, Page]) -> None:
    page, _, plain = page_and_markdown
    assert set(page.elements) <= set(plain.elements) | {"figure", "svg"}
    assert {"script", "style", "img", "iframe", "link"} & set(page.elements) == {"style"}
    assert page.elements.count("style") == page.elements.count("h1") == 1
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("src", "srcset", "action")]
    links = [value for name, value in page.attributes if name.endswith("href")]
    assert all(link.startswith("#") or link in FILES for link in links) and "eval/tuned.code.jsonl" in links


def test_listings_say_what_was_written(page_and_markdown: tuple[Page, str, Page]) -> None:
    listings = [text.removeprefix("\n") for text in page_and_markdown[0].listings]  # a parser drops the first new line
    for text in NASTY:
        assert printable(text) in listings and printable(text + " more") in listings


def test_nothing_invisible_is_left(page_and_markdown: tuple[Page, str, Page], run_folder: Path) -> None:
    for text in ((run_folder / "report.html").read_text(encoding="utf-8"), page_and_markdown[1]):
        assert {c for c in text if c not in "\n\t" and unicodedata.category(c) in UNSEEN} == set()
        assert "\\u202e" in text and "\\x1b[2J" in text and "a\\x00b" in text and "\\ud800" in text


def test_markdown_stays_text(page_and_markdown: tuple[Page, str, Page]) -> None:
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(page_and_markdown[1])
    inner = [child for token in tokens for child in token.children or []]
    kinds = {token.type for token in [*tokens, *inner]}
    assert not kinds & {"html_block", "html_inline", "image", "em_open", "s_open"}
    assert all(child.attrs["href"] in FILES for child in inner if child.type == "link_open")
    assert all(child.content.startswith(("hone ", "grep ")) for child in inner if child.type == "code_inline")
    assert sum(token.type == "heading_open" and token.tag == "h1" for token in tokens) == 1
    listings = {token.content for token in tokens if token.type == "fence"}
    for text in NASTY:
        assert printable(text) + "\n" in listings


def test_the_page_needs_nothing_from_outside(run_folder: Path) -> None:
    write_report(run_folder)
    text = (run_folder / "report.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in text and "@import" not in text and "<script" not in text
    outside = re.findall(r"(?:https?:)?//[^\s\"'<]+", re.sub(r'xmlns(:\w+)?="[^"]*"', "", text))
    assert outside == []


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.sampled_from(list("`*_[]()<>|~&#;-+.=!\\ \n\t1a:/\"'\x1b\u202e")), max_size=40))
def test_any_text_is_only_text_in_markdown(text: str) -> None:
    reader = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    tokens = reader.parse(paragraph(f"x{text}"))
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    assert "".join(child.content for child in tokens[1].children or []) == " ".join(printable(f"x{text}").split())
    alone = reader.parse(paragraph(text))
    assert {token.type for token in alone} <= {"paragraph_open", "inline", "paragraph_close"}
    cells = reader.parse(f"| a | b |\n| --- | --- |\n| {inline(text)} | y |")
    assert sum(token.type == "td_open" for token in cells) == 2
    if code := " ".join(printable(text).split()):
        (span,) = reader.parse(f"- {code_of(text)}")[3].children or []
        assert (span.type, span.content) == ("code_inline", code)
    block = reader.parse(fenced(text))
    assert [token.type for token in block] == ["fence"] and block[0].content == printable(text) + "\n"


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60), st.text(max_size=60))
def test_pieces_are_the_texts(before: str, after: str) -> None:
    left, right = differences(before, after)
    assert "".join(text for text, _ in left) == before and "".join(text for text, _ in right) == after
    same = ["".join(text for text, marked in side if not marked) for side in (left, right)]
    if any(marked for _, marked in [*left, *right]):
        assert same[0] == same[1]


def test_texts_with_little_in_common_are_not_marked() -> None:
    assert differences("#\n" * 30, "return x") == ([("#\n" * 30, False)], [("return x", False)])
    assert differences("return a", "return b")[0] == [("return ", False), ("a", True)]
