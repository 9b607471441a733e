"""The conversation at a terminal or through a pipe: reads messages and commands, shows answers and what is to be said.

>>> talk(conversation, read=line_reader(), pen=answer_pen, note=print, watched=True)           # doctest: +SKIP
"""

import difflib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from hone.config.load import load_config
from hone.config.sections.generate import GenerateSection
from hone.errors import HoneError
from hone.inference.base import base_conversation
from hone.inference.chat import Conversation, Pen, Reply, Write, ask_each, set_system, take_back
from hone.inference.chat_files import load, save
from hone.inference.terminal import side_by_side

HELP = """\
/help            this
/retry           answer the last message again, with the next draw
/compare [TEXT]  base beside tuned: the last message, or TEXT, answered by both; the tuned answer stays
/clear           forget the conversation; the system message stays
/system TEXT     set the system message; without TEXT, remove it
/set k=v         change a setting: temperature, top_k, top_p, max_new_tokens, stop, sampling_seed; alone, show them
/save FILE       write the conversation to FILE.jsonl, rows that hone train reads
/load FILE       go on from such a file
/exit            leave (also exit, quit, /quit, or Ctrl-D)
A line of \"\"\" begins a message of many lines, another one ends it; pasted lines are one message.
Ctrl-C stops an answer; at the prompt, twice, it leaves."""
# A message of exactly one of these words leaves, too.
GOODBYE = ("exit", "exit()", "quit", "quit()", "bye", "/quit", "/q", "/bye", "\\q")
COMMANDS = ("help", "retry", "compare", "clear", "system", "set", "save", "load", "exit")
TAKES_LINES = ("system", "compare")  # of other commands, text with many lines is a message that looks like one
SETTINGS = ("temperature", "top_k", "top_p", "max_new_tokens", "stop", "sampling_seed")
WIDE = 100  # columns of a terminal in which two answers are shown side by side


def introduction(conversation: Conversation) -> str:
    """What to know before the first message."""
    if conversation.template == "chat":
        return "the model sees the whole conversation; /help for the commands, quit to leave"
    return (
        f"template {conversation.template}: the model knows no turns, each message is a prompt of its own; "
        "/help for the commands, quit to leave"
    )


def talk(
    conversation: Conversation,
    *,
    read: Callable[[], str | None],
    pen: Callable[[], Pen],
    note: Write,
    watched: bool,
    columns: Callable[[], int] = lambda: 0,
) -> None:
    """Read, answer, read, until /exit, the end of the input, or Ctrl-C twice at the prompt.

    Args:
        read: the next message, None at the end. It may raise KeyboardInterrupt, and HoneError for one that cannot be
            used. pen: writes an answer. note: takes all else, line by line.
        watched: a person sits there: tell the speed of each answer, and say good-bye.
        columns: the width of the terminal; of a pipe, 0.
    """
    note(introduction(conversation))
    interrupts = 0
    while interrupts < 2:
        try:
            line = read()
            if line is None or not _handle(conversation, line, _Shown(pen, note, watched, columns())):
                break
            interrupts = 0
        except KeyboardInterrupt:
            interrupts += 1
            if interrupts == 1:
                note("\n(Ctrl-C once more, Ctrl-D or /exit leaves)")
        except _Stopped:
            interrupts = 1
        except HoneError as error:
            note(f"error: {error}")
    if watched:
        note("\nbye" if interrupts or line is None else "bye")


class _Stopped(Exception):
    """An answer was interrupted: one more Ctrl-C, at the prompt, leaves."""


class _Shown(NamedTuple):
    """How answers are shown: as `talk` is told."""

    pen: Callable[[], Pen]
    note: Write
    watched: bool
    columns: int


def _handle(conversation: Conversation, line: str, shown: _Shown) -> bool:
    """Obey or answer one line; False to leave."""
    if line.strip().lower() in GOODBYE:
        return False
    command = re.fullmatch(r"\s*/([A-Za-z]*)(?:\s+(.*))?", line, re.DOTALL)
    if command and ("\n" not in line or command[1].lower() in TAKES_LINES):
        return _obey(conversation, command[1].lower(), (command[2] or "").strip(), shown)
    if line.strip():
        _answer(conversation, line, shown)
    elif shown.watched:
        shown.note("nothing to answer: type a message, or /help")
    return True


def _answer(conversation: Conversation, message: str, shown: _Shown) -> None:
    replies = ask_each([conversation], message, [shown.pen()])
    _after(conversation, replies, [""], shown)


def _retry(conversation: Conversation, shown: _Shown) -> None:
    with _put_back(conversation):
        message = take_back(conversation)
        if shown.watched and conversation.settings.temperature == 0:
            shown.note("(at temperature 0 every draw is the same; /set temperature=0.8 varies)")
        _answer(conversation, message, shown)


