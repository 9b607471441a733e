"""Verdicts on single programs, isolated or not: the tests see plain values, changed arguments and exceptions."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hone.grading.sandbox import HarnessError
from hone.grading.sandbox.isolation import Sandbox
from hone.grading.sandbox.verdict import Exam, ForeignArgument, Outcome, judge, together

ADD = Exam(("f",), ("assert f(1) == 2", "assert f(2) == 3"))
PROGRAMS = [
    ("def f(x):\n    return x + 1\n", "pass", ""),
    ("def f(x):\n    return 2\n", "wrong", "assert f(2) == 3"),
    ("def f(x):\n    return None + x\n", "exception", "TypeError: unsupported operand"),
    ("def f(x):\n    return {}[x]\n", "exception", "KeyError: 1 (line 2)"),
    ("def f(x)\n", "syntax", "SyntaxError: expected ':' (<program>, line 1)"),
    ("def g(x):\n    return x + 1\n", "exception", "name 'f' is not defined"),
    ("f = 2\n", "exception", "'int' object is not callable"),
    ("raise ValueError('no')\n", "exception", "ValueError: no (line 1)"),
    ("import nothing_of_this_name\n", "exception", "ModuleNotFoundError"),
    ("import numpy\n", "exception", "ModuleNotFoundError"),
    ("assert False\n", "exception", "AssertionError"),
    ("def f(x):\n    assert False, 'mine'\n", "exception", "AssertionError: mine"),
    ("def f(x):\n    return f(x)\n", "exception", "RecursionError"),
    ("import sys\nsys.exit(0)\n", "exit-early", "SystemExit"),
    ("def f(x):\n    return [0] * 10**10\n", "memory", "MemoryError"),
    ("x = [0] * 10**10\n", "memory", "MemoryError"),
    ("def f(x):\n    return 'x' * (1 << 21)\n", "output", "too large"),
    ("def f(x):\n    print('x' * (1 << 21))\n    return x + 1\n", "output", "printed"),
    ("def f(x):\n    return lambda: 1\n", "unsupported-type", "function"),
    ("def f(x):\n    print('noise')\n    return x + 1\n", "pass", ""),
    ("import dataclasses\n@dataclasses.dataclass\nclass A:\n    x: 'int'\ndef f(x): return A(x).x + 1", "pass", ""),
    ("def f(x):\n    return x + 1\nif __name__ == '__main__':\n    input()\n", "pass", ""),
]  # fmt: skip


@pytest.mark.parametrize("program, verdict, detail", PROGRAMS, ids=range(len(PROGRAMS)))
def test_two_sandboxes(any_sandbox: Sandbox, program: str, verdict: str, detail: str) -> None:
    outcome = judge(any_sandbox, ADD, [program], 5)
    assert (outcome.verdict, outcome.trust) == (verdict, "two-sandboxes"), outcome
    assert detail in outcome.detail


@pytest.mark.parametrize("program, verdict, detail", PROGRAMS, ids=range(len(PROGRAMS)))
def test_one_process(any_sandbox: Sandbox, program: str, verdict: str, detail: str) -> None:
    outcome = together(any_sandbox, ADD, [program], 5)
    if "too large" in detail or verdict == "unsupported-type":
        verdict = "wrong"  # nothing has to travel
    elif "callable" in detail:
        verdict = "wrong"  # the line of the tests raises it
    assert (outcome.verdict, outcome.trust) == (verdict, "same-process"), outcome


@pytest.mark.slow
@pytest.mark.parametrize("how", [judge, together])
def test_endless_programs_end(any_sandbox: Sandbox, how: Callable[..., Outcome]) -> None:
    began = time.monotonic()
    assert how(any_sandbox, ADD, ["while True: pass"], 0.5).verdict == "timeout"
    assert how(any_sandbox, ADD, ["import time\ntime.sleep(99)"], 0.2).verdict == "timeout"
    assert time.monotonic() - began < 20


ONE = [
    ("def f(x):\n    x.append(3)\n", "a = [1]\nb = a\nf(a)\nassert b == [1, 3]"),
    ("def f(x):\n    x[0].sort()\n", "a = [[2, 1], 5]\nb = a[0]\nf(a)\nassert b == [1, 2] and a == [[1, 2], 5]"),
    ("def f(x):\n    x['k'] = x.pop('j')\n", "a = {'j': 1}\nf(x=a)\nassert a == {'k': 1}"),
    ("def f(x):\n    x.discard(1)\n", "a = {1, 2}\nf(a)\nassert a == {2}"),
    (
        "def f(x):\n    raise KeyError('k')\n",
        "try:\n    f(1)\nexcept LookupError as e:\n    assert e.args == (\"'k'\",)",
    ),
    (
        "class Mine(ValueError):\n    pass\ndef f(x):\n    raise Mine('m')\n",
        "try:\n    f(1)\n    assert False\nexcept ValueError as e:\n    assert str(e) == 'm'",
    ),
    (
        "def f(x):\n    return x.encode('ascii')\n",
        "try:\n    f('é')\n    assert False\nexcept ValueError:\n    pass",
    ),
    ("n = 0\ndef f(x):\n    global n\n    n += 1\n    return n\n", "assert [f(1), f(1)] == [1, 2]"),
    ("def f(*a, **k):\n    return a, k\n", "assert f(1, 'a', b=(2,)) == ((1, 'a'), {'b': (2,)})"),
    (
        "def f(x):\n    return 10**5000, -0.5, 1j, b'b', {1, (2,)}\n",
        "assert f(1) == (10**5000, -.5, 1j, b'b', {1, (2,)})",
    ),
    ("def f(x):\n    return f\"{'a'}\" is None or x is None\n", "assert f(None) is True"),
]


@pytest.mark.parametrize("program, test", ONE, ids=range(len(ONE)))
def test_what_tests_see_of_a_program(any_sandbox: Sandbox, program: str, test: str) -> None:
    outcome = judge(any_sandbox, Exam(("f",), (test,)), [program], 5)
    assert outcome.verdict == "pass", outcome


def test_what_tests_catch_still_counts(any_sandbox: Sandbox) -> None:
    exam = Exam(("f",), ("try:\n    f(1)\nexcept:\n    pass",))
    assert judge(any_sandbox, exam, ["def f(x):\n    raise ValueError"], 5).verdict == "pass"
    assert judge(any_sandbox, exam, ["def f(x):\n    return object()"], 5).verdict == "unsupported-type"
    assert judge(any_sandbox, exam, ["import os\ndef f(x):\n    os._exit(0)"], 5).verdict == "exit-early"


def test_the_first_program_that_compiles_is_run(any_sandbox: Sandbox) -> None:
    good = "def f(x):\n    return x + 1"
    assert judge(any_sandbox, ADD, ["def f(x", good, "def f(x):\n    return 0"], 5).verdict == "pass"
    first = judge(any_sandbox, ADD, ["def f(x", "also wrong"], 5)
    assert first.verdict == "syntax" and "never closed" in first.detail


@pytest.mark.parametrize(
    "exam, reason",
    [
        (Exam(("f",), ("assert g(1)",)), "NameError: name 'g'"),
        (Exam(("f",), ("import nothing_of_this_name",)), "ModuleNotFoundError"),
        (Exam(("f",), ("assert f(1",)), "SyntaxError"),
        (Exam(("f",), ("assert f(1) == 2",), "1 / 0"), "ZeroDivisionError"),
        (Exam(("f",), ("assert True",)), "without a call"),
    ],
)
def test_broken_tests_are_no_verdict(any_sandbox: Sandbox, exam: Exam, reason: str) -> None:
    with pytest.raises(HarnessError, match=reason):
        judge(any_sandbox, exam, ["def f(x):\n    return 2"], 5)


def test_arguments_that_do_not_travel(any_sandbox: Sandbox) -> None:
    exam = Exam(("f",), ("assert f(lambda: 3) == 3",))
    with pytest.raises(ForeignArgument, match="function"):
        judge(any_sandbox, exam, ["def f(x):\n    return x()"], 5)
    assert together(any_sandbox, exam, ["def f(x):\n    return x()"], 5).verdict == "pass"


def test_a_sandbox_that_does_not_start_is_no_verdict() -> None:
    for wrapper in (("/bin/false",), ("/bin/echo", "no room")):
        with pytest.raises(HarnessError, match="did not start"):
            judge(Sandbox("none", wrapper, ("python3",), None), ADD, ["def f(x):\n    return 2"], 5)


def test_a_sandbox_that_does_not_start_says_why() -> None:
    """Also where it ends before anybody listens: the reason is read after its end."""
    for wait in ("", "sleep 0.05; ", "exec 3<&-; "):
        wrapper = ("/bin/sh", "-c", f"{wait}echo the reason >&2; exit 1")
        for _ in range(5):
            with pytest.raises(HarnessError, match="the reason"):
                judge(Sandbox("none", wrapper, ("python3",), None), ADD, ["def f(x):\n    return 2"], 5)


def descriptors_and_children() -> tuple[int, list[str]]:
    children = [
        number for path in Path("/proc/self/task").iterdir() for number in (path / "children").read_text().split()
    ]
    return len(list(Path("/proc/self/fd").iterdir())), children


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="/proc tells")
def test_nothing_is_left(any_sandbox: Sandbox) -> None:
    """No descriptor, no child, no file, whatever becomes of the program."""
    before = descriptors_and_children()
    programs = ["def f(x):\n    return x + 1", "def f(x", "import os\nos._exit(3)", "while True:\n    print('x' * 999)"]
    for program in programs * 5:
        judge(any_sandbox, ADD, [program], 5)
        together(any_sandbox, ADD, [program], 5)
    assert descriptors_and_children() == before
