"""A conversation with a model at a terminal or through a pipe: history, commands, answers as they come.

With the template "chat" the model sees the whole conversation, cut to its window without losing the system message.
The templates "plain" and "instruction" have no form for a second turn: every message is a prompt of its own. Reads
and writes only through the functions it is given; making model output safe for a terminal is the writer's business.

>>> talk(conversation, read=lambda: input("> "), write=print, note=print, watched=True)      # doctest: +SKIP
"""

import difflib
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hone.config.load import load_config
from hone.config.sections.generate import GenerateSection
from hone.data.records import Chat, Example, Message
from hone.errors import HoneError
from hone.inference.engine import Engine, Request
from hone.inference.generate import (
    SamplingOptions,
    answer_rule,
    chosen_settings,
    chosen_template,
    fitting_ids,
    ready_model,
)
from hone.inference.prompts import prompt_ids
from hone.inference.stream import Answer
from hone.models.inspect import max_positions, reads_source

Write = Callable[[str], None]

HELP = """\
/help          this
/clear         forget the conversation; the system message stays
/system TEXT   set the system message; without TEXT, remove it
/set k=v       change a setting: temperature, top_k, top_p, max_new_tokens, stop, sampling_seed; alone, show them
/exit          leave (also exit, quit, /quit, or Ctrl-D)
Ctrl-C stops an answer; at the prompt, twice, it leaves."""
# A message of exactly one of these words leaves, too.
GOODBYE = ("exit", "exit()", "quit", "quit()", "bye", "/quit", "/q", "/bye", "\\q")
COMMANDS = ("help", "clear", "system", "set", "exit")
SETTINGS = ("temperature", "top_k", "top_p", "max_new_tokens", "stop", "sampling_seed")


