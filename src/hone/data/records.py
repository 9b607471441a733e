"""One row -> one example, recognised by its columns; there is no registry to fill in.

The first row decides the form for the whole data set; a later row of another form is a bad row, never a silent guess.
Columns that no form uses (ids, tests, metadata) are ignored. Nothing here knows tokens, templates or tasks: whether a
labelled row may train a causal model is the caller's decision.

>>> rows = [Row({"instruction": "Add.", "input": "1 2", "output": "3", "id": 7}, "train.jsonl", 1)]
>>> [example for _, example in examples(rows, column_mapping={}, on_bad_row="error", on_skip=print)]
[Instruction(instruction='Add.', input='1 2', output='3')]
"""

import difflib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from hone.data.sources import OnBadRow, Row, refuse_row
from hone.errors import HoneError

Role = Literal["system", "user", "assistant"]
Form = Literal["messages", "conversations", "instruction", "pair", "source_target", "labelled", "text"]


@dataclass(frozen=True, slots=True)
class Text:
    """Running text; all of it is to be learned."""

    text: str


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt that is given and a completion that is to be learned."""

    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Instruction:
    """An instruction, perhaps with an input ("" for none), and the answer to learn."""

    instruction: str
    input: str
    output: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation, oldest turn first; never empty."""

    messages: list[Message]


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text and its class: a name, or a number."""

    text: str
    label: str | int


@dataclass(frozen=True, slots=True)
class SourceTarget:
    """What a sequence-to-sequence model reads, and what it is to write."""

    source: str
    target: str


Example = Text | Pair | Instruction | Chat | Labelled | SourceTarget

# Required columns of each form. Where a row satisfies several, the first one wins: the richer form says more about
# what is prompt and what is answer, and a data set often carries its rendered `text` next to the fields it came from.
REQUIRED: dict[Form, tuple[str, ...]] = {
    "messages": ("messages",),
    "conversations": ("conversations",),
    "instruction": ("instruction", "output"),
    "pair": ("prompt", "completion"),
    "source_target": ("source", "target"),
    "labelled": ("text", "label"),
    "text": ("text",),
}
OPTIONAL: dict[Form, tuple[str, ...]] = {"instruction": ("input",)}
# Names under which others know our columns. They are taken where exactly one of each is there and nothing of ELSE or
# BESIDE is: what stands in those would belong to the prompt, and would be lost without a word. A question is taken as
# an instruction, because a prompt is joined with its completion as it is: "What is 1+1?2" is nothing to learn.
ANSWERS = ("answer", "response", "output", "solution", "reply")
KNOWN_AS: dict[Form, dict[str, tuple[str, ...]]] = {
    "instruction": {"instruction": ("question", "query", "problem"), "output": (*ANSWERS, "completion")},
    "pair": {"prompt": ("input",), "completion": ANSWERS},
    "labelled": {"text": ("sentence", "review", "comment", "content"), "label": ("class", "category", "sentiment")},
    "text": {"text": ("content",)},
}
ELSE = frozenset(
    ("context", "passage", "document", "history", "system", "system_prompt", "choices", "options", "summary", "target")
)
BESIDE: dict[Form, tuple[str, ...]] = {
    "instruction": ("prompt",),
    "pair": ("instruction", "question", "query", "problem"),
}
ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}
SHAREGPT_ROLES: dict[str, Role] = {**ROLES, "human": "user", "gpt": "assistant"}


class BadRow(HoneError):
    """One row cannot be used. `what` says why; the caller knows where, and whether it may be skipped."""


def detect_form(
    columns: Iterable[str], column_mapping: Mapping[str, str], forms: Collection[Form] = tuple(REQUIRED)
) -> Form:
    """Name the form that these columns make.

    Args:
        columns: the row's own column names.
        column_mapping: our name -> their name, for example {"text": "content"}. A form must use every mapped name.
        forms: those that the task can use.

    Raises:
        HoneError: no form fits, or the mapping names a column that is not ours or not there.
    """
    found = list(columns)
    refuse_unknown_names(column_mapping)
    if missing := sorted(set(column_mapping.values()) - set(found)):
        raise HoneError(
            f"column_mapping names a column '{missing[0]}' that the row does not have",
            fix=f"{_did_you_mean(missing[0], found)}columns found: {_listed(found)}",
        )
    for form, required in REQUIRED.items():
        if form not in forms:
            continue
        uses_mapping = set(column_mapping) <= set(_columns_of(form))
        if uses_mapping and all(column_mapping.get(name, name) in found for name in required):
            return form
    example = "{instruction: question, output: answer}" if "pair" in forms else "{text: headline, label: category}"
    separator = next((mark for mark in (";", "\t", "|") if len(found) == 1 and mark in str(found[0])), None)
    if separator is not None:
        kind = "tabs" if separator == "\t" else f"'{separator}'"
        raise HoneError(
            f"one column, with {kind} in its name: {_listed(found)!r}",
            fix=f"the columns seem to be separated by {kind}: save the file with commas between them",
        )
    raise HoneError(
        f"no known form in columns: {_listed(found)}",
        fix=f"accepted: {', '.join('+'.join(REQUIRED[form]) for form in REQUIRED if form in forms)}; other names can "
        f"be mapped, e.g. column_mapping: {example}",
    )


def refuse_unknown_names(column_mapping: Mapping[str, str]) -> None:
    """Raise a HoneError if a mapping has a name, before its colon, that is none of ours."""
    known = sorted({name for form in REQUIRED for name in _columns_of(form)})
    if unknown := sorted(set(column_mapping) - set(known)):
        fix = f"write our_name: their_name, where our_name is one of {', '.join(known)}"
        what = f"column_mapping has an unknown name '{unknown[0]}'"
        raise HoneError(what, fix=_did_you_mean(unknown[0], known) + fix)


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, [str(one) for one in known], n=1, cutoff=0.7)
    return f"did you mean '{near[0]}'? " if near else ""


def recognise(
    columns: Iterable[str], column_mapping: Mapping[str, str], forms: Collection[Form] = tuple(REQUIRED)
) -> tuple[Form, dict[str, str]]:
    """As `detect_form`, and the mapping to read the rows with: also where only names that others use were found.

    >>> recognise(["id", "question", "answer"], {})
    ('instruction', {'instruction': 'question', 'output': 'answer'})

    Raises:
        HoneError: as `detect_form`.
    """
    found = list(columns)
    try:
        return detect_form(found, column_mapping, forms), dict(column_mapping)
    except HoneError:
        if column_mapping and not set(column_mapping.values()) & set(found):  # it is about another file
            refuse_unknown_names(column_mapping)
            with suppress(HoneError):
                return detect_form(found, {}, forms), {}
        plain = {name: str(name).strip().lower() for name in found}  # "Question " as question
        if column_mapping or ELSE & set(plain.values()):
            raise
        for form, names in KNOWN_AS.items():
            if form not in forms or set(BESIDE.get(form, ())) & set(plain.values()):
                continue
            mapping = {ours: [name for name in found if plain[name] in (ours, *also)] for ours, also in names.items()}
            more = {ours: [name for name in found if plain[name] == ours] for ours in OPTIONAL.get(form, ())}
            if all(len(there) == 1 for there in mapping.values()) and all(len(there) < 2 for there in more.values()):
                taken = {ours: there[0] for ours, there in {**mapping, **more}.items() if there}
                return form, {ours: theirs for ours, theirs in taken.items() if theirs != ours}
        raise


def mapping_note(mapping: Mapping[str, str]) -> str:
    """What was made of names that others use.

    >>> mapping_note({"output": "answer"})
    "column 'answer' is taken as output (column_mapping={output: answer} says so, or otherwise)"
    """
    if not mapping:
        return "column_mapping is not applied to rows that have none of its columns and are known by their own"
    taken = ", ".join(f"'{theirs}' is taken as {ours}" for ours, theirs in mapping.items())
    said = ", ".join(f"{ours}: {theirs}" for ours, theirs in mapping.items())
    return f"column {taken} (column_mapping={{{said}}} says so, or otherwise)"


def unused_note(columns: Mapping[str, Any], form: Form, column_mapping: Mapping[str, str]) -> str | None:
    """Which columns one may think are trained on, and are not: other texts beside `text`, or any of ELSE.

    >>> unused_note({"question": "1+1?", "answer": "2", "text": "1+1? 2"}, "text", {})
    'trained on: text; not: question, answer (column_mapping={instruction: question, output: answer} takes these)'
    """
    used = [column_mapping.get(name, name) for name in _columns_of(form)]
    left = [n for n, value in columns.items() if n not in used and isinstance(value, str) and value.strip()]
    left = [name for name in left if form == "text" or str(name).strip().lower() in ELSE]
    if not left or form == "labelled":
        return None
    how = "to train on these, write them into the others"
    if form == "instruction" and len(left) == 1 and used[-1] not in columns:
        how = f"column_mapping={{input: {left[0]}}} takes it as well"
    elif form == "text":
        how = "column_mapping={instruction: …, output: …} names others"
        with suppress(HoneError):
            other, mapping = recognise(left, {})
            said = ", ".join(f"{ours}: {mapping.get(ours, ours)}" for ours in REQUIRED[other])
            how = f"column_mapping={{{said}}} takes these"
    return f"trained on: {', '.join(name for name in used if name in columns)}; not: {_listed(left)} ({how})"


def text_column(columns: Iterable[str], column_mapping: Mapping[str, str]) -> str:
    """The column that holds the text of rows to classify, by the mapping of the training, or by its plain names.

    >>> text_column(["id", "review"], {"text": "headline"})
    'review'

    Raises:
        HoneError: none does, or several may.
    """
    found = list(columns)
    for name in (column_mapping.get("text", "text"), "text"):
        if name in found:
            return name
    known = [name for name in found if str(name).strip().lower() in ("text", *KNOWN_AS["labelled"]["text"])]
    if len(known) == 1:
        return known[0]
    mapped = f" '{column_mapping['text']}' (as in the training) or" if "text" in column_mapping else ""
    raise HoneError(
        f"no column of texts: expected{mapped} 'text'; found: {_listed(found)}",
        fix="rename the column that holds the texts, or give them with --text",
    )


def to_example(row: Row, form: Form, column_mapping: Mapping[str, str]) -> Example:
    """Read one row as `form`.

    A null string counts as "". An empty completion or text is kept: the encoder drops and counts what has nothing
    to learn from.

    Raises:
        BadRow: a column is missing or of the wrong type, a role is unknown, or the conversation is empty.
    """
    columns = row.columns
    names = {name: column_mapping.get(name, name) for name in REQUIRED[form]}
    if any(theirs not in columns for theirs in names.values()):
        raise BadRow(f"mixed forms: the first row is {'+'.join(REQUIRED[form])}, this row has {_listed(columns)}")
    values = {name: columns[theirs] for name, theirs in names.items()}
    match form:
        case "text":
            return Text(_string(values["text"], names["text"]))
        case "pair":
            return Pair(_string(values["prompt"], names["prompt"]), _string(values["completion"], names["completion"]))
        case "instruction":
            input_name = column_mapping.get("input", "input")
            return Instruction(
                _string(values["instruction"], names["instruction"]),
                _string(columns.get(input_name), input_name),
                _string(values["output"], names["output"]),
            )
        case "messages":
            return Chat(_messages(values["messages"], names["messages"], "role", "content", ROLES))
        case "conversations":
            return Chat(_messages(values["conversations"], names["conversations"], "from", "value", SHAREGPT_ROLES))
        case "source_target":
            return SourceTarget(_string(values["source"], names["source"]), _string(values["target"], names["target"]))
        case "labelled":
            return Labelled(_string(values["text"], names["text"]), _label(values["label"], names["label"]))


def examples(
    rows: Iterable[Row],
    *,
    column_mapping: Mapping[str, str],
    on_bad_row: OnBadRow,
    on_skip: Callable[[str, str], None],
    forms: Collection[Form] = tuple(REQUIRED),
) -> Iterator[tuple[Row, Example]]:
    """Turn rows into examples; the first row's form is held for all of them.

    Raises:
        HoneError: the first row has no known form (whatever `on_bad_row` says: nothing could be recognised after
            it), or a row is bad and `on_bad_row` is "error".
    """
    form: Form | None = None
    for row in rows:
        if form is None:
            try:
                form, column_mapping = recognise(row.columns, column_mapping, forms)
            except HoneError as error:
                raise HoneError(error.what, where=row.where, fix=error.fix) from None
        try:
            example = to_example(row, form, column_mapping)
        except BadRow as error:
            refuse_row(error.what, row.where, on_bad_row, on_skip)
            continue
        yield row, example


def _columns_of(form: Form) -> tuple[str, ...]:
    return REQUIRED[form] + OPTIONAL.get(form, ())


def _listed(columns: Iterable[str]) -> str:
    """Column names for a message: at most 12, so that a row of a wide table still fits on a screen."""
    names = [str(name) for name in columns]
    shown = ", ".join(names[:12]) or "none"
    return f"{shown}, … ({len(names)} in all)" if len(names) > 12 else shown


def _string(value: Any, name: str) -> str:
    """The text of a column, or BadRow. Lone surrogates (legal in JSON escapes) have no UTF-8 and no token."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadRow(f"column '{name}' must be text, not {type(value).__name__}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(value[error.start])
        raise BadRow(f"column '{name}' holds half a character (\\u{code:04x}) at position {error.start}") from None
    return value


