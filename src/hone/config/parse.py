"""YAML 1.2 text to plain Python values that remember their line.

ruamel.yaml reads the syntax; the meaning of plain scalars is decided here by the YAML 1.2 core schema, so that `1e-4`
is a number, `no` is text and `2024-01-31` is text. Duplicate keys are errors. Knows nothing of the schema.

>>> parse_yaml("learning_rate: 1e-4", "cfg.yaml").pairs["learning_rate"]
Item(value=0.0001, line=1, pairs=None)
"""

import re
from dataclasses import dataclass
from typing import Any

from hone.errors import HoneError

MAX_DEPTH = 100  # of brackets: the parser takes seconds for 2,000
MAX_NODES = 20_000  # a configuration has about a hundred; nested aliases can multiply a few lines into billions

_HALVES = re.compile("[\ud800-\udfff]")
_WHOLE = "write the character itself, or both of its halves"
_BRACKET = re.compile(r"[\[\]{}]")
_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]{1,4000}|0o[0-7]{1,4000}|0x[0-9a-fA-F]{1,4000}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL_FLOAT = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass
class Item:
    """A value and the line it starts on; `pairs` holds the entries when the value is a mapping."""

    value: Any
    line: int
    pairs: "dict[Any, Item] | None" = None


def parse_yaml(text: str, source: str) -> Item:
    """Read one YAML document.

    Args:
        text: the document.
        source: the name used in messages, 'cfg.yaml' gives 'cfg.yaml:7'.

    Raises:
        HoneError: syntax error, duplicate key, several documents, or a document that expands without bound.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        if _depth(text) > MAX_DEPTH:
            raise RecursionError
        node = YAML(typ="safe", pure=True).compose(text)
    except YAMLError as error:
        raise _syntax_error(error, text, source) from None
    except (RecursionError, ValueError) as error:
        deep = isinstance(error, RecursionError)
        what = "not readable as YAML: nested too deep" if deep else "not readable as YAML: a value of no known form"
        raise HoneError(
            what, where=source, fix="write plain `key: value` lines, at most one level of sections"
        ) from None
    if node is None:
        return Item(None, 1)
    return _Converter(source).convert(node, ())


def _depth(text: str) -> int:
    """How many brackets are open at once, those in quotes and comments included."""
    depth = most = 0
    for found in _BRACKET.finditer(text):
        depth = depth + 1 if found[0] in "[{" else max(0, depth - 1)
        most = max(most, depth)
    return most


class _Converter:
    """Turns ruamel's nodes into items and counts them, aliases included."""

    def __init__(self, source: str) -> None:
        self.source, self.n_nodes = source, 0

    def convert(self, node: Any, parents: tuple[int, ...]) -> Item:
        line = node.start_mark.line + 1
        self.n_nodes += 1
        if id(node) in parents or self.n_nodes > MAX_NODES or len(parents) > 50:
            raise HoneError(
                "the document refers to itself, or grows too large when its aliases (*name) are expanded",
                where=f"{self.source}:{line}",
                fix="write the values out instead of using anchors (&name) and aliases (*name)",
            )
        inside = (*parents, id(node))
        if node.id == "mapping":
            pairs = self._pairs(node, inside)
            return Item({name: item.value for name, item in pairs.items()}, line, pairs)
        if node.id == "sequence":
            return Item([self.convert(child, inside).value for child in node.value], line)
        return Item(self._scalar(node), line)

    def _pairs(self, node: Any, inside: tuple[int, ...]) -> dict[Any, Item]:
        pairs: dict[Any, Item] = {}
        first_line: dict[Any, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.id != "scalar":
                raise HoneError("a key must be a plain word", where=f"{self.source}:{line}", fix="write `key: value`")
            name = self._scalar(key_node)
            if name in first_line:
                raise HoneError(
                    f"duplicate key '{name}', already given at {self.source}:{first_line[name]}",
                    where=f"{self.source}:{line}",
                    fix="remove one of the two lines",
                )
            first_line[name] = line
            item = self.convert(value_node, inside)
            pairs[name] = Item(item.value, line, item.pairs)
        return pairs

    def _scalar(self, node: Any) -> Any:
        """The value of a scalar; JSON writes what is beyond 16 bits as two halves, and no half stands alone."""
        value = scalar_of(node)
        if isinstance(value, str) and _HALVES.search(value):
            try:
                return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
            except UnicodeDecodeError:
                where = f"{self.source}:{node.start_mark.line + 1}"
                raise HoneError("a text holds half a character (\\ud800 to \\udfff)", where=where, fix=_WHOLE) from None
        return value


def scalar_of(node: Any) -> Any:
    """The value of a scalar node; the rules are those of yaml.org/spec/1.2.2, section 10.3.2."""
    text = node.value
    if node.style is not None or node.tag == "tag:yaml.org,2002:str":  # quoted, a block scalar, or tagged !!str
        return text
    return plain_scalar(text)


def plain_scalar(text: str) -> Any:
    """The value of an unquoted scalar by the YAML 1.2 core schema.

    >>> plain_scalar("1e-4"), plain_scalar("no"), plain_scalar("True"), plain_scalar("")
    (0.0001, 'no', True, None)
    """
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _SPECIAL_FLOAT.fullmatch(text):
        return float(text.replace(".", ""))
    return text


def _syntax_error(error: Exception, text: str, source: str) -> HoneError:
    """Name the line of ruamel's complaint and repair the two most common causes."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    position = getattr(error, "position", None)
    if mark is not None:
        line = mark.line + 1
    else:
        line = text.count("\n", 0, position) + 1 if isinstance(position, int) else 1
    lines = text.splitlines()
    content = lines[line - 1] if line <= len(lines) else ""
    if "\t" in content[: len(content) - len(content.lstrip())]:
        return HoneError("a tab where YAML wants spaces", where=f"{source}:{line}", fix="indent with spaces")
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
    fix = "check the indentation and the quotes of this line and the one above"
    if "single document" in str(error):
        problem, fix = "a second YAML document starts here", "keep one document: remove the line '---'"
    elif "%" in content or "@" in content or "`" in content or "*" in content or "&" in content:
        fix = "put the value in quotes: % @ ` * & have a meaning of their own in YAML"
    return HoneError(f"not valid YAML: {problem}", where=f"{source}:{line}", fix=fix)
