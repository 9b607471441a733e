"""Programming tasks with tests: read from files, recognised by their columns, brought into one form.

HumanEval (task_id, prompt, entry_point, test), MBPP (task_id, text or prompt, code, test_list, test_imports or
test_setup_code), and our own (task_id, prompt, entry_point, tests, reference; `same_process: true` where tests need the
program's own objects in a way that does not show); .jsonl, .json and .gz of those. The files are trusted as
much as their tests have to be: they are parsed here, and run in a sandbox only.

>>> tasks = read_tasks(Path("HumanEval.jsonl.gz"))      # doctest: +SKIP
"""

import ast
import builtins
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hone.config.schema import Where
from hone.data.sources import read_rows
from hone.errors import HoneError, placed

FORMS = (
    "a task has task_id, prompt, entry_point and tests (a list of assert lines, or code), and may have a reference; "
    "or the columns of HumanEval (entry_point, test) or of MBPP (code, test_list)"
)
NAMES = frozenset(dir(builtins)) | {"__name__", "__file__"}


@dataclass(frozen=True)
class Task:
    """One task.

    entry_point: the function asked for; None if the columns do not say (then `calls` does).
    calls: functions of the program that the tests call. tests: code, run one after another after `setup`.
    reference: a whole program that passes. together: why program and tests must share a process, if they must.
    """

    task_id: str
    prompt: str
    entry_point: str | None
    calls: tuple[str, ...]
    tests: tuple[str, ...]
    setup: str = ""
    reference: str | None = None
    together: str | None = None
    where: str | None = None

    @property
    def prompt_is_code(self) -> bool:
        """Is the prompt the beginning of a program, so that an answer may continue it?"""
        return code_of_prompt(self.prompt) is not None


def read_tasks(path: Path) -> list[Task]:
    """All tasks of a file.

    Raises:
        HoneError: a task that is not one, with file and line; two with one id; none at all.
    """
    tasks: dict[str, Task] = {}
    for row in read_rows([path], on_bad_row="error", on_skip=lambda reason, where: None):
        task = as_task(row.columns, row.where)
        if task.task_id in tasks:
            fix = f"the other one is at {tasks[task.task_id].where}; ids must differ"
            raise HoneError(f"the task_id '{task.task_id}' occurs twice", where=row.where, fix=fix)
        tasks[task.task_id] = task
    if not tasks:
        raise HoneError("no tasks", where=str(path), fix=FORMS)
    return list(tasks.values())


def as_task(columns: Mapping[str, Any], where: str | None = None) -> Task:
    """One row as a task.

    Raises:
        HoneError: columns are missing, or hold something else than code.
    """
    if columns.get("task_id") is None or isinstance(columns["task_id"], (dict, list, float, bool)):
        raise HoneError("no task_id", where=where, fix=FORMS)
    if columns.get("test_list") is not None:
        return _mbpp(columns, where)
    if columns.get("test") is not None and columns.get("tests") is None:
        return _own(columns, where, tests="test", reference="canonical_solution")
    if columns.get("tests") is not None:
        return _own(columns, where, tests="tests", reference="reference")
    raise HoneError(f"no tests: the columns are {', '.join(columns)}", where=where, fix=FORMS)


def _own(columns: Mapping[str, Any], where: str | None, *, tests: str, reference: str) -> Task:
    """Our form and HumanEval's, which differ in names."""
    prompt, entry = _text(columns, "prompt", where), _text(columns, "entry_point", where)
    if not entry.isidentifier():
        fix = "write the bare name that the tests call: f, not f()"
        raise HoneError(f"entry_point '{entry[:40]}' is not the name of a function", where=where, fix=fix)
    chunks = _chunks(columns, tests, where)
    trees = _parsed(chunks, tests, where)
    if "check" in _defined(trees) and not _called_at_top(trees, "check"):
        chunks = [*chunks, f"check({entry})"]
    given = columns.get(reference)
    if given is not None and not isinstance(given, str):
        raise HoneError(f"'{reference}' is not text", where=where, fix=FORMS)
    program = None if given is None else whole_program(prompt, given, entry)
    setup = code_of_prompt(prompt) or ""
    return _task(columns, where, prompt, entry, [entry], chunks, setup, program)


def _mbpp(columns: Mapping[str, Any], where: str | None) -> Task:
    """MBPP names no function: the tests call what the reference defines."""
    prompt = _text(columns, "text" if columns.get("text") is not None else "prompt", where)
    code = columns.get("code")
    if code is not None and not isinstance(code, str):
        raise HoneError("'code' is not text", where=where, fix=FORMS)
    setup = [columns.get("test_setup_code") or "", *(columns.get("test_imports") or [])]
    if not all(isinstance(line, str) for line in setup):
        raise HoneError("'test_imports' and 'test_setup_code' must be text", where=where, fix=FORMS)
    lines = "\n".join(line for line in setup if line.strip())
    chunks = _chunks(columns, "test_list", where)
    defined = _defined(_parsed([code], "code", where)) if code else None
    missing = _free(_parsed([*chunks, lines], "test_list", where), defined or set())
    calls = [name for name in missing if defined is None or name in defined]
    if not calls:
        raise HoneError("the tests call no function that 'code' defines", where=where, fix=FORMS)
    return _task(columns, where, prompt, calls[0] if len(calls) == 1 else None, calls, chunks, lines, code or None)


