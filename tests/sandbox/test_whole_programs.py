"""Nothing that a program needs is lost on the way out of an answer: in every dress, with either line end."""

from itertools import product

import pytest

from hone.grading.extract import programs_of
from hone.grading.tasks import Task, as_task

PROMPT = 'from typing import List\n\n\ndef add(a: int, b: int) -> int:\n    """Add."""\n'
CODE = as_task({"task_id": "c", "prompt": PROMPT, "entry_point": "add", "tests": ["assert add(1, 2) == 3"]})
TALK = as_task({"task_id": "t", "prompt": "Add two numbers.", "entry_point": "add", "tests": ["assert add(1, 2) == 3"]})


def result(programs: list[str]) -> object:
    """What the first program that compiles makes of add(1, 2); as the sandbox does, but for trusted text."""
    for program in programs:
        try:
            code = compile(program, "<program>", "exec", dont_inherit=True)
        except (SyntaxError, ValueError):
            continue
        space: dict[str, object] = {"__name__": "program"}
        exec(code, space)
        return space["add"](1, 2)  # type: ignore[operator]
    raise AssertionError(f"none compiles: {programs}")


# (what stands before the function, the function, what stands after it); {} of the middle is what it adds
NEEDS = {
    "a constant": ("R = 0\n", "R", ""),
    "a constant with a type": ("R: int = 0\n", "R", ""),
    "two constants at once": ("Q, R = 1, 0\n", "R", ""),
    "constants by unpacking": ("(Q, R), *S = (1, 0), 2\n", "R", ""),
    "chained constants": ("Q = R = 0\n", "Q + R", ""),
    "a constant after a comment": ("# what is added\nR = 0\n", "R", ""),
    "a constant after the docstring": ('"""Adds.\n\nR = 9\n"""\n\nR = 0\n', "R", ""),
    "a future import": ("from __future__ import annotations\n\nR = 0\n", "R", ""),
    "a first line for the shell": ("#!/usr/bin/env python3\n# -*- coding: utf-8 -*-\nR = 0\n", "R", ""),
    "a helper": ("def zero():\n    return 0\n", "zero()", ""),
    "a helper with a constant": ("Z = 0\n\ndef zero():\n    return Z\n", "zero()", ""),
    "imports": ("import math, os.path as p\nfrom math import (\n    floor,\n    ceil as up,\n)\n",
                "floor(math.log(1)) + up(0) + len(p.sep) - 1", ""),
    "an import that may be missing": ("try:\n    import nothing as n\nexcept ImportError:\n    n = None\n",
                                      "(0 if n is None else 1)", ""),
    "a choice of constants": ("import sys\nif sys.version_info > (3,):\n    R = 0\nelse:\n    R = 1\n", "R", ""),
    "a class": ("class Zero:\n    value = 0\n", "Zero.value", ""),
    "a decorated class": ("from dataclasses import dataclass\n\n\n@dataclass(frozen=True)\nclass Zero:\n"
                          "    value: int = 0\n", "Zero().value", ""),
    "a decorator": ("import functools\n\n\ndef same(f):\n    @functools.wraps(f)\n    def inner(*a):\n"
                    "        return f(*a)\n    return inner\n\n\n@same\n", "0", ""),
    "a cache": ("from functools import lru_cache\n\n\n@lru_cache(maxsize=None)\n", "0", ""),
    "a type alias": ("from typing import Dict, TypeAlias\nTable: TypeAlias = Dict[int, int]\nPair = tuple[int, int]\n",
                     "len(Pair.__args__) - 2 + (Table is None)", ""),
    "a type variable": ("from typing import TypeVar\nT = TypeVar('T')\n", "len(T.__name__) - 1", ""),
    "a table": ("TABLE = {\n    1: 0,\n\n    2: 1,\n}\n", "TABLE[1]", ""),
    "a table at the margin": ("TABLE = {\n1: 0,\n2: 1,\n}\n", "TABLE[1]", ""),
    "a table that a loop fills": ("TABLE = {}\nfor i in range(3):\n    TABLE[i] = 0\n", "TABLE[1]", ""),
    "a table filled line by line": ("TABLE = {}\nTABLE[1] = 0\nTABLE.update({2: 0})\n", "TABLE[1] + TABLE[2]", ""),
    "a table that is added to": ("TABLE = []\nTABLE += [0]\n", "TABLE[0]", ""),
    "a deeper recursion": ("import sys\nsys.setrecursionlimit(10_000)\nR = 0\n", "R", ""),
    "text at the margin": ('TEXT = """\ndef add(a):\n    return 9\n"""\n', "len(TEXT) - 26", ""),
    "text of fences": ('TEXT = "```"\n', "len(TEXT) - 3", ""),
    "comments at the margin": ("R = 0\n\n\ndef zero():\n# nothing\n\n    return R\n# done\n", "zero()", ""),
    "a lambda": ("zero = lambda: 0\n", "zero()", ""),
    "a helper below": ("", "zero()", "def zero():\n    return 0\n"),
    "a constant below": ("", "R", "R = 0\n"),
    "a table below": ("", "TABLE[1]", "TABLE = {}\nfor i in range(3):\n    TABLE[i] = 0\n"),
    "a main guard": ("R = 0\n", "R", "if __name__ == '__main__':\n    raise SystemExit(add(1, 2))\n"),
    "a main guard with helpers": ("", "zero()",
                                  "def main():\n    raise SystemExit\n\n\ndef zero():\n    return 0\n\n\n"
                                  'if __name__ == "__main__":\n    main()\n'),
}  # fmt: skip


