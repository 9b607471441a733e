"""The messages between two sandboxes: JSON of exact built-in types, tagged, and nothing else.

Runs inside them too, so it needs nothing but the interpreter, and is written to start fast: the C half of `json` alone.
Whatever is read is taken for hostile: another form, another type, too deep or too large is an error of its own.

>>> load(dump([1.5, (2, {"a": b"c"})]))
[1.5, (2, {'a': b'c'})]
"""

from __future__ import annotations

import posix
from _json import encode_basestring_ascii as quote  # `import json` would take as long as the whole interpreter
from _json import make_scanner

TYPE_CHECKING = False  # `import typing` takes as long as the whole interpreter
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MAX_BYTES = 1 << 20  # of one message
MAX_DEPTH = 64  # of nested containers
PLAIN_INT = 10**15  # larger ones travel as hexadecimal digits
CONTAINERS: dict[type, str] = {list: "l", tuple: "t", set: "s", frozenset: "z"}
TAGS: dict[str, Any] = {tag: kind for kind, tag in CONTAINERS.items()}


class Unsupported(Exception):
    """A value that is not of the exact built-in types, or nested too deep."""


class TooLarge(Exception):
    """A message of more than MAX_BYTES."""


class Malformed(Exception):
    """A message that is not in the agreed form."""


class Gone(Exception):
    """The other side has closed its end."""


def dump(value: Any) -> str:
    """A value of exact built-in types as tagged JSON.

    Raises:
        Unsupported: another type, or deeper than MAX_DEPTH.
        TooLarge: longer than MAX_BYTES.
    """
    parts: list[str] = []
    _encode(value, parts, 0)
    text = "".join(parts)
    if len(text) > MAX_BYTES:
        raise TooLarge(f"{len(text)} bytes, at most {MAX_BYTES} are taken")
    return text


def _encode(value: Any, parts: list[str], depth: int) -> None:
    kind = type(value)
    if kind.__module__ == "collections" and kind in like_dicts():
        kind, value = dict, {**value}
    if depth > MAX_DEPTH:
        raise Unsupported(f"nested more than {MAX_DEPTH} deep")
    if len(parts) > MAX_BYTES or (kind in (str, bytes, bytearray) and len(value) > MAX_BYTES):
        raise TooLarge(f"more than {MAX_BYTES} bytes")
    if kind in CONTAINERS or kind is dict:
        parts.append(f'["{"d" if kind is dict else CONTAINERS[kind]}"')
        for item in value:
            parts.append(",")
            _encode(item, parts, depth + 1)
            if kind is dict:
                parts.append(",")
                _encode(value[item], parts, depth + 1)
        parts.append("]")
    else:
        parts.append(_encode_atom(value, kind))


def like_dicts() -> tuple[type, ...]:
    """Types of the standard library that are equal to the dict they hold, and travel as it."""
    from collections import Counter, OrderedDict, defaultdict

    return (Counter, OrderedDict, defaultdict)


def _encode_atom(value: Any, kind: type) -> str:
    if kind is str:
        return quote(value)
    if value is None or kind is bool:
        return {None: "null", True: "true", False: "false"}[value]
    if kind is int:
        return str(value) if -PLAIN_INT < value < PLAIN_INT else f'["i","{value:x}"]'
    if kind is float:
        return f'["f","{value.hex()}"]'
    if kind is complex:
        return f'["c","{value.real.hex()}","{value.imag.hex()}"]'
    if kind is bytes or kind is bytearray:
        return f'["{"b" if kind is bytes else "y"}","{value.hex()}"]'
    if kind is range:
        return f'["r","{value.start:x}","{value.stop:x}","{value.step:x}"]'
    raise Unsupported(kind.__name__ if type(kind) is type else "a type with a metaclass")


def load(text: str) -> Any:
    """The value of `dump`'s text.

    Raises:
        Malformed: anything else.
    """
    try:
        value, end = make_scanner(_Json())(text, 0)  # type: ignore[arg-type]
        if end != len(text):
            raise Malformed("text after the value")
        return _decode(value, 0)
    except Malformed:
        raise
    except (ValueError, TypeError, StopIteration, RecursionError, OverflowError) as error:
        raise Malformed(type(error).__name__) from None


def _refuse(text: str) -> Any:
    raise Malformed(text)


class _Json:
    """What `_json.make_scanner` asks of a decoder. Floats and NaN as JSON are not ours, objects neither."""

    strict = True
    object_hook = staticmethod(_refuse)
    object_pairs_hook = None
    parse_float = parse_constant = staticmethod(_refuse)
    parse_int = int


def _decode(value: Any, depth: int) -> Any:
    if type(value) is not list:
        return value
    if depth > MAX_DEPTH:
        raise Malformed("too deep")
    tag, *items = value
    if tag in TAGS:
        return TAGS[tag]([_decode(item, depth + 1) for item in items])
    if tag == "d":
        if len(items) % 2:
            raise Malformed("a key without a value")
        decoded = [_decode(item, depth + 1) for item in items]
        return dict(zip(decoded[::2], decoded[1::2]))
    if any(type(item) is not str for item in items):
        raise Malformed("digits that are not text")
    if tag == "r":
        start, stop, step = (int(item, 16) for item in items)
        return range(start, stop, step)
    if tag == "c":
        real, imaginary = map(float.fromhex, items)
        return complex(real, imaginary)
    (digits,) = items
    decoders: dict[str, Callable[[str], Any]] = {
        "i": lambda text: int(text, 16),
        "f": float.fromhex,
        "b": bytes.fromhex,
        "y": bytearray.fromhex,
    }
    return decoders[tag](digits) if tag in decoders else _refuse("unknown tag")


def send(fd: int, message: list[Any]) -> None:
    """Write one message: its length in eight hexadecimal digits, then its text (ASCII)."""
    text = dump(message).encode("ascii")
    data = memoryview(b"%08x" % len(text) + text)
    while data:
        data = data[posix.write(fd, data) :]


def receive(fd: int) -> Any:
    """Read one message.

    Raises:
        Gone, TooLarge, Malformed: the other side ended, or sent something else.
    """
    head = _read(fd, 8)
    if not all(digit in b"0123456789abcdef" for digit in head):
        raise Malformed("no length")
    size = int(head, 16)
    if size > MAX_BYTES:
        raise TooLarge(f"{size} bytes, at most {MAX_BYTES} are taken")
    try:
        return load(_read(fd, size).decode("ascii"))
    except UnicodeDecodeError:
        raise Malformed("not ASCII") from None


def _read(fd: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = posix.read(fd, size - len(data))
        if not piece:
            raise Gone
        data += piece
    return data
