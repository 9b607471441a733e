"""Reading a corpus configuration: a YAML file, then `key=value` settings. Every mistake of a file is reported together.

>>> load("code.yaml", ["workers=4"]).config.output.workers                         # doctest: +SKIP
4
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hone.config.fields import as_paths
from hone.config.overrides import parse_value
from hone.config.parse import Item, parse_yaml
from hone.config.resolve import Given, Problem, type_problem
from hone.corpus.schema import NAME_OR_FOLDER_LEAVES, PATH_LEAVES, CorpusConfig, leaves, sections
from hone.errors import HoneError, secret_at

MAX_BYTES = 1 << 20
KEYS = "docs/files/corpus.md lists the keys; `hone corpus plan CONFIG` shows what they come to"


@dataclass(frozen=True)
class Loaded:
    """A checked configuration. text: of its file. lines: leaf -> 'code.yaml:7', for the leaves that were given."""

    config: CorpusConfig
    text: str
    lines: dict[str, str] = field(default_factory=dict)


def load(path: str, settings: Sequence[str] = ()) -> Loaded:
    """Read a configuration.

    Args:
        settings: `key=value` texts; they win over the file.

    Raises:
        HoneError: anything wrong with the file, a key or a value.
    """
    text = _read(Path(path).expanduser(), path)
    root = parse_yaml(text, path)
    if root.pairs is None:
        raise HoneError("`section:` lines were expected", where=f"{path}:{root.line}", fix=KEYS)
    problems: list[Problem] = []
    given = _given(root, path, Path(path).expanduser().resolve().parent, problems)
    for setting in settings:
        name, equals, value = setting.removeprefix("--").replace("-", "_", 0).partition("=")
        if not equals:
            raise HoneError(f"'{setting}' is not of the form key=value", where="command line", fix="e.g. workers=4")
        item = Item({name: None}, 0, {name: parse_value(name, value)})
        given |= _given(item, "command line", Path.cwd(), problems)
    config = _validated(given, problems)
    _require(config, path, given)
    return Loaded(config, text, {leaf: str(one.where) for leaf, one in given.items()})


def _read(path: Path, name: str) -> str:
    try:
        if path.is_dir():
            raise HoneError("is a folder, a YAML file was expected", where=name, fix=f"give {path / 'corpus.yaml'}")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise HoneError("too large for a configuration", where=name, fix="a data file is named in it: `files:`")
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise HoneError("not UTF-8 text", where=name, fix="save the file as UTF-8") from None
    except OSError as error:
        fix = "the first word after `hone corpus run` is a YAML file; docs/files/corpus.md has one to copy"
        raise HoneError(f"cannot read: {error.strerror}", where=name[:200], fix=fix) from None
    if (at := secret_at(text)) is not None:
        where = f"{name}:{text.count(chr(10), 0, at) + 1}"
        raise HoneError(
            "a password or token stands here, and the corpus keeps its configuration", where=where, fix=KEYS
        )
    return text


def _given(root: Item, source: str, base: Path, problems: list[Problem]) -> dict[str, Given]:
    """Leaf -> what was written, of a document with sections, or with its keys at the top level."""
    known, found = leaves(), dict[str, Given]()

    def add(name: Any, section: str | None, item: Item) -> None:
        where = f"{source}:{item.line}" if item.line else source
        leaf = str(name).rpartition(".")[2]
        if known.get(leaf) is None or section not in (None, known[leaf]):
            problems.append(Problem(where, item.line, f"unknown key '{str(name)[:60]}'", _nearest(leaf, section)))
        elif leaf in found:
            problems.append(Problem(where, item.line, f"{leaf} is given twice", "remove one of the two"))
        else:
            found[leaf] = Given(leaf, known[leaf], item.value, where, item.line, base)

    for name, item in (root.pairs or {}).items():
        if name in sections() and (item.pairs is not None or item.value is None):
            for inner, inner_item in (item.pairs or {}).items():
                add(inner, name, inner_item)
        else:
            add(name, None, item)
    return found


def _nearest(leaf: str, section: str | None) -> str:
    if leaf in leaves():
        return f"it belongs to the section '{leaves()[leaf]}'"
    near = difflib.get_close_matches(leaf, [*leaves(), *sections()], n=1, cutoff=0.6)
    return f"did you mean '{near[0]}'?" if near else KEYS


def _validated(given: dict[str, Given], problems: list[Problem]) -> CorpusConfig:
    values: dict[str, dict[str, object]] = {}
    for leaf, one in given.items():
        values.setdefault(str(one.section), {})[leaf] = _absolute(leaf, one.value, one.base)
    config = CorpusConfig()
    try:
        config = CorpusConfig.model_validate(values)
    except ValidationError as error:
        for detail in error.errors():
            leaf = str(detail["loc"][1])
            problem = type_problem(given[leaf], sections()[str(given[leaf].section)].model_fields[leaf])
            problem = Problem(problem.where, problem.line, problem.what, KEYS)
            if problem not in problems:
                problems.append(problem)
    if not problems:
        return config
    if len(problems) == 1:
        raise HoneError(problems[0].what, where=problems[0].where, fix=problems[0].fix)
    rows = [f"\n  {one.where}: {one.what}\n    {one.fix}" for one in sorted(problems, key=lambda one: one.line)]
    raise HoneError(f"{len(rows)} mistakes{''.join(rows)}")


def _absolute(leaf: str, value: Any, base: Path) -> Any:
    """A path made absolute: in a file from its folder on, on the command line from the folder one is in."""
    if isinstance(value, list) and leaf in PATH_LEAVES:
        return [_absolute(leaf, inner, base) for inner in value]
    if not isinstance(value, str) or not value.strip():
        return value
    path = base / Path(value).expanduser()
    if leaf in PATH_LEAVES:
        return str(path)
    if leaf in NAME_OR_FOLDER_LEAVES and (path.is_dir() or value.startswith((".", "/", "~"))):
        return str(path.resolve())
    return value


def _require(config: CorpusConfig, name: str, given: dict[str, Given]) -> None:
    """What one key asks of another."""

    def where(leaf: str) -> str:
        return str(given[leaf].where) if leaf in given else name

    read, output = config.read, config.output
    if bool(as_paths(read.files)) == bool(read.dataset_name):
        fix = "name `files:` (a file, a folder, a list) or `dataset_name:`, and not both"
        raise HoneError(
            "nothing to read" if not read.dataset_name else "two things to read", where=where("files"), fix=fix
        )
    if bool(config.filter.licences) != bool(config.filter.licence_column):
        fix = "licence_column: license, and licences: [mit, apache-2.0]"
        raise HoneError("licence_column and licences go together", where=where("licences"), fix=fix)
    if output.executor == "slurm" and not output.slurm_partition:
        raise HoneError(
            "a Slurm partition is missing", where=where("executor"), fix="slurm_partition: NAME (see `sinfo`)"
        )
    for block in config.filter.blocks or []:
        if len(block) != 1 or not isinstance(next(iter(block.values())), dict | None):
            fix = "write `- NAME: {argument: value}`, or `- NAME: {}`"
            raise HoneError(f"not a block with its arguments: {str(block)[:80]}", where=where("blocks"), fix=fix)
