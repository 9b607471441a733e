"""docs/labs: every command of a lab runs, in order, in an empty folder, and prints what the page shows.

tools/labs.py says how near is near enough, and rewrites the outputs: `make labs`.
"""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from markdown_pages import DOCS, ROOT

from conftest import load_script

PAGES = sorted(page for page in (DOCS / "labs").glob("*.md") if page.stem != "index")


@pytest.fixture(scope="module")
def labs() -> ModuleType:
    return load_script(ROOT / "tools" / "labs.py")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_lab_prints_what_it_shows(
    page: Path,
    labs: ModuleType,
    strict_sandbox: Any,
    compiled_kernel: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In float32, as conftest.py has it for all tests."""
    folder = tmp_path / "lab"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("HONE_CACHE", str(folder / ".cache"))
    found = labs.run_page(page.read_text(encoding="utf-8"), folder)
    assert not found.wrong, "\n".join(
        [f"{len(found.wrong)} outputs differ; `make labs` writes them anew", *found.wrong]
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_numbers_of_the_prose_stand_in_an_output(page: Path, labs: ModuleType) -> None:
    assert labs.unfounded(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_lab_has_its_parts(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    parts = ["**Goal.**", "## The rows", "## Break it on purpose", "## Exercise", "<details>", "## Results"]
    places = [text.find(part) for part in [*parts, "## Key takeaways", "## Read next"]]
    assert -1 not in places and places == sorted(places)


# ---- the checker itself: a wrong number fails a lab ------------------------------------------------------------------

PAGE = """# Lab

```console
$ echo 'loss 2.50 over 30 rows in 1.2 s'
loss 2.50 over 30 rows in 1.2 s
$ printf 'a 1\\nb 2\\nc 3 and more\\n'
a 1
…
c 3 …
```

Loss was 2.50.
"""


def wrong(labs: ModuleType, page: str, folder: Path) -> list[str]:
    return labs.run_page(page, folder).wrong  # type: ignore[no-any-return]


def test_a_right_page_passes(labs: ModuleType, tmp_path: Path) -> None:
    assert wrong(labs, PAGE, tmp_path) == [] and labs.unfounded(PAGE) == []


@pytest.mark.parametrize(
    ("shown", "instead", "fails"),
    [
        ("loss 2.50 over 30 rows in 1.2 s\n$", "loss 2.52 over 30 rows in 7.0 s\n$", False),  # near, and a duration
        ("loss 2.50 over 30 rows in 1.2 s\n$", "loss 3.50 over 30 rows in 1.2 s\n$", True),
        ("loss 2.50 over 30 rows in 1.2 s\n$", "loss 2.50 over 31 rows in 1.2 s\n$", True),
        ("loss 2.50 over 30 rows in 1.2 s\n$", "gain 2.50 over 30 rows in 1.2 s\n$", True),
        ("loss 2.50 over 30 rows in 1.2 s\n$", "loss 2.50 over 30 rows in 1.2 s\nand more\n$", True),
        ("loss 2.50 over 30 rows in 1.2 s\n$", "$", True),  # an output nobody shows
        ("a 1\n…\nc 3 …", "a 1\n…\nc 4 …", True),
        ("a 1\n…\nc 3 …", "a 1\nc 3 …", True),  # a line left out without a word
        ("a 1\n…\nc 3 …", "c 3 …\n…\na 1", True),  # another order
        ("a 1\n…\nc 3 …", "…", False),
    ],
)
def test_a_wrong_number_or_word_fails_a_lab(
    shown: str, instead: str, fails: bool, labs: ModuleType, tmp_path: Path
) -> None:
    head, body = PAGE.split("$ printf")
    page = f"{head}$ printf{body}".replace(shown, instead)
    assert page != PAGE
    assert bool(wrong(labs, page, tmp_path)) is fails


def test_words_behind_the_fence(labs: ModuleType, tmp_path: Path) -> None:
    def page(words: str, shown: str, command: str) -> str:
        return f"```console {words}\n$ {command}\n{shown}\n```\n"

    assert wrong(labs, page("about", "10 pass", "echo 12 pass"), tmp_path) == []
    assert wrong(labs, page("about", "10 pass", "echo 14 pass"), tmp_path)
    assert wrong(labs, page("varies", "Alice said", "echo the Queen 3"), tmp_path) == []
    assert wrong(labs, page("", "no", "echo no; false"), tmp_path), "an error nobody expects"
    assert wrong(labs, page("fails", "no", "echo no; false"), tmp_path) == []
    assert wrong(labs, page("fails", "no", "echo no"), tmp_path), "an error that does not come"


def test_p_values_stay_on_their_side(labs: ModuleType) -> None:
    assert labs.agrees("p = 0.0002", "p = 6.1e-05")
    assert not labs.agrees("p = 0.03", "p = 0.07")


def test_a_wrong_number_of_the_prose_is_found(labs: ModuleType) -> None:
    assert labs.unfounded(PAGE.replace("was 2.50", "was 2.05")) == ["2.05"]
    assert labs.unfounded(PAGE + "\nA share of 12 %.\n") == ["12"]
    assert labs.unfounded(PAGE + "\nA share of 12 %.\n<!-- not from an output: 12 -->\n") == []
    assert labs.unfounded(PAGE + "\n## Results\n\n| rows |\n| --: |\n| 31 |\n") == ["31"]
    assert labs.unfounded(PAGE + "\n## Results\n\n| rows |\n| --: |\n| 30 |\n") == []
    assert labs.unfounded(PAGE + "\n[2.9](https://a.b/2.8), `rate=2.7`\n") == ["2.9"]


def test_a_page_is_rewritten(labs: ModuleType, tmp_path: Path) -> None:
    """Outputs and the numbers of the prose follow; what was left out stays left out."""
    old = PAGE.replace("\nloss 2.50 over 30 rows", "\nloss 2.71 over 9 rows").replace("was 2.50", "was 2.71")
    assert labs.rewritten(old, labs.run_page(old, tmp_path)) == PAGE
    empty = PAGE.replace("a 1\n…\nc 3 …\n", "")
    assert "\na 1\nb 2\nc 3 and more\n```" in labs.rewritten(empty, labs.run_page(empty, tmp_path))
