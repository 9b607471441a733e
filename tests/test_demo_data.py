"""The shipped demo functions: every program runs, every test can fail, and the two files share no near-duplicate.

Does not train anything. All programs run in one subprocess (isolated mode, empty working folder).
One way to use it: `pytest tests/test_demo_data.py` after adding a row.
"""

import ast
import builtins
import io
import json
import keyword
import re
import subprocess
import sys
import textwrap
import tokenize
from importlib import resources
from pathlib import Path

import pytest

Row = dict[str, str]
KEYS = ["task_id", "prompt", "completion", "entry_point", "tests"]
MODULES = {"bisect", "collections", "collections.abc", "datetime", "functools", "heapq", "itertools", "math", "re"}
FORBIDDEN = {"open", "print", "input", "exec", "eval", "compile", "__import__", "globals", "locals"}

# Unrelated small functions share idioms (a loop that fills a list), so zero is out of reach. Half of all rows have a
# nearest neighbour above 0.24 (code) or 0.22 (words) somewhere in the whole set, while the variants inside train.jsonl
# lie far higher: binary_search / find_peak 0.59, max_subarray / best_trade 0.47, rotate_string / rotate_left 0.38.
CODE_LIMIT = 0.30
WORDS_LIMIT = 0.30

# Prints [task, problem] pairs. A recorded run collects the values a function returns; then no body that always
# returns None or one of those values may pass the tests.
RUNNER = r"""
import doctest, json, sys

def passes(program, tests, name, wrap=None):
    space = {"__name__": "demo"}
    exec(program, space)
    if wrap:
        space[name] = wrap(space[name])
    try:
        exec(tests, space)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None

def recorder(values):
    def wrap(function):
        def record(*arguments):
            values.append(function(*arguments))
            return values[-1]
        return record
    return wrap

problems, counts = [], {"programs": 0, "doctests": 0, "mutants": 0}
for row in map(json.loads, sys.stdin):
    name, tests, program = row["entry_point"], row["tests"], row["prompt"] + row["completion"]
    counts["programs"] += 1
    for line in tests.splitlines():
        error = passes(program, line, name)
        if error is not None:
            problems.append([row["task_id"], f"{line} -> {error}"])
    space = {"__name__": "demo"}
    exec(program, space)
    attempted = 0
    for example in doctest.DocTestFinder().find(space[name], name, globs=space, module=False):
        result = doctest.DocTestRunner(verbose=False).run(example, out=lambda text: None)
        attempted += result.attempted
        if result.failed:
            problems.append([row["task_id"], "the doctest fails"])
    counts["doctests"] += attempted
    if not attempted:
        problems.append([row["task_id"], "no doctest"])
    if passes(row["prompt"] + "    return None\n", tests, name) is None:
        problems.append([row["task_id"], "the tests accept a body that returns None"])
    values = []
    passes(program, tests, name, recorder(values))
    for value in values:
        counts["mutants"] += 1
        if passes(program, tests, name, lambda function: lambda *arguments: value) is None:
            problems.append([row["task_id"], f"the tests accept a function that always returns {value!r}"])
print(json.dumps({"problems": problems, **counts}))
"""


