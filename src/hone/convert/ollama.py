"""A Modelfile for Ollama: where the weights are, how a prompt is written, how answers are drawn and where they end.

Ollama renders a Go template over its messages and hands the text to llama.cpp, which puts begin-of-text before it if
the GGUF file says so. What is written here stays within a few forms: texts, and one loop over the messages.

>>> print(modelfile("my-f16.gguf", "instruction", tokenizer, settings, 512))     # doctest: +SKIP
FROM ./my-f16.gguf
TEMPLATE \"\"\"{{ range $i, $m := .Messages }}...\"\"\"
...
"""

import unicodedata
from collections.abc import Iterable

from transformers import PreTrainedTokenizerBase

from hone.config.sections.generate import GenerateSection
from hone.convert.prompt_form import Turns, around, begins_with_bos, trims, turns_of
from hone.errors import HoneError
from hone.inference.prompts import turn_end

QUOTES = '"""'
LAST = "{{ range $i, $m := .Messages }}{{ if eq (len (slice $.Messages $i)) 1 }}"  # only the last of the messages
EACH = "{{ range $m := .Messages }}"
ROLES = ("system", "user", "assistant")


def modelfile(
    gguf: str, template: str, tokenizer: PreTrainedTokenizerBase, settings: GenerateSection, window: int
) -> tuple[str, list[str]]:
    """The text of a Modelfile beside the file `gguf`, and notes about it.

    Args:
        template: plain, instruction or chat. settings: of the run's generation. window: tokens that the model sees.

    Raises:
        HoneError: the chat template cannot be said in Go's.
    """
    notes: list[str] = []
    system = None
    stops = list(settings.stop)
    if template == "chat":
        turns = turns_of(tokenizer)
        bos = str(tokenizer.bos_token) if begins_with_bos(template, tokenizer) else ""
        go, system = go_of_turns(turns, bos), turns.system
        if trims(tokenizer):
            notes.append("the chat template trims white space around a text; Ollama's does not")
        if (end := turn_end(tokenizer)) and end not in stops:
            stops.append(end)
    else:
        before, after = around(template, tokenizer)
        go = f"{LAST}{go_text(before)}{{{{ $m.Content }}}}{go_text(after)}{{{{ end }}}}{{{{ end }}}}"
    lines = [f"FROM ./{gguf}", f"TEMPLATE {QUOTES}{go}{QUOTES}"]
    if system is not None:
        if not sayable(system):
            raise HoneError("the default system message cannot be said in a Modelfile", fix="use --to gguf")
        lines.append(f"SYSTEM {quoted(system)}")
    lines += [f"PARAMETER {name} {value}" for name, value in _parameters(settings, window)]
    for stop in stops:
        if sayable(stop):
            lines.append(f"PARAMETER stop {quoted(stop)}")
        else:
            notes.append(f"the stop text {stop!r} cannot be said in a Modelfile")
    return "\n".join(lines) + "\n", notes


def _parameters(settings: GenerateSection, window: int) -> Iterable[tuple[str, int | float]]:
    """All that Ollama would otherwise set by its own taste (temperature 0.8, top_k 40, top_p 0.9)."""
    return [
        ("num_ctx", window),
        ("num_predict", settings.max_new_tokens),
        ("temperature", settings.temperature),
        ("top_k", settings.top_k),
        ("top_p", settings.top_p),
        ("min_p", 0),
        ("repeat_penalty", 1),
    ]


# ---- Go's template language ------------------------------------------------------------------------------------------


def go_of_turns(turns: Turns, bos: str) -> str:
    """A chat template in pieces as Go's; begin-of-text is left out, since llama.cpp puts it there."""
    branches: list[str] = []
    for role in (role for role in ROLES if role in turns.around):
        before, after = turns.around[role]
        condition = f'{{{{ {"else if" if branches else "if"} eq $m.Role "{role}" }}}}'
        branches.append(f"{condition}{go_text(before)}{{{{ $m.Content }}}}{go_text(after)}")
    loop = f"{EACH}{''.join(branches)}{{{{ end }}}}{{{{ end }}}}"
    return f"{go_text(turns.opens.removeprefix(bos))}{loop}{go_text(turns.answer)}"


def go_text(text: str) -> str:
    """A text in a Go template, within a Modelfile: as it is, or as a string with escapes.

    A Modelfile's reader drops what does not print, and three quotes end a value.

    >>> go_text("### Response:\\n"), go_text("{{"), go_text("a\\u00a0b")
    ('### Response:\\n', '{{ "{{" }}', '{{ "a\\\\u00a0b" }}')
    """
    plain = all(" " <= letter <= "~" or letter == "\n" for letter in text)
    if plain and "{{" not in text and "}}" not in text and '"' not in text and not text.endswith("{"):
        return text
    return f"{{{{ {go_string(text)} }}}}"


def go_string(text: str) -> str:
    """A text as a Go string, in ASCII.

    >>> print(go_string(chr(233) + '"'))
    "\\u00e9\\""
    """
    letters = []
    for letter in text:
        code = ord(letter)
        if letter in '"\\':
            letters.append(f"\\{letter}")
        elif letter == "\n":
            letters.append("\\n")
        elif " " <= letter <= "~":
            letters.append(letter)
        else:
            letters.append(f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}")
    return f'"{"".join(letters)}"'


# ---- the Modelfile's grammar -----------------------------------------------------------------------------------------


def sayable(text: str) -> bool:
    """Whether a value comes back as it was from Ollama's reader, which drops characters that do not print.

    >>> sayable("<|im_end|>"), sayable("a\\n\\tb"), sayable("\\x00"), sayable('\"\"\"')
    (True, True, False, False)
    """
    kept = all(letter in "\n\t " or unicodedata.category(letter)[0] in "LMNPS" for letter in text)
    return bool(text) and kept and QUOTES not in text and not text.startswith('"') and not text.endswith('"')


def quoted(text: str) -> str:
    """A value in three quotes, which may hold single ones and line ends."""
    return f"{QUOTES}{text}{QUOTES}"
