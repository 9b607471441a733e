"""The notebooks of examples/notebooks hold the cells of their scripts, and these run; their outputs name no machine."""

import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from conftest import load_script

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return load_script(ROOT / "tools" / "notebooks.py")


def stored(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    return found


def test_there_are_two() -> None:
    assert NAMES == ["compare_methods", "first_run"]
    assert [path.stem for path in sorted(FOLDER.glob("*.ipynb"))] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_has_the_cells_of_its_script(name: str, tool: ModuleType) -> None:
    cells = tool.cells_of((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
    kept = [tool.Cell(cell["cell_type"] == "markdown", "".join(cell["source"])) for cell in stored(name)["cells"]]
    assert kept == cells, f"after a change: python tools/notebooks.py {name}"
    assert cells[0].markdown and cells[0].source.startswith("# ")


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_stored_and_name_no_machine(name: str) -> None:
    code = [cell for cell in stored(name)["cells"] if cell["cell_type"] == "code"]
    said = json.dumps([cell["outputs"] for cell in code])
    assert sum(bool(cell["outputs"]) for cell in code) >= 6 and "text/html" in said
    assert re.findall(r"/(?:tmp|home|root|work|Users|var|private)/[\w.-]+", said) == []
    assert "Traceback" not in said and "Warning" not in said
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))


FEWER = {"max_train_samples": 24, "max_eval_samples": 12}  # rows: they make no other cells run, and take the time


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_cells_run(name: str, tool: ModuleType, tmp_path: Path, compiled_kernel: None) -> None:
    script = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    for key, rows in FEWER.items():
        script, n = re.subn(rf"\b({key}\W+)\d+", rf"\g<1>{rows}", script)
        assert n == 1, key
    cells = tool.cells_of(script)
    values = [value for _, value in tool.run(cells, tmp_path)]
    shown = " ".join(repr(value) for value in values if value is not None)
    assert "better" in shown and ("not distinguishable" in shown or name == "compare_methods")
    assert list((tmp_path / "runs").glob("*/eval/compare.json"))


def test_a_cell_gives_what_it_prints_and_its_last_value(tool: ModuleType, tmp_path: Path) -> None:
    script = (
        "# %% [markdown]\n# # T\n\n# %%\nx = 3\nprint('hi')\n\n# %%\nimport pathlib\n\npathlib.Path.cwd() / str(x)\n"
    )
    cells = tool.cells_of(script)
    found = list(tool.run(cells, tmp_path))
    assert found == [("hi\n", None), ("", tmp_path / "3")]
    out = [tool.outputs(*one, number, tmp_path) for number, one in enumerate(found, 1)]
    assert out[0] == [{"output_type": "stream", "name": "stdout", "text": ["hi\n"]}]
    assert out[1][0]["data"] == {"text/plain": ["PosixPath('3')"]} or sys.platform == "win32"
    made = tool.notebook(cells, out)
    assert [cell["cell_type"] for cell in made["cells"]] == ["markdown", "code", "code"]
