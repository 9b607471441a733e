"""What `hone explain` says of a key, a section or a concept, and the commented recipes of `hone init`.

Keys are described by the schema, concepts by docs/concepts.md; this file finds them by name and lays them out.

>>> print(explain("lora_r").splitlines()[0])
method.lora_r: a whole number, at least 1; default 16
>>> print(explain("cross entropy").splitlines()[0])
Loss (What training does)
"""

import difflib
import re
import textwrap
from collections.abc import Collection
from importlib import resources
from itertools import groupby
from pathlib import PurePath

from hone.config.aliases import ALIASES, GONE
from hone.config.concepts import WIDTH, Concept, concept, concepts, folded, plain
from hone.config.dump import flow
from hone.config.fields import describe_field, docs_of
from hone.config.recipes.rows import with_rows
from hone.config.related import MOST_USED, related
from hone.config.resolve import alias_notice
from hone.config.schema import Config, leaf_field, leaves, section_fields, section_names
from hone.errors import HoneError

STAR = "★"
_TITLES = {"why": "Why", "how": "How", "benefit": "Benefit", "tradeoff": "Trade-off"}
_RECIPES = "hone.config.recipes"


def explain(name: str | None) -> str:
    """Plain text about one key, one section or one concept; None: every key in one line, and the list of concepts.

    A key comes before a concept of the same name, and points to it.

    Raises:
        HoneError: neither a key nor a concept; the nearest one is named.
    """
    if name is None:
        return _everything()
    one = concept(name)
    if (text := _key_text(name)) is not None:
        return text
    if one is None:
        raise HoneError(f"unknown key or concept '{name[:60]}'", fix=_nearest(name))
    return _concept_text(one)


def _key_text(written: str) -> str | None:
    """The text on what is configured by this name: a key, a section, another toolkit's name; None for no such name."""
    name = _configured(written)
    if name in leaves():
        return _leaf_text(name)
    if name in section_names():
        return _section_text(name)
    if name in ALIASES:
        return f"{alias_notice(name)}\n\n{_leaf_text(ALIASES[name].leaf)}"
    return f"'{name}' is not a key here: {GONE[name]}" if name in GONE else None


def _configured(written: str) -> str:
    """A name as the schema would spell it, whether it has it or not: 'train.learning-rate' is learning_rate."""
    name = "_".join(written.strip().removeprefix("--").replace("-", "_").split())
    section, _, leaf = name.rpartition(".")
    return leaf if section in (leaves().get(leaf), "") else name


def _everything() -> str:
    blocks = [_section_text(section) for section in section_names()]
    lines = [f"Keys: `hone explain KEY` explains one of them; {STAR} marks the ten to know first."]
    ideas = ["Concepts: `hone explain WORD` explains one of them."]
    for group, members in groupby(concepts(), key=lambda one: one.group):
        words = ", ".join(_way_to(one) for one in members)
        ideas += textwrap.wrap(f"{group}: {words}", WIDTH, initial_indent="  ", subsequent_indent="    ")
    return "\n\n".join([*lines, *blocks, "\n".join(ideas)])


def _section_text(section: str) -> str:
    lines = [f"{section}: {described(section)}"]
    for leaf, field in section_fields(section).items():
        star = STAR if leaf in MOST_USED else " "
        line = f"{star} {leaf:28} {default_text(leaf):18} {docs_of(field)['what']}"
        lines.append(line if len(line) <= 120 else line[:119].rsplit(" ", 1)[0].rstrip(",;:") + " …")
    return "\n".join(lines)


def described(section: str) -> str:
    """One sentence on a section."""
    return str(Config.model_fields[section].description)


def _leaf_text(leaf: str) -> str:
    field = leaf_field(leaf)
    star = f" {STAR}" if leaf in MOST_USED else ""
    head = f"{leaves()[leaf]}.{leaf}: {describe_field(field)}; default {default_text(leaf)}{star}"
    parts = [*parts_of(leaf), ("See also", ", ".join(related(leaf)))]
    if one := concept_of(leaf):
        parts.append(("Concept", f"{one.title}: `hone explain {_way_to(one)}`"))
    docs = docs_of(field)
    lines = [head, *_wrapped("", docs["what"]), "", *(line for part in parts for line in _wrapped(*part))]
    if example := docs["example"]:
        lines += ["", *_wrapped("Example", "a finished row of template: instruction"), ""]
        lines.append(textwrap.indent(example, "      "))
    return "\n".join(lines)


