"""What people do on the page beyond looking: start a run, look words up, compare many, keep a prompt."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import HOSTILE, SOON, TINY, expect, violations
from paging import TOKEN, Client, paging

from hone.results import write
from written_run import repeated, write_run

pytest_plugins = ["browsing"]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained runs again, with rows beside them, in a folder that may be written to."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copytree(trained, folder / "runs")
    shutil.copy(trained.parent / "rows.jsonl", folder)
    for seed in (0, 1):
        write_run(folder / "seeds" / f"seed-{seed}")
    write(folder / "seeds" / "repeat.json", repeated())
    return folder


@pytest.fixture(scope="module")
def client(place: Path) -> Iterator[Client]:
    with paging(place) as found:
        yield found


def settings(model: Path, name: str, **values: Any) -> str:
    found = {
        "model_name_or_path": str(model),
        "train_file": "rows.jsonl",
        **TINY,
        **values,
        "output_dir": f"runs/{name}",
    }
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in found.items())


def opened(page: Any, client: Client, name: str, recipe: str = "light-lab") -> Any:
    """The form, filled in and its settings written; the editor."""
    page.get_by_role("link", name="New run").click()
    page.locator("form select").first.select_option(recipe, timeout=SOON)
    page.get_by_label("rows to train on").fill("rows.jsonl")
    page.get_by_label("name of the run").fill(name)
    page.get_by_role("button", name="Write the settings").click()
    editor = page.get_by_label("Settings, in YAML")
    expect(editor).to_have_value(re.compile(f"output_dir: runs/{name}\n"), timeout=SOON)
    return editor


def test_a_run_is_started_from_the_form_and_finishes(
    client: Client, place: Path, model_folder: Path, visit: Callable[..., Any]
) -> None:
    page = visit(client.address)
    editor = opened(page, client, "mine")
    expect(page.locator(".problem")).to_have_text("No mistakes.", timeout=SOON)
    editor.fill(settings(model_folder, "mine") + "lerning_rate: 1\n")
    expect(page.locator(".problem")).to_contain_text("did you mean 'learning_rate'", timeout=SOON)
    expect(page.get_by_role("button", name="Start training")).to_be_disabled()
    expect(page.locator(".gutter b")).to_have_count(1)
    editor.fill(settings(model_folder, "mine"))
    expect(page.locator(".problem")).to_contain_text("No mistakes.", timeout=SOON)
    expect(page.locator("pre.command")).to_contain_text("hone train mine.yaml")
    page.get_by_role("button", name="Start training").click()
    expect(page.locator(".status")).to_have_text("finished", timeout=3 * SOON)
    expect(page.get_by_role("heading", level=1)).to_contain_text("nats a token", timeout=SOON)
    assert (place / "mine.yaml").read_text() == settings(model_folder, "mine")


def test_a_start_that_fails_says_so_on_the_page(
    client: Client, place: Path, model_folder: Path, visit: Callable[..., Any]
) -> None:
    page = visit(client.address)
    editor = opened(page, client, "broken")
    editor.fill(settings(model_folder, "broken", model_name_or_path="./<b>gone</b>"))
    expect(page.locator(".problem")).to_contain_text("No mistakes.", timeout=SOON)
    page.get_by_role("button", name="Start training").click()
    expect(page.get_by_role("alert")).to_contain_text("<b>gone</b>", timeout=2 * SOON)
    assert not (place / "broken.yaml").exists()
    expect(page.get_by_role("button", name="Start training")).to_be_enabled()


def test_keys_are_completed_and_explained_by_keyboard_alone(client: Client, visit: Callable[..., Any]) -> None:
    page = visit(client.address)
    editor = opened(page, client, "typed")
    editor.fill("train:\n")
    page.keyboard.press("Control+End")
    page.keyboard.type("  lr_s")
    page.keyboard.press("Tab")
    assert editor.input_value() == "train:\n  lr_scheduler_type: "
    page.keyboard.type("cos")
    page.keyboard.press("Tab")
    assert editor.input_value() == "train:\n  lr_scheduler_type: cosine"
    expect(page.locator(".aside")).to_contain_text("train.lr_scheduler_type", timeout=SOON)
    page.keyboard.press("Enter")
    assert editor.input_value().endswith("cosine\n  ")  # the next line is indented as this one
    page.keyboard.type("wa")
    page.keyboard.press("Escape")
    page.keyboard.press("Tab")  # the names have been sent away, so the focus goes on
    assert not editor.evaluate("(field) => field === document.activeElement")
    page.get_by_role("link", name="Learn").click()
    page.go_back()  # nothing that was typed is lost
    expect(page.get_by_label("Settings, in YAML")).to_have_value(
        "train:\n  lr_scheduler_type: cosine\n  wa", timeout=SOON
    )


def test_words_explain_themselves_where_they_stand(client: Client, visit: Callable[..., Any]) -> None:
    page = visit(client.address)
    page.goto(f"{client.address}/#/run?run=runs/a")
    page.locator("table").get_by_role("button", name="perplexity", exact=True).first.click(timeout=SOON)
    expect(page.locator("dialog")).to_contain_text("e raised to", timeout=SOON)
    page.get_by_role("link", name="All words").click()
    expect(page.get_by_role("heading", name="Perplexity")).to_be_visible(timeout=SOON)
    page.get_by_label("Search words and keys").fill("lora r")
    page.get_by_role("button", name="lora_r", exact=True).click()
    expect(page.locator("section .prose")).to_contain_text("method.lora_r", timeout=SOON)
    page.get_by_label("Search words and keys").fill("zzz")
    expect(page.locator(".words")).to_contain_text("Nothing has this")
    page.goto(f"{client.address}/#/run?run=runs/a")
    page.locator("figcaption").get_by_role("button", name="Loss", exact=True).click(timeout=SOON)
    expect(page.locator("dialog")).to_contain_text("token", timeout=SOON)
    assert page.locator("article .word").count() == 0  # what rows and models wrote is left alone


def test_runs_of_one_command_are_folded_and_many_are_compared(client: Client, visit: Callable[..., Any]) -> None:
    page = visit(client.address)
    group = page.get_by_role("button", name="seeds")
    expect(group).to_have_attribute("aria-expanded", "false", timeout=SOON)
    expect(page.locator("tr.group")).to_contain_text("±")
    expect(page.locator("tr.inside")).to_have_count(0)
    group.focus()
    page.keyboard.press("Enter")
    expect(page.locator("tr.inside")).to_have_count(2)
    page.get_by_label("tick all of seeds").check()
    page.get_by_label("tick runs/a", exact=True).check()
    page.get_by_role("link", name="Compare 3 runs with").click()
    expect(page.get_by_text("seeds/seed-1")).to_be_visible(timeout=SOON)
    expect(page.locator(".legend-runs li")).to_have_count(3)
    expect(page.get_by_role("img", name="Training loss")).to_be_visible(timeout=SOON)
    page.goto(f"{client.address}/#/compare?a=runs/a&b=runs/b&c=runs/a")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Of 2 runs beside A", timeout=SOON)
    expect(page.locator("tbody th").filter(has_text="C").first).to_be_visible()


def test_tokens_have_probabilities_other_runs_answer_and_a_prompt_is_kept(
    client: Client, place: Path, visit: Callable[..., Any]
) -> None:
    page = visit(client.address)
    page.goto(f"{client.address}/#/play?run=runs/a")
    page.get_by_label("Prompt").fill("def add(a, b):")
    page.get_by_label("tokens at most").fill("6")
    page.get_by_text("Other runs beside it").click(timeout=SOON)
    page.get_by_label("tuned models of").select_option("runs/b")
    for raw in (True, False):  # both forms of the answer
        page.get_by_label("continue the text as it is").set_checked(raw)
        page.get_by_label("token probabilities").check()
        page.get_by_role("button", name="Ask", exact=True).click()
        expect(page.locator(".pair > div")).to_have_count(3, timeout=2 * SOON)
        expect(page.locator(".pair summary")).to_have_count(3, timeout=2 * SOON)
        assert page.locator(".pair .token").count() > 3
    page.locator(".pair summary").first.click()
    expect(page.locator(".pair tbody").first).to_contain_text("%")
    assert len(set(page.locator("h2 code").all_inner_texts())) == 3
    page.get_by_label("The answer that was wanted").fill(HOSTILE)
    page.get_by_role("button", name="Save as test item").click()
    expect(page.locator("section .note").last).to_contain_text("row 1 of", timeout=SOON)
    assert json.loads((place / "test-items.jsonl").read_text()) == {"prompt": "def add(a, b):", "completion": HOSTILE}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_the_new_views(client: Client, browser: Any, scheme: str) -> None:
    context = browser.new_context(color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    page.goto(f"{client.address}/#token={TOKEN}")
    for view in ("#/", "#/learn?word=lora_r", "#/compare?a=runs/a&b=runs/b&c=runs/a"):
        page.goto(f"{client.address}/{view}")
        page.wait_for_timeout(1500)
        assert violations(page) == [], view
    for button in page.locator(".fold").all():
        button.click()
    editor = opened(page, client, f"axe-{scheme}")
    editor.fill("train:\n  lerning_rate: 1\n")
    expect(page.locator(".problem.bad")).to_be_visible(timeout=SOON)
    assert violations(page) == []
    for width in (400, 1920):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()