def _compare(conversation: Conversation, text: str, shown: _Shown) -> None:
    """Base and tuned answer the same: side by side where there is room, else one after the other."""
    c = conversation
    if not text and c.last is None:
        raise HoneError("no message has been answered yet", fix="write /compare TEXT")
    base_conversation(c, shown.note)  # a base that is missing is better known before anything is taken back
    with _put_back(c):
        if not text:
            text = take_back(c)
            c.asked = max(0, c.asked - 1)  # the same draw
        pair = [base_conversation(c, shown.note), c]
        headings = [f"--- {name}: {one.name}" for name, one in zip(("base", "tuned"), pair)]
        if shown.columns >= WIDE:
            replies = ask_each(pair, text, side_by_side(shown.columns, headings))
        else:
            replies = [_headed(one, text, heading, shown) for one, heading in zip(pair, headings)]
    _after(c, replies, ["base ", "tuned "], shown)


def _headed(conversation: Conversation, message: str, heading: str, shown: _Shown) -> Reply:
    pen = shown.pen()
    pen.write(f"{heading}\n")
    return ask_each([conversation], message, [pen])[0]


@contextmanager
def _put_back(conversation: Conversation) -> Iterator[None]:
    """Put back what was taken back when the message is not answered again."""
    c = conversation
    before = (list(c.said), list(c.turns), c.last, c.last_kept, c.asked)
    try:
        yield
    except (HoneError, KeyboardInterrupt):
        c.said, c.turns, c.last, c.last_kept, c.asked = before
        raise


def _after(conversation: Conversation, replies: Sequence[Reply], names: Sequence[str], shown: _Shown) -> None:
    """What is said below answers."""
    if replies[-1].n_dropped and not conversation.cut_noted:
        conversation.cut_noted = True
        shown.note("(the conversation is longer than the model's window: the oldest turns are left out from here on)")
    if shown.watched:
        for name, reply in zip(names, replies):
            shown.note(f"{name}{_remark(reply, timed=len(replies) == 1)}")
    if any(reply.ended == "interrupted" for reply in replies):
        raise _Stopped


def _remark(reply: Reply, *, timed: bool) -> str:
    """'[42 tokens, 93.1 tokens/s]', and what one should know of how the answer ended."""
    speed = f", {reply.n_tokens / max(reply.seconds, 1e-9):.1f} tokens/s" if timed else ""
    count = f"{reply.n_tokens} tokens{speed}"
    if reply.ended == "interrupted":
        return f"[{count}; stopped]"
    if reply.ended == "length":
        return f"[{count}; cut off at its longest: /set max_new_tokens=…]"
    return f"[{count}]" if reply.text else f"[{count}; the model had nothing to say]"


def _obey(conversation: Conversation, command: str, argument: str, shown: _Shown) -> bool:
    """One command; False to leave."""
    c, note = conversation, shown.note
    match command:
        case "exit":
            return False
        case "retry":
            _retry(c, shown)
        case "compare":
            _compare(c, argument, shown)
        case "save" | "load" if not argument:
            raise HoneError(f"/{command} needs the name of a file", fix=f"write /{command} talk.jsonl")
        case "save":
            note(save(c, Path(argument).expanduser()))
        case "load":
            note(load(c, Path(argument).expanduser()))
        case "help":
            note(HELP)
        case "clear":
            c.turns, c.said, c.last, c.last_kept, c.cut_noted = [], [], None, False, False
            note("(forgotten)")
        case "system":
            set_system(c, argument or None)
            note("(system message set)" if c.system else "(no system message)")
        case "set" if not argument:
            note("\n".join(f"{name}={json.dumps(getattr(c.settings, name))}" for name in SETTINGS))
        case "set":
            c.settings = changed(c.settings, argument)
        case _:
            near = difflib.get_close_matches(command, COMMANDS, n=1)
            fix = f"did you mean /{near[0]}?" if near else f"there are /{', /'.join(COMMANDS)}"
            raise HoneError(f"unknown command /{command}", fix=fix)
    return True


def changed(settings: GenerateSection, assignment: str) -> GenerateSection:
    """Settings with one changed, as `temperature=0.8` says.

    Raises:
        HoneError: no such setting, or a value out of its bounds.
    """
    name, equals, value = (part.strip() for part in assignment.partition("="))
    name = {"seed": "sampling_seed"}.get(name, name)
    if not equals:
        raise HoneError(f"'{assignment}' changes nothing", fix="write /set temperature=0.8")
    if name not in SETTINGS:
        near = difflib.get_close_matches(name, SETTINGS, n=1)
        fix = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(SETTINGS)}"
        raise HoneError(f"no setting '{name}'", fix=fix)
    if name == "stop" and not value.startswith("["):
        value = json.dumps([value] if value else [])
    try:
        return load_config({"generate": settings.model_dump()}, [f"{name}={value}"]).generate
    except HoneError as error:
        raise HoneError(error.what, fix=error.fix) from None
