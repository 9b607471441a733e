"""Every `hone …` command and the Python block of the README run, in order, on a tiny local model."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from conftest import pairs
from hone.cli import app

README = Path(__file__).parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.S)


@pytest.mark.slow
def test_commands_and_python(
    tmp_path: Path, model_folder: Path, write_rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    functions = [{"text": f"def f{i}(a, b):\n    return a + b + {i}\n"} for i in range(12)]
    write_rows("train.jsonl", functions[:9])
    write_rows("eval.jsonl", functions[9:])
    (tmp_path / "my-model").symlink_to(model_folder)
    (tmp_path / "book.txt").write_text("".join(row["prompt"] + "\n" for row in pairs(200)), encoding="utf-8")
    commands = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    commands = [line for line in commands if line.startswith("hone ")]
    assert len(commands) >= 6
    for command in commands:
        result = CliRunner().invoke(app, shlex.split(command)[1:])
        assert result.exit_code == 0, f"{command}\n{result.output}"
        for recipe in tmp_path.glob("*.yaml"):  # the recipes name models on the hub; tests have no network
            text = re.sub(r"(model_name_or_path:) \S+", rf"\1 {model_folder}", recipe.read_text(encoding="utf-8"))
            recipe.write_text(text, encoding="utf-8")
    (python,) = blocks("python")
    text = (tmp_path / "light-lab.yaml").read_text(encoding="utf-8")
    (tmp_path / "light-lab.yaml").write_text(text.replace("runs/light-lab", "runs/from-python"), encoding="utf-8")
    exec(compile(python, "README.md", "exec"), {})
    assert (tmp_path / "runs" / "from-python" / "eval" / "tuned.json").is_file()
