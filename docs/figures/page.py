"""Pictures of the live page, by Chromium, from the demo's run.

hone demo && python docs/figures/page.py out/demo      # needs pip install 'hone-lm[browser]' and Chromium
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import expect, sync_playwright

HERE = Path(__file__).parent
ASKED = "count_divisible"  # a held-out task
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
LARGEST = 150_000  # bytes of a picture
SOON = 120_000  # milliseconds


def shoot(page: Any, address: str, prompt: str) -> None:
    """Two pictures: the run with its verdict and curves, and one prompt answered by base and tuned."""
    page.goto(address)
    page.get_by_role("link", name="functions", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Better", timeout=SOON)
    page.wait_for_timeout(1000)
    page.screenshot(path=HERE / "page-run.png")
    page.get_by_role("link", name="Try it").click()
    page.get_by_label("Prompt").fill(prompt)
    page.get_by_role("button", name="Ask both").click()
    for number in (0, 1):
        expect(page.locator("h2 .note").nth(number)).to_contain_text("pieces/s", timeout=SOON)
    page.screenshot(path=HERE / "page-play.png", clip={"x": 0, "y": 0, "width": 1280, "height": 520})


def main() -> None:
    tasks = map(json.loads, (Path(sys.argv[1]) / "functions.test.jsonl").read_text(encoding="utf-8").splitlines())
    prompt = next(task["instruction"] for task in tasks if task["task_id"] == ASKED)
    words = [sys.executable, "-m", "hone", "ui", sys.argv[1], "--no-open", "--port", "0"]
    server = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        found = re.search(r"http://\S+", server.stderr.readline())
        assert found, "hone ui has printed no address"
        with sync_playwright() as engine:
            browser = engine.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
            shoot(browser.new_page(viewport={"width": 1280, "height": 860}), found[0], prompt)
            browser.close()
    finally:
        server.terminate()
        server.wait()
    for file in HERE.glob("page-*.png"):
        assert file.stat().st_size <= LARGEST, f"{file} has {file.stat().st_size:,} bytes"


if __name__ == "__main__":
    main()
