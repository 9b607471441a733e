"""What the journeys on the page share: Chromium through playwright, pages on which nothing may go wrong, two runs.

A plugin. Without them each test is skipped with a reason: `pip install 'hone-lm[browser]'`, and Debian's chromium or
HONE_CHROMIUM.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from paging import TOKEN

import hone
from conftest import pairs

CHROMIUM = os.environ.get("HONE_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
AXE = Path(__file__).parent / "vendor" / "axe.min.js"
HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
SOON = 60_000  # milliseconds: a busy machine
TINY = {  # settings of a training that takes a second or two
    "max_length": 96,
    "max_steps": 6,
    "logging_steps": 1,
    "save_strategy": "no",
    "validation_split_percentage": 30,
    "bootstrap_resamples": 200,
    "use_cpu": True,
    "max_new_tokens": 8,
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install 'hone-lm[browser]'")
    if CHROMIUM is None:
        pytest.skip("no Chromium here: HONE_CHROMIUM names one")
    with playwright.sync_playwright() as engine:
        found = engine.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """visit(address) -> a page on which nothing may go wrong: no error of a script, none in the console."""
    contexts, wrong = [], []

    def open_page(address: str, **options: Any) -> Any:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
        page.on("dialog", lambda dialog: wrong.append(f"a dialog: {dialog.message}"))
        page.goto(f"{address}/#token={TOKEN}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not [line for line in wrong if "ERR_CONNECTION_REFUSED" not in line and "the server responded" not in line]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Path:
    """A folder with two finished runs of a tiny model, whose rows are hostile."""
    place = tmp_path_factory.mktemp("trained")
    rows = [{**row, "completion": row["completion"] + HOSTILE} for row in pairs(40)]
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, rate in (("a", 1e-3), ("b", 1e-5)):
        hone.train(
            model_name_or_path=str(model_folder),
            train_file=str(place / "rows.jsonl"),
            learning_rate=rate,
            output_dir=str(place / "runs" / name),
            **TINY,
        )
    return place / "runs"


def expect(place: Any) -> Any:
    from playwright import sync_api

    return sync_api.expect(place)


def violations(page: Any) -> Any:
    """What axe-core finds. Its script is what the page's own policy would refuse: the context bypasses that."""
    page.add_script_tag(path=str(AXE))
    return page.evaluate("async () => (await axe.run()).violations.map(v => [v.id, v.nodes.map(n => n.html)])")