def read(name: str) -> list[Row]:
    text = (resources.files("hone") / "assets" / "demo" / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


TRAIN, VALIDATION = read("train.jsonl"), read("validation.jsonl")
ROWS = TRAIN + VALIDATION


def run_rows(rows: list[Row], folder: Path) -> dict:
    """Run the rows in one fresh interpreter and return its {"problems": [[task, text]], counts}."""
    lines = "\n".join(json.dumps(row) for row in rows)
    command = [sys.executable, "-I", "-c", RUNNER]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=120, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def code_shape(source: str) -> set[tuple[str, ...]]:
    """Token triples of a body with every name that is not a keyword or a builtin replaced by one sign."""
    skipped = {tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER, tokenize.COMMENT}
    tokens = []
    for token in tokenize.generate_tokens(io.StringIO(textwrap.dedent(source)).readline):
        own_name = token.type == tokenize.NAME and not keyword.iskeyword(token.string)
        if token.type not in skipped:
            tokens.append("NAME" if own_name and not hasattr(builtins, token.string) else token.string)
    return {tuple(tokens[start : start + 3]) for start in range(max(1, len(tokens) - 2))}


def task_words(row: Row) -> set[str]:
    """Words of three letters or more in the function's name and its one-sentence description."""
    sentence = row["prompt"].split('"""')[1].partition(">>>")[0]
    return set(re.findall(r"[a-z]{3,}", (row["entry_point"].replace("_", " ") + " " + sentence).lower()))


def jaccard(a: set, b: set) -> float:
    return len(a & b) / len(a | b)


def near_duplicates(left: list[Row], right: list[Row]) -> list[tuple[str, str, float, float]]:
    """Pairs (one of each side) that are alike in the shape of their code or in the words of their task."""
    described = [(row["entry_point"], code_shape(row["completion"]), task_words(row)) for row in right]
    found = []
    for row in left:
        shape, words = code_shape(row["completion"]), task_words(row)
        for name, other_shape, other_words in described:
            code, task = jaccard(shape, other_shape), jaccard(words, other_words)
            if code >= CODE_LIMIT or task >= WORDS_LIMIT:
                found.append((row["entry_point"], name, round(code, 2), round(task, 2)))
    return found


def test_counts_and_schema() -> None:
    assert len(ROWS) >= 200
    assert 0.12 <= len(VALIDATION) / len(ROWS) <= 0.18
    names = [row["entry_point"] for row in ROWS]
    assert len(set(names)) == len(names)
    assert len({row["completion"] for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert list(row) == KEYS
        assert all(isinstance(value, str) for value in row.values())
        assert row["task_id"] == f"demo/{row['entry_point']}"


@pytest.mark.parametrize("row", ROWS, ids=[row["entry_point"] for row in ROWS])
def test_boundary_and_style(row: Row) -> None:
    prompt, completion = row["prompt"], row["completion"]
    assert prompt.endswith('    """\n')
    lines = completion.split("\n")
    assert lines.pop() == ""
    assert 1 <= len(lines) <= 15
    assert all(line.startswith("    ") and line.strip() and line == line.rstrip() for line in lines)
    assert max(len(line) for line in (prompt + completion).splitlines()) <= 120

    body = ast.parse(prompt + completion).body
    function = body[-1]
    assert isinstance(function, ast.FunctionDef)
    assert function.name == row["entry_point"]
    assert function.returns is not None
    assert all(argument.annotation is not None for argument in function.args.args)
    imports = [node for node in body if isinstance(node, ast.ImportFrom)]
    plain = [node for node in body if isinstance(node, ast.Import)]
    assert len(imports) + len(plain) + 1 == len(body)
    modules = {node.module or "" for node in imports} | {alias.name for node in plain for alias in node.names}
    assert modules <= MODULES
    assert not FORBIDDEN & {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}

    sentence, blank, example = (ast.get_docstring(function) or "").split("\n", 2)
    assert sentence.endswith(".") and not blank
    assert example.startswith(">>> ") and f"{function.name}(" in example

    tests = ast.parse(row["tests"]).body
    assert row["tests"].endswith("\n")
    assert 3 <= len(tests) <= 5 and len(row["tests"].splitlines()) == len(tests)
    assert all(isinstance(node, ast.Assert) and f"{function.name}(" in ast.unparse(node) for node in tests)


def test_programs_doctests_and_mutants(tmp_path: Path) -> None:
    report = run_rows(ROWS, tmp_path)
    assert report["problems"] == []
    assert report["programs"] == len(ROWS)
    assert report["doctests"] >= len(ROWS)
    assert report["mutants"] >= 3 * len(ROWS)


def test_the_runner_notices_bad_rows(tmp_path: Path) -> None:
    good = next(row for row in ROWS if row["entry_point"] == "clamp")
    wrong = {**good, "completion": "    return max(low, x)\n"}
    weak = {**good, "tests": "assert clamp(5, 0, 3) == 3\nassert clamp(9, 0, 3) == 3\n"}
    empty = {**good, "tests": "assert clamp(5, 0, 3) != 4\n"}
    assert run_rows([good], tmp_path)["problems"] == []
    for row, complaint in ((wrong, "doctest fails"), (weak, "always returns 3"), (empty, "returns None")):
        texts = [text for _, text in run_rows([row], tmp_path)["problems"]]
        assert any(complaint in text for text in texts), (complaint, texts)


def test_no_near_duplicates_across_the_split() -> None:
    assert near_duplicates(VALIDATION, TRAIN) == []


def test_the_near_duplicate_check_sees_variants() -> None:
    squares = {
        "entry_point": "sum_of_squares",
        "prompt": 'def sum_of_squares(values):\n    """Return the sum of the squares of the values."""\n',
        "completion": "    total = 0\n    for value in values:\n        total += value**2\n    return total\n",
    }
    renamed = {
        "entry_point": "energy",
        "prompt": 'def energy(signal):\n    """Measure how loud a recording is."""\n',
        "completion": "    power = 0\n    for sample in signal:\n        power += sample**2\n    return power\n",
    }
    rewritten = {
        "entry_point": "sum_of_cubes",
        "prompt": 'def sum_of_cubes(values):\n    """Return the sum of the cubes of the values."""\n',
        "completion": "    return sum(n * n * n for n in values)\n",
    }
    assert near_duplicates([squares], [renamed])[0][2] == 1.0
    assert near_duplicates([squares], [rewritten])[0][3] >= WORDS_LIMIT
