"""The pictures of README and docs: their scripts draw a run's own numbers, and the pictures kept are well formed."""

import json
import re
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest
from markdown_pages import DOCS, ROOT

from conftest import load_script
from hone.grading.tasks import Task
from hone.runs import Run
from written_run import write_run


def script(name: str) -> ModuleType:
    return load_script(DOCS / "figures" / f"{name}.py")


def words(svg: str) -> str:
    return " ".join("".join(ElementTree.fromstring(svg).itertext()).split())


def test_answers_side_by_side(tmp_path: Path) -> None:
    run = Run(write_run(tmp_path / "run"))
    for model, passed, text in (("base", False, "x < 1 & y"), ("tuned", True, "def f():\n    return 1\n")):
        answer = {"task_id": "task/0", "completion": text, "passed": passed}
        (run.folder / "eval" / f"{model}.code.jsonl").write_text(json.dumps(answer) + "\n", encoding="utf-8")
    task = Task("task/0", "Write f, with a < b.", "f", ("f",), ("assert f() == 1", "assert f() < 2"))
    drawn = words(script("answers").draw(run, task))
    assert "x < 1 & y" in drawn and "return 1" in drawn
    assert drawn.index("fails its tests") < drawn.index("2 of 2 tests pass")
    assert "2 of 4 → 2 of 4" in drawn


def test_loss_over_steps(tmp_path: Path) -> None:
    drawn = words(script("demo").draw(Run(write_run(tmp_path / "run"))))
    assert "base 5.50" in drawn and "tuned 4.25" in drawn and "33 held-out" in drawn


@pytest.mark.parametrize("picture", sorted((DOCS / "figures").glob("*.svg")), ids=lambda picture: picture.name)
def test_pictures_are_well_formed_and_used(picture: Path) -> None:
    root = ElementTree.parse(picture).getroot()
    assert root.find("{http://www.w3.org/2000/svg}title") is not None, "a title, for those who cannot see it"
    pages = [ROOT / "README.md", *DOCS.rglob("*.md")]
    assert any(picture.name in page.read_text(encoding="utf-8") for page in pages)


def test_figures_of_the_readme_are_those_of_the_picture() -> None:
    svg = words((DOCS / "figures" / "answers.svg").read_text(encoding="utf-8"))
    before, after, items = re.search(r"(\d+) of (\d+) → (\d+) of \2", svg).group(1, 3, 2)  # type: ignore[union-attr]
    for page in (ROOT / "README.md", DOCS / "guarantees.md"):
        text = " ".join(page.read_text(encoding="utf-8").split())
        assert f"{before} → {after} of {items}" in text or f"{before} of {items} | {after} of {items}" in text
