"""The commands of the guides are understood by the command line, and their Python runs on tiny models."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from markdown_pages import DOCS
from typer.main import get_command

from hone.cli import app
from hone.config.explain import recipe_text

GUIDES = sorted([page for page in DOCS.glob("*.md") if page.name != "log.md"] + list((DOCS / "files").glob("*.md")))
COMMANDS: Any = get_command(app)


def commands_of(page: Path) -> Iterator[str]:
    """`hone …` of code blocks, joined over lines, and of inline code; without comments."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"```bash\n(.*?)```", text, re.S):
        lines = block.replace("\\\n", " ").splitlines()
        yield from (line.split(" #")[0].strip() for line in lines if line.startswith("hone "))
    inline = re.sub(r"```.*?```", "", text, flags=re.S)
    yield from (" ".join(code.split()) for code in re.findall(r"`(hone [^`]+)`", inline))


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_commands_are_understood(page: Path) -> None:
    """Name, arguments and options; nothing is run."""
    for command in commands_of(page):
        name, *words = shlex.split(command)[1:]
        if name.startswith("-") or not words:  # `hone --help`, or a command's bare name in a sentence
            assert name.startswith("-") or name in COMMANDS.commands, command
            continue
        if words == ["--help"]:
            continue
        COMMANDS.commands[name].make_context(name, words)


def test_a_wrong_option_is_found() -> None:
    with pytest.raises(Exception, match="No such option"):
        COMMANDS.commands["generate"].make_context("generate", ["hone-base", "--nonsense", "1"])


@pytest.mark.slow
def test_python_of_python(
    tmp_path: Path,
    model_folder: Path,
    write_rows: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every block of the page, in order; the models it names are tiny ones of these names in the current folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("hone-base", "distilgpt2"):
        (tmp_path / name).symlink_to(model_folder)
    for name, n in (("train.jsonl", 8), ("eval.jsonl", 4)):
        write_rows(name, [{"text": f"def f_{n}_{i}(x):\n    return x + {i}\n"} for i in range(n)])
    recipe = recipe_text("light-lab").replace("num_train_epochs: 2", "num_train_epochs: 1")
    Path("light-lab.yaml").write_text(f"{recipe}\neval:\n  sample_prompts: 1\n  sample_max_new_tokens: 4\n")
    blocks, names = run_python("python.md")
    assert blocks == 11
    assert names["stopped"].status["status"] == "finished" and len(names["runs"]) == 1
    assert names["seeds"].headline == "loss" and names["trainer"].state.global_step == 2
    said = capsys.readouterr().out
    assert "unknown key 'lerning_rate'" in said and "did you mean 'learning_rate'" in said


def run_python(page: str) -> tuple[int, dict[str, Any]]:
    """Run the Python blocks of a page one after the other: how many there are, and the names they leave."""
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.S)
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    return len(blocks), names
