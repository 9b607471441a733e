"""A grid: results x choices, each pair of which is one small function with its instruction and its tests.

In a result's name, words and code, `@` stands for the choice; in its code `NAME` stands for the function and
`EXTRA` for its further arguments. Nothing here reads or writes files.
One way to use it: `rows_of(Grid(...))` gives (row, is it held out?) for every cell.
"""

import re
from ast import literal_eval
from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import indent
from typing import Any

FROM = {
    "Counter": "from collections import Counter",
    "date": "from datetime import date",
    "json": "import json",
    "math": "import math",
    "re": "import re",
}


@dataclass(frozen=True)
class Choice:
    """What a function works on: `numbers greater than limit`, coded `n > limit`; `extra` is an argument it needs."""

    name: str
    words: str
    code: str
    extra: str = ""


@dataclass(frozen=True)
class Result:
    """What a function returns. `extra` is an argument it adds; `inputs` replace the grid's."""

    name: str
    words: str
    code: str
    extra: str = ""
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grid:
    """A family of functions. `values` holds, for each extra argument, one value for each of `inputs`.

    start: code before the result's. before: code before each assert; wrap: what the assert compares, `{}` the call.
    own: the tests need the program's own objects.
    """

    family: str
    difficulty: str
    arguments: str
    results: tuple[Result, ...]
    choices: tuple[Choice, ...]
    inputs: tuple[str, ...]
    values: dict[str, tuple[str, ...]]
    start: str = ""
    before: str = ""
    wrap: str = "{}"
    own: bool = False


@dataclass(frozen=True)
class Cell:
    """A function before its tests are chosen: what each call is given, the call, and what it returns, as code."""

    name: str
    instruction: str
    program: str
    given: list[str]
    calls: list[str]
    values: list[str]


def rows_of(grid: Grid) -> Iterator[tuple[dict[str, Any], bool]]:
    """The cells; a quarter of them is held out, on diagonals, so that every result and every choice is trained too."""
    cells = {
        (i, j): _cell(grid, result, choice)
        for i, result in enumerate(grid.results)
        for j, choice in enumerate(grid.choices)
    }
    for (i, j), cell in cells.items():
        others = [other for other in cells.values() if other is not cell and other.given == cell.given]
        tests = []
        for number in needed(cell.values, [other.values for other in others]):
            sign = "is" if cell.values[number] in ("None", "True", "False") else "=="
            tests.append(f"{grid.before}assert {cell.calls[number]} {sign} {cell.values[number]}")
        texts = (cell.instruction, cell.name, cell.program)
        yield row(grid.family, grid.difficulty, *texts, tests, grid.own), (i + j) % 4 == 3


def _cell(grid: Grid, result: Result, choice: Choice) -> Cell:
    name = result.name.replace("@", choice.name)
    extras = [extra for extra in (result.extra, choice.extra) if extra]
    arguments = ", ".join([grid.arguments, *extras])
    body = f"{grid.start}\n{result.code}".strip().replace("@", choice.code)
    body = body.replace("NAME", name).replace("EXTRA", "".join(f", {extra}" for extra in extras))
    imports = "".join(f"{line}\n" for word, line in FROM.items() if re.search(rf"\b{word}[.(]", body))
    program = f"{imports}\n\n" * bool(imports) + f"def {name}({arguments}):\n{indent(body, '    ')}\n"
    returns = result.words.replace("@", choice.words)
    instruction = f"Write a function {name}({arguments}) that returns {returns}."
    given = [
        ", ".join([first, *(grid.values[extra][number] for extra in extras)])
        for number, first in enumerate(result.inputs or grid.inputs)
    ]
    calls = [grid.wrap.format(f"{name}({values})") for values in given]
    return Cell(name, instruction, program, given, calls, returned(program, calls, grid.before))


def returned(program: str, calls: list[str], before: str) -> list[str]:
    """What the program, once read and believed, returns for these calls, as code."""
    values = []
    for call in calls:
        space: dict[str, Any] = {}
        exec(program, space)
        exec(before, space)
        values.append(repr(eval(call, space)))
    return values


def needed(values: list[str], others: list[list[str]]) -> list[int]:
    """Which calls to keep, so that no other function of the grid and no constant gives all of their values."""

    def told_apart(kept: list[int]) -> bool:
        wrong = [*others, *([value] * len(values) for value in values)]
        return all(any(literal_eval(answer[i]) != literal_eval(values[i]) for i in kept) for answer in wrong)

    least = 5 if set(values) <= {"True", "False"} else 3  # those are guessed more easily
    kept = list(range(len(values)))
    for number in range(len(values) - 1):  # the last one is the empty case, where there is one
        fewer = [i for i in kept if i != number]
        if len(fewer) >= least and told_apart(fewer):
            kept = fewer
    return kept


def row(
    family: str, difficulty: str, instruction: str, name: str, program: str, tests: list[str], own: bool = False
) -> dict[str, Any]:
    """One line of a data file: a programming task, and an instruction with its answer."""
    same_process = {"same_process": True} if own else {}
    return {
        "task_id": name,
        "family": family,
        "difficulty": difficulty,
        "instruction": instruction,
        "output": program,
        "prompt": instruction,
        "entry_point": name,
        "reference": program,
        "tests": tests,
        **same_process,
    }
