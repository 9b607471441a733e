"""A chat template is a program of whoever made the model: tried once, in a process with limits, before it is used.

Jinja's sandbox keeps a template from files and code, not from a loop without end or a text of a billion letters. The
trial renders a short and a long conversation. A template that goes over a limit is refused; one that fails in
another way is left to the real rendering, which says why, and whose time is limited too.

>>> check_template("{% for message in messages %}{{ message['content'] }}{% endfor %}", "models/chat")
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import FrameType

from hone.data.trial import MEMORY, STACK, TOO_LONG, tried
from hone.errors import HoneError

ROW_SECONDS = 5.0  # of the processor, for one conversation; a rendering takes a ten-thousandth of that
CPU_SECONDS = 2  # the trial of a template that people use takes 0.2 s, nearly all of it Python's start
MEMORY_BYTES = 400 << 20
MAX_CHARACTERS = 1_000_000  # of one rendering; the trial's conversations have less than a thousand
PROGRAM = f"""
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

class Generation(Extension):  # a tag that transformers adds
    tags = {{"generation"}}
    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(["name:endgeneration"], drop_needle=True)

def refuse(message):
    raise ValueError(message)

try:
    room = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    room.filters["tojson"] = lambda value, **ways: json.dumps(value, ensure_ascii=False)
    room.globals["raise_exception"] = refuse
    room.globals["strftime_now"] = lambda form: "2024-01-31"
    template = room.from_string(asked["template"])
except MemoryError:
    sys.exit({MEMORY})
except Exception:
    sys.exit(0)
for messages in asked["conversations"]:
    for answer_next in (False, True):
        try:
            length = 0
            for piece in template.generate(messages=messages, add_generation_prompt=answer_next, **asked["tokens"]):
                length += len(piece)
                if length > {MAX_CHARACTERS}:
                    sys.exit({TOO_LONG})
        except MemoryError:
            sys.exit({MEMORY})
        except Exception:
            pass
"""


def _turns(roles: str) -> list[dict[str, str]]:
    names = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": names[role], "content": f"Turn {i} has a few words."} for i, role in enumerate(roles)]


CONVERSATIONS = [_turns("u"), _turns("ua"), _turns("sua"), _turns("uauaua"), _turns("suauauauaua")]


@lru_cache(maxsize=8)
def check_template(template: str, name: str) -> None:
    """Refuse a chat template that needs more time, memory or letters than any conversation can want.

    Args:
        template: the text of the template.
        name: the tokenizer's folder or its name on the hub, for the message.

    Raises:
        HoneError: it went over a limit.
    """
    import jinja2
    import markupsafe

    tokens = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    asked = {"template": template, "conversations": CONVERSATIONS, "tokens": tokens}
    ended, _ = tried(PROGRAM, asked, [jinja2, markupsafe], cpu_seconds=CPU_SECONDS, memory_bytes=MEMORY_BYTES)
    if ended == 0:
        return
    limits = {
        MEMORY: f"{MEMORY_BYTES >> 20} MiB of memory",
        TOO_LONG: f"{MAX_CHARACTERS:,} characters",
        STACK: "all of Python's stack",
    }
    limit = limits.get(ended, f"{CPU_SECONDS} seconds")
    raise HoneError(
        f"the chat template takes more than {limit} for a conversation of a few words",
        where=template_file(name),
        fix="it may be damaged, or made to do harm: use another model, or a chat_template.jinja that you know",
    )


@contextmanager
def in_time(name: str) -> Iterator[None]:
    """End a rendering that takes too long: a template may behave with all conversations but those of some rows.

    Python's own loops are ended, in the main thread of a system that counts a process's time; elsewhere nothing is.
    name: as of `check_template`.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise HoneError(
            f"the chat template takes more than {ROW_SECONDS:g} seconds for one conversation",
            where=template_file(name),
            fix="look at the row, and at what the template does with it; or use another chat_template.jinja",
        )

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, ROW_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def template_file(name: str) -> str:
    """The file of a tokenizer's folder that its chat template stands in; a hub's name as it is."""
    files = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
    return next((str(path) for file in files if (path := Path(name, file)).is_file()), name or "the tokenizer")
