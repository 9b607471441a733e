"""Every accepted form, spelled by hand; and what is refused, with the reason a person needs."""

from typing import Any

import pytest

from hone.data.records import (
    REQUIRED,
    BadRow,
    Chat,
    Example,
    Instruction,
    Labelled,
    Message,
    Pair,
    SourceTarget,
    Text,
    detect_form,
    examples,
    to_example,
)
from hone.data.sources import Row
from hone.errors import HoneError

CHAT = Chat([Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Hello")])
FORMS: list[tuple[str, dict[str, Any], Example]] = [
    ("text", {"text": "a"}, Text("a")),
    ("pair", {"prompt": "p", "completion": "c"}, Pair("p", "c")),
    ("instruction", {"instruction": "i", "output": "o"}, Instruction("i", "", "o")),
    ("instruction", {"instruction": "i", "input": "x", "output": "o"}, Instruction("i", "x", "o")),
    ("labelled", {"text": "a", "label": "spam"}, Labelled("a", "spam")),
    ("source_target", {"source": "s", "target": "t"}, SourceTarget("s", "t")),
    (
        "messages",
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Hi", "name": "ignored"},
                {"role": "assistant", "content": "Hello"},
            ]
        },
        CHAT,
    ),
    (
        "conversations",
        {
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": "Hi"},
                {"from": "gpt", "value": "Hello"},
            ]
        },
        CHAT,
    ),
]


def convert(columns: dict[str, Any], mapping: dict[str, str] | None = None) -> Example:
    mapping = mapping or {}
    return to_example(Row(columns, "a.jsonl", 1), detect_form(columns, mapping), mapping)


@pytest.mark.parametrize(("form", "columns", "example"), FORMS)
def test_each_form_with_and_without_other_columns(form: str, columns: dict[str, Any], example: Example) -> None:
    for found in (columns, {"id": 7, "tests": ["assert"], **columns}):
        assert detect_form(found, {}) == form
        assert convert(found) == example


def test_the_forms_above_are_all_there_are() -> None:
    assert {form for form, _, _ in FORMS} == set(REQUIRED)


def test_richer_forms_come_first() -> None:
    order = ["messages", "conversations", "instruction", "pair", "source_target", "labelled", "text"]
    columns = {name for names in REQUIRED.values() for name in names}
    for form in order:
        assert detect_form(columns, {}) == form
        columns -= set(REQUIRED[form]) - {"text"}  # labelled without its label is text


def test_a_mapping_renames_columns() -> None:
    assert convert({"question": "q", "answer": "a"}, {"prompt": "question", "completion": "answer"}) == Pair("q", "a")
    assert convert({"content": "c", "label": 1}, {"text": "content"}) == Labelled("c", 1)
    alpaca = {"instruction": "i", "context": "x", "output": "o"}
    assert convert(alpaca, {"input": "context"}) == Instruction("i", "x", "o")


def test_a_mapping_chooses_the_form() -> None:
    columns = {"prompt": "p", "completion": "c", "body": "b"}
    assert convert(columns, {"text": "body"}) == Text("b")


def test_null_and_empty_strings_are_kept() -> None:
    assert convert({"instruction": "i", "input": None, "output": ""}) == Instruction("i", "", "")
    assert convert({"text": None}) == Text("")


@pytest.mark.parametrize(("value", "label"), [("1", "1"), (1, 1), (2.0, 2), (0, 0)])
def test_labels_are_names_or_whole_numbers(value: Any, label: str | int) -> None:
    assert convert({"text": "a", "label": value}) == Labelled("a", label)


def test_unknown_columns_are_listed_with_the_forms_and_the_way_out() -> None:
    with pytest.raises(HoneError) as caught:
        detect_form(["question", "answer"], {})
    message = str(caught.value)
    for part in ("question, answer", "prompt+completion", "instruction+output", "messages", "column_mapping"):
        assert part in message


def test_mistakes_in_the_mapping() -> None:
    with pytest.raises(HoneError, match="unknown name 'promt'"):
        detect_form(["question"], {"promt": "question"})
    with pytest.raises(HoneError, match=r"a column 'question' that the row does not have\n.*found: ask, answer"):
        detect_form(["ask", "answer"], {"prompt": "question", "completion": "answer"})


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"text": 12}, "column 'text' must be text, not int"),
        ({"text": ["a"]}, "column 'text' must be text, not list"),
        ({"text": "half \ud83d"}, r"column 'text' holds half a character \(\\ud83d\) at position 5"),
        ({"text": "a", "label": None}, "column 'label' must be a class name or a whole number, not None"),
        ({"text": "a", "label": 0.5}, "not 0.5"),
        ({"text": "a", "label": float("nan")}, "not nan"),
        ({"messages": []}, "column 'messages' is an empty list"),
        ({"messages": "[]"}, "column 'messages' must be a list of {role, content}, not str"),
        ({"messages": [{"role": "user"}]}, "turn 1 of 'messages' must be an object with 'role' and 'content'"),
        ({"messages": ["hi"]}, "turn 1 of 'messages' must be an object"),
        ({"messages": [{"role": "tool", "content": ""}]}, "unknown role 'tool' .known: system, user, assistant"),
        ({"messages": [{"role": ["user"], "content": ""}]}, r"unknown role \['user'\]"),
        ({"messages": [{"role": "user", "content": [1]}]}, r"'messages\[0\].content' must be text, not list"),
        ({"conversations": [{"from": "bing", "value": ""}]}, "unknown role 'bing' .known: .*human, gpt"),
    ],
)
def test_bad_rows_say_why(columns: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRow, match=reason):
        convert(columns)


def test_mixed_forms_are_bad_rows_that_name_both() -> None:
    rows = [
        Row({"prompt": "p", "completion": "c"}, "a.jsonl", 1),
        Row({"text": "t"}, "a.jsonl", 2),
        Row({"prompt": "q", "completion": "d"}, "a.jsonl", 3),
    ]
    skipped: list[tuple[str, str]] = []

    def run(on_bad_row: Any) -> list[Example]:
        found = examples(rows, column_mapping={}, on_bad_row=on_bad_row, on_skip=lambda *args: skipped.append(args))
        return [example for _, example in found]

    with pytest.raises(HoneError) as caught:
        run("error")
    assert str(caught.value).startswith(
        "a.jsonl:2: mixed forms: the first row is prompt+completion, this row has text\n"
    )
    assert run("skip") == [Pair("p", "c"), Pair("q", "d")]
    assert skipped == [("mixed forms: the first row is prompt+completion, this row has text", "a.jsonl:2")]


def test_a_first_row_of_no_form_is_an_error_even_when_skipping() -> None:
    with pytest.raises(HoneError, match=r"^a\.csv:2: no known form in columns: x"):
        list(examples([Row({"x": 1}, "a.csv", 2)], column_mapping={}, on_bad_row="skip", on_skip=lambda *args: None))


def test_a_wide_table_is_not_listed_in_full() -> None:
    with pytest.raises(HoneError, match=r"c11, … \(500 in all\)"):
        detect_form([f"c{i}" for i in range(500)], {})
