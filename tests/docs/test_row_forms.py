"""The page on preparing shows a line of every form of a row, and each is taken for what it is."""

import json
import re

from markdown_pages import DOCS

from hone.data.records import REQUIRED, detect_form


def test_every_form_has_a_line() -> None:
    part = (DOCS / "files" / "prepare.md").read_text(encoding="utf-8").split("## Forms of a row")[1].split("\n## ")[0]
    rows = [json.loads(line) for line in re.findall(r"^\|[^|]*\| `(\{.+?\})`", part, re.M)]
    assert sorted(detect_form(row, {}) for row in rows) == sorted(REQUIRED)
