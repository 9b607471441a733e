"""Notebooks from scripts: `examples/notebooks/NAME.py` → `NAME.ipynb`, run once, with its outputs.

    python tools/notebooks.py                 # all of them
    python tools/notebooks.py first_run       # one

A script has cells that begin with `# %%` or `# %% [markdown]`. It is run in a folder of its own, cell by cell, as a
notebook is: what a cell prints and the value of its last expression are kept. Needs no Jupyter. The tests run the same
cells (`tests/python/test_notebooks.py`) and compare them with those of the notebook.
"""

import ast
import contextlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "notebooks"


@dataclass(frozen=True)
class Cell:
    """markdown: whether it is text. source: without the comment signs, if so."""

    markdown: bool
    source: str


def cells_of(script: str) -> list[Cell]:
    """
    >>> cells_of("# %% [markdown]\\n# # Title\\n#\\n# Text\\n\\n# %%\\nx = 1\\nx\\n")
    [Cell(markdown=True, source='# Title\\n\\nText'), Cell(markdown=False, source='x = 1\\nx')]
    """
    found: list[tuple[bool, list[str]]] = []
    for line in script.splitlines():
        if line.startswith("# %%"):
            found.append(("[markdown]" in line, []))
        elif found:
            markdown, lines = found[-1]
            lines.append(line.removeprefix("#").removeprefix(" ") if markdown else line)
    return [Cell(markdown, "\n".join(lines).strip("\n")) for markdown, lines in found]


def run(cells: list[Cell], folder: Path) -> Iterator[tuple[str, Any]]:
    """(what was printed, value of the last expression or None) of each cell of code, run in `folder`."""
    names: dict[str, Any] = {"__name__": "__main__"}
    with contextlib.chdir(folder):
        for cell in cells:
            if not cell.markdown:
                printed = io.StringIO()
                with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                    value = evaluated(cell.source, names)
                yield printed.getvalue(), value


def evaluated(source: str, names: dict[str, Any]) -> Any:
    """Run a cell; the value of its last line if that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def outputs(printed: str, value: Any, number: int, folder: Path) -> list[dict[str, Any]]:
    """As a notebook stores them, without this machine's paths."""

    def lines(text: str) -> list[str]:
        return text.replace(f"{folder}{os.sep}", "").replace(str(folder), ".").splitlines(keepends=True)

    found: list[dict[str, Any]] = []
    if printed:
        found.append({"output_type": "stream", "name": "stdout", "text": lines(printed)})
    if value is not None:
        data = {"text/plain": lines(repr(value))}
        if html := getattr(value, "_repr_html_", lambda: None)():
            data = {"text/html": lines(html), **data}
        found.append({"output_type": "execute_result", "execution_count": number, "metadata": {}, "data": data})
    return found


def notebook(cells: list[Cell], stored: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """The file's content, as nbformat 4.5 has it."""
    found, left = [], iter(enumerate(stored, 1))
    for i, cell in enumerate(cells, 1):
        one: dict[str, Any] = {"id": f"cell-{i}", "metadata": {}, "source": cell.source.splitlines(keepends=True)}
        if cell.markdown:
            found.append({"cell_type": "markdown", **one})
        else:
            number, out = next(left)
            found.append({"cell_type": "code", "execution_count": number, **one, "outputs": out})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": found, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def write(name: str) -> Path:
    """Run a script in a new folder and write its notebook."""
    cells = cells_of((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made).resolve()
        os.environ["HONE_CACHE"] = str(folder / "cache")
        stored = [outputs(*found, number, folder) for number, found in enumerate(run(cells, folder), 1)]
    path = FOLDER / f"{name}.ipynb"
    path.write_text(json.dumps(notebook(cells, stored), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(path.stem for path in FOLDER.glob("*.py")):
        print(f"wrote {write(name)}")
