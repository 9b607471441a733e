"""What the schema says of its keys: `hone explain`, the commented recipes of `hone init`, and the reference page.

    python -m hone.config.explain > docs/reference/config.md

All text comes from the sections; this file only lays it out.

>>> print(explain("lora_r").splitlines()[0])
method.lora_r: a whole number, at least 1; default 16
"""

import re
import sys
import textwrap
from importlib import resources
from pathlib import PurePath
from typing import Any

from hone.config.aliases import ALIASES, GONE
from hone.config.dump import flow
from hone.config.fields import describe_field, docs_of
from hone.config.resolve import alias_notice, suggestion
from hone.config.schema import Config, leaf_field, leaves, section_fields, section_names
from hone.errors import HoneError

_TITLES = {
    "why": "Why",
    "how": "How",
    "benefit": "Benefit",
    "tradeoff": "Trade-off",
    "cpu": "On a CPU",
    "gpu": "On a GPU",
}
_RECIPES = "hone.config.recipes"


def explain(key: str | None) -> str:
    """Plain text about one key, one section, or (None) every section with one line a key.

    Raises:
        HoneError: no such key; the nearest one is named.
    """
    if key is None:
        blocks = [_section_text(section) for section in section_names()]
        return "\n\n".join([*blocks, "`hone explain KEY` says more about one of them."])
    name = key.strip().removeprefix("--").replace("-", "_")
    section, _, leaf = name.rpartition(".")
    if section in (leaves().get(leaf), ""):
        name = leaf
    if name in leaves():
        return _leaf_text(name)
    if name in section_names():
        return _section_text(name)
    if name in ALIASES:
        return f"{alias_notice(name)}\n\n{_leaf_text(ALIASES[name].leaf)}"
    if name in GONE:
        return f"'{name}' is not a key here: {GONE[name]}"
    raise HoneError(f"unknown key '{key}'", fix=suggestion(name))


def _section_text(section: str) -> str:
    lines = [f"{section}: {Config.model_fields[section].description}"]
    lines += [f"  {leaf:28}{docs_of(field)['what']}" for leaf, field in section_fields(section).items()]
    return "\n".join(lines)


def _leaf_text(leaf: str) -> str:
    field = leaf_field(leaf)
    docs = docs_of(field)
    parts = [(title, docs[part]) for part, title in _TITLES.items()]
    if docs["maps_to"]:
        parts.append(("Same as", docs["maps_to"]))
    if names := foreign_names(leaf):
        parts.append(("Known as", ", ".join(names)))
    head = f"{leaves()[leaf]}.{leaf}: {describe_field(field)}; default {default_text(leaf)}"
    return "\n".join([head, *_wrapped("", docs["what"]), "", *(line for part in parts for line in _wrapped(*part))])


def _wrapped(title: str, text: str) -> list[str]:
    first = f"  {title:<11}" if title else "  "
    return textwrap.wrap(text, 100, initial_indent=first, subsequent_indent=" " * len(first), break_long_words=False)


def default_text(leaf: str) -> str:
    """The default of a key as a person would write it in YAML."""
    default = leaf_field(leaf).default
    return re.sub(r"e-0*", "e-", f"{default:g}") if isinstance(default, float) else flow(default)


def foreign_names(leaf: str) -> list[str]:
    """The names under which other toolkits know a key."""
    return [name for name, alias in ALIASES.items() if alias.leaf == leaf]


def recipe_names() -> list[str]:
    """The recipes that come with the package, in alphabetical order."""
    files = (PurePath(entry.name) for entry in resources.files(_RECIPES).iterdir())
    return sorted(file.stem for file in files if file.suffix == ".yaml")


def recipe_title(name: str) -> str:
    """What a recipe is for: its first comment line."""
    return _recipe_source(name).splitlines()[0].removeprefix("#").strip()


def recipe_text(name: str) -> str:
    """A recipe with a comment above every key: the recipe's own remarks, and the schema's words.

    Raises:
        HoneError: no such recipe.
    """
    lines: list[str] = []
    remarks: list[str] = []  # comment lines that belong to the next key
    for line in _recipe_source(name).splitlines():
        found = re.match(r"( +)(\w+):", line)
        if line.startswith("  ") and line.lstrip().startswith("#"):
            remarks.append(line)
            continue
        if found and found[2] in leaves():
            lines += _comment(found[1], found[2])
        lines += [*remarks, line]
        remarks = []
    return "\n".join(lines) + "\n"


def _comment(indent: str, leaf: str) -> list[str]:
    """The schema's words on a key as comment lines; the default stays on one line with its label."""
    what, default = docs_of(leaf_field(leaf))["what"], f"Default: {default_text(leaf)}."
    lines = textwrap.wrap(what, 110, initial_indent=indent + "# ", subsequent_indent=indent + "# ")
    if len(lines[-1]) + len(default) < 110:
        return [*lines[:-1], f"{lines[-1]} {default}"]
    return [*lines, f"{indent}# {default}"]


def _recipe_source(name: str) -> str:
    if name not in recipe_names():
        raise HoneError(f"no recipe '{name}'", fix=f"there are: {', '.join(recipe_names())}")
    return (resources.files(_RECIPES) / f"{name}.yaml").read_text(encoding="utf-8")


def reference_markdown() -> str:
    """The reference page: every section, every key, and the table of foreign names."""
    count = len(leaves())
    blocks = [
        "# Configuration reference",
        "Written by `python -m hone.config.explain`; a test compares it with the schema. "
        f"{count} keys in {len(section_names())} sections. A key may stand in its section or at the top level, and "
        "`key=value` on the command line wins over the file. Paths start at the YAML file's folder.",
        "\n".join(f"- [{section}](#{section}): {_described(section)}" for section in section_names()),
    ]
    for section in section_names():
        blocks += [f"## {section}", _described(section)]
        for leaf in section_fields(section):
            blocks += _leaf_markdown(leaf)
    return "\n\n".join([*blocks, *_names_markdown()]) + "\n"


def _described(section: str) -> str:
    return str(Config.model_fields[section].description)


def _leaf_markdown(leaf: str) -> list[str]:
    field = leaf_field(leaf)
    docs: dict[str, Any] = docs_of(field)
    rows = [f"- **{title}**: {docs[part]}" for part, title in _TITLES.items()]
    if docs["maps_to"]:
        rows.append(f"- **Same as**: `{docs['maps_to']}`")
    if names := foreign_names(leaf):
        rows.append(f"- **Known as**: {', '.join(f'`{name}`' for name in names)}")
    head = f"{docs['what']}\n\nType: {describe_field(field)}. Default: `{default_text(leaf)}`."
    return [f"### {leaf}", head, "\n".join(rows)]


def _names_markdown() -> list[str]:
    translated = [
        f"| `{name}` | `{alias.leaf}` | {alias.note} |"
        for name, alias in sorted(ALIASES.items(), key=lambda pair: pair[0])
    ]
    missing = [f"| `{name}` | {advice} |" for name, advice in sorted(GONE.items())]
    return [
        "## Names from elsewhere",
        "These work, with a notice:",
        "\n".join(["| name | key here | note |", "| --- | --- | --- |", *translated]),
        "These have no counterpart:",
        "\n".join(["| name | instead |", "| --- | --- |", *missing]),
    ]


if __name__ == "__main__":
    sys.stdout.write(reference_markdown())
