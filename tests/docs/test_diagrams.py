"""The pictures that a script draws are those of the script, readable without colours, and name what there is."""

import re
import xml.etree.ElementTree as ElementTree
from types import ModuleType

import pytest
from markdown_pages import DOCS, ROOT

from conftest import load_script
from hone.config.explain import recipe_names

FIGURES = DOCS / "figures"
SVG = "{http://www.w3.org/2000/svg}"
SMALLEST = 10  # pixels of a letter's height where the picture is 400 wide
PER_LETTER = 0.6  # of the height: the mean width of a letter, on the wide side


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script(FIGURES / "diagrams.py")


@pytest.mark.parametrize("name", ["workflow.svg", "decision.svg"])
def test_pictures(name: str, script: ModuleType) -> None:
    text = (FIGURES / name).read_text(encoding="utf-8")
    assert text == script.FIGURES[name](), "run python docs/figures/diagrams.py"
    root = ElementTree.fromstring(text)
    width, height = (float(root.attrib[side]) for side in ("width", "height"))
    assert root.find(f"{SVG}title") is not None and "prefers-color-scheme:dark" in text
    assert min(int(size) for size in re.findall(r"(?:font:|font-size:)(\d+)px", text)) * 400 / width >= SMALLEST
    for box in root.iter(f"{SVG}rect"):
        x, y, wide, high = (float(box.attrib[key]) for key in ("x", "y", "width", "height"))
        assert x >= 0 and y >= 0 and x + wide <= width and y + high <= height
        inside = [t for t in root.iter(f"{SVG}text") if y < float(t.attrib["y"]) < y + high]
        for words in (t for t in inside if x < float(t.attrib["x"]) < x + wide):
            assert len(words.text or "") * 13 * PER_LETTER <= wide, f"'{words.text}' is wider than its box"


def test_the_decision_names_every_recipe(script: ModuleType) -> None:
    named = [recipe for _, _, recipes in script.GOALS for recipe, _, _ in recipes]
    assert sorted(named) == recipe_names()


def test_the_index_of_commands_has_a_row_for_every_recipe() -> None:
    page = (DOCS / "files" / "index.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"`hone init ([\w-]+)`", page)) == recipe_names()
    assert ROOT.joinpath("docs/figures/diagrams.py").is_file()