def parts_of(leaf: str) -> list[tuple[str, str]]:
    """(title, text) of what is said of a key after its first sentence; the values of both devices once where equal."""
    docs = docs_of(leaf_field(leaf))
    parts = [(title, docs[part]) for part, title in _TITLES.items()]
    if docs["cpu"] == docs["gpu"]:
        parts.append(("Typical", docs["cpu"]))
    else:
        parts += [("On a CPU", docs["cpu"]), ("On a GPU", docs["gpu"])]
    if docs["maps_to"]:
        parts.append(("Same as", docs["maps_to"]))
    if names := foreign_names(leaf):
        parts.append(("Known as", ", ".join(names)))
    return parts


def _wrapped(title: str, text: str) -> list[str]:
    first = f"  {title:<11}" if title else "  "
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=" " * len(first), break_long_words=False)


def default_text(leaf: str) -> str:
    """The default of a key as a person would write it in YAML."""
    default = leaf_field(leaf).default
    return re.sub(r"e-0*", "e-", f"{default:g}") if isinstance(default, float) else flow(default)


def foreign_names(leaf: str) -> list[str]:
    """The names under which other toolkits know a key."""
    return [name for name, alias in ALIASES.items() if alias.leaf == leaf]


# ---- concepts -------------------------------------------------------------------------------------------------------


def concept_of(leaf: str) -> Concept | None:
    """The concept that a key belongs to: the one that has its name among its words."""
    return next((one for one in concepts() if leaf in one.words), None)


def keys_of(one: Concept) -> list[str]:
    """The keys that belong to a concept."""
    return [word for word in one.words if word in leaves()]


def _concept_text(one: Concept) -> str:
    lines = [f"{one.title} ({one.group})", "", plain(one.text)]
    if keys := keys_of(one):
        lines += ["", *_wrapped("Keys", ", ".join(keys)), f"{'':13}`hone explain {keys[0]}`"]
    return "\n".join(lines)


def _way_to(one: Concept) -> str:
    """A word that leads to a concept, and to no key."""
    keys = {*leaves(), *section_names(), *ALIASES, *GONE}
    return next(word for word in one.words if _configured(word) not in keys)


def _nearest(name: str) -> str:
    """The nearest of all names, or where to find them."""
    names = [*leaves(), *section_names(), *ALIASES, *(word for one in concepts() for word in one.words)]
    known = {folded(word): word for word in reversed(names)}
    near = difflib.get_close_matches(folded(name.rsplit(".", 1)[-1]), known, n=1, cutoff=0.7)
    return f"did you mean '{known[near[0]]}'? (`hone explain {known[near[0]]}`)" if near else "`hone explain` lists all"


# ---- recipes --------------------------------------------------------------------------------------------------------


def recipe_names() -> list[str]:
    """The recipes that come with the package, in alphabetical order."""
    files = (PurePath(entry.name) for entry in resources.files(_RECIPES).iterdir())
    return sorted(file.stem for file in files if file.suffix == ".yaml")


def near_recipe(name: str) -> str | None:
    """The recipe that a name most likely means.

    >>> near_recipe("LIGHT_LAB"), near_recipe("gpt2")
    ('light-lab', None)
    """
    wanted = name.strip().lower().removesuffix(".yaml").replace("_", "-").replace(" ", "-")
    near = difflib.get_close_matches(wanted, recipe_names(), n=1, cutoff=0.75)
    return near[0] if near else None


def recipe_title(name: str) -> str:
    """What a recipe is for: its first comment line."""
    return recipe_source(name).splitlines()[0].removeprefix("#").strip()


def recipe_text(name: str, files: Collection[str] = ()) -> str:
    """A recipe with a comment above every key: the recipe's own remarks, and the schema's words.

    Args:
        files: the sample rows beside it, which its keys are to name.

    Raises:
        HoneError: no such recipe.
    """
    lines: list[str] = []
    remarks: list[str] = []  # comment lines that belong to the next key
    for line in with_rows(recipe_source(name), files).splitlines():
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


def recipe_source(name: str) -> str:
    """A recipe as it is written, with its own remarks alone.

    Raises:
        HoneError: no such recipe.
    """
    if name not in recipe_names():
        near = near_recipe(name)
        did = f"did you mean `hone init {near}`? " if near else ""
        raise HoneError(f"no recipe '{name}'", fix=f"{did}there are: {', '.join(recipe_names())}")
    return (resources.files(_RECIPES) / f"{name}.yaml").read_text(encoding="utf-8")
