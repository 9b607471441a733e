"""Conversations as files: JSON lines with `messages`, which `hone train` reads as rows.

>>> save(conversation, Path("talk.jsonl")); load(conversation, Path("talk.jsonl"))              # doctest: +SKIP
"""

import json
from pathlib import Path

from hone.data.records import Chat, Message, Row, to_example
from hone.data.sources import read_rows
from hone.errors import HoneError, placed
from hone.files import write_text_atomic
from hone.inference.chat import Conversation, set_system

MARK = {"saved_by": "hone chat"}  # by it we know a file that may be replaced


def save(conversation: Conversation, path: Path) -> str:
    """Write what was said, as one row; where the model knows no turns, each message with its answer as a row.

    Raises:
        HoneError: nothing was said, the name is not one of JSON lines, or a file of others is there.
    """
    c = conversation
    if not c.said:
        raise HoneError("nothing was said yet: there is no conversation to save", fix="talk first")
    _check_name(path)
    if path.exists() and not _is_ours(path):
        fix = "choose another name: only a conversation that /save wrote is replaced"
        raise HoneError("this file exists, and is not a saved conversation", where=str(path), fix=fix)
    system = [Message("system", c.system)] if c.system else []
    pairs = [c.said[i : i + 2] for i in range(0, len(c.said), 2)]
    rows = [[*system, *c.said]] if c.template == "chat" else pairs
    lines = [
        json.dumps({"messages": [{"role": m.role, "content": m.content} for m in row], **MARK}, ensure_ascii=False)
        for row in rows
    ]
    write_text_atomic(path, "".join(f"{line}\n" for line in lines), setting="/save FILE")
    return f"(saved {len(pairs)} message{'s' if len(pairs) > 1 else ''} with answers to {path})"


def _check_name(path: Path) -> None:
    if path.suffix != ".jsonl":
        fix = f"name it {path.with_suffix('.jsonl').name}, and hone train reads it as rows"
        raise HoneError("a conversation is a file of JSON lines", where=str(path), fix=fix)


def _is_ours(path: Path) -> bool:
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, RecursionError):
        return False
    return all(isinstance(row, dict) and MARK.items() <= row.items() for row in rows)


def load(conversation: Conversation, path: Path) -> str:
    """Go on from a file: its messages and its system message take the place of those of the conversation.

    Raises:
        HoneError: the file is not a conversation, or the template has no place for its system message; nothing has
            changed then.
    """
    c = conversation
    _check_name(path)
    system, said = None, []
    for number, row in enumerate(read_rows([path], on_bad_row="error", on_skip=lambda reason, where: None)):
        with placed(row.where):
            if number and c.template == "chat":
                raise HoneError("a second conversation: one alone can be gone on with", fix="keep one line of the file")
            system, turns = _turns(row)
            said += turns
    set_system(c, system)
    c.said, c.turns = said, list(said) if c.template == "chat" else []
    c.last, c.last_kept, c.cut_noted = said[-2].content, True, False
    c.asked = n = len(said) // 2
    return f"({n} message{'s' if n > 1 else ''} with answers read from {path})"


def _turns(row: Row) -> tuple[str | None, list[Message]]:
    """The system message of a row, and its turns."""
    if "messages" not in row.columns:
        raise HoneError("no `messages` in this row: it is not a conversation", fix="give a file that /save wrote")
    chat = to_example(row, "messages", {})
    assert isinstance(chat, Chat)
    system = chat.messages[0].content if chat.messages[0].role == "system" else None
    turns = chat.messages[1:] if system is not None else chat.messages
    for i, turn in enumerate(turns):
        if turn.role != ("user", "assistant")[i % 2]:
            what = f"message {i + 1 + (system is not None)} is of the role {turn.role}"
            raise HoneError(f"{what}: expected user and assistant by turns", fix="mend the row")
    if not turns or len(turns) % 2:
        raise HoneError("the conversation does not end with an answer", fix="add the assistant's last message")
    return system, turns
