"""The demo's programming tasks: right answers pass, wrong ones fail, and nothing held out is in the training file.

Does not train anything. The tests grade the held-out references in a sandbox and everything else in one plain process.
`python tests/test_demo_tasks.py` grades every row in a sandbox instead, with wrong answers and answers of other rows:
minutes; family names after it grade those only.
"""

import ast
import builtins
import json
import random
import re
import subprocess
import sys
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from hone.grading.grade import Result, Sample, grade
from hone.grading.tasks import Task, as_task

Row = dict[str, Any]
KEYS = {"task_id", "family", "difficulty", "instruction", "output", "prompt", "entry_point", "tests"}
CONSTANTS = ("None", "0", '""', "[]", "True", "False")
BUILD = Path(__file__).parents[1] / "tools" / "demo_functions" / "build.py"

# Prints [name, what passed] for each pair of a row and a program that should have failed, or the reference that did.
RUNNER = r"""
import functools, json, signal, sys

@functools.cache
def compiled(code):
    return compile(code, "program", "exec")

def passes(program, name, tests, known_as):
    signal.setitimer(signal.ITIMER_PROF, 0.5)  # a wrong answer may loop
    try:
        for test in tests:
            space = {"__name__": "demo"}
            exec(compiled(program), space)
            space[name] = space[known_as]
            exec(compiled(test), space)
    except BaseException:
        return False
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return True

signal.signal(signal.SIGPROF, lambda *_: (_ for _ in ()).throw(TimeoutError()))
problems, count = [], 0
for row in map(json.loads, sys.stdin):
    for label, program, known_as, expected in row["answers"]:
        count += 1
        if passes(program, row["name"], row["tests"], known_as) is not expected:
            problems.append([row["name"], label])
print(json.dumps([count, problems]))
"""


