"""Mutation testing: a module is changed in one place at a time, and the tests have to notice.

    python tools/mutants.py hone.training.state tests/training/test_state.py
    python tools/mutants.py hone.training.saving tests/training/test_saving.py --only 163     # lines, after a look

Each mutant is tried in a fork of a process that has the libraries loaded, the tests in the order given, until the first
that fails; no file is written. A mutant that lives is printed: a test is missing, the code is without effect, or the
change cannot be seen. Processes that a test starts have the module as it is. Messages of errors and of the log are not
changed.
"""

import argparse
import ast
import copy
import importlib.abc
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = ("torch", "transformers", "peft", "datasets", "accelerate", "scipy.stats", "sklearn.metrics", "pytest")
SAYING = ("HoneError", "Diverged", "TypeError", "ValueError")  # what they say is not changed
OTHER: dict[type[ast.AST], type[ast.AST]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.Pow: ast.Mult,
    ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
TURNED: dict[type[ast.AST], type[ast.AST]] = {ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE}


class Mutant(NamedTuple):
    """One change: the node at the end of `place` (fields, and numbers within them) becomes another."""

    place: tuple[str | int, ...]
    line: int
    before: ast.AST
    after: ast.AST

    def __str__(self) -> str:
        return f"{self.line}: {_first_line(self.before)}  ->  {_first_line(self.after)}"


def mutants(tree: ast.Module) -> list[Mutant]:
    """Every mutant of a module, in the order of its text."""
    return list(_below(tree, (), 0))


def _below(node: ast.AST, place: tuple[str | int, ...], line: int) -> Iterator[Mutant]:
    if isinstance(node, ast.Import | ast.ImportFrom | ast.JoinedStr) or _says(node):
        return
    line = getattr(node, "lineno", line)
    for after in changes(node):
        yield Mutant(place, line, node, after)
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list") or (
            field == "args" and isinstance(node, ast.arguments)
        ):
            continue
        for number, child in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(child, ast.AST):
                yield from _below(child, (*place, field, number) if isinstance(value, list) else (*place, field), line)


def _says(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = ast.unparse(node.func)
    return name in SAYING or name.startswith("log.")


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in a node's place."""
    match node:
        case ast.Compare():
            yield from _compared_otherwise(node)
        case ast.BoolOp() | ast.BinOp() | ast.AugAssign() if type(node.op) in OTHER:
            yield _with(node, op=OTHER[type(node.op)]())
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield node.operand
        case ast.Constant(value=bool()):
            yield _with(node, value=not node.value)
        case ast.Constant(value=int() | float()):
            yield _with(node, value=node.value + 1 if isinstance(node.value, int) else node.value * 2 + 0.01)
        case ast.If() | ast.IfExp() | ast.While():
            yield _with(node, test=ast.UnaryOp(ast.Not(), node.test))
        case ast.comprehension() if node.ifs:
            yield _with(node, ifs=[])
        case ast.Return() if node.value is not None and not _is_none(node.value):
            yield _with(node, value=ast.Constant(None))
    if _does_something(node):
        yield ast.Pass()


def _compared_otherwise(node: ast.Compare) -> Iterator[ast.AST]:
    for number, operator in enumerate(node.ops):
        for table in (OTHER, TURNED):
            if type(operator) in table:
                yield _with(node, ops=[*node.ops[:number], table[type(operator)](), *node.ops[number + 1 :]])


def _does_something(node: ast.AST) -> bool:
    """A statement that would be missed by what it does, not by a name it gives."""
    match node:
        case ast.Raise() | ast.Continue() | ast.Break():
            return True
        case ast.Expr(value=ast.Call()):
            return not _says(node.value)
        case ast.Assign():
            return any(isinstance(target, ast.Attribute) for target in node.targets)
        case ast.AugAssign():
            return isinstance(node.target, ast.Attribute)
    return False


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _with(node: ast.AST, **fields: Any) -> ast.AST:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _first_line(node: ast.AST) -> str:
    return ast.unparse(node).strip().splitlines()[0][:100]


def changed(tree: ast.Module, mutant: Mutant) -> ast.Module:
    """A copy of the module with one change."""
    tree = copy.deepcopy(tree)
    *path, last = mutant.place
    parent: Any = tree
    for step in path:
        parent = parent[step] if isinstance(step, int) else getattr(parent, step)
    if isinstance(last, int):
        parent[last] = copy.deepcopy(mutant.after)
    else:
        setattr(parent, last, copy.deepcopy(mutant.after))
    return ast.fix_missing_locations(tree)


# ---- trying them -----------------------------------------------------------------------------------------------------


class Instead(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Import a module from a tree instead of its file."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self.name, self.path, self.code = name, path, compile(tree, path, "exec")

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return importlib.util.spec_from_loader(name, self, origin=str(self.path)) if name == self.name else None

    def exec_module(self, module: ModuleType) -> None:
        exec(self.code, module.__dict__)


def passes(found: Instead, tests: Sequence[str], seconds: float) -> bool:
    """Whether the tests pass with a module in a fork of this process; one that takes longer does not."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        sys.meta_path.insert(0, found)
        code = 99
        try:
            import pytest

            code = int(pytest.main(["-x", "--tb=no", "-p", "no:cacheprovider", *tests]))
        finally:
            os._exit(code)
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.02)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("module", help="hone.training.state")
    parser.add_argument("tests", nargs="+", help="files, the nearest first")
    parser.add_argument("--only", type=int, nargs="+", help="mutants of these lines")
    given = parser.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT / "src"))
    sys.dont_write_bytecode = True
    os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")
    for name in LIBRARIES:
        importlib.import_module(name)
    path = (ROOT / "src" / given.module.replace(".", "/")).with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    began = time.monotonic()
    if not passes(Instead(given.module, path, tree), given.tests, 3600):
        sys.exit("the tests fail without a change")
    seconds = 30 + 3 * (time.monotonic() - began)
    todo = [mutant for mutant in mutants(tree) if not given.only or mutant.line in given.only]
    lived = 0
    for mutant in todo:
        if passes(Instead(given.module, path, changed(tree, mutant)), given.tests, seconds):
            lived += 1
            print(f"{path.relative_to(ROOT)}:{mutant}", flush=True)
    print(f"{given.module}: {len(todo)} mutants, {lived} live ({time.monotonic() - began:.0f} s)")


if __name__ == "__main__":
    main()
