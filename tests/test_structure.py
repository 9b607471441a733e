"""The numbers of tools/structure.py, as limits: what was reached is kept."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from conftest import load_script

SCRIPT = Path(__file__).resolve().parents[1] / "tools" / "structure.py"
LIMITS = {
    "circles": 0,
    "upward": 0,
    "config": 39,  # several trainings of one config are made of configs
    "untyped": 126,
    "tasks": 0,
    "inner": 4,  # the sandbox needs Linux, and what imports it here does not
}
LONGEST = 65  # lines of a function


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script(SCRIPT)


@pytest.fixture(scope="module")
def found(script: ModuleType) -> Any:
    """All modules of the package, parsed once."""
    return script.modules()


@pytest.mark.parametrize("name", list(LIMITS))
def test_limits(name: str, script: ModuleType, found: Any) -> None:
    title, measure = script.MEASURES[name]
    places = measure(found)
    assert len(places) <= LIMITS[name], f"{title}: {len(places)}, more than {LIMITS[name]}\n" + "\n".join(places)


def test_functions_fit_a_screen_or_two(script: ModuleType, found: Any) -> None:
    longest, place = script.lengths(found)[0]
    assert longest <= LONGEST, place


def test_circles_and_upward_imports_are_found(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").mkdir()
    texts = {
        "config/a.py": "def f():\n    from hone.config.b import g\n",
        "config/b.py": "import os\nfrom hone.config import a\nfrom hone.cli import app\n",
        "cli.py": "def run(config: 'Config | None', task):\n    return task in ('causal', 'x') or {'seq2seq': 1}\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(script, "SOURCE", tmp_path)
    monkeypatch.setattr(script, "ROOT", tmp_path)
    monkeypatch.setattr(script, "layout", lambda: SimpleNamespace(ORDER=["config", "cli"]))
    found = script.modules()
    assert script.circles(found) == ["hone.config.a <-> hone.config.b"]
    assert script.upward(found) == ["config/b.py:3 hone.cli"]
    assert script.whole_config(found) == ["cli.py:1 run"]
    assert [place.split()[0] for place in script.task_names(found)] == ["cli.py:2", "cli.py:2"]


def test_it_prints(
    script: ModuleType, found: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["structure.py", "--list", "config"])
    monkeypatch.setattr(script, "modules", lambda: found)
    script.main()
    said = capsys.readouterr().out
    assert "import circles" in said and "src/hone/training/train.py" in said
