"""What the prose names exists: paths, modules and what is in them, config keys, commands and make targets.

Read are the docstrings and comments of src/hone and the Markdown of the repository, of these only what stands in
`back-ticks` and in code blocks. docs/log.md tells history: its files may be gone, its commands may not.

`python tests/test_prose.py` prints all of it at once.
"""

import ast
import builtins
import importlib.util
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from test_layout import ORDER

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "hone"
HISTORY = ROOT / "docs" / "log.md"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    SOURCE / "assets" / "demo" / "README.md",
]
CODE = ("src", "tests", "benchmarks", "tools", "base_model", "examples")

# Folders that a run or its user makes, and files in them; names of others' files and of examples.
OF_RUNS = re.compile(
    r"(.*/)?(eval|runs|out|code|tokenizer|checkpoint-\w+|seed-\S+|<.*?>|FOLDER|OUT|RUN|TASKS|SAMPLES)(/.*)?"
    r"|(.*/)?(README|report|config|config\.resolved|env|status|metrics|train|train-more|eval-more|val|validation|test|tuned|base|base_model"
    r"|compare|samples|repeat|search|meta|template|complete|demo|cfg|recipe|light-lab|qwen|book|rows|prompts|tasks|model"
    r"|eval|tokenizer|tokenizer_config|chat_template|generation_config|adapter_config|adapter_model|hparams|encoder|vocab"
    r"|trainer_state|manifest|overlap|contamination|memorization|answers|\w*results|[A-Z]\w*)(\.\w+)*"
    r"\.(md|html|yaml|yml|json|jsonl|bin|mask|npy|log|txt|safetensors|gz|py|jinja|parquet|csv|bpe|ckpt)"
)  # fmt: skip
FILE = re.compile(
    r"[\w.<>*-]+(/[\w.<>*-]+)*\.(py|md|ya?ml|jsonl?|html|css|txt|toml|svg|sh|bin|csv|parquet|gz|npy|log|ckpt|safetensors)"
)
FOLDER = re.compile(r"[\w.-]+(/[\w.-]+)*/")
DOTTED = re.compile(r"([a-z_]\w*)((?:\.\w+)+)(\(.*\))?")
NAME = re.compile(r"(\w*_\w+|[A-Z][a-z]+\w*|\w+(?=\())(\(.*\))?")
SETTING = re.compile(r"([a-z_]+)(=|: )(.+)")


class Mention(NamedTuple):
    """text: what stands between back-ticks, or a line of a code block."""

    path: Path
    line: int
    text: str
    in_block: bool = False

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}: `{self.text}`"


# ---- what is said --------------------------------------------------------------------------------------------------


def mentions(path: Path) -> list[Mention]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return list(of_markdown(path, text))
    return [
        Mention(path, first + inner.count("\n", 0, found.start()), " ".join(found.group(2).split()))
        for first, inner in [*docstrings(ast.parse(text)), *comments(text)]
        for found in re.finditer(r"(`+)([^`]+)\1", inner)
    ]


