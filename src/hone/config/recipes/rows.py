"""Rows to start with, for every recipe: what `hone init RECIPE --with-data` writes beside the recipe.

They are derived from what the package brings along: the demo's functions (`assets/demo`), one book (`assets/book`),
and, for training from scratch, modules of the running Python's own library.

>>> sorted(rows_for("light-lab"))
['eval-more.jsonl', 'eval.jsonl', 'tasks.jsonl', 'train-more.jsonl', 'train.jsonl']
>>> len(rows_for("light-lab")["train.jsonl"].splitlines()), len(rows_for("light-lab")["eval.jsonl"].splitlines())
(8, 2)
"""

import ast
import json
import re
import sysconfig
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import TypedDict

from hone.errors import HoneError

# The first functions anybody would write: of the training rows and of the held-out ones.
FIRST = (
    *("number_of_vowels", "has_capitals", "total_positive", "smallest_of_below", "falling_divisible"),
    *("countdown_divisors", "reversed_missing", "shout_words_ending"),
)
FIRST_HELD_OUT = ("number_of_small_letters", "falling_odd")
KINDS = {bool: "truth value", int: "number", float: "number", str: "text", list: "list"}
# Of 28 families these are held out, so that no label can be learned from the look of a family.
HELD_OUT_FAMILIES = frozenset({"bits", "codes", "geometry", "iterators", "parsing", "regex", "sets", "simulation"})
# In every Python since 3.11, without data tables; about 1.2 MB.
MODULES = (
    *("argparse", "ast", "base64", "bisect", "calendar", "cmd", "codecs", "configparser", "contextlib", "copy", "csv"),
    *("dataclasses", "difflib", "fnmatch", "fractions", "functools", "getopt", "glob", "graphlib", "gzip", "heapq"),
    *("inspect", "ipaddress", "linecache", "locale", "optparse", "os", "pprint", "queue", "random", "reprlib"),
    *("shlex", "shutil", "statistics", "string", "textwrap", "threading", "timeit", "tokenize", "traceback", "types"),
    *("warnings", "weakref"),
)


Row = Mapping[str, object]


class Function(TypedDict):
    """What is used of a row of assets/demo/functions.*.jsonl."""

    task_id: str
    family: str
    difficulty: str
    instruction: str
    output: str
    prompt: str
    entry_point: str
    tests: list[str]


def rows_for(recipe: str) -> dict[str, str]:
    """Name and content of each file of rows.

    Raises:
        HoneError: a recipe without rows of its own, or a Python without its library's source.
    """
    if recipe not in _RECIPES:
        raise HoneError(f"no rows for recipe '{recipe}'", fix=f"there are for: {', '.join(sorted(_RECIPES))}")
    return _RECIPES[recipe]()


def with_rows(source: str, files: Collection[str]) -> str:
    """A recipe's source whose keys name these files, where it named a data set of the hub or a share to hold out.

    >>> with_rows("data:\\n  dataset_name: a/b\\n  # A tenth.\\n  validation_split_percentage: 10\\n", ["eval.jsonl"])
    'data:\\n  train_file: train.jsonl\\n  validation_file: eval.jsonl\\n'
    """
    if "eval.jsonl" not in files:
        return source
    text = re.sub(r"^  dataset_name: .*$", "  train_file: train.jsonl", source, flags=re.M)
    return re.sub(r"(^  #.*\n)*^  validation_split_percentage: .*$", "  validation_file: eval.jsonl", text, flags=re.M)


def listed(files: dict[str, str]) -> str:
    """
    >>> listed({"train.jsonl": "{}\\n{}\\n", "book.txt": "A\\n", "code/a.py": "", "code/b.py": ""})
    'train.jsonl (2 rows), book.txt, code/ (2 files)'
    """
    parts: dict[str, str] = {}
    for name, text in files.items():
        folder, _, file = name.rpartition("/")
        if folder:
            parts[folder] = f"{folder}/ ({sum(one.startswith(f'{folder}/') for one in files)} files)"
        else:
            parts[file] = f"{file} ({len(text.splitlines())} rows)" if file.endswith(".jsonl") else file
    return ", ".join(parts.values())


# ---- the demo's functions as rows of several kinds -------------------------------------------------------------------


def _functions(name: str) -> list[Function]:
    path = resources.files("hone") / "assets" / "demo" / f"functions.{name}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _easy(name: str) -> list[Function]:
    """Five families of one pattern each: enough alike that a hundred of them teach a small model something."""
    return [one for one in _functions(name) if one["difficulty"] == "easy"]


def _documented(one: Function) -> tuple[str, str] | None:
    """A function's head with what it returns as its docstring, and its body; None for classes and for imports."""
    says = re.match(r"Write a function \w+\([^)]*\) that (.*)$", one["instruction"])
    if says is None or not one["output"].startswith(f"def {one['entry_point']}("):
        return None
    head, body = one["output"].split("\n", 1)
    return f'{head}\n    """{says[1][0].upper()}{says[1][1:]}"""\n', body


