"""Names and texts of others do not drive the terminal: escape sequences and direction marks are spelled out."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest_plugins = ["spoiled"]

Hone = Callable[..., Any]
Refused = Callable[..., str]
EVIL = "\x1b]0;owned\x07\x1b[2J\r\b\u202etxt\u2066\x9b31m"


def assert_harmless(text: str) -> None:
    assert not set(text) & set("\x1b\x07\r\b\u202e\u2066\x9b"), repr(text)


def test_a_columns_name_in_an_error(project: Path, hone: Hone, refused: Refused) -> None:
    (project / "train.jsonl").write_text(f"{json.dumps({EVIL: 'a'})}\n")
    assert_harmless(refused(hone("prepare", "cfg.yaml"), "\\x1b]0;owned\\x07", "\\u202e"))


def test_a_files_name_in_an_error(project: Path, hone: Hone, refused: Refused) -> None:
    bad = project / f"rows{EVIL}.jsonl"
    bad.write_text("{\n")
    message = refused(hone("prepare", "cfg.yaml", f"train_file={json.dumps(str(bad))}"), "not valid JSON", "\\x1b")
    assert_harmless(message)


def test_a_key_of_a_configuration(project: Path, hone: Hone, refused: Refused) -> None:
    with (project / "cfg.yaml").open("a") as file:
        file.write(f"{json.dumps('colour' + EVIL)}: 1\n")
    assert_harmless(refused(hone("check", "cfg.yaml"), "cfg.yaml:", "\\x1b"))


def test_a_role_and_a_templates_own_words(project: Path, hone: Hone, refused: Refused) -> None:
    (project / "model" / "chat_template.jinja").write_text("{{ raise_exception(messages[0].content) }}")
    turns = [{"role": "user", "content": EVIL}, {"role": "assistant", "content": "2"}]
    (project / "train.jsonl").write_text(f"{json.dumps({'messages': turns})}\n")
    assert_harmless(refused(hone("prepare", "cfg.yaml"), "refuses the turns", "\\x1b"))


@pytest.mark.parametrize("kind", ["stderr", "lines", "stages"])
def test_what_is_logged(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    from hone.commands.shared import _ToStderr
    from hone.progress import Lines, Stages

    handler = {"stderr": _ToStderr, "lines": Lines, "stages": Stages}[kind]()
    handler.handle(logging.LogRecord("hone", logging.WARNING, "", 0, "dropped %s\nand more", (f"a{EVIL}b",), None))
    said = capsys.readouterr().err.removeprefix("\r\x1b[K")
    assert_harmless(said)
    assert said.endswith("\nand more\n") and "a\\x1b]0" in said


def test_a_finished_runs_files(project: Path, hone: Hone) -> None:
    """What a person opens or prints afterwards: the card, the report in both forms, and all that was said."""
    text = "def f(x):\n    return x\n" + EVIL
    (project / "train.jsonl").write_text("".join(f"{json.dumps({'text': f'{i} {text}'})}\n" for i in range(20)))
    result = hone("train", "cfg.yaml")
    assert result.exit_code == 0, result.output
    assert_harmless(result.stdout + result.stderr)
    for name in ("README.md", "report.md", "report.html"):
        assert_harmless((project / "out" / name).read_text())
    for command in ("runs", "report"):
        assert_harmless(hone(command, *(["out"] if command == "report" else ["."])).output)
