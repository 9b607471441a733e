"""What stands on a command line: a config, data files, settings; and what is assumed where no model is named.

>>> words(["data.jsonl", "lr=1e-4"], "train_file")
Words(config=None, data=['data.jsonl'], settings=['lr=1e-4'], notes=[])
"""

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hone import bundled
from hone.config.checks import BUNDLED_TASKS
from hone.config.explain import recipe_names
from hone.config.fields import as_paths
from hone.config.overrides import stands_alone
from hone.config.schema import leaves, section_names
from hone.config.sections.data import DataSection
from hone.config.sections.method import MethodSection
from hone.config.sections.model import ModelSection
from hone.data.records import recognise
from hone.data.sources import ROW_SUFFIXES, TABLE_SUFFIXES, TEXT_SUFFIXES, read_rows
from hone.errors import HoneError

WHERE = "command line"
CONFIG_OPTIONS = ("--config", "-c", "config")
DATA_SUFFIXES = (*ROW_SUFFIXES, *TEXT_SUFFIXES, ".bin", *TABLE_SUFFIXES)  # the last are refused by who reads them
OF_A_MODEL = ("config.json", "adapter_config.json", "config.resolved.yaml", "config.yaml", "hparams.json")
LARGEST_CONFIG = 1_000_000  # bytes
HELD_OUT = re.compile(r"(^|[^a-z])(eval|val|valid|validation|test|dev|heldout|held_out)([^a-z]|$)")


@dataclass
class Words:
    """The tokens of a command line by what they are; `notes` say what was made of some."""

    config: str | None = None
    data: list[str] = field(default_factory=list)
    settings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def words(tokens: Sequence[str], data_key: str) -> Words:
    """Tell the config, the data files and the settings apart.

    Args:
        data_key: what a data file without a key is: train_file or validation_file.

    Raises:
        HoneError: two configs, or data files of which one may be meant to be held out.
    """
    found, left = Words(), list(tokens)
    while left:
        token = left.pop(0)
        name, equals, value = token.partition("=")
        if name in CONFIG_OPTIONS:
            if not equals and not left:
                raise HoneError(f"{token} has no value", where=WHERE, fix="write the file: hone train my.yaml")
            _take_config(found, value if equals else left.pop(0))
        elif name in ("--recipe", "recipe"):
            _refuse_recipe(value if equals else (left or [""])[0])
        elif token == "--resume" and not (left and left[0] in ("true", "false", "auto", "never")):
            found.notes.append("--resume is not needed: the same command resumes an interrupted run")
        elif token.startswith("-"):
            follows = not equals and left and not stands_alone(name.lstrip("-").replace("-", "_"), left[0])
            found.settings += [token, left.pop(0)] if follows else [token]
        elif equals:
            found.settings.append(token)
        elif is_data(token):
            found.data.append(token)
        elif found.config is None and not found.settings and not found.data:
            found.config = token
        else:
            found.settings.append(token)  # for the parser of settings to refuse
    if found.data:
        found.settings.insert(0, _data_setting(found, data_key))
    return found


def _take_config(found: Words, path: str) -> None:
    if found.config is not None:
        raise HoneError(f"two configs: {found.config} and {path}", where=WHERE, fix="give one of them")
    found.config = path


def _refuse_recipe(name: str) -> None:
    known = name if name in recipe_names() else "light-lab"
    raise HoneError(
        f"a recipe is a file to start from, not a setting: '{name}'",
        where=WHERE,
        fix=f"write hone init {known}, then hone train {known}.yaml (`hone init` lists the recipes)",
    )


def is_config(token: str) -> bool:
    """Whether a token names a YAML file, or JSON of the same content."""
    return token.lower().endswith((".yaml", ".yml")) or _is_config_as_json(Path(token).expanduser())


def is_data(token: str) -> bool:
    """Whether a token without a key names data: by its suffix, or as a folder that is neither a model nor a run.

    >>> is_data("a/train.jsonl.gz"), is_data("my.yaml"), is_data("gpt2")
    (True, False, False)
    """
    path = Path(token).expanduser()
    if is_config(token):
        return False
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    if suffixes and suffixes[-1] in DATA_SUFFIXES:
        return True
    return path.is_dir() and not any((path / name).exists() for name in OF_A_MODEL)