def _texts(functions: Iterable[Function]) -> Iterator[Row]:
    yield from ({"text": "".join(parts)} for one in functions if (parts := _documented(one)))


def _continuations(functions: Iterable[Function]) -> Iterator[Row]:
    """As tasks whose prompt is a head to be continued."""
    for one in functions:
        if parts := _documented(one):
            task = {"task_id": one["task_id"], "prompt": parts[0], "entry_point": one["entry_point"]}
            yield {**task, "tests": one["tests"]}


def _light_lab() -> dict[str, str]:
    train, held_out = _easy("train"), _easy("test")
    return {
        "train.jsonl": _lines(_texts(one for one in train if one["task_id"] in FIRST)),
        "eval.jsonl": _lines(_texts(one for one in held_out if one["task_id"] in FIRST_HELD_OUT)),
        "train-more.jsonl": _lines(_texts(train)),
        "eval-more.jsonl": _lines(_texts(held_out)),
        "tasks.jsonl": _lines(_continuations(held_out)),
    }


def _instructions() -> dict[str, str]:
    def rows(functions: Iterable[Function]) -> Iterator[Row]:
        yield from ({"instruction": one["instruction"], "output": one["output"]} for one in functions)

    def tasks(functions: Iterable[Function]) -> Iterator[Row]:
        for one in functions:
            task = {"task_id": one["task_id"], "prompt": one["prompt"], "entry_point": one["entry_point"]}
            yield {**task, "tests": one["tests"]}

    return {
        "train.jsonl": _lines(rows(_easy("train"))),
        "eval.jsonl": _lines(rows(_easy("test"))),
        "tasks.jsonl": _lines(tasks(_easy("test"))),
    }


def _summaries() -> dict[str, str]:
    def rows(functions: Iterable[Function]) -> Iterator[Row]:
        for one in functions:
            if says := re.match(r"Write a function \w+\([^)]*\) that (.*)$", one["instruction"]):
                yield {"code": one["output"], "summary": f"{says[1][0].upper()}{says[1][1:]}"}

    return {"train.jsonl": _lines(rows(_functions("train"))), "eval.jsonl": _lines(rows(_functions("test")))}


def _classes() -> dict[str, str]:
    """Programs, labelled with what they return; as many of each label, and no family on both sides."""
    sides: tuple[dict[str, list[str]], dict[str, list[str]]] = ({}, {})
    for one in [*_functions("train"), *_functions("test")]:
        if label := _returns(one):
            sides[one["family"] in HELD_OUT_FAMILIES].setdefault(label, []).append(one["output"])
    return {name: _lines(_balanced(of_label)) for name, of_label in zip(("train.jsonl", "eval.jsonl"), sides)}


def _returns(one: Function) -> str | None:
    """What a function's tests compare its answers with, where that is one kind of value, or None."""
    kinds = set()
    for test in one["tests"]:
        compared = [node.test for node in ast.walk(ast.parse(test)) if isinstance(node, ast.Assert)]
        for check in compared:
            if not isinstance(check, ast.Compare) or not isinstance(check.left, ast.Call):
                return None
            try:
                value = ast.literal_eval(check.comparators[0])
            except ValueError:
                return None
            asked = isinstance(check.left.func, ast.Name) and check.left.func.id == one["entry_point"]
            kinds |= {None if not asked else KINDS.get(type(value))} if value is not None else set()
    return kinds.pop() if len(kinds) == 1 else None


def _balanced(of_label: dict[str, list[str]]) -> Iterator[Row]:
    """As many of each label as the rarest has, evenly chosen from all, in turn."""
    fewest = min(map(len, of_label.values()))
    for at in range(fewest):
        for label, texts in sorted(of_label.items()):
            yield {"text": texts[at * len(texts) // fewest], "label": label}


def _lines(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


# ---- a book, and a library -------------------------------------------------------------------------------------------


def _book() -> dict[str, str]:
    return {"book.txt": (resources.files("hone") / "assets" / "book" / "book.txt").read_text(encoding="utf-8")}


def _library() -> dict[str, str]:
    """Modules of this Python's library; a few that a later Python no longer has are left out."""
    folder = Path(sysconfig.get_path("stdlib"))
    found = {f"code/{name}.py": folder / f"{name}.py" for name in MODULES}
    texts = {name: path.read_text(encoding="utf-8") for name, path in found.items() if path.is_file()}
    if not texts:
        raise HoneError("no source of Python's library", where=str(folder), fix="name .py files of your own in code/")
    return texts


_RECIPES: dict[str, Callable[[], dict[str, str]]] = {
    "book": _book,
    "classify": _classes,
    "code-from-scratch": _library,
    "instruct-gpt2": _instructions,
    "light-lab": _light_lab,
    "qwen2-lora-cpu": _instructions,
    "qwen2-lora-gpu": _instructions,
    "summarize-code": _summaries,
}
