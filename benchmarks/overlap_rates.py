"""How many copies `hone.data.contamination` finds between training rows and evaluation items, and how many it invents.

Functions of Python's own standard library. Copies: evaluation functions, changed in one of the ways that copying
changes code, are planted among the training rows. Inventions: the same items beside functions of other modules only;
what is reported there is printed, because some of it is the library copying from itself.

    python benchmarks/overlap_rates.py
    python benchmarks/overlap_rates.py --items 500 --rows 20000 --show 10
"""

import argparse
import ast
import io
import platform
import random
import re
import sys
import sysconfig
import time
import tokenize
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from hone.data.contamination import KINDS, Matches, find_contamination
from hone.data.ngrams import code_form
from hone.statistics.intervals import wilson_interval

SKIPPED = ("test", "tests", "idlelib", "site-packages", "lib2to3", "__pycache__", "pydoc_data", "turtledemo")
BATCH = 1000
LONG = 40  # code tokens: about five lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--items", type=int, default=300, help="evaluation functions")
    parser.add_argument("--rows", type=int, default=5000, help="training functions of other modules")
    parser.add_argument("--modules", type=int, help="drawn from so many modules only: quicker, and fewer relatives")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=3, help="pairs of different modules to print")
    given = parser.parse_args(arguments)
    items, rows = functions(given.items, given.rows, random.Random(given.seed), given.modules)
    print(f"Python {platform.python_version()}; {len(items)} functions, {len(rows)} of other modules\n")

    long_enough = code_form(items).sizes() >= LONG
    print(f"| planted copy | found | 95 % interval | exact | same code | near | of {LONG} or more code tokens |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    for name, change in CHANGES.items():
        copies = [change(item, random.Random(i)) for i, item in enumerate(items)]
        planted = [i for i, copy in enumerate(copies) if copy != items[i] or name == "verbatim"]
        found = search([items[i] for i in planted], [*rows, *(copies[i] for i in planted)])
        hits = {planted[pair.item]: pair.kind for pair in found.pairs if pair.row - len(rows) == pair.item}
        kinds = " | ".join(str(list(hits.values()).count(kind)) for kind in KINDS)
        longer = rate(sum(long_enough[i] for i in hits), sum(long_enough[i] for i in planted))
        print(f"| {name} | {rate(len(hits), len(planted))} | {kinds} | {longer.replace(' |', ',')} |")

    began = time.perf_counter()
    found = search(items, rows)
    seconds = time.perf_counter() - began
    wrong = found.worst()
    kinds = ", ".join(f"{sum(pair.kind == kind for pair in wrong)} {kind}" for kind in KINDS)
    share = rate(len(wrong), len(items)).replace("|", "items, 95 % interval")
    print(f"\nNothing planted, yet said to be in a row of another module: {share} ({kinds}).")
    for pair in wrong[: given.show]:
        print(f"\n{pair}\n--- item\n{items[pair.item]}\n--- row\n{rows[pair.row]}")
    megabytes = sum(map(len, rows)) / 1e6
    memory = psutil.Process().memory_info().rss / 2**20
    print(f"\n{len(rows)} rows ({megabytes:.1f} MB) looked through in {seconds:.1f} s; {memory:.0f} MiB of memory")


def rate(hits: int, n: int) -> str:
    share = wilson_interval(hits, n)
    return f"{hits} of {n} | {share.low:.3f} to {share.high:.3f}"


def search(items: list[str], rows: list[str]) -> Matches:
    return find_contamination(items, (rows[i : i + BATCH] for i in range(0, len(rows), BATCH)), len(rows))


def functions(
    n_items: int, n_rows: int, draw: random.Random, n_modules: int | None = None
) -> tuple[list[str], list[str]]:
    """Distinct functions of some modules, and functions of others; rows repeat if there are not enough."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = [p for p in sorted(root.rglob("*.py")) if not set(SKIPPED) & set(p.relative_to(root).parts)]
    draw.shuffle(paths)
    items: list[str] = []
    rows: list[str] = []
    for path in paths[:n_modules]:
        target = items if len(items) < n_items else rows
        target += functions_of(path.read_text(encoding="utf-8", errors="replace"))
    items = draw.sample(sorted(set(items)), n_items)
    rows = sorted(set(rows) - set(items))
    return items, draw.sample(rows, n_rows) if n_rows <= len(rows) else (rows * (n_rows // len(rows) + 1))[:n_rows]


def functions_of(source: str) -> list[str]:
    """Sources of the functions of a file that have at least two lines, all ASCII, from column 0."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return []
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    lines = source.split("\n")
    found = ["\n".join(line[node.col_offset :] for line in lines[node.lineno - 1 : node.end_lineno]) for node in nodes]
    return [text for text in found if "\n" in text and text.isascii() and parses(text)]


def parses(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


# ---- how copies differ --------------------------------------------------------------------------------------------


def reindented(text: str, draw: random.Random) -> str:
    """Tabs for four spaces, trailing white space, blank lines."""
    changed = []
    for line in text.split("\n"):
        body = line.lstrip(" ")
        depth, rest = divmod(len(line) - len(body), 4)
        changed.append("\t" * depth + " " * rest + body + draw.choice(["", "  ", "\n"]))
    return "\n".join(changed)


def renamed(text: str, draw: random.Random) -> str:
    """Arguments, local variables and the function itself under other names, in place."""
    nodes = list(ast.walk(ast.parse(text)))
    places = [(n.lineno, n.col_offset, n.id) for n in nodes if isinstance(n, ast.Name)]
    places += [(n.lineno, n.col_offset, n.arg) for n in nodes if isinstance(n, ast.arg)]
    bound = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    bound |= {n.arg for n in nodes if isinstance(n, ast.arg)} - {"self", "cls"}
    new = {name: f"{draw.choice('abcdefgh')}_{number}" for number, name in enumerate(sorted(bound))}
    lines = text.split("\n")
    for row, begin, name in sorted(places, reverse=True):
        line, end = lines[row - 1], begin + len(name)
        if name in new and line[begin:end] == name:  # not so inside the f-strings of older Pythons
            lines[row - 1] = line[:begin] + new[name] + line[end:]
    return re.sub(r"def \w+", f"def made_{draw.randrange(100)}", "\n".join(lines), count=1)


def tokens(text: str) -> list[tokenize.TokenInfo]:
    return list(tokenize.generate_tokens(io.StringIO(text).readline))


def recommented(text: str, draw: random.Random) -> str:
    """Comments and docstring replaced by others."""
    lines = text.split("\n")
    tree = ast.parse(text)
    function = tree.body[0]
    assert isinstance(function, ast.FunctionDef)
    first = function.body[0]
    for token in reversed([t for t in tokens(text) if t.type == tokenize.COMMENT]):
        row, begin = token.start
        lines[row - 1] = lines[row - 1][:begin]
    if ast.get_docstring(function) and len(function.body) > 1 and first.lineno > function.lineno:
        lines[first.lineno - 1 : first.end_lineno] = [
            f'{" " * first.col_offset}"""Say what number {draw.random()} is."""'
        ]
    return "\n".join(line + ("  # note this" if line.rstrip().endswith(":") else "") for line in lines)


def one_line_changed(text: str, draw: random.Random) -> str:
    """One line of the body, a statement of its own, replaced by another statement."""
    lines = text.split("\n")
    statements = [
        node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.stmt) and not hasattr(node, "body")
    ]
    alone = [n for n in statements if n.lineno == n.end_lineno and not lines[n.lineno - 1][: n.col_offset].strip()]
    if not alone:
        return text
    node = draw.choice(alone)
    lines[node.lineno - 1] = " " * node.col_offset + f"log.warning('step %d', {draw.randrange(1000)})"
    return "\n".join(lines)


def all_but_the_line(text: str, draw: random.Random) -> str:
    return reindented(recommented(renamed(text, draw), draw), draw)


def all_of_it(text: str, draw: random.Random) -> str:
    return all_but_the_line(one_line_changed(text, draw), draw)


CHANGES: dict[str, Callable[[str, random.Random], str]] = {
    "verbatim": lambda text, draw: text,
    "indented otherwise": reindented,
    "variables renamed": renamed,
    "comments and docstring changed": recommented,
    "one line changed": one_line_changed,
    "layout, names and comments": all_but_the_line,
    "all of these": all_of_it,
}

if __name__ == "__main__":
    main(sys.argv[1:])
