"""The reference page: every key of the schema, from the texts of the sections.

python -m hone.config.reference > docs/reference/config.md
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from hone.config.aliases import ALIASES, GONE
from hone.config.checks import ACTIVE_WITH, FOR_TASKS, Conflict, conflicts, training_conflicts
from hone.config.explain import STAR, concept_of, default_text, described, parts_of
from hone.config.fields import describe_field, docs_of
from hone.config.related import MOST_USED, related
from hone.config.schema import Config, leaf_field, leaves, section_fields, section_names


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
    blocks.append("[Which keys depend on each other](#keys-that-depend-on-each-other)")
    for section in section_names():
        blocks += [f"**[{section}](#{section})**: {described(section)}", _index(section)]
    for section in section_names():
        blocks += [f"## {section}", described(section)]
        for leaf in section_fields(section):
            blocks += _leaf_markdown(leaf)
    return "\n\n".join([*blocks, *_together_markdown(), *_names_markdown(), _READ_NEXT]) + "\n"


_READ_NEXT = """\
## Read next

- [Concepts](../concepts.md): the ideas behind the keys.
- [Troubleshooting](../troubleshooting.md): which keys contradict each other, and what to change when a run goes wrong.
- [Documentation](../index.md): all pages."""


def _index(section: str) -> str:
    rows = ["| | key | default | what it sets |", "| --- | --- | --- | --- |"]
    for leaf, field in section_fields(section).items():
        star = STAR if leaf in MOST_USED else " "
        what = _cell(docs_of(field)["what"])
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


# ---- keys that depend on each other ---------------------------------------------------------------------------------

_SCRATCH = {"model_type": "gpt2", "tokenizer_name_or_path": "hone-base"}
_BEST = {"load_best_model_at_end": True}
_STEPS = {"save_strategy": "steps", "eval_strategy": "steps"}
# For every rule of `checks.conflicts` the smallest configuration that breaks it.
BROKEN: tuple[Mapping[str, object], ...] = (
    {**_SCRATCH, "model_name_or_path": "gpt2"},
    {"model_type": "gpt2"},
    {**_SCRATCH, "method": "lora"},
    {"config_overrides": {"n_layer": 2}},
    {"dataset_name": "owner/rows", "train_file": Path("train.jsonl")},
    {"dataset_name": "owner/rows", "validation_file": Path("eval.jsonl")},
    {"dataset_config_name": "main"},
    {"dataset_validation_split": "test"},
    {"batching": "windows", "task": "classification"},
    {"bf16": True, "fp16": True},
    {"fp16": True, "use_cpu": True},
    {"optim": "muon", "method": "lora"},
    {"max_steps": 0},
    {"lr_scheduler_type": "constant", "warmup_steps": 10},
    {"eval_steps": 1.5},
    {**_BEST, "eval_strategy": "no"},
    {**_BEST, "validation_split_percentage": 0.0},
    {"early_stopping_patience": 2, "eval_strategy": "no"},
    {**_BEST, "save_strategy": "steps"},
    {**_BEST, **_STEPS, "save_steps": 5, "eval_steps": 2},
    {"eval_stride": 512},
    {"num_return_sequences": 2},
    {"nnodes": "4:2", "nproc_per_node": 1},
    {"nnodes": 2, "rdzv_endpoint": "first:29500"},
    {"nnodes": 2, "nproc_per_node": 8},
    {"rdzv_backend": "static"},
    {"model_name_or_path": "/models/base", "output_dir": Path("/models/base")},
    {"train_file": Path("/runs/mine/train.jsonl"), "output_dir": Path("/runs/mine"), "overwrite": True},
)


def broken_rules(values: Mapping[str, object]) -> list[Conflict]:
    """What contradicts each other in these values; that they name no model and no data is no matter."""
    config = Config().changed(values)
    return [*conflicts(config), *(one for one in training_conflicts(config) if len(one.leaves) > 1)]


def _together_markdown() -> list[str]:
    """Three tables of `checks.py`: what is refused, what only some tasks can do, what has no effect."""
    refused = {}
    for values in BROKEN:
        for one in broken_rules(values):
            keys = ", ".join(_link(leaf) for leaf in one.leaves)
            refused[one.what] = f"| {keys} | {_cell(one.what)} | {_cell(one.fix)} |"
    able: dict[tuple[str, ...], list[str]] = {}
    for leaf, some, tasks, _ in FOR_TASKS:
        able.setdefault(tasks, []).extend([f"`{leaf}: {value}`" for value in some] if some else [f"`{leaf}`"])
    needs: dict[tuple[str, tuple[object, ...]], list[str]] = {}
    for leaf, control in ACTIVE_WITH.items():
        needs.setdefault(control, []).append(_link(leaf))
    return [
        "## Keys that depend on each other",
        "Written from `config/checks.py`, with example values. These are refused before anything is loaded, by "
        "`hone check` and by every command that trains; all of a file are listed at once, with their lines:",
        "\n".join(["| keys | hone says | what to do |", "| --- | --- | --- |", *refused.values()]),
        "What only some tasks can do:",
        "\n".join(
            ["| values | only with |", "| --- | --- |"]
            + [f"| {', '.join(names)} | `task: {' or '.join(tasks)}` |" for tasks, names in able.items()]
        ),
        "These are accepted, and do nothing without the value they need; hone says so in one line:",
        "\n".join(
            ["| keys | need |", "| --- | --- |"]
            + [f"| {', '.join(names)} | `{key}: {' or '.join(map(str, ok))}` |" for (key, ok), names in needs.items()]
        ),
        "Which keys should be chosen together although nothing is refused: "
        "[Troubleshooting](../troubleshooting.md#which-keys-contradict-each-other).",
    ]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


# ---- names ----------------------------------------------------------------------------------------------------------


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