def program(before: str, adds: str, after: str) -> str:
    gap = "" if before.endswith(("@same\n", "None)\n")) else "\n\n"
    return f"{before}{gap}def add(a: int, b: int) -> int:\n    return a + b + {adds}\n" + (
        f"\n\n{after}" if after else ""
    )


DRESSES = {
    "bare": "{}",
    "prose around": "Sure, here's the function you asked for:\n\n{}\nIt adds two numbers, doesn't it?\n",
    "prose of one word": "Sure\n\n{}\nDone.\n",
    "prose with a colon and a sign": "Note: with x = 3 the answer is 5.\nI'd write:\n{}\nHope this helps!\n",
    "fenced": "```python\n{}```\n",
    "fenced, prose around": "Here's one (of many:\n\n```py\n{}```\n\nIt's `O(1)`.\n",
    "fenced, a use after it": "Here:\n```python\n{}```\nUse it so:\n```python\nx = add(1, 2)\nprint(x)\n```\n",
    "fenced, a use before it": "You want `add`:\n```python\nx = add(1, 2)\nassert x == 4\n```\nso:\n```python\n{}```\n",
    "fenced, tests after it": "```python\n{}```\n\n```python\ndef test_add():\n    assert add(1, 2) == 3\n```\n",
    "never closed": "Here:\n```python\n{}",
    "a numbered list": "1. Write it\n2. Use it\n\n```python\n{}```\n- done\n",
}


def wrong(task: Task, answer: str) -> str | None:
    """What came instead of 3 of an answer, with either line end."""
    for end in ("\n", "\r\n"):
        try:
            found = result(programs_of(task, answer.replace("\n", end)))
        except BaseException as error:
            found = repr(error)
        if found != 3:
            return f"{task.task_id}, {end!r}: {found}"
    return None


@pytest.mark.parametrize("need", NEEDS.values(), ids=NEEDS.keys())
def test_whole_programs(need: tuple[str, str, str]) -> None:
    answers = {name: dress.replace("{}", program(*need)) for name, dress in DRESSES.items()}
    found = {(name, task.task_id): wrong(task, answer) for name, answer in answers.items() for task in (CODE, TALK)}
    assert {case: fault for case, fault in found.items() if fault} == {}


@pytest.mark.parametrize("need", NEEDS.values(), ids=NEEDS.keys())
def test_programs_in_pieces(need: tuple[str, str, str]) -> None:
    """Each part in a fence of its own, in their order or the function first; with a use of it behind."""
    before, adds, after = need
    function = program("", adds, "").lstrip()
    decorator = before[before.rindex("@") :] if before.rstrip().endswith(("@same", "None)")) else ""
    parts = [part for part in (before.removesuffix(decorator), decorator + function, after) if part]
    orders = [parts] if decorator else [parts, sorted(parts, key=lambda part: not part.startswith("def add"))]
    for pieces, task in product(orders, (CODE, TALK)):
        fences = "\nThen:\n".join(f"```python\n{piece}```\n" for piece in [*pieces, "print(add(1, 2))\n"])
        assert wrong(task, f"First:\n{fences}") is None, pieces


CONTINUED = {
    "a constant below": "    return a + b + R\n\n\nR = 0\n",
    "two constants below": "    return a + b + R\n\n\nQ, R = 1, 0\n",
    "a table that a loop fills below": "    return a + b + T[1]\n\n\nT = {}\nfor i in range(3):\n    T[i] = 0\n",
    "a table filled below": "    return a + b + T[1]\n\n\nT = {}\nT[0] = 1\nT.update({1: 0})\nprint(1 / 0)\n",
    "an import that may be missing": "    return a + b + (n is not None)\n\n\ntry:\n    import nothing as n\n"
    "except ImportError:\n    n = None\n",
    "a helper behind a main guard": "    return zero() + a + b\n\n\nif __name__ == '__main__':\n    print(add(1, 2))\n"
    "\n\ndef zero():\n    return 0\n",
    "a main guard cut off": "    return a + b\n\n\nif __name__ == '__main__':\n    print(add(1,",
    "a loop that only uses it": "    return a + b\n\n\nfor i in range(3):\n    print(add(i, nothing))\n",
    "a constant of its own input": "    return a + b\n\n\nn = int(input())\nprint(add(n, n))\n",
}


@pytest.mark.parametrize("answer", CONTINUED.values(), ids=CONTINUED.keys())
def test_what_follows_a_continuation(answer: str) -> None:
    assert wrong(CODE, answer) is None
    row = {"task_id": "w", "prompt": PROMPT.replace("\n", "\r\n"), "entry_point": "add", "tests": ["assert add(1, 2)"]}
    assert wrong(as_task(row), answer) is None