@dataclass
class Conversation:
    """Whom one talks with, and what was said. turns: user and assistant by turns, oldest first."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    template: str
    settings: GenerateSection
    system: str | None = None
    turns: list[Message] = field(default_factory=list)
    asked: int = 0
    cut_noted: bool = False

    def __post_init__(self) -> None:
        self.engine = Engine(self.model)  # it knows what the model has read: only what is new is read again


@dataclass(frozen=True)
class Reply:
    """An answer: its text, why it ended ("interrupted" by Ctrl-C), its tokens, and how long it took."""

    text: str
    ended: str
    n_tokens: int
    seconds: float
    n_dropped: int


def open_conversation(
    model: str, options: SamplingOptions, *, system: str | None = None, template: str | None = None
) -> Conversation:
    """Load a model to talk with; settings and template as for `generate`, but "chat" wherever the model has a format.

    Raises:
        HoneError: as `ready_model`, `chosen_settings`, `chosen_template` and `check_system`.
    """
    settings = chosen_settings(model, options)
    loaded, tokenizer = ready_model(model)
    chosen = chosen_template(model, template, tokenizer, talking=True)
    conversation = Conversation(loaded, tokenizer, chosen, settings, system or None)
    check_system(conversation)
    return conversation


def ask(conversation: Conversation, message: str, write: Write) -> Reply:
    """Answer a message, in pieces given to `write`, and remember both; Ctrl-C ends the answer, and what came counts.

    Raises:
        HoneError: the message has no place in the model's window or cannot be formatted; nothing is remembered then.
    """
    c = conversation
    ids, n_dropped = fit(c, message)
    rule = answer_rule(c.model, c.tokenizer, c.template, c.settings, len(ids))
    answer = Answer(c.tokenizer, [] if reads_source(c.model) else ids, rule)
    began, interrupted = time.perf_counter(), False
    try:
        for step in c.engine.run(Request(ids, answer, c.settings, c.asked)):
            if step.text:
                write(step.text)
    except KeyboardInterrupt:
        interrupted = True
        if answer.ended is None:
            write(answer.finish())
    c.asked += 1
    del c.turns[: 2 * n_dropped]
    if c.template == "chat" and answer.text:
        c.turns += [Message("user", message), Message("assistant", answer.text)]
    ended = "interrupted" if interrupted else str(answer.ended)
    return Reply(answer.text, ended, len(answer.ids), time.perf_counter() - began, n_dropped)


def fit(conversation: Conversation, message: str) -> tuple[list[int], int]:
    """Ids of the prompt for a message, and how many of the oldest pairs of turns had to be left out of it.

    Pairs go until the answer has the room it may need, or a quarter of the window if that is less.

    Raises:
        HoneError: not even the message alone leaves room for an answer.
    """
    c = conversation
    window = max_positions(c.model)
    n_dropped = 0
    while window is not None and 2 * n_dropped < len(c.turns):
        ids = prompt_ids(_prompt(c, message, n_dropped), c.template, c.tokenizer)
        if len(ids) + min(c.settings.max_new_tokens, window // 4) <= window:
            return ids, n_dropped
        n_dropped += 1
    return fitting_ids(c.model, c.tokenizer, _prompt(c, message, n_dropped), c.template), n_dropped


def _prompt(conversation: Conversation, message: str, n_dropped: int) -> Example | str:
    c = conversation
    if c.template != "chat":
        return message
    system = [Message("system", c.system)] if c.system else []
    return Chat([*system, *c.turns[2 * n_dropped :], Message("user", message)])


def check_system(conversation: Conversation) -> None:
    """Refuse a system message that the template has no place for.

    Raises:
        HoneError: the template is not "chat", or the tokenizer's own refuses system messages.
    """
    c = conversation
    if c.system is None:
        return
    if c.template != "chat":
        fix = "write it into the message"
        raise HoneError(f"template '{c.template}' has no place for a system message", fix=fix)
    prompt_ids(_prompt(c, "x", len(c.turns) // 2), c.template, c.tokenizer)


def introduction(conversation: Conversation) -> str:
    """What to know before the first message."""
    if conversation.template == "chat":
        return "the model sees the whole conversation; /help for the commands, quit to leave"
    return (
        f"template {conversation.template}: the model knows no turns, each message is a prompt of its own; "
        "/help for the commands, quit to leave"
    )


def talk(
    conversation: Conversation, *, read: Callable[[], str | None], write: Write, note: Write, watched: bool
) -> None:
    """Read, answer, read, until /exit, the end of the input, or Ctrl-C twice at the prompt.

    Args:
        read: the next line without its line break, None at the end. It may raise KeyboardInterrupt, and HoneError for
            a line that cannot be used. write: takes the answers, piece by piece. note: takes all else, line by line.
        watched: a person sits there: tell the speed of each answer, and say good-bye.
    """
    note(introduction(conversation))
    interrupts = 0
    while interrupts < 2:
        try:
            line = read()
            if line is None or not _handle(conversation, line, write, note, watched):
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


def _handle(conversation: Conversation, line: str, write: Write, note: Write, watched: bool) -> bool:
    """Obey or answer one line; False to leave."""
    if line.strip().lower() in GOODBYE:
        return False
    if command := re.fullmatch(r"\s*/([A-Za-z]*)(?:\s+(.*))?", line, re.DOTALL):
        return _obey(conversation, command[1].lower(), (command[2] or "").strip(), note)
    if not line.strip():
        if watched:
            note("nothing to answer: type a message, or /help")
        return True
    try:
        reply = ask(conversation, line, write)
    finally:
        write("\n")
    if reply.n_dropped and not conversation.cut_noted:
        conversation.cut_noted = True
        note("(the conversation is longer than the model's window: the oldest turns are left out from here on)")
    if watched:
        note(_remark(reply))
    if reply.ended == "interrupted":
        raise _Stopped
    return True


def _remark(reply: Reply) -> str:
    """'[42 tokens, 93.1 tokens/s]', and what one should know of how the answer ended."""
    speed = f"{reply.n_tokens} tokens, {reply.n_tokens / max(reply.seconds, 1e-9):.1f} tokens/s"
    if reply.ended == "interrupted":
        return f"[{speed}; stopped]"
    if reply.ended == "length":
        return f"[{speed}; cut off at its longest: /set max_new_tokens=…]"
    return f"[{speed}]" if reply.text else f"[{speed}; the model had nothing to say]"


def _obey(conversation: Conversation, command: str, argument: str, note: Write) -> bool:
    """One command; False to leave."""
    c = conversation
    match command:
        case "exit":
            return False
        case "help":
            note(HELP)
        case "clear":
            c.turns, c.cut_noted = [], False
            note("(forgotten)")
        case "system":
            before, c.system = c.system, argument or None
            try:
                check_system(c)
            except HoneError:
                c.system = before
                raise
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
