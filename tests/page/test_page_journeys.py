"""What people do with runs on the page, in a browser that is there."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from browsing import HOSTILE, SOON, TINY, expect, violations
from paging import TOKEN, paging

from written_run import write_run

pytest_plugins = ["browsing"]
pytestmark = pytest.mark.slow


def test_runs_are_filtered_and_two_are_compared(trained: Path, visit: Callable[..., Any]) -> None:
    with paging(trained) as client:
        page = visit(client.address)
        expect(page.get_by_role("row")).to_have_count(3, timeout=SOON)
        page.get_by_label("Filter runs").fill("b")
        page.get_by_label("Filter runs").fill("zzz")
        expect(page.get_by_role("row")).to_have_count(1)
        page.get_by_label("Filter runs").fill("")
        page.get_by_role("button", name="last loss").click()
        assert page.locator("th[aria-sort=ascending]").inner_text().startswith("last loss")
        for name in ("a", "b"):
            page.get_by_label(f"tick {name}", exact=True).check()
        page.get_by_role("link", name="Compare a with b").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("B is", timeout=SOON)
        expect(page.locator("body")).to_contain_text("train.learning_rate")
        expect(page.locator("body")).to_contain_text("<script>alert(2)</script>")  # as text
        expect(page.get_by_role("img", name="Training loss")).to_be_visible(timeout=SOON)
        page.go_back()
        expect(page.get_by_role("heading", level=1)).to_have_text("Runs")


def test_a_run_says_its_verdict_and_its_words_explain_themselves(trained: Path, visit: Callable[..., Any]) -> None:
    with paging(trained) as client:
        page = visit(client.address, viewport={"width": 400, "height": 800})
        page.get_by_role("link", name="a", exact=True).click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("nats a token", timeout=SOON)
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        page.locator(".now").get_by_role("button", name="learning rate").click()
        expect(page.locator("dialog")).to_contain_text("train.learning_rate")
        page.keyboard.press("Escape")
        chart = page.get_by_role("img", name="Loss")
        chart.focus()
        page.keyboard.press("Home")
        expect(page.locator("figure output").first).to_contain_text("step 1:")


def test_rows_are_shown_as_the_model_sees_them(trained: Path, visit: Callable[..., Any]) -> None:
    with paging(trained) as client:
        page = visit(client.address)
        page.get_by_role("link", name="a", exact=True).click()
        page.get_by_role("link", name="Its rows").click()
        expect(page.get_by_role("heading", name="Example 1:")).to_be_visible(timeout=SOON)
        assert HOSTILE in page.locator("article ins").first.inner_text()  # the completion, and as text
        expect(page.locator("body")).to_contain_text("28 training examples")


def test_a_curve_grows_while_a_training_runs_which_is_stopped_and_resumed(
    trained: Path, model_folder: Path, tmp_path: Path, visit: Callable[..., Any]
) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    config = {
        "model_name_or_path": str(model_folder),
        "train_file": str(trained.parent / "rows.jsonl"),
        **TINY,
        "max_steps": 500,
        "eval_strategy": "no",
        "sample_prompts": 0,
        "output_dir": str(folder / "live"),
    }
    (tmp_path / "my.yaml").write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in config.items()))
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    with paging(folder) as client:
        page = visit(client.address)
        expect(page.locator(".empty")).to_be_visible(timeout=SOON)
        words = [sys.executable, "-m", "hone", "train", str(tmp_path / "my.yaml")]
        training = subprocess.Popen(words, env=environ, stderr=subprocess.DEVNULL)
        try:
            page.get_by_role("link", name="live").click(timeout=SOON)
            said = page.locator("figure output").first
            expect(said).to_contain_text("step", timeout=SOON)
            seen = said.inner_text()
            expect(said).not_to_have_text(seen, timeout=SOON)
            page.get_by_role("button", name="Stop").click()
            assert training.wait(timeout=60) == 130
        finally:
            training.kill()
        expect(page.locator(".status")).to_have_text("interrupted", timeout=SOON)
        page.get_by_role("button", name="Resume").click()
        expect(page.locator(".status")).to_have_text("running", timeout=SOON)
        page.close()  # the training does not notice
        page = visit(client.address)
        expect(page.locator(".status")).to_have_text("finished", timeout=3 * SOON)
    lines = [json.loads(line) for line in (folder / "live" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 501))


def test_base_and_tuned_answer_side_by_side_and_equal_models_turn_red(trained: Path, visit: Callable[..., Any]) -> None:
    with paging(trained) as client:
        page = visit(client.address)
        page.goto(f"{client.address}/#/play?run=a")
        page.get_by_label("Prompt").fill("def add(a, b):")
        page.get_by_label("tokens at most").fill("6")
        page.get_by_label("continue the text as it is").check()
        page.get_by_role("button", name="Ask", exact=True).click()
        notes = page.locator("h2 .note")
        for number in (0, 1):
            expect(notes.nth(number)).to_contain_text("pieces/s", timeout=2 * SOON)
        prints = page.locator("h2 code").all_inner_texts()
        assert len(set(prints)) == 2 and all(one.startswith("hone-") for one in prints)
        expect(page.locator(".alarm")).to_be_hidden()

        def same(route: Any) -> None:
            piece = {"system_fingerprint": "hone-same", "choices": [{"text": HOSTILE, "finish_reason": "stop"}]}
            route.fulfill(body=f"data: {json.dumps(piece)}\n\ndata: [DONE]\n\n", content_type="text/event-stream")

        page.route("**/api/play/completions*", same)
        page.get_by_role("button", name="Ask", exact=True).click()
        expect(page.locator(".alarm")).to_contain_text("same model", timeout=SOON)
        assert page.locator(".pair pre").all_inner_texts() == [HOSTILE, HOSTILE]


def test_a_server_that_comes_back_is_found_again(tmp_path: Path, visit: Callable[..., Any]) -> None:
    write_run(tmp_path / "first")
    with paging(tmp_path) as client:
        page = visit(client.address)
        expect(page.get_by_role("row")).to_have_count(2, timeout=SOON)
    expect(page.get_by_role("status")).to_contain_text("does not answer", timeout=SOON)
    write_run(tmp_path / "second")
    with paging(tmp_path, client.port):
        expect(page.get_by_role("row")).to_have_count(3, timeout=SOON)
        expect(page.get_by_role("status")).to_have_text("")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(trained: Path, browser: Any, scheme: str) -> None:
    """axe-core finds nothing, on any view, in both schemes."""
    with paging(trained) as client:
        context = browser.new_context(color_scheme=scheme, bypass_csp=True)
        page = context.new_page()
        page.goto(f"{client.address}/#token={TOKEN}")
        for view in ("#/", "#/run?run=a", "#/compare?a=a&b=b", "#/play?run=a", "#/data?run=a"):
            page.goto(f"{client.address}/{view}")
            page.get_by_role("heading", level=1).wait_for()
            time.sleep(2)
            page.locator("[role=status]", has_text="Reading the rows").wait_for(state="detached", timeout=SOON)
            assert violations(page) == [], view
        context.close()
