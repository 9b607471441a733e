"""The reference page: every key of the schema, from the texts of the sections.

python -m hone.config.reference > docs/reference/config.md
"""

import sys

from hone.config.aliases import ALIASES, GONE
from hone.config.explain import STAR, concept_of, default_text, described, parts_of
from hone.config.fields import describe_field, docs_of
from hone.config.related import MOST_USED, related
from hone.config.schema import leaf_field, leaves, section_fields, section_names


def reference_markdown() -> str:
    """An index with one line a key, every section, every key, and the table of foreign names."""
    blocks = [
        "# Configuration reference",
        f"""\
Use this page when you want to know what a key does, or which key does what you want. `hone explain KEY` shows the
same texts in a terminal. For hone 0.1.0; written by `python -m hone.config.reference`, and a test compares it with
the schema.

{len(leaves())} keys in {len(section_names())} sections. A key may stand in its section or at the top level, and
`key=value` on the command line wins over the file.

Relative paths in a YAML file start at that file's folder; relative paths on the command line start at the folder you
are in. So a config works from wherever it is called, and what you type means what your shell completes.""",
        "## All keys",
        f"{STAR} marks the ten to know first.",
    ]
    for section in section_names():
        blocks += [f"**[{section}](#{section})**: {described(section)}", _index(section)]
    for section in section_names():
        blocks += [f"## {section}", described(section)]
        for leaf in section_fields(section):
            blocks += _leaf_markdown(leaf)
    return "\n\n".join([*blocks, *_names_markdown(), _READ_NEXT]) + "\n"


_READ_NEXT = """\
## Read next

- [Concepts](../concepts.md): the ideas behind the keys.
- [Troubleshooting](../troubleshooting.md): which keys contradict each other, and what to change when a run goes wrong.
- [Documentation](../index.md): all pages."""


def _index(section: str) -> str:
    rows = ["| | key | default | what it sets |", "| --- | --- | --- | --- |"]
    for leaf, field in section_fields(section).items():
        star = STAR if leaf in MOST_USED else " "
        what = docs_of(field)["what"].replace("|", "\\|")
        rows.append(f"| {star} | {_link(leaf)} | `{default_text(leaf)}` | {what} |")
    return "\n".join(rows)


def _link(leaf: str) -> str:
    """To the heading of a key; the second of its name where a section is called so, too."""
    return f"[{leaf}](#{leaf}{'-1' if leaf in section_names() else ''})"


def _leaf_markdown(leaf: str) -> list[str]:
    field = leaf_field(leaf)
    rows = [f"- **{title}**: {_as_code(title, text)}" for title, text in parts_of(leaf)]
    also = [_link(other) for other in related(leaf)]
    if one := concept_of(leaf):
        also.append(f"the concept [{one.title}](../concepts.md#{one.anchor})")
    rows.append(f"- **See also**: {', '.join(also)}")
    star = f" {STAR}" if leaf in MOST_USED else ""
    head = f"{docs_of(field)['what']}\n\nType: {describe_field(field)}. Default: `{default_text(leaf)}`.{star}"
    example = docs_of(field)["example"]
    listing = [f"A finished row of `template: instruction`:\n\n```\n{example}\n```"] if example else []
    return [f"### {leaf}", head, "\n".join(rows), *listing]


def _as_code(title: str, text: str) -> str:
    """Names of libraries and toolkits in back-ticks."""
    return ", ".join(f"`{name}`" for name in text.split(", ")) if title in ("Same as", "Known as") else text


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
