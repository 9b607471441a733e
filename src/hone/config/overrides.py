"""Command-line tokens to values: `key=value`, `section.key=value`, `--key=value`, `--key value`, `--flag`.

A value is read as one YAML 1.2 scalar, so `1e-4` is a number and `no` is text; it is full YAML only when it starts with
a bracket, a brace or a quote. Knows which keys are switches, nothing else of the schema.

>>> [item.value for item in parse_overrides(["seed=1", "--learning-rate", "1e-4", "stop=['#']"])]
[{'seed': 1}, {'learning_rate': 0.0001}, {'stop': ['#']}]
"""

import re
from collections.abc import Sequence
from typing import Any

from hone.config.aliases import ALIASES, GONE
from hone.config.parse import Item, parse_yaml, plain_scalar
from hone.config.resolve import suggestion
from hone.config.schema import leaf_field, leaves
from hone.errors import HoneError

WHERE = "command line"
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


def parse_overrides(tokens: Sequence[str]) -> list[Item]:
    """Each override as a mapping of one key, in the order given.

    Raises:
        HoneError: a token that is not an override, or a value that is not YAML.
    """
    if isinstance(tokens, str):
        tokens = [tokens]
    found: list[Item] = []
    at = 0
    while at < len(tokens):
        token = tokens[at]
        at += 1
        name, equals, text = token.partition("=")
        if name.startswith("--"):
            name = name[2:].replace("-", "_")
            if not equals:
                following = tokens[at] if at < len(tokens) else None
                takes_next = following is not None and not stands_alone(name, following)
                text = str(following) if takes_next else _switch(name)
                at += takes_next
        elif not equals:
            raise _not_an_override(token)
        if not _KEY.fullmatch(name):
            raise _not_an_override(token)
        value = parse_value(name, text)
        found.append(Item({name: value.value}, 0, {name: Item(value.value, 0, value.pairs)}))
    return found


def parse_value(name: str, text: str) -> Item:
    """The value of one override; an empty text is null."""
    text = text.strip()
    if text[:1] not in ("[", "{", '"', "'"):
        return Item(plain_scalar(text), 0)
    try:
        return parse_yaml(text, WHERE)
    except HoneError as error:
        raise HoneError(
            f"the value of {name} is not readable: {error.what}",
            where=WHERE,
            fix=f"got {text[:80]}; the shell may have eaten quotes: put them outside, '{name}=[...]'",
        ) from None


def _is_switch(name: str) -> bool:
    leaf = name.rsplit(".", 1)[-1]
    leaf = ALIASES[leaf].leaf if leaf in ALIASES else leaf
    return leaf in leaves() and leaf_field(leaf).annotation in (bool, bool | None)


def stands_alone(name: str, following: str) -> bool:
    """Whether `--name` has no value of its own: the next token is another option, or not an answer to a switch."""
    if following.startswith("--"):
        return True
    return _is_switch(name) and not isinstance(plain_scalar(following), bool)


def _switch(name: str) -> str:
    if _is_switch(name):
        return "true"
    leaf = name.rsplit(".", 1)[-1]
    if leaf not in leaves() and leaf not in ALIASES and leaf not in GONE:
        raise HoneError(f"unknown option --{name}", where=WHERE, fix=suggestion(name))
    raise HoneError(f"--{name} has no value", where=WHERE, fix=f"write {name}=VALUE")


def _not_an_override(token: Any) -> HoneError:
    if str(token).endswith((".yaml", ".yml")):
        fix = "one configuration file, before the settings: `hone train cfg.yaml learning_rate=1e-4`"
        return HoneError(f"'{token}' is out of place", where=WHERE, fix=fix)
    return HoneError(
        f"'{token}' is not of the form key=value", where=WHERE, fix="write e.g. learning_rate=1e-4 (no blanks around =)"
    )
