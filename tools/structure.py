"""The shape of src/hone in numbers: size, direction of imports, what travels everywhere, lengths of functions.

python tools/structure.py                        # the numbers
python tools/structure.py --list config          # and the places behind one of them
"""

import argparse
import ast
import importlib.util
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hone.config.sections.method import TASKS

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "hone"


class Module(NamedTuple):
    """One file of the package. room: its top-level package or module."""

    path: Path
    name: str
    room: str
    text: str
    tree: ast.Module

    def place(self, node: Any, what: str) -> str:
        return f"{self.path.relative_to(ROOT)}:{node.lineno} {what}"

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        return (node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def modules() -> list[Module]:
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        text = path.read_text(encoding="utf-8")
        found.append(Module(path, ".".join(["hone", *parts]), parts[0], text, ast.parse(text)))
    return found


def layout() -> Any:
    """tests/test_layout.py, where ORDER and LIGHT stand."""
    spec = importlib.util.spec_from_file_location("layout", ROOT / "tests" / "test_layout.py")
    assert spec and spec.loader
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def imports(tree: ast.AST, names: set[str]) -> Iterator[tuple[ast.stmt, str]]:
    """First-party modules imported below `tree`; those that only types need are left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "hone":
            for alias in node.names:
                inside = f"{node.module}.{alias.name}"
                name = inside if {inside, f"{inside}.__init__"} & names else node.module
                yield node, name if name in names else f"{name}.__init__"
        yield from imports(node, names)


def circles(found: list[Module]) -> list[str]:
    """Groups of modules each of which reaches the others by imports, at the top or inside functions."""
    names = {module.name for module in found}
    edges = {module.name: {name for _, name in imports(module.tree, names)} - {module.name} for module in found}
    reach: dict[str, set[str]] = {}
    for name in names:
        seen, ahead = set[str](), edges[name]
        while ahead:
            seen, ahead = seen | ahead, {far for near in ahead for far in edges.get(near, ())} - seen - ahead
        reach[name] = seen
    groups = {frozenset(o for o in reach[name] if name in reach.get(o, ())) for name in names if name in reach[name]}
    return [" <-> ".join(sorted(group)) for group in groups]


def upward(found: list[Module]) -> list[str]:
    order, names = layout().ORDER, {module.name for module in found}
    uses = [(module, node, name) for module in found for node, name in imports(module.tree, names)]
    return [m.place(node, name) for m, node, name in uses if order.index(name.split(".")[1]) > order.index(m.room)]


def whole_config(found: list[Module]) -> list[str]:
    """Functions outside config/ that take the whole configuration."""
    places = []
    for module in found:
        for function in module.functions() if module.room != "config" else ():
            arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
            kinds = [ast.unparse(a.annotation).strip("'").split(" | ") for a in arguments if a.annotation]
            places += [module.place(function, function.name)] if any("Config" in kind for kind in kinds) else []
    return places


def task_names(found: list[Module]) -> list[str]:
    """Where a task is recognised by its name outside tasks/: in comparisons, keys of dicts, cases of a match."""
    places = []
    for module in found:
        for node in ast.walk(module.tree) if module.room != "tasks" else ():
            parts: list[Any] = [node.value] if isinstance(node, ast.MatchValue) else []
            if isinstance(node, ast.Compare):
                parts = [leaf for side in (node.left, *node.comparators) for leaf in ast.walk(side)]
            elif isinstance(node, ast.Dict):
                parts = node.keys
            if any(isinstance(part, ast.Constant) and part.value in TASKS for part in parts):
                places.append(module.place(node, ast.unparse(node)[:80]))
    return places


def inner_imports(found: list[Module]) -> list[str]:
    """First-party imports inside functions of rooms that need not be light: they buy nothing."""
    heavy, names = [m for m in found if m.room not in layout().LIGHT], {module.name for module in found}
    places = [m.place(node, name) for m in heavy for f in m.functions() for node, name in imports(f, names)]
    return list(dict.fromkeys(places))


def untyped(found: list[Module]) -> list[str]:
    lines = [(module.path, n, line) for module in found for n, line in enumerate(module.text.splitlines(), 1)]
    return [f"{p.relative_to(ROOT)}:{n}" for p, n, line in lines for _ in range(line.count("dict[str, Any]"))]


def lengths(found: list[Module]) -> list[tuple[int, str]]:
    """Lines of each function, the longest first."""
    sizes = [((f.end_lineno or 0) - f.lineno + 1, m.place(f, f.name)) for m in found for f in m.functions()]
    return sorted(sizes, reverse=True)


MEASURES = {
    "circles": ("import circles", circles),
    "upward": ("imports up the layers", upward),
    "config": ("functions outside config/ that take the whole config", whole_config),
    "untyped": ("dict[str, Any]", untyped),
    "tasks": ("comparisons with a task's name outside tasks/", task_names),
    "inner": ("first-party imports inside functions of heavy rooms", inner_imports),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", choices=[*MEASURES, "lengths"], help="print the places, not only how many")
    asked, found = parser.parse_args().list, modules()
    print(f"{sum(len(module.text.splitlines()) for module in found):6,} lines in {len(found)} files")
    for name, (title, measure) in MEASURES.items():
        places = measure(found)
        print("\n       ".join([f"{len(places):6,} {title}", *(places if name == asked else ())]))
    sizes = lengths(found)
    median, most = statistics.median(n for n, _ in sizes), statistics.quantiles([n for n, _ in sizes], n=10)[-1]
    print(f"{len(sizes):6,} functions: median {median:.0f} lines, nine of ten at most {most:.0f}; the longest:")
    print("\n".join(f"       {length} {place}" for length, place in sizes[: None if asked == "lengths" else 10]))


if __name__ == "__main__":
    main()