def _is_config_as_json(path: Path) -> bool:
    """Whether a .json file is a config (JSON is YAML 1.2): an object with a key of the schema, or a section."""
    if path.suffix.lower() != ".json" or not path.is_file() or path.stat().st_size > LARGEST_CONFIG:
        return False
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (
        OSError,
        ValueError,
        RecursionError,
    ):  # rows, one a line, or nothing that can be read: whoever reads the rows says so
        return False
    sections = section_names()
    return isinstance(found, dict) and any(
        key in leaves() or (key in sections and isinstance(value, dict)) for key, value in found.items()
    )


def _data_setting(found: Words, data_key: str) -> str:
    """The data files as a setting."""
    if any(setting.partition("=")[0].lstrip("-").rpartition(".")[2] == data_key for setting in found.settings):
        raise HoneError(f"{found.data[0]} and {data_key} are both given", where=WHERE, fix="give one of them")
    if len(found.data) == 1:
        return f"{data_key}={_quoted(found.data[0])}"
    held = [path for path in found.data if HELD_OUT.search(Path(path).stem.lower())]
    if held and data_key == "train_file":
        rest = [path for path in found.data if path not in held] or ["train.jsonl"]
        raise HoneError(
            f"is {held[0]} to be trained on, or held out to measure?",
            where=WHERE,
            fix=f"write train_file={rest[0]} validation_file={held[0]} in place of the names alone",
        )
    return f"{data_key}=[{', '.join(json.dumps(path) for path in found.data)}]"


def _quoted(path: str) -> str:
    return json.dumps(path) if path[:1] in ("[", "{", '"', "'") else path


def assumed(model: ModelSection, data: DataSection, method: MethodSection, given: Collection[str]) -> list[str]:
    """Settings for what a command line without a config left open, if it names data and no model.

    The bundled model is there without a network; its rate, a folder named after the data, and texts in pieces instead
    of their beginnings come with it where nothing else is given.

    Args:
        given: the keys that were set.
    """
    files = as_paths(data.train_file)
    source = files[0] if files else Path(data.dataset_name or "")
    nothing = not files and data.dataset_name is None
    if model.model_name_or_path or model.model_type or nothing or method.task not in BUNDLED_TASKS:
        return []
    settings = [f"model_name_or_path={bundled.NAME}"]
    if "task" not in given and files and _are_labelled(data):
        settings.append("task=classification")
    if "learning_rate" not in given:
        rate = f"{bundled.RATES[method.method]:.0e}".replace("e-0", "e-")
        settings.append(f"learning_rate={rate}")
    if files and not {"batching", "on_long_row"} & set(given) and _is_text(source):
        settings.append("on_long_row=split")
    if "output_dir" not in given:
        settings.append(f"output_dir=runs/{source.name.split('.')[0] or 'data'}")
    return settings


def _are_labelled(data: DataSection) -> bool:
    """Whether the first row is a text and its class. What is wrong with the files is said by whoever reads them all."""
    try:
        rows = read_rows(as_paths(data.train_file), on_bad_row="skip", on_skip=lambda reason, where: None)
        first = next(rows, None)
        return first is not None and recognise(first.columns, data.column_mapping)[0] == "labelled"
    except HoneError:
        return False


def _is_text(path: Path) -> bool:
    """A text file, or a folder of them: one long document each."""
    names = [path.name] if not path.is_dir() else [inner.name for inner in sorted(path.rglob("*"))[:1000]]
    kinds = [name.lower().removesuffix(".gz") for name in names]
    return any(name.endswith(TEXT_SUFFIXES) for name in kinds) and not any(
        name.endswith(ROW_SUFFIXES) for name in kinds
    )


def assumption_note(settings: Sequence[str]) -> str:
    """One line: what was assumed, and how to change it."""
    return (
        f"no model given, assumed: {' '.join(settings)} ({bundled.NAME} is the small bundled model for Python; others: "
        "add e.g. model_name_or_path=gpt2 learning_rate=5e-5)"
    )
