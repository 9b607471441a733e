"""Reading a configuration: a YAML file, a mapping or a `Config`, then `key=value` overrides, then Python values by key.

This is the only way to a checked `Config`, of the command line and of every function in Python.

Sections may be nested, flat or mixed; foreign names are translated with a notice; every mistake of a file is reported
together, with its line. `dump.resolved_yaml` is the way back. Does not check that files exist, nor what training needs
(`checks.require_training`).

>>> load_config({"learning_rate": 1e-4}, ["seed=1"]).train.seed
1
>>> load_config({"learning_rate": 1e-4}, keys={"seed": 2}).train.seed
2
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hone.config.checks import conflicts, idle_notices
from hone.config.explain import near_recipe
from hone.config.overrides import parse_overrides
from hone.config.parse import Item, parse_yaml
from hone.config.rates import rate_notices
from hone.config.resolve import Given, Problem, resolve, type_problem
from hone.config.schema import Config, Provenance, leaf_field, leaves, section_names
from hone.config.sections.output import OutputSection
from hone.errors import HoneError, secret_at


@dataclass(frozen=True)
class Unsaved:
    """The text of a YAML file that is not written yet, and where it is to be: paths in it start there."""

    path: Path
    text: str


Source = str | Path | Mapping[str, Any] | Config | Unsaved | None
KEYWORD = "keyword argument"  # where a key given in Python stands
MAX_BYTES = 1 << 20  # a configuration is a few kilobytes; data given by mistake is refused before it is parsed

PATH_LEAVES = ("train_file", "validation_file", "token_cache_dir", "output_dir", "code_tasks")
NAME_OR_FOLDER_LEAVES = (
    "model_name_or_path",
    "offline_model_name_or_path",
    "tokenizer_name_or_path",
    "dataset_name",
)


@dataclass
class _Loaded:
    """What was found so far: accepted values by leaf, notices, mistakes."""

    given: dict[str, Given] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def load_config(source: Source = None, overrides: Sequence[str] = (), keys: Mapping[str, Any] | None = None) -> Config:
    """Read a configuration.

    Args:
        source: a YAML file, one that is not saved yet, a mapping (nested or flat), a `Config` to change, or None for
            the defaults.
        overrides: `key=value`, `section.key=value`, `--key=value` or `--key value` tokens; they win over the source,
            and the last one of the same key wins.
        keys: keys as Python values, nested or flat; they win over both.

    Raises:
        HoneError: anything wrong with the source, a key or a value; all mistakes of one file in one message.
    """
    if isinstance(source, Config) and not overrides and not keys:
        return source
    if not isinstance(overrides, Sequence):
        raise HoneError("overrides are a list of texts", fix='write ["learning_rate=1e-4"], or learning_rate=1e-4')
    root, text, name, base = _root(source)
    _refuse_secrets(text or str(root.value), name or KEYWORD)
    _refuse_secrets(" ".join(map(str, overrides)), "command line")
    _refuse_secrets(str(keys or ""), KEYWORD)
    loaded = _Loaded()
    _collect(loaded, _givens(root, name, base), last_wins=False)
    for item in parse_overrides(overrides):
        _collect(loaded, _givens(item, "command line", Path.cwd()), last_wins=True)
    _collect(loaded, _givens(_mapping_item(keys or {}), KEYWORD, Path.cwd()), last_wins=True)
    config = _validated(loaded, name, _values(base, loaded))
    before = source._provenance if isinstance(source, Config) else Provenance()
    config._provenance = Provenance(
        source_text=before.source_text if text is None else text,
        source_path=before.source_path if text is None else _path_of(source),
        overrides=[*before.overrides, *overrides],
        notices=[
            *(*loaded.notices, *idle_notices(config, loaded.given)),
            *rate_notices(config.model, config.method, config.train),
        ],
        lines={**before.lines, **{leaf: given.where for leaf, given in loaded.given.items() if given.where}},
    )
    return config


def _path_of(source: Source) -> Path:
    return source.path if isinstance(source, Unsaved) else Path(str(source)).expanduser().resolve()


def _refuse_secrets(text: str, name: str) -> None:
    """A run keeps its configuration as it was given, comments too, and a run is what people hand on."""
    if (at := secret_at(text)) is not None:
        is_file = name not in ("command line", KEYWORD)
        line = text.count("\n", 0, at) + 1
        raise HoneError(
            "a password or token stands here, and a run folder keeps its configuration",
            where=f"{name}:{line}" if is_file else name,
            fix="take it out, of comments too; a hub's token goes into the environment (HF_TOKEN)",
        )


def _root(source: Source) -> tuple[Item, str | None, str | None, Path]:
    """What the source says: its keys, its text and name if it is a file, and the folder its paths start from."""
    if source is None:
        return Item({}, 0, {}), None, None, Path.cwd()
    if isinstance(source, Config):
        given = {section: getattr(source, section).model_dump(exclude_unset=True) for section in section_names()}
        return _mapping_item(given), None, None, Path.cwd()
    if isinstance(source, Mapping):
        return _mapping_item(source), None, None, Path.cwd()
    if isinstance(source, Unsaved):
        root = parse_yaml(source.text, source.path.name)
        _require_mapping(root, source.path.name)
        return root, source.text, source.path.name, source.path.parent
    if not isinstance(source, str | Path):
        fix = "give a YAML file, a dictionary, a Config, or keys alone: learning_rate=1e-4"
        if type(source).__name__ == "DataFrame":
            fix = 'write its rows to a file, df.to_json("rows.jsonl", orient="records", lines=True), and give that: '
            fix += 'train_file="rows.jsonl"'
        raise HoneError(f"a configuration was expected, not {type(source).__name__}", fix=fix)
    path, name = Path(source).expanduser(), str(source)
    if path.suffix in (".jsonl", ".csv", ".parquet", ".bin"):
        what = "is a data file, a YAML file was expected"
        raise HoneError(what, where=name, fix=f"give it as a key: train_file={name!r}")
    text = _read_text(path, name)
    root = parse_yaml(text, name)
    _require_mapping(root, name)
    return root, text, name, path.resolve().parent


def _read_text(path: Path, name: str) -> str:
    """The file's text; every way it can fail is one clear message."""
    try:
        if path.is_dir():
            raise HoneError("is a folder, a YAML file was expected", where=name, fix=_folder_fix(path, name))
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)  # not the size that the file system says: a device has none
        if len(text) > MAX_BYTES:
            raise HoneError(
                f"more than {MAX_BYTES:,} bytes are too many for a configuration",
                where=name,
                fix="is this a data file? it goes into train_file",
            )
        return text.decode("utf-8-sig")
    except FileNotFoundError:
        raise HoneError("no such file", where=name, fix=_missing_fix(path, name)) from None
    except UnicodeDecodeError as error:
        raise HoneError(
            f"not UTF-8 text (byte {error.start} is 0x{error.object[error.start]:02x})",
            where=name,
            fix="save the file as UTF-8",
        ) from None
    except (OSError, ValueError) as error:
        if isinstance(error, HoneError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise HoneError(f"cannot read: {reason}", where=name[:200], fix="give the path of a YAML file") from None


def _folder_fix(path: Path, name: str) -> str:
    inside = next((path / file for file in ("config.resolved.yaml", "config.yaml") if (path / file).exists()), None)
    if inside is not None:
        return f"give {inside}"
    if (path / "config.json").exists():
        return f"a model is named by its key: model_name_or_path={name}"
    return "give the file inside it"


def _missing_fix(path: Path, name: str) -> str:
    if "=" in name:
        return "a configuration file comes first: `hone train cfg.yaml learning_rate=1e-4`"
    if near := near_recipe(path.stem):
        return f"`hone init {near} --with-data` writes that recipe and rows to try it with; then hone train {near}.yaml"
    if path.suffix:
        return "`hone init` lists the recipes to start from"
    return f"`hone init` lists the recipes to start from; a model is named by its key: model_name_or_path={name}"


def _require_mapping(root: Item, name: str) -> None:
    if root.pairs is not None:
        return
    if root.value is None:
        raise HoneError("the file is empty", where=name, fix="`hone init` lists the recipes to start from")
    kind = "a list" if isinstance(root.value, list) else "a single value"
    raise HoneError(
        f"the top level is {kind}, a mapping was expected",
        where=f"{name}:{root.line}",
        fix="write `key: value` lines, e.g. `learning_rate: 1e-4`",
    )


def _mapping_item(value: Any) -> Item:
    """A Python value as an `Item` without a line; tuples become lists."""
    if isinstance(value, Mapping):
        pairs = {name: _mapping_item(inner) for name, inner in value.items()}
        return Item({name: item.value for name, item in pairs.items()}, 0, pairs)
    if isinstance(value, list | tuple):
        return Item([_mapping_item(inner).value for inner in value], 0)
    return Item(value, 0)


def _givens(root: Item, source: str | None, base: Path) -> list[Given]:
    """Every key of a document with the section it was written under (None: at the top level)."""
    sections = section_names()

    def given(name: Any, section: str | None, item: Item) -> Given:
        where = f"{source}:{item.line}" if source and item.line else source
        return Given(name, section, item.value, where, item.line, base)

    found = []
    for name, item in (root.pairs or {}).items():
        if name in sections and (item.pairs is not None or item.value is None):
            found += [given(inner, name, inner_item) for inner, inner_item in (item.pairs or {}).items()]
        elif isinstance(name, str) and name.split(".")[0] in sections and "." in name:
            section, _, inner = name.partition(".")
            found.append(given(inner, section, item))
        else:
            found.append(given(name, None, item))
    return found


def _collect(loaded: _Loaded, givens: list[Given], last_wins: bool) -> None:
    """Translate names to leaves and put them into `loaded`; a leaf given twice in one file is a mistake."""
    for given in givens:
        answer = resolve(given)
        if isinstance(answer, Problem):
            loaded.problems.append(answer)
            continue
        leaf_given, notice = answer
        leaf = str(leaf_given.name)
        if notice and notice not in loaded.notices:
            loaded.notices.append(notice)
        before = loaded.given.get(leaf)
        if before is not None and not last_wins:
            first = f", already given at {before.where}" if before.where else ""
            written = f" (as '{given.name}')" if given.name != leaf else ""
            loaded.problems.append(
                Problem(given.where, given.line, f"{leaf} is given twice{written}{first}", "remove one of the two")
            )
            continue
        loaded.given[leaf] = leaf_given


def _values(base: Path, loaded: _Loaded) -> dict[str, dict[str, Any]]:
    """The values by section, paths made absolute: relative ones start at the YAML file's folder.

    The default of output_dir is such a path too: it is in the YAML file's folder.
    """
    sections = leaves()
    values: dict[str, dict[str, Any]] = {"output": {"output_dir": base / OutputSection().output_dir}}
    for leaf, given in loaded.given.items():
        try:
            value = _absolute(leaf, given.value, given.base)
        except (ValueError, RuntimeError, OSError) as error:  # a null byte, no home folder, a name too long
            fix = "write the path of a file or a folder"
            loaded.problems.append(Problem(given.where, given.line, f"{leaf} is not a usable path: {error}", fix))
        else:
            values.setdefault(sections[leaf], {})[leaf] = value
    return values


def _absolute(leaf: str, value: Any, base: Path) -> Any:
    """A path leaf's value made absolute; everything else, and what is not a path, unchanged."""
    if isinstance(value, list) and leaf in PATH_LEAVES:
        return [_absolute(leaf, inner, base) for inner in value]
    if not isinstance(value, str | Path) or not str(value).strip():
        return value
    if leaf in PATH_LEAVES:
        return (base / Path(value).expanduser()).resolve()
    if leaf == "resume_from_checkpoint" and value not in ("auto", "never"):
        return str((base / Path(value).expanduser()).resolve())
    if leaf in NAME_OR_FOLDER_LEAVES:
        path = base / Path(value).expanduser()
        written_as_path = isinstance(value, Path) or value.startswith((".", "/", "~")) or Path(value).is_absolute()
        is_path = written_as_path or (leaf != "dataset_name" and path.is_dir())
        return str(path.resolve()) if is_path else value
    return value


def _validated(loaded: _Loaded, name: str | None, values: dict[str, dict[str, Any]]) -> Config:
    """Check all values against the schema and against each other; on any mistake, report every one."""
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        for detail in error.errors():
            leaf = str(detail["loc"][1])
            problem = type_problem(loaded.given[leaf], leaf_field(leaf))
            if problem not in loaded.problems:
                loaded.problems.append(problem)
        raise _report(loaded.problems, name) from None
    for found in conflicts(config):
        first = next((loaded.given[leaf] for leaf in found.leaves if leaf in loaded.given), None)
        where, line = (first.where, first.line) if first else (name, 0)
        loaded.problems.append(Problem(where, line, found.what, found.fix))
    if loaded.problems:
        raise _report(loaded.problems, name)
    return config


def _report(problems: list[Problem], name: str | None) -> HoneError:
    """One error for one or many mistakes: the file's by line, then the others."""
    if len(problems) == 1:
        only = problems[0]
        return HoneError(only.what, where=only.where or name, fix=only.fix)
    ordered = sorted(problems, key=lambda problem: (problem.line == 0, problem.line))
    rows = [f"\n  {p.where + ': ' if p.where else ''}{p.what}\n    {p.fix}" for p in ordered]
    return HoneError(f"{len(rows)} mistakes{''.join(rows)}", where=name)
