"""Prompts as the model is to see them: formatted and tokenised as training did, and read from a file of many.

>>> prompt_ids("Add 1 and 2.", "instruction", tokenizer)                       # doctest: +SKIP
>>> [prompt.example for prompt in read_prompts(Path("prompts.jsonl"))]         # doctest: +SKIP
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from hone.data.records import BadRow, Chat, Example, Form, Instruction, Message, Pair, to_example
from hone.data.sources import Row, read_rows
from hone.data.special_tokens import special_tokens
from hone.data.templates import render, render_prompt
from hone.data.tokenizer import adds_bos, continuation_ids, start_ids
from hone.errors import HoneError, placed

ASKING: dict[str, Form] = {  # a row's column -> its form; a row of prompts need not have the answer
    "messages": "messages",
    "conversations": "conversations",
    "instruction": "instruction",
    "prompt": "pair",
}
ANSWER_COLUMN = {"instruction": "output", "prompt": "completion"}


@dataclass(frozen=True)
class Prompt:
    """One row of a file of prompts.

    columns: the row as it was read, to be written with the answers. where: `prompts.jsonl:3`, None if it
    came from no file.
    """

    example: Example | str
    columns: Mapping[str, Any]
    where: str | None


def read_prompts(path: Path) -> list[Prompt]:
    """Prompts of a file: the lines of a .txt, or rows (.jsonl .json .csv .parquet) with a prompt and any other columns.

    Recognised are `prompt`, `instruction` (+`input`), `messages` and sharegpt `conversations`; an answer that is
    there (a completion, an output, a last assistant's turn) is not shown to the model.

    Raises:
        HoneError: the file cannot be read, or a row has no prompt; with its line.
    """
    if path.suffix.lower() == ".txt":
        return _lines(path)
    prompts = []
    for row in read_rows([path], on_bad_row="error", on_skip=lambda reason, where: None):
        with placed(row.where):
            prompts.append(Prompt(_asked(row), row.columns, row.where))
    return prompts


def _lines(path: Path) -> list[Prompt]:
    try:
        lines = path.read_bytes().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        fix = "convert it: iconv -f LATIN1 -t UTF-8"
        raise HoneError("not UTF-8", where=f"{path}:{line}", fix=fix) from None
    except OSError as error:
        raise HoneError(f"cannot read: {error.strerror or error}", where=str(path)) from error
    found = [Prompt(line, {"prompt": line}, f"{path}:{n}") for n, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise HoneError("no prompts: the file has no lines with text", where=str(path), fix="write one prompt a line")
    return found


def _asked(row: Row) -> Example:
    """The row as an example; of prompts with an answer, without it."""
    column = next((name for name in ASKING if name in row.columns), None)
    if column is None:
        names = ", ".join(map(str, row.columns))
        fix = f"name one of its columns {', '.join(ASKING)}; of plain text, prompts are the lines of a .txt"
        raise HoneError(f"no prompt in the row, which has: {names:.200}", fix=fix)
    columns = dict(row.columns)
    if column in ANSWER_COLUMN:
        columns[ANSWER_COLUMN[column]] = ""
    return to_example(Row(columns, row.source, row.line), ASKING[column], {})


def prompt_ids(
    prompt: Example | str, template: str, tokenizer: PreTrainedTokenizerBase, *, framed: bool = False
) -> list[int]:
    """Ids of everything before the answer, with begin-of-text where the tokenizer's model expects it.

    A conversation is tokenised in the pieces training cuts it into, at the beginning and the end of every answer. What
    a message says is text, also where it spells a special token: only the template writes those.
    framed: as the source of an encoder-decoder, with all special tokens that its tokenizer puts around a text.

    Raises:
        HoneError: the template cannot format the prompt.
    """
    chat = template == "chat"
    spelled = _spelled_specials(prompt, tokenizer) if chat else {}
    prompt = _marked(prompt, spelled) if spelled else prompt
    text = render_prompt(prompt, template, tokenizer)
    pieces = _chat_pieces(prompt, text, tokenizer) if chat and isinstance(prompt, Chat) else [text]
    if spelled:
        ids = _ids_of_marked(pieces, {mark: special for special, mark in spelled.items()}, tokenizer)
    else:
        ids = start_ids(tokenizer, pieces[:1], special=chat)[0]
        if len(pieces) > 1:
            ids = sum(continuation_ids(tokenizer, pieces[1:], special=chat), ids)
    if framed:
        return [int(token) for token in special_tokens(tokenizer).around(np.array(ids, dtype=np.int64))]
    if not chat and adds_bos(tokenizer):
        assert isinstance(tokenizer.bos_token_id, int)
        ids = [tokenizer.bos_token_id, *ids]
    return ids


def _chat_pieces(chat: Chat, text: str, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """`text`, the prompt of `chat`, in training's pieces; whole where the template does not let it be cut."""
    turns = chat.messages[:-1] if chat.messages[-1].role == "assistant" else chat.messages
    if not any(turn.role == "assistant" for turn in turns):
        return [text]
    try:
        segments = render(Chat([*turns, Message("assistant", "x")]), "chat", tokenizer)
    except (BadRow, HoneError):  # a template that rewrites earlier turns can be asked, though not trained on
        return [text]
    answer = max(i for i, segment in enumerate(segments) if segment.supervised)
    pieces = [segment.text for segment in segments[:answer]]
    return pieces if "".join(pieces) == text else [text]


def _spelled_specials(prompt: Example | str, tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """Special tokens that the messages spell, the longest first, and for each a character that occurs in none."""
    said = "\n".join(_contents(prompt))
    specials = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    found = sorted((special for special in specials if special and special in said), key=len, reverse=True)
    unused = (chr(code) for code in range(0xF0000, 0xFFFFE) if chr(code) not in said)  # for private use
    return dict(zip(found, unused))


def _contents(prompt: Example | str) -> list[str]:
    match prompt:
        case str():
            return [prompt]
        case Chat(messages):
            return [message.content for message in messages]
        case Pair(asked, _):
            return [asked]
        case Instruction(instruction, given, _):
            return [instruction, given]
    return []


def _marked(prompt: Example | str, spelled: Mapping[str, str]) -> Example | str:
    """The prompt with a mark for each special token that it spells."""

    def mark(text: str) -> str:
        for special, one in spelled.items():
            text = text.replace(special, one)
        return text

    match prompt:
        case str():
            return mark(prompt)
        case Chat(messages):
            return Chat([Message(message.role, mark(message.content)) for message in messages])
        case Pair(asked, completion):
            return Pair(mark(asked), completion)
        case Instruction(instruction, given, output):
            return Instruction(mark(instruction), mark(given), output)
    return prompt


def _ids_of_marked(pieces: list[str], marks: Mapping[str, str], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of pieces in which marks stand for special tokens that are meant as text."""
    pattern = re.compile(f"([{''.join(marks)}])")
    parts = [part for piece in pieces for part in pattern.split(piece) if part]
    ids: list[int] = []
    for i, part in enumerate(parts):
        ids_of = continuation_ids if i else start_ids
        ids += ids_of(tokenizer, [marks.get(part, part)], special=part not in marks)[0]
    return ids


def turn_end(tokenizer: PreTrainedTokenizerBase) -> str:
    """What the tokenizer's chat template writes behind every answer, "" if nothing visible or nothing certain."""
    word = "answer"
    try:
        segments = render(Chat([Message("user", "question"), Message("assistant", word)]), "chat", tokenizer)
    except (BadRow, HoneError):
        return ""
    spoken = next(segment.text for segment in segments if segment.supervised)
    return spoken.rpartition(word)[2].strip()