def read(name: str) -> list[Row]:
    text = (resources.files("hone") / "assets" / "demo" / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


TRAIN, TEST = read("functions.train.jsonl"), read("functions.test.jsonl")
ROWS = TRAIN + TEST


def wrong_answers(row: Row) -> dict[str, str]:
    """Programs that return one constant whatever they get, their first argument, or nothing."""
    head = f"def {row['entry_point']}(*arguments, **named):\n    "
    bodies = {f"always {constant}": f"return {constant}" for constant in CONSTANTS}
    bodies |= {"its first argument": "return arguments[0]", "an empty body": "pass"}
    return {label: f"{head}{body}\n" for label, body in bodies.items()}


def own_names(tree: ast.AST) -> dict[str, str]:
    """Names that the program gives away itself -> v0, v1 … in order of appearance."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        found = None
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found = node.name
        elif isinstance(node, ast.arg):
            found = node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found = node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found = node.attr
        if found is not None and not hasattr(builtins, found):
            names.setdefault(found, f"v{len(names)}")
    return names


def normal_form(program: str) -> str:
    """The program with its own names made equal and all numbers made 0: a copy with other constants looks the same."""
    tree = ast.parse(program)
    names = own_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            node.name = names.get(node.name, node.name)
        elif isinstance(node, ast.arg):
            node.arg = names.get(node.arg, node.arg)
        elif isinstance(node, ast.Name):
            node.id = names.get(node.id, node.id)
        elif isinstance(node, ast.Attribute):
            node.attr = names.get(node.attr, node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            node.value = 0
    return ast.dump(tree)


def request(row: Row) -> str:
    """What the instruction asks for, without the function's name and arguments."""
    return row["instruction"].replace(row["entry_point"], "f").lower()


def run_answers(rows: list[Row], answers: list[list[list[Any]]], folder: Path) -> tuple[int, list[list[str]]]:
    """Run [label, program, its name, should it pass?] for each row in one fresh interpreter: how many, and problems."""
    lines = [
        json.dumps({"name": row["entry_point"], "tests": row["tests"], "answers": given})
        for row, given in zip(rows, answers)
    ]
    command = [sys.executable, "-I", "-c", RUNNER]
    done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    count, problems = json.loads(done.stdout)
    return count, problems


def arity(row: Row) -> int:
    definition = ast.parse(row["output"]).body[-1]
    return len(definition.args.args) if isinstance(definition, ast.FunctionDef) else -1


def copies(row: Row, others: list[Row]) -> list[list[Any]]:
    """Answers that repeat what was trained for another task with as many arguments."""
    alike = [other for other in others if arity(other) == arity(row) and other is not row]
    return [[f"the answer to {other['entry_point']}", other["output"], other["entry_point"], False] for other in alike]


def tasks_of(rows: list[Row]) -> list[Task]:
    return [as_task({"reference": row["output"], **row}) for row in rows]


def test_counts_and_columns() -> None:
    assert len(TRAIN) >= 300 and len(TEST) >= 120
    families = Counter(row["family"] for row in TRAIN)
    assert len(families) >= 20 and min(families.values()) >= 8
    assert set(families) == {row["family"] for row in TEST}
    levels = Counter(row["difficulty"] for row in TEST)
    assert set(levels) == {"easy", "medium", "hard"} and min(levels.values()) >= len(TEST) // 5
    for row in ROWS:
        assert set(row) - {"reference", "same_process"} == KEYS
        assert row["task_id"] == row["entry_point"] and row["prompt"] == row["instruction"]
        assert f"{row['entry_point']}" in row["instruction"] and "\n" not in row["instruction"]
        assert row.get("reference", row["output"]) == row["output"]
    assert all("reference" in row for row in TEST)
    folder = Path(str(resources.files("hone"))) / "assets" / "demo"
    assert sum(path.stat().st_size for path in folder.glob("functions.*.jsonl")) < 500_000


@pytest.mark.parametrize("key", ["task_id", "entry_point", "instruction", "output"])
def test_nothing_occurs_twice(key: str) -> None:
    values = Counter(row[key] for row in ROWS)
    assert [value for value, count in values.items() if count > 1] == []


def test_held_out_tasks_differ_from_the_trained_ones_in_more_than_names_and_numbers() -> None:
    forms = {normal_form(row["output"]): row["entry_point"] for row in TRAIN}
    requests = {request(row): row["entry_point"] for row in TRAIN}
    for row in TEST:
        assert forms.get(normal_form(row["output"])) is None, row["entry_point"]
        assert requests.get(request(row)) is None, row["entry_point"]
    assert len({normal_form(row["output"]) for row in TEST}) == len(TEST)


def body_lines(row: Row) -> set[str]:
    lines = {line.strip() for line in row["output"].splitlines()}
    return {line for line in lines if line and not line.startswith(("def ", "class "))}


def test_readme_states_the_counts() -> None:
    readme = (resources.files("hone") / "assets" / "demo" / "README.md").read_text(encoding="utf-8")
    words = " ".join(readme.split())
    trained_lines = set().union(*map(body_lines, TRAIN))
    for level in ("easy", "medium", "hard"):
        held_out = [row for row in TEST if row["difficulty"] == level]
        known = sum(body_lines(row) <= trained_lines for row in held_out)
        trained = sum(row["difficulty"] == level for row in TRAIN)
        assert re.search(rf"\| {level}: [^|]+\| {trained} \| {len(held_out)} \| {known} \|", words), level
    counts = [Counter(row["family"] for row in rows) for rows in (TRAIN, TEST)]
    assert ", ".join(f"{family} {counts[0][family]}/{counts[1][family]}" for family in sorted(counts[0])) in words
    assert f"{len(ROWS)} small functions and classes" in words
    assert f"{len(TRAIN)} to train on" in words and f"{len(TEST)} held out" in words


def test_normal_form_sees_through_names_and_numbers() -> None:
    one = "def f(a, b):\n    c = [x for x in a if x > 3]\n    return sum(c) + b\n"
    other = "def total(items, extra):\n    kept = [n for n in items if n > 40]\n    return sum(kept) + extra\n"
    assert normal_form(one) == normal_form(other)
    assert normal_form(one) != normal_form(one.replace("sum", "max"))


def test_programs_are_short_and_tests_are_asserts() -> None:
    for row in ROWS:
        lines = [line for line in row["output"].splitlines() if line and not line.startswith(("import", "from"))]
        assert (3 if row["family"] != "classes" else 4) <= len(lines) <= 13, row["entry_point"]
        assert max(map(len, lines)) <= 100, row["entry_point"]
        assert len(row["tests"]) >= 3
        for test in row["tests"]:
            assert isinstance(ast.parse(test).body[-1], ast.Assert)
            assert row["entry_point"] in test


def test_right_answers_pass_and_trivial_ones_fail(tmp_path: Path) -> None:
    answers = [
        [["the reference", row["output"], row["entry_point"], True]]
        + [[label, program, row["entry_point"], False] for label, program in wrong_answers(row).items()]
        for row in ROWS
    ]
    count, problems = run_answers(ROWS, answers, tmp_path)
    assert problems == []
    assert count == len(ROWS) * (3 + len(CONSTANTS))


def test_no_held_out_task_is_solved_by_an_answer_trained_in_its_family(tmp_path: Path) -> None:
    answers = [copies(row, [other for other in TRAIN if other["family"] == row["family"]]) for row in TEST]
    count, problems = run_answers(TEST, answers, tmp_path)
    assert problems == []
    assert count >= 5 * len(TEST)


def test_the_runner_notices_bad_rows(tmp_path: Path) -> None:
    row = next(row for row in ROWS if row["entry_point"] == "total_even")
    always = wrong_answers(row)["always 0"]
    weak = {**row, "tests": ["assert total_even([]) == 0"]}
    assert run_answers([weak], [[["zero", always, "total_even", False]]], tmp_path)[1] == [["total_even", "zero"]]
    assert run_answers([row], [[["zero", always, "total_even", True]]], tmp_path)[1] == [["total_even", "zero"]]


def test_the_instruction_form_reads_both_files() -> None:
    from hone.data.records import Instruction, examples
    from hone.data.sources import Row as DataRow

    for rows in (TRAIN, TEST):
        given = [DataRow(row, "functions.jsonl", number) for number, row in enumerate(rows, 1)]
        read_rows = list(examples(given, column_mapping={}, on_bad_row="error", on_skip=lambda *_: None))
        assert [example for _, example in read_rows] == [
            Instruction(row["instruction"], "", row["output"]) for row in rows
        ]


def test_the_grids_are_as_built() -> None:
    done = subprocess.run([sys.executable, str(BUILD), "--check"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_held_out_references_pass_in_a_sandbox_and_wrong_answers_do_not(strict_sandbox: Any) -> None:
    tasks = [as_task(row) for row in TEST]
    right = [Sample(task.task_id, task.reference or "", whole=True) for task in tasks]
    results = grade(tasks, right, sandbox=strict_sandbox)
    assert [result for result in results if not result.passed] == []
    chance = random.Random(0)
    some = chance.sample(TEST, 40)
    wrong = [Sample(row["task_id"], chance.choice(list(wrong_answers(row).values())), whole=True) for row in some]
    assert [result for result in grade(tasks, wrong, sandbox=strict_sandbox) if result.passed] == []


def grade_everything(families: list[str]) -> None:
    """Grade the references and all trivial answers in a sandbox; run every trained answer on every held-out task."""
    rows = [row for row in ROWS if not families or row["family"] in families]
    tasks = tasks_of(rows)
    right = [Sample(row["task_id"], row["output"], whole=True) for row in rows]
    wrong = [Sample(row["task_id"], text, whole=True) for row in rows for text in wrong_answers(row).values()]
    results = grade(tasks, right)
    print(f"references: {sum(result.passed for result in results)} of {len(results)} pass")
    _print_all([result for result in results if not result.passed])
    results = grade(tasks, wrong)
    print(f"trivial answers: {sum(result.passed for result in results)} of {len(results)} pass")
    _print_all([result for result in results if result.passed])
    held_out = [row for row in rows if row in TEST]
    count, problems = run_answers(held_out, [copies(row, TRAIN) for row in held_out], Path.cwd())
    print(f"trained answers on held-out tasks: {len(problems)} of {count} pass", *problems, sep="\n")


def _print_all(results: list[Result]) -> None:
    for result in results:
        print(f"  {result.task_id}: {result.verdict}, {result.detail[:200]!r}")


if __name__ == "__main__":
    grade_everything(sys.argv[1:])