def comments(text: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                yield first.lineno, first.value.value


def of_markdown(path: Path, text: str) -> Iterator[Mention]:
    in_block = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            in_block = not in_block
        elif in_block or re.match(r" {4,}(hone|make|python) ", line):
            yield Mention(path, number, line.strip(), in_block=True)
        else:
            yield from (Mention(path, number, span) for _, span in re.findall(r"(`+)([^`]+)\1", line))


# ---- what there is -------------------------------------------------------------------------------------------------


@cache
def modules() -> dict[str, Path]:
    """hone's modules and packages by dotted name without "hone."."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        if name := ".".join(parts[:-1] if parts[-1] == "__init__" else parts):
            found[name] = path
    return found


@cache
def defined(path: Path) -> frozenset[str]:
    """Names at the top of a module, methods and fields of its classes included, and what it imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return frozenset(names)


@cache
def words(path: Path) -> frozenset[str]:
    """Every identifier of a file of code, and every word of its strings, docstrings left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    said = {text for _, text in docstrings(tree)}
    found: set[str] = set()
    for node in ast.walk(tree):
        for name in ("id", "attr", "arg", "name", "asname"):
            if isinstance(value := getattr(node, name, None), str):
                found |= set(value.split("."))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in said:
            found |= set(re.findall(r"\w+", node.value))
    return frozenset(found)


@cache
def all_words() -> frozenset[str]:
    files = [path for folder in CODE for path in (ROOT / folder).rglob("*.py") if path != Path(__file__)]
    configs = [path for folder in CODE for path in (ROOT / folder).rglob("*.yaml")]
    names = {path.stem for path in files}
    return (
        names | frozenset().union(*map(words, files)) | {w for c in configs for w in re.findall(r"\w+", c.read_text())}
    )


@cache
def file_names() -> frozenset[str]:
    return frozenset(path.name for folder in (*CODE, "docs") for path in (ROOT / folder).rglob("*"))


@cache
def commands() -> frozenset[str]:
    from typer.main import get_command

    from hone.cli import app

    return frozenset(get_command(app).commands)  # type: ignore[attr-defined]


@cache
def targets() -> frozenset[str]:
    return frozenset(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))


@cache
def keys() -> dict[str, str]:
    from hone.config.schema import leaves

    return leaves()


# ---- the rules: each says what is wrong, or None ---------------------------------------------------------------------


def wrong(said: Mention) -> str | None:
    if found := wrong_command(said):
        return found
    if said.path == HISTORY:
        return None
    if said.text in OTHERS:
        return None
    if " " in said.text:
        return wrong_script(said) or wrong_setting(said)
    return wrong_path(said) or wrong_setting(said) or wrong_name(said)


def wrong_command(said: Mention) -> str | None:
    for program, word in re.findall(r"(?:^|[;&|(] *)(hone|make) ([a-z]+)\b(?![=/.])", said.text):
        if word not in (commands() if program == "hone" else targets()):
            return f"no such command: {program} {word}"
    return None


def wrong_script(said: Mention) -> str | None:
    for word in said.text.split():
        if FILE.fullmatch(word) and "/" in word and word.endswith((".py", ".md")) and not exists(said, word):
            return f"no such file: {word}"
    return None


def wrong_path(said: Mention) -> str | None:
    text = said.text.split(":")[0]
    is_path = FILE.fullmatch(text) or FOLDER.fullmatch(text)
    if not is_path or OF_RUNS.fullmatch(text) or {"*", "<"} & set(text) or exists(said, text):
        return None
    return None if said.in_block and "/" not in text else f"no such file: {text}"


def exists(said: Mention, text: str) -> bool:
    """Below one of the folders that paths may be relative to; a name alone of data or text may also lie deeper."""
    roots = (ROOT, SOURCE, said.path.parent, ROOT / "tests", ROOT / "benchmarks", ROOT / "base_model")
    if any((root / text).exists() for root in roots):
        return True
    return "/" not in text and not text.endswith(".py") and (text in file_names() or bool(OF_RUNS.fullmatch(text)))


def wrong_setting(said: Mention) -> str | None:
    """`key: value` and `key=value` of a page; in a docstring they may be an argument of the code around it."""
    found = SETTING.fullmatch(said.text)
    if not found or said.in_block or found.group(1) in {*keys(), *keys().values(), "key"}:
        return None
    known = words(said.path) if said.path.suffix == ".py" else all_words()
    return None if found.group(1) in known else f"no such key: {found.group(1)}"


def wrong_name(said: Mention) -> str | None:
    if said.in_block or FILE.fullmatch(said.text):
        return None
    if found := DOTTED.fullmatch(said.text):
        return wrong_dotted(said, found.group(1) + found.group(2))
    if (found := NAME.fullmatch(said.text)) and not known(found.group(1)):
        return f"no such name in any code: {found.group(1)}"
    return None


def known(name: str) -> bool:
    return name in all_words() or name in keys() or hasattr(builtins, name) or name in modules()


def wrong_dotted(said: Mention, text: str) -> str | None:
    """`hone.package.module.name`, `module.name`, `section.key`; anything else starts with a library or a variable."""
    first, second = text.split(".")[:2]
    if first == "hone":
        return (
            None if is_there(text.removeprefix("hone.")) or second in defined(SOURCE / "__init__.py") else "not there"
        )
    if first == "run" and second in defined(SOURCE / "notebook.py") | defined(SOURCE / "runs.py"):
        return None  # a run that one holds
    if first in keys().values() and second in keys():
        return None if keys()[second] == first else f"{second} is a key of section {keys()[second]}"
    ours = [name for name in modules() if name.split(".")[-1] == first]
    if any(is_there(text.replace(first, name, 1)) for name in ours):
        return None
    if said.path.suffix == ".py" and first in words(said.path) - {name.split(".")[-1] for name in ours}:
        return None
    is_library = first in sys.stdlib_module_names or importlib.util.find_spec(first) is not None
    return None if is_library and not ours else "not there"


def is_there(text: str) -> bool:
    """Whether `package.module.name.…` is a module, or a name of one."""
    parts = text.split(".")
    for n in range(len(parts), 0, -1):
        if path := modules().get(".".join(parts[:n])):
            return n == len(parts) or parts[n] in defined(path)
    return False


# Names that are others' and occur in no code of this repository.
OTHERS = {"quick_sort", "feature: 1"}


def complaints() -> list[str]:
    paths = [*PAGES, *sorted(SOURCE.rglob("*.py"))]
    return [f"{said}  {why}" for path in paths for said in mentions(path) if (why := wrong(said))]


@pytest.mark.slow
def test_what_the_prose_names_exists() -> None:
    found = complaints()
    assert not found, "\n".join(found)


GONE = [
    "training/loss.py",
    "verify.heeds_logits_to_keep",
    "hone.training.nothing",
    "hone.nothing",
    "equivalence.nothing",
]
GONE += ["hone frobnicate RUN", "make nothing", "python benchmarks/nothing.py -x", "evaluation/sandbox/", "nothing.py"]
GONE += ["no_such_key: 3", "no_such_key=3", "model.max_length", "no_such_function", "nothing_such(x)"]
THERE = ["loss.py", "data/encode.py", "tests/parity", "equivalence.heeds_logits_to_keep", "hone.training.repeat"]
THERE += [
    "hone.train",
    "hone grade TASKS",
    "make bench",
    "python benchmarks/speed.py tiny",
    "eval/base.json",
    "models/",
]
THERE += [
    "learning_rate: 3",
    "data.max_length",
    "torch.nn.functional",
    "max_length",
    "metrics.jsonl",
    "x + 1",
]


def test_what_is_gone_is_found() -> None:
    page = ROOT / "README.md"
    assert [text for text in GONE if wrong(Mention(page, 1, text)) is None] == []
    assert [text for text in THERE if wrong(Mention(page, 1, text)) is not None] == []
    assert wrong(Mention(HISTORY, 1, "training/loss.py")) is None and wrong(Mention(HISTORY, 1, "hone frobnicate"))


def test_the_layers_of_the_architecture_are_those_of_the_layout() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.split("## The layers")[1].split("\n##")[0]
    named = [name for row in re.findall(r"^\| (`.*?) \|", table, re.M) for name in re.findall(r"`([^`]+)`", row)]
    assert [name.removesuffix("/").removesuffix(".py") for name in named] == [
        room for room in ORDER if room != "__main__"
    ]


if __name__ == "__main__":
    print("\n".join(complaints()))
