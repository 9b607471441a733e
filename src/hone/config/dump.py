"""A configuration as YAML: every key with its value, in a text that `load_config` reads to an equal configuration.

>>> flow({"content": "text", "rates": [1e-05, 2.0, True]})
'{content: text, rates: [1.0e-05, 2.0, true]}'
"""

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from hone.config.overrides import parse_value
from hone.config.schema import Config, section_fields, section_names

_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
_UNPRINTABLE = re.compile(r"[^\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
# words that YAML 1.1 or 1.2 readers take for something other than text
_WORDS = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}


def resolved_yaml(config: Config) -> str:
    """Every key with its value, by section; `load_config` of this text gives an equal configuration."""
    lines = ["# Every setting of the run, the defaults included."]
    for section in section_names():
        lines += ["", f"{section}:"]
        values = getattr(config, section)
        lines += [f"  {leaf}: {flow(getattr(values, leaf))}" for leaf in section_fields(section)]
    return "\n".join(lines) + "\n"


def leaves_of(text: str, names: Collection[str]) -> dict[str, Any]:
    """Some values of what `resolved_yaml` has written, each from its line alone: reading all of it takes 50 ms.

    >>> leaves_of("train:\\n  seed: 42\\n  optim: adamw\\n", ["seed"])
    {'seed': 42}
    """
    found = (re.fullmatch(r"  (\w+): (.*)", line) for line in text.splitlines())
    return {one[1]: parse_value(one[1], one[2]).value for one in found if one and one[1] in names}


def changed_yaml(config: Config) -> str:
    """The keys that do not have their default, a line each, with where they were given."""
    lines = []
    for section in section_names():
        values, fields = getattr(config, section), section_fields(section)
        changed = [leaf for leaf in fields if getattr(values, leaf) != fields[leaf].default]
        lines += [f"{section}:"] if changed else []
        lines += [f"  {leaf}: {_short(getattr(values, leaf))}{_from(config.where(leaf))}" for leaf in changed]
    return "\n".join(lines) + "\n"


def _short(value: Any) -> str:
    """As `flow`; a path below the current folder as it would be written there."""
    if isinstance(value, Path) and value.is_relative_to(Path.cwd()):
        return flow(str(value.relative_to(Path.cwd())))
    if isinstance(value, list):
        return "[" + ", ".join(_short(inner) for inner in value) + "]"
    return flow(value)


def _from(where: str | None) -> str:
    return f"  # {where}" if where else ""


def flow(value: Any) -> str:
    """A value in YAML that reads the same by the rules of YAML 1.1 and 1.2."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{flow(str(name))}: {flow(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(flow(inner) for inner in value) + "]"
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return _float(value)
    text = str(value)
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", quoted)


def _float(value: float) -> str:
    """A float that keeps its value and its type: 1e-05 -> 1.0e-05, nan -> .nan."""
    if value != value:
        return ".nan"
    if value in (float("inf"), float("-inf")):
        return ".inf" if value > 0 else "-.inf"
    text = repr(float(value))
    mantissa, e, exponent = text.partition("e")
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}{e}{exponent}"
