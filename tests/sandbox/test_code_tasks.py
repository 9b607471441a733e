"""Tasks of three forms become one; which functions the tests call, and when they need the program's own objects."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from hone.errors import HoneError
from hone.grading.tasks import as_task, code_of_prompt, read_tasks, whole_program

HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": 'from typing import List\n\ndef help(x):\n    return x\n\ndef add(a: int, b: int):\n    """Add."""\n',
    "entry_point": "add",
    "canonical_solution": "    return a + b\n",
    "test": "METADATA = {}\n\ndef check(candidate):\n    assert candidate(1, 2) == 3\n",
}
MBPP = {
    "task_id": 2,
    "prompt": "Write a function to find the shared elements.",
    "code": "def shared(a, b):\n    return set(a) & set(b)\n\ndef unused():\n    pass\n",
    "test_imports": ["import math"],
    "test_list": ["assert set(shared([1], [1])) == {1}", "assert shared([1], [math.pi]) == set()"],
}
OWN = {"task_id": "o1", "prompt": "Double x.", "entry_point": "double", "tests": ["assert double(2) == 4"]}


def test_humaneval() -> None:
    task = as_task(HUMANEVAL)
    assert (task.task_id, task.entry_point, task.calls) == ("HumanEval/0", "add", ("add",))
    assert task.tests[-1] == "check(add)"
    assert task.reference == HUMANEVAL["prompt"] + HUMANEVAL["canonical_solution"]  # type: ignore[operator]
    assert task.prompt_is_code and task.setup == HUMANEVAL["prompt"]
    assert task.together is None


def test_mbpp() -> None:
    task = as_task(MBPP)
    assert (task.task_id, task.entry_point, task.calls, task.setup) == ("2", "shared", ("shared",), "import math")
    assert task.reference == MBPP["code"] and not task.prompt_is_code and task.together is None
    original = {**MBPP, "text": MBPP["prompt"], "test_setup_code": "import math"}
    del original["prompt"], original["test_imports"]
    assert as_task(original).calls == ("shared",)
    hides = {**MBPP, "code": "def sum(a):\n    return 1", "test_list": ["assert sum([2]) == 1"]}
    assert as_task(hides).calls == ("sum",), "the program's, though there is a built-in of this name"
    assert as_task({**MBPP, "code": None}).calls == ("shared",)


def test_own() -> None:
    task = as_task({**OWN, "reference": "def double(x):\n    return 2 * x\n"})
    assert (task.calls, task.tests, task.setup) == (("double",), ("assert double(2) == 4",), "")
    assert task.reference == "def double(x):\n    return 2 * x\n"
    code = as_task({**OWN, "tests": "def check(f):\n    assert f(2) == 4\n"})
    assert code.tests[-1] == "check(double)"
    called = as_task({**OWN, "tests": "def check(f):\n    assert f(2) == 4\ncheck(double)\n"})
    assert len(called.tests) == 1
    continued = as_task({**OWN, "prompt": "def double(x):\n", "reference": "    return 2 * x\n"})
    assert continued.reference == "def double(x):\n    return 2 * x\n"
    assert continued.setup == "def double(x):\n    pass\n"


TOGETHER = [
    ({"tests": ["assert double(Pair(1, 2)) == 2"]}, "use Pair"),
    ({"tests": ["assert double(2) == LIMIT"]}, "use LIMIT"),
    ({"tests": ["a = double()\nassert a.x == 1"], "reference": "class double:\n    x = 1\n"}, "make objects of double"),
    ({"tests": ["a = double()\nassert a.x == 1"], "prompt": "class double:\n    '''D.'''\n"}, "make objects of double"),
    ({"same_process": True}, "asks for it"),
    ({"tests": ["from math import pi as p\nfor i in [p]:\n    assert double(i) == (lambda z: 2 * z)(i)"]}, None),
    ({"tests": ["try:\n    double('')\nexcept ValueError as e:\n    assert str(e)\nelse:\n    assert False"]}, None),
    ({"tests": ["import os.path\nassert double(os.path.sep)"]}, None),
    ({"tests": ["assert [y for y in double(1)] == [1] and (z := 1)"]}, None),
]


@pytest.mark.parametrize("columns, reason", TOGETHER)
def test_tests_that_need_the_programs_objects(columns: dict[str, Any], reason: str | None) -> None:
    found = as_task({**OWN, **columns}).together
    assert found is None if reason is None else (found and reason in found)


BAD = [
    ({"task_id": None}, "no task_id"),
    ({"task_id": True}, "no task_id"),
    ({"tests": None}, "no tests"),
    ({"tests": []}, "must be code"),
    ({"tests": [1]}, "must be code"),
    ({"tests": 7}, "must be code"),
    ({"tests": ["assert ("]}, "does not compile"),
    ({"tests": ["a\0b"]}, "does not compile"),
    ({"entry_point": "a b"}, "not the name of a function"),
    ({"entry_point": None}, "'entry_point' is missing"),
    ({"prompt": " "}, "'prompt' is not text, or empty"),
    ({"reference": 5}, "'reference' is not text"),
    ({"test_list": ["assert 1 == 1"]}, "call no function"),
    ({"test_list": ["assert f(1)"], "code": "def f(:"}, "'code' does not compile"),
    ({"test_list": ["assert f(1)"], "code": 5}, "'code' is not text"),
    ({"test_list": ["assert f(1)"], "test_imports": [3]}, "must be text"),
]


@pytest.mark.parametrize("columns, message", BAD)
def test_bad_tasks(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(json.dumps(OWN) + "\n" + json.dumps({**OWN, "task_id": "o2", **columns}) + "\n")
    with pytest.raises(HoneError) as caught:
        read_tasks(path)
    assert message in str(caught.value) and f"{path}:2" in str(caught.value)


def test_files(tmp_path: Path) -> None:
    rows = [HUMANEVAL, MBPP, OWN]
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("a.jsonl.gz", "a.json", "a.jsonl"):
        assert [task.task_id for task in read_tasks(tmp_path / name)] == ["HumanEval/0", "2", "o1"]
    (tmp_path / "a.jsonl").write_text(json.dumps(OWN) + "\n" + json.dumps(OWN) + "\n")
    with pytest.raises(HoneError, match=r"a\.jsonl:2: the task_id 'o1' occurs twice"):
        read_tasks(tmp_path / "a.jsonl")
    (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(HoneError):
        read_tasks(tmp_path / "a.jsonl")


def test_prompts_and_programs() -> None:
    assert code_of_prompt("Write a function.") is None
    assert code_of_prompt("hello") is None, "it parses, but is no program"
    assert code_of_prompt("import math\n") == "import math\n"
    assert code_of_prompt("def f(x):\n    # a comment") == "def f(x):\n    # a comment\n    pass\n"
    head = "import math\ndef f(x):\n    '''D.'''\n"
    program = whole_program(head, "def f(x):\n    return math.pi\n", "f")
    assert program.startswith("import math") and program.endswith("return math.pi\n")
    assert whole_program("Do it.", "def f(x):\n    return 1\n", "f") == "def f(x):\n    return 1\n"