def _task(
    columns: Mapping[str, Any],
    where: str | None,
    prompt: str,
    entry: str | None,
    calls: Sequence[str],
    chunks: Sequence[str],
    setup: str,
    reference: str | None,
) -> Task:
    trees = _parsed([setup, *chunks], "tests", where)
    classes = _classes(_try_parse(reference or "") or ast.Module([], [])) | _classes(
        _try_parse(setup) or ast.Module([], [])
    )
    others = [name for name in _free(trees) if name not in calls]
    together = None
    if made := [name for name in calls if name in classes]:
        together = f"the tests make objects of {', '.join(made)}"
    elif others:
        together = f"the tests use {', '.join(others)} of the program"
    elif columns.get("same_process") is True:
        together = "the task asks for it"
    return Task(str(columns["task_id"]), prompt, entry, tuple(calls), tuple(chunks), setup, reference, together, where)


# --- pieces of code -------------------------------------------------------------------------------------------------


def code_of_prompt(prompt: str) -> str | None:
    """The prompt as code that runs by itself (helpers and imports for the tests), None if it is plain language."""
    for text in (prompt, f"{prompt.rstrip()}\n    pass\n"):
        tree = _try_parse(text)
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
        if tree is not None and any(isinstance(node, kinds) for node in tree.body):
            return text
    return None


def whole_program(prompt: str, answer: str, entry: str) -> str:
    """A trusted solution as one program: as it is if it defines the function, else as a continuation of the prompt."""
    tree = _try_parse(answer)
    if tree is not None and entry in _defined([tree]):
        head = code_of_prompt(prompt)  # a solution may lean on the prompt's imports and helpers
        return f"{head.rstrip()}\n\n\n{answer}" if head else answer
    return prompt + answer


def _text(columns: Mapping[str, Any], name: str, where: str | None) -> str:
    value = columns.get(name)
    if not isinstance(value, str) or not value.strip():
        raise HoneError(f"'{name}' is {'missing' if value is None else 'not text, or empty'}", where=where, fix=FORMS)
    if not value.isascii() and value.encode("utf-8", "replace").decode() != value:
        raise HoneError(f"'{name}' has a lone surrogate, which is not a character", where=where, fix="remove it")
    return value


def _chunks(columns: Mapping[str, Any], name: str, where: str | None) -> list[str]:
    value = columns[name]
    chunks = [value] if isinstance(value, str) else list(value) if isinstance(value, Sequence) else []
    if not chunks or not all(isinstance(chunk, str) and chunk.strip() for chunk in chunks):
        raise HoneError(f"'{name}' must be code, or a list of assert lines", where=where, fix=FORMS)
    return chunks


def _parsed(chunks: Iterable[str], name: str, where: str | None) -> list[ast.Module]:
    trees = []
    for chunk in chunks:
        try:
            trees.append(ast.parse(chunk))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise HoneError(
                f"'{name}' does not compile: {error}", where=where, fix=f"it starts: {chunk[:60]!r}"
            ) from None
    return trees


def _try_parse(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _defined(trees: Iterable[ast.Module]) -> set[str]:
    """Functions, classes and variables at the top level."""
    names: set[str] = set()
    for tree in trees:
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                names.add(node.name)
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def _classes(tree: ast.Module) -> set[str]:
    return {node.name for node in tree.body if isinstance(node, ast.ClassDef)}


def _called_at_top(trees: Iterable[ast.Module], name: str) -> bool:
    calls = [node.value for tree in trees for node in tree.body if isinstance(node, ast.Expr)]
    return any(
        isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == name for call in calls
    )


def _free(trees: Sequence[ast.Module], defined: Collection[str] = ()) -> list[str]:
    """Names that the code uses and nowhere binds, in order: what it expects of the program.

    Args:
        defined: names the program is known to define; one of them may hide a built-in.
    """
    used: dict[str, None] = {}
    bound = set(NAMES) - set(defined)
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Load):
                used[node.id] = None
            else:
                bound.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            bound.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            if any(alias.name == "*" for alias in node.names):
                return []  # anything may come from there
            bound |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return [name for name in used if name not in bound]


def tasks_of(path: Path | None, where: Where) -> list[Task]:
    """The tasks that a training is to measure; none where `eval.code_tasks` names no file.

    Raises:
        HoneError: the file cannot be read; with the line of the key.
    """
    if path is None:
        return []
    with placed(where("code_tasks")):
        return read_tasks(path)
