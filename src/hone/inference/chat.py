"""A conversation with a model: what was said, what of it the model is shown, and answers as they come.

With the template "chat" the model sees the whole conversation, cut to its window without losing the system message.
The templates "plain" and "instruction" have no form for a second turn: every message is a prompt of its own.

>>> conversation = open_conversation("runs/my", {})                                    # doctest: +SKIP
>>> reply = ask(conversation, "Write a function.", write=print)                        # doctest: +SKIP
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import NamedTuple

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hone.config.sections.generate import GenerateSection
from hone.data.records import Chat, Example, Message
from hone.errors import HoneError
from hone.inference.engine import Engine, Request, Step
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


class Pen(NamedTuple):
    """Where an answer is written: piece by piece, and its end, once."""

    write: Write
    end: Callable[[], None]


@dataclass
class Conversation:
    """Whom one talks with, and what was said.

    turns: user and assistant by turns, oldest first, as the model is shown them. said: the same since the beginning,
    also where no model sees it. last: the newest message; last_kept: does `said` end with it and its answer? asked:
    the number of answers, which decides the draws. name: as the model was named. base: for comparison, see base.py.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    template: str
    settings: GenerateSection
    system: str | None = None
    turns: list[Message] = field(default_factory=list)
    asked: int = 0
    cut_noted: bool = False
    name: str = ""
    said: list[Message] = field(default_factory=list)
    last: str | None = None
    last_kept: bool = False
    base: "Conversation | None" = None

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
    conversation = Conversation(loaded, tokenizer, chosen, settings, system or None, name=model)
    check_system(conversation)
    return conversation


def ask(conversation: Conversation, message: str, write: Write) -> Reply:
    """Answer a message, in pieces given to `write`, and remember both; Ctrl-C ends the answer, and what came counts.

    Raises:
        HoneError: the message has no place in the model's window or cannot be formatted; nothing is remembered then.
    """
    return ask_each([conversation], message, [Pen(write, lambda: None)])[0]


def ask_each(conversations: Sequence[Conversation], message: str, pens: Sequence[Pen]) -> list[Reply]:
    """`ask` several at once, a token of each by turns; a pen's end is called when its answer has ended.

    Raises:
        HoneError: as `ask`, of any; then none has answered.
    """
    began, writing = time.perf_counter(), list(pens)  # those whose answers have not ended
    try:
        prompts = [fit(c, message) for c in conversations]
        requests = [_request(c, ids) for c, (ids, _) in zip(conversations, prompts)]
        _write_all([c.engine.run(request) for c, request in zip(conversations, requests)], requests, pens, writing)
    finally:
        for pen in writing:
            pen.end()
    seconds = time.perf_counter() - began
    replies = []
    for c, request, (_, n_dropped) in zip(conversations, requests, prompts):
        answer = request.answer
        replies.append(Reply(answer.text, answer.ended or "interrupted", len(answer.ids), seconds, n_dropped))
        _remember(c, message, replies[-1])
    return replies


def _request(conversation: Conversation, ids: list[int]) -> Request:
    c = conversation
    rule = answer_rule(c.model, c.tokenizer, c.template, c.settings, len(ids))
    return Request(ids, Answer(c.tokenizer, [] if reads_source(c.model) else ids, rule), c.settings, c.asked)


def _write_all(
    runs: Sequence[Iterator[Step]], requests: Sequence[Request], pens: Sequence[Pen], writing: list[Pen]
) -> None:
    """Until all have ended, or Ctrl-C; those that have are taken out of `writing`."""
    try:
        for steps in zip_longest(*runs):
            for step, pen in zip(steps, pens):
                if step is not None and step.text:
                    pen.write(step.text)
                if step is not None and step.ended is not None:
                    writing.remove(pen)
                    pen.end()
    except KeyboardInterrupt:
        for request, pen in zip(requests, pens):
            if request.answer.ended is None:
                pen.write(request.answer.finish())


def _remember(conversation: Conversation, message: str, reply: Reply) -> None:
    c = conversation
    c.asked += 1
    c.last, c.last_kept = message, bool(reply.text)
    del c.turns[: 2 * reply.n_dropped]
    if reply.text:
        pair = [Message("user", message), Message("assistant", reply.text)]
        c.said += pair
        if c.template == "chat":
            c.turns += pair


def take_back(conversation: Conversation) -> str:
    """Forget the last message and its answer; the message.

    Raises:
        HoneError: there is none.
    """
    c = conversation
    if c.last is None:
        raise HoneError("no message has been answered yet", fix="type one first")
    if c.last_kept:
        del c.said[-2:]
        del c.turns[-2:]
        c.last_kept = False
    return c.last


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


def set_system(conversation: Conversation, system: str | None) -> None:
    """Change the system message, or remove it.

    Raises:
        HoneError: as `check_system`; the one before stays.
    """
    before, conversation.system = conversation.system, system
    try:
        check_system(conversation)
    except HoneError:
        conversation.system = before
        raise
