"""The commands of the guides are understood by the command line, and their Python runs on tiny models."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from markdown_pages import DOCS
from typer.main import get_command

import hone
from hone.cli import app

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
def test_python_of_afterwards(
    tmp_path: Path, model_folder: Path, write_rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run and an adapter of a tiny model, then every Python block of the page, in order."""
    monkeypatch.chdir(tmp_path)
    rows = write_rows("train.jsonl", [{"instruction": f"add {i}", "output": f"{i} + 1"} for i in range(12)])
    common = {"model_name_or_path": str(model_folder), "train_file": str(rows), "max_steps": 1, "max_length": 128}
    for method, name in (("full", "my"), ("lora", "lora")):
        hone.train(hone.load_config({**common, "method": {"method": method}, "output_dir": f"runs/{name}"}))
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "afterwards.md").read_text(encoding="utf-8"), re.S)
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, "afterwards.md", "exec"), names)
    assert type(names["model"]).__name__.startswith("Peft")
