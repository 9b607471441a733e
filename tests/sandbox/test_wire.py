"""What travels between sandboxes: exact built-in types come back as they were, anything else is refused."""

import math
import os
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hone.grading.sandbox.wire import MAX_BYTES, Gone, Malformed, TooLarge, Unsupported, dump, load, receive, send

ATOMS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.complex_numbers(allow_nan=False)
    | st.text(st.characters()) | st.binary()
)  # fmt: skip
KEYS = st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.tuples(st.integers(), st.text())
VALUES = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner) | st.sets(KEYS) | st.frozensets(KEYS)
    ),
    max_leaves=20,
)


def typed(value: Any) -> Any:
    """The value with the type of each part, so that 1, 1.0 and True differ."""
    if isinstance(value, dict):
        return dict, [(typed(key), typed(item)) for key, item in value.items()]
    if isinstance(value, (set, frozenset)):
        return type(value), {typed(item) for item in value}
    if isinstance(value, (list, tuple)):
        return type(value), tuple(typed(item) for item in value)
    return type(value), hex(value) if type(value) is int else repr(value)


@given(VALUES)
def test_values_come_back_as_they_were(value: Any) -> None:
    assert typed(load(dump(value))) == typed(value)


def test_odd_values() -> None:
    assert math.isnan(load(dump(float("nan"))))
    for value in (float("inf"), -0.0, 10**5000, -(10**15), "\ud800\x00\u202e", range(9, 2, -3), bytearray(b"\xff")):
        assert typed(load(dump(value))) == typed(value)
    for value in (Counter("aab"), OrderedDict(b=1, a=2), defaultdict(list, {1: [2]})):
        assert typed(load(dump(value))) == typed(dict(value)), "equal to the dict they hold"


class Number(int):
    pass


class Text(str):
    __slots__ = ()


class Pairs(dict):  # type: ignore[type-arg]
    pass


@pytest.mark.parametrize(
    "value", [object(), Number(1), Text("a"), Pairs(), deque([1]), iter([]), len, int, {1: Number(2)}, [(Text(),)], ...]
)
def test_other_types_are_refused(value: Any) -> None:
    with pytest.raises(Unsupported):
        dump(value)


def test_depth_and_size_are_bounded() -> None:
    deep: list[Any] = []
    for _ in range(100):
        deep = [deep]
    circle: list[Any] = []
    circle.append(circle)
    for value in (deep, circle):
        with pytest.raises(Unsupported, match="deep"):
            dump(value)
    for value in ("x" * (MAX_BYTES + 1), [0] * (MAX_BYTES + 1), 2 ** (MAX_BYTES * 8)):
        with pytest.raises(TooLarge):
            dump(value)


@pytest.mark.parametrize(
    "text",
    ["", "{}", '{"a":1}', "[]", "1.5", "NaN", "-Infinity", "1 2", '["q","1"]', '["i","zz"]', '["i",1]', '["i"]',
     '["f","0x1p99999"]', '["f","nan","1"]', '["s",["l"]]', '["d",1]', '["d",["l"],1]', '["b","abc"]',
     '["r","1","2","0"]',
     "[" * 100_000, '["l",' * 70 + "1" + "]" * 70, "9" * 5000, '"\\ud8', "[[1],2]", '[null,"1"]', "nul", '["c","1"]'],
)  # fmt: skip
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(Malformed):
        load(text)


@given(st.text(max_size=50) | st.from_regex(r'\A[\[\]"ltsdifcb,0-9a-f]{1,30}\Z'))
def test_any_text_is_a_value_or_refused(text: str) -> None:
    try:
        value = load(text)
    except Malformed:
        return
    assert typed(load(dump(value))) == typed(value)


def test_messages_through_a_pipe() -> None:
    reader, writer = os.pipe()
    try:
        send(writer, ["value", (1, 2), None])
        assert receive(reader) == ["value", (1, 2), None]
        os.write(writer, b"00300000[[[[")
        with pytest.raises(TooLarge):
            receive(reader)
        os.read(reader, 100)
        os.write(writer, b"-0000001")
        with pytest.raises(Malformed):
            receive(reader)
        os.write(writer, b"00000001\xff")
        with pytest.raises(Malformed):
            receive(reader)
        os.write(writer, b"00000009[1")
        os.close(writer)
        writer = -1
        with pytest.raises(Gone):
            receive(reader)
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)
