"""From a name in a file to a key of the schema, and the plain words for what is wrong with a name or a value.

>>> resolve(Given("lerning_rate", None, 1e-4, "cfg.yaml:7", 7, Path())).what                       # doctest: +SKIP
"unknown key 'lerning_rate'"
"""

import difflib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from hone.config.aliases import ALIASES, GONE, SECTION_SCALARS
from hone.config.fields import describe_field
from hone.config.parse import plain_scalar
from hone.config.schema import leaves, section_names


@dataclass
class Given:
    """One key as it was written."""

    name: Any  # text in every sensible file
    section: str | None  # None: at the top level
    value: Any
    where: str | None  # 'cfg.yaml:7', 'command line', None for Python mappings
    line: int
    base: Path  # folder that relative paths start from


@dataclass
class Problem:
    """One mistake: where, what, and the repairing step."""

    where: str | None
    line: int
    what: str
    fix: str


def resolve(given: Given) -> tuple[Given, str | None] | Problem:
    """Translate a name to the schema's leaf, with a notice where the name was a foreign one."""
    name, sections = given.name, leaves()
    if name in sections:
        if given.section in (None, sections[name]):
            return given, None
        return _problem(
            given,
            f"'{name}' belongs to the section '{sections[name]}', not '{given.section}'",
            f"move it under `{sections[name]}:`, or write it at the top level",
        )
    if name in ALIASES:
        return _translated(given)
    if name in GONE:
        return _problem(given, f"'{name}' is not a key here", GONE[name])
    if name in section_names() and given.section is None:
        return _section_scalar(given)
    return _problem(given, f"unknown key '{_cut(str(name))}'", suggestion(str(name)[:100]))


def _problem(given: Given, what: str, fix: str) -> Problem:
    return Problem(given.where, given.line, what, fix)


def _translated(given: Given) -> tuple[Given, str] | Problem:
    alias = ALIASES[given.name]
    value = given.value
    if alias.convert is not None:
        try:
            value = alias.convert(value)
        except ValueError as error:
            return _problem(given, f"{given.name} is called {alias.leaf} here", str(error))
    return replace(given, name=alias.leaf, value=value), alias_notice(given.name)


def alias_notice(name: str) -> str:
    """The line shown when a foreign name is used."""
    alias = ALIASES[name]
    return f"{name} is called {alias.leaf} here" + (f" ({alias.note})" if alias.note else "")


def _section_scalar(given: Given) -> tuple[Given, str] | Problem:
    """`model: gpt2`: a value where a section was expected."""
    leaf = SECTION_SCALARS.get(given.name)
    if leaf is None or not isinstance(given.value, str | Path):
        return _problem(
            given,
            f"'{given.name}' is a section, {show(given.value)} was given",
            f"write its keys indented below `{given.name}:` (`hone explain` lists them)",
        )
    return replace(given, name=leaf), f"{given.name} is called {leaf} here"


def suggestion(name: str) -> str:
    """The nearest key, or where to find the list."""
    wanted = name.strip().lower().replace("-", "_").replace(" ", "_")
    parent, _, child = wanted.partition(".")
    if child and parent in ("config_overrides", "column_mapping"):
        return f"write {parent}={{{child}: ...}} (in quotes for the shell)"
    wanted = wanted.rsplit(".", 1)[-1]
    near = difflib.get_close_matches(wanted, [*leaves(), *section_names()], n=1, cutoff=0.7)
    if not near:
        near = [ALIASES[alias].leaf for alias in difflib.get_close_matches(wanted, ALIASES, n=1, cutoff=0.75)]
    if not near:
        return "`hone explain` lists all keys"
    return f"did you mean '{near[0]}'? (`hone explain {near[0]}`)"


def show(value: Any) -> str:
    """A value in the words of a message, cut to a line."""
    if value is None:
        return "null (empty)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | Path):
        return f"the text '{_cut(str(value))}'"
    if isinstance(value, int | float):
        return _cut(str(value))
    if isinstance(value, list):
        return f"the list {_cut(repr(value))}"
    if isinstance(value, dict):
        return f"the mapping {_cut(repr(value))}"
    return f"a Python {type(value).__name__}"


def _cut(text: str, limit: int = 60) -> str:
    text = text.replace("\n", "\\n")
    return text if len(text) <= limit else text[: limit - 1] + "…"


def type_problem(given: Given, schema_field: FieldInfo) -> Problem:
    """What is wrong with a value that the schema refused, and what would be right."""
    leaf = str(given.name)
    what = f"{leaf} must be {describe_field(schema_field)}, not {show(given.value)}"
    return _problem(given, what, _value_fix(leaf, given.value, schema_field))


_YES_NO = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


def _value_fix(leaf: str, value: Any, schema_field: FieldInfo) -> str:
    types = _members(schema_field.annotation)
    if isinstance(value, str):
        plain = plain_scalar(value)
        if not isinstance(plain, str) and plain is not None and type(plain) in types | ({float} & types):
            return f"remove the quotes: {leaf}: {value}"
        if bool in types and value.lower() in _YES_NO:
            return f"write {leaf}: {_YES_NO[value.lower()]}"
        choices = [choice for kind in types if get_origin(kind) is Literal for choice in get_args(kind)]
        near = difflib.get_close_matches(value.lower(), choices, n=1, cutoff=0.5)
        if near:
            return f"did you mean '{near[0]}'?"
        if "list" in describe_field(schema_field) and str not in types:
            return f"write a list: {leaf}: [{value}]"
    elif isinstance(value, float) and int in types and value.is_integer():
        return f"write {leaf}: {int(value)}"
    elif isinstance(value, int | float | bool) and str in types:
        return f'put it in quotes: {leaf}: "{str(value).lower() if isinstance(value, bool) else value}"'
    return f"`hone explain {leaf}` says what it does and which values are usual"


def _members(annotation: Any) -> set[Any]:
    """The types of a union, opened; a plain type alone."""
    args = get_args(annotation)
    if get_origin(annotation) in (Literal, list, dict) or not args:
        return {annotation}
    return {member for arg in args for member in _members(arg)}
