"""A report as one HTML file: no script, nothing fetched, readable from disk, on a phone, in print, in the dark.

Every string is escaped by the template engine, after what cannot be seen in it is spelled out (`errors.printable`);
only the drawings, which are ours, go in as they are.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from hone.errors import printable
from hone.report.blocks import Report, Section

HERE = Path(__file__).parent


def to_html(report: Report) -> str:
    """The page; equal reports give equal bytes."""
    style = Markup((HERE / "page.css").read_text(encoding="utf-8"))
    return _engine().get_template("page.html").render(report=report, style=style, ours=Markup) + "\n"


def fragment(sections: Sequence[Section], notes: Sequence[str] = ()) -> str:
    """Sections as they stand in the page, for another page around them."""
    return _engine().get_template("sections.html").render(sections=sections, notes=notes, ours=Markup)


@functools.cache
def _engine() -> Environment:
    return Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        finalize=_seen,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _seen(value: Any) -> Any:
    """For each value put into the page: spell out what has no shape, but in what is markup already."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
