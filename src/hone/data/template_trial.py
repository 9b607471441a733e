"""A chat template is a program of whoever made the model: tried once, in a process with limits, before it is used.

Jinja's sandbox keeps a template from files and code, not from a loop without end or a text of a billion letters. The
trial renders a short and a long conversation. A template that goes over a limit is refused; one that fails in
another way is left to the real rendering, which says why.

>>> check_template("{% for message in messages %}{{ message['content'] }}{% endfor %}", "models/chat")
"""

import json
import signal
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

from hone.errors import HoneError

CPU_SECONDS = 2  # the trial of a template that people use takes 0.2 s, nearly all of it Python's start
WALL_SECONDS = 60  # of a machine that is busy, or has no limit on a process's time
MEMORY_BYTES = 400 << 20
MAX_CHARACTERS = 1_000_000  # of one rendering; the trial's conversations have less than a thousand
PROGRAM = f"""
import json, sys
asked = json.load(sys.stdin)
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CPU, ({CPU_SECONDS}, {CPU_SECONDS}))
    resource.setrlimit(resource.RLIMIT_AS, ({MEMORY_BYTES}, {MEMORY_BYTES}))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except (ImportError, ValueError, OSError):
    pass
sys.path.extend(asked["packages"])
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
    sys.exit(3)
except Exception:
    sys.exit(0)
for messages in asked["conversations"]:
    for answer_next in (False, True):
        try:
            length = 0
            for piece in template.generate(messages=messages, add_generation_prompt=answer_next, **asked["tokens"]):
                length += len(piece)
                if length > {MAX_CHARACTERS}:
                    sys.exit(4)
        except MemoryError:
            sys.exit(3)
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

    packages = sorted({str(Path(str(module.__file__)).parents[1]) for module in (jinja2, markupsafe)})
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    asked = {"template": template, "conversations": CONVERSATIONS, "tokens": tokens, "packages": packages}
    command, given = [sys.executable, "-I", "-S", "-c", PROGRAM], json.dumps(asked).encode()
    try:
        ended = subprocess.run(command, input=given, capture_output=True, timeout=WALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        code = -1
    else:
        code = ended.returncode
    if code in (0, 1):  # 1: the program itself cannot run here; what is wrong shows when the template is used
        return
    limits = {
        3: f"{MEMORY_BYTES >> 20} MiB of memory",
        4: f"{MAX_CHARACTERS:,} characters",
        -signal.SIGSEGV: "all of Python's stack",
    }
    limit = limits.get(code, f"{CPU_SECONDS} seconds")
    raise HoneError(
        f"the chat template takes more than {limit} for a conversation of a few words",
        where=template_file(name),
        fix="it may be damaged, or made to do harm: use another model, or a chat_template.jinja that you know",
    )


def template_file(name: str) -> str:
    """The file of a tokenizer's folder that its chat template stands in; a hub's name as it is."""
    files = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
    return next((str(path) for file in files if (path := Path(name, file)).is_file()), name or "the tokenizer")