def _label(value: Any, name: str) -> str | int:
    if isinstance(value, str):
        return _string(value, name)
    if isinstance(value, float) and value.is_integer():
        return int(value)  # an integer column with gaps comes out of most table tools as floats
    if isinstance(value, int):
        return int(value)
    raise BadRow(f"column '{name}' must be a class name or a whole number, not {value!r:.40}")


def _messages(value: Any, name: str, role_key: str, content_key: str, roles: Mapping[str, Role]) -> list[Message]:
    if not isinstance(value, list):
        raise BadRow(f"column '{name}' must be a list of {{{role_key}, {content_key}}}, not {type(value).__name__}")
    if not value:
        raise BadRow(f"column '{name}' is an empty list")
    messages = []
    for number, turn in enumerate(value, 1):
        if not isinstance(turn, Mapping) or role_key not in turn or content_key not in turn:
            raise BadRow(f"turn {number} of '{name}' must be an object with '{role_key}' and '{content_key}'")
        role = turn[role_key]
        if not isinstance(role, str) or role not in roles:
            raise BadRow(f"turn {number} of '{name}' has the unknown role {role!r:.40} (known: {', '.join(roles)})")
        messages.append(Message(roles[role], _string(turn[content_key], f"{name}[{number - 1}].{content_key}")))
    return messages
