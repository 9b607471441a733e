"""Pictures of the live page, by Chromium, from the demo's run.

hone demo && python docs/figures/page.py out/demo      # needs pip install 'hone-lm[browser]' and Chromium
python docs/figures/page.py FOLDER --all looked-at     # each view, at three widths, light and dark, to look at
"""

import argparse
import contextlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import expect, sync_playwright

HERE = Path(__file__).parent
ASKED = "count_divisible"  # a held-out task
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
LARGEST = 150_000  # bytes of a picture
SOON = 120_000  # milliseconds
WIDTHS = (400, 1280, 1920)
View = Callable[[Any, dict[str, str]], None]


def runs(page: Any, about: dict[str, str]) -> None:
    page.get_by_role("link", name="Runs").click()
    expect(page.get_by_role("link", name=about["run"], exact=True)).to_be_visible(timeout=SOON)


def run(page: Any, about: dict[str, str]) -> None:
    page.goto(f"{about['address'].partition('#')[0]}#/run?run={about['run']}")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Better", timeout=SOON)
    page.wait_for_timeout(1000)  # the curve is drawn


def play(page: Any, about: dict[str, str]) -> None:
    run(page, about)
    page.get_by_role("link", name="Try it").click()
    page.get_by_label("Prompt").fill(about["prompt"])
    page.get_by_role("button", name="Ask").click()
    for number in (0, 1):
        expect(page.locator("h2 .note").nth(number)).to_contain_text("pieces/s", timeout=SOON)


def data(page: Any, about: dict[str, str]) -> None:
    run(page, about)
    page.get_by_role("link", name="Its rows").click()
    expect(page.locator("article ins").first).to_be_visible(timeout=SOON)


def new(page: Any, about: dict[str, str]) -> None:
    page.get_by_role("link", name="New run").click()
    expect(page.get_by_label("name of the run")).not_to_have_value("", timeout=SOON)
    page.get_by_role("button", name="Write the settings").click()
    expect(page.locator(".problem")).to_have_text("No mistakes.", timeout=SOON)
    page.get_by_label("Settings, in YAML").focus()
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(500)


def learn(page: Any, about: dict[str, str]) -> None:
    page.get_by_role("link", name="Learn").click()
    page.get_by_role("searchbox").fill("perplexity")
    page.get_by_role("button", name="Perplexity", exact=True).click()
    page.wait_for_timeout(1000)


VIEWS: dict[str, View] = {"runs": runs, "run": run, "play": play, "data": data, "new": new, "learn": learn}
SHIPPED = {"run": 860, "play": 520, "new": 700, "learn": 620}  # in docs/files/ui.md: views, and their heights


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address that `hone ui` prints."""
    words = [sys.executable, "-m", "hone", "ui", str(folder), "--no-open", "--port", "0"]
    server = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        found = re.search(r"http://\S+", server.stderr.readline())
        assert found, "hone ui has printed no address"
        yield found[0]
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="pictures of the live page")
    parser.add_argument("folder", type=Path, help="what hone demo has written")
    parser.add_argument("--run", default="functions", help="a finished run in it [functions]")
    parser.add_argument("--all", type=Path, metavar="OUT", help="each view at three widths, light and dark, into OUT")
    options = parser.parse_args()
    held_out = (options.folder / Path(options.run).parent / "functions.test.jsonl").read_text(encoding="utf-8")
    prompt = next(t["instruction"] for t in map(json.loads, held_out.splitlines()) if t["task_id"] == ASKED)
    with served(options.folder) as address, sync_playwright() as engine:
        about = {"address": address, "run": options.run, "prompt": prompt}
        browser = engine.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for width in WIDTHS if options.all else WIDTHS[1:2]:
            for scheme in ("light", "dark") if options.all else ("light",):
                page = browser.new_page(viewport={"width": width, "height": 860}, color_scheme=scheme)
                page.goto(address)
                for name in VIEWS if options.all else SHIPPED:
                    VIEWS[name](page, about)
                    if options.all:
                        page.screenshot(path=options.all / f"{name}-{width}-{scheme}.png", full_page=True)
                        continue
                    clip = {"x": 0, "y": 0, "width": width, "height": SHIPPED[name]}
                    page.screenshot(path=HERE / f"page-{name}.png", clip=clip)
                page.close()
        browser.close()
    for file in HERE.glob("page-*.png"):
        assert file.stat().st_size <= LARGEST, f"{file} has {file.stat().st_size:,} bytes"


if __name__ == "__main__":
    main()
