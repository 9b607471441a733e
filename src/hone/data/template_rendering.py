"""A chat template is a program of whoever made the model: it is rendered in a process of its own, which has limits.

Jinja's sandbox keeps a template from files and code, not from a loop without end or a text of a billion letters, and
it may behave with all conversations but those of some rows. So every rendering is limited, in time, memory and
letters, by the system and not by what the template does. One process renders all conversations of a template.

>>> rendered("{{ messages[0].content }}!", {}, [{"role": "user", "content": "hi"}], [(1, False)], "models/chat")
['hi!']
"""

import json
import os
import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from hone.data.limited import Ended, Limited
from hone.errors import HoneError

SECONDS = 5.0  # of the processor, for one rendering, which takes a ten-thousandth of that
MEMORY_BYTES, MEMORY_TIMES = 400 << 20, 64  # and as many for each character of the conversation, of up to 4 bytes
CHARACTERS, CHARACTER_TIMES = 1_000_000, 16  # of one rendering; and as many times the conversation's
FIX = "it may be damaged, or made to do harm: use another model, or a chat_template.jinja that you know"
Cut = tuple[int, bool]  # how many turns of a conversation; whether an assistant's turn is opened after them


class Refused(Exception):
    """The template raises an error on a conversation. cut: the first cut that it refuses; words: of the error."""

    def __init__(self, cut: Cut, words: str) -> None:
        super().__init__(words)
        self.cut, self.words = cut, words


def rendered(
    template: str, tokens: Mapping[str, Any], messages: Sequence[Mapping[str, str]], cuts: Sequence[Cut], name: str
) -> list[str]:
    """The texts of some cuts of a conversation.

    Args:
        template: the text of the template.
        tokens: the special tokens by their names, as a tokenizer's `special_tokens_map`.
        name: the tokenizer's folder or its name on the hub, for messages.

    Raises:
        Refused: the template refuses a cut.
        HoneError: it went over a limit.
    """
    process, turn = _process(template, json.dumps({key: _plain(token) for key, token in tokens.items()}), os.getpid())
    with turn:
        try:
            process.ask({"messages": list(messages), "cuts": list(cuts)})
            answers = [process.line() for _ in cuts]
        except Ended as ended:
            raise _over_a_limit(ended, name) from None
        except BaseException:  # Ctrl-C: what it answers now is nobody's
            process.stop()
            raise
    for cut, answer in zip(cuts, answers, strict=True):
        if answer.get("kind") == "RecursionError":
            fix = "use a chat template that ends (chat_template.jinja), or another model"
            raise HoneError("the chat template calls itself without end", where=template_file(name), fix=fix)
        if "refused" in answer:
            raise Refused(cut, answer["refused"])
    return [answer["text"] for answer in answers]


def _plain(token: Any) -> Any:
    """A special token, or several, as text."""
    return [_plain(one) for one in token] if isinstance(token, list | tuple) else str(token)


def _over_a_limit(ended: Ended, name: str) -> HoneError:
    limits = {
        "memory": f"{MEMORY_BYTES >> 20} MiB of memory",
        "length": f"{CHARACTERS:,} characters",
        "time": f"{SECONDS:g} seconds",
        "stack": "all of Python's stack",
    }
    what = f"the chat template takes more than {limits.get(ended.limit or '', 'a process can give')}"
    return HoneError(f"{what} for one conversation", where=template_file(name), fix=FIX)


@lru_cache(maxsize=4)
def _process(template: str, tokens: str, pid: int) -> tuple[Limited, threading.Lock]:
    """The process of a template, one for each process that asks: a fork may not read its parent's answers."""
    import jinja2
    import markupsafe

    about = {
        "template": template, "tokens": json.loads(tokens), "seconds": SECONDS,
        "memory_bytes": MEMORY_BYTES, "memory_times": MEMORY_TIMES,
        "characters": CHARACTERS, "character_times": CHARACTER_TIMES,
    }  # fmt: skip
    return Limited("hone.data.template_process", about, [jinja2, markupsafe]), threading.Lock()


def template_file(name: str) -> str:
    """The file of a tokenizer's folder that its chat template stands in; a hub's name as it is."""
    files = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
    return next((str(path) for file in files if (path := Path(name, file)).is_file()), name or "the tokenizer")
