"""How a prompt was trained, in the languages of other programs: Jinja for GGUF files, Go's templates for Ollama.

A chat template is a program, and Go has no Jinja. So a template is written in Go only where it is what almost all are:
each turn its content between a fixed beginning and a fixed end that its role decides. What those are is found by
asking the template, and the pieces put together again have to give its text on conversations that it was not asked.

>>> jinja_of("instruction", tokenizer)                                     # doctest: +SKIP
"{{ '### Instruction:\\n' + messages[-1]['content'] + '\\n\\n### Response:\\n' }}"
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from transformers import PreTrainedTokenizerBase

from hone.data.records import BadRow, Chat, Message, Role
from hone.data.templates import render_prompt
from hone.data.tokenizer import adds_bos
from hone.errors import HoneError

MARK = "Xq7Vz"  # stands for a prompt's text while its surroundings are looked for
Turn = tuple[str, str]  # role, content
PROBES: tuple[tuple[Turn, ...], ...] = (
    (("user", "one"),),
    (("system", "Be brief."), ("user", "two\nlines")),
    (("user", "a {{ b }}"), ("assistant", "c % d"), ("user", "é 🙂")),
    (("system", "s"), ("user", "1"), ("assistant", "2"), ("user", "3"), ("assistant", "4"), ("user", "5")),
)


def begins_with_bos(template: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a prompt as it was trained begins with begin-of-text, whoever put it there."""
    bos = tokenizer.bos_token
    if template != "chat":
        return adds_bos(tokenizer)
    return isinstance(bos, str) and render_prompt(MARK, template, tokenizer).startswith(bos)


def around(template: str, tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """What a single prompt's text stands between."""
    before, found, after = render_prompt(MARK, template, tokenizer).partition(MARK)
    assert found, "a template keeps the prompt"
    return before, after


def jinja_of(template: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """The chat template of a GGUF file: the tokenizer's own; for plain and instruction, the last message in its form.

    Those models know no turns: as in `hone chat`, each message is a prompt of its own.
    """
    if template == "chat":
        own = tokenizer.chat_template
        return str(own.get("default") if isinstance(own, dict) else own)
    before, after = around(template, tokenizer)
    parts = [repr(before) if before else "", "messages[-1]['content']", repr(after) if after else ""]
    return "{{ " + " + ".join(part for part in parts if part) + " }}"


# ---- a chat template in pieces ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Turns:
    """A chat template that only surrounds: role -> what stands before and after its content.

    opens: before all turns. answer: opens the assistant's turn at the end. system: what stands for a system message
    that is not there, None if nothing does.
    """

    opens: str
    around: dict[str, tuple[str, str]]
    answer: str
    system: str | None

    def render(self, turns: Sequence[Turn]) -> str:
        """The prompt for a conversation that ends with the user's turn."""
        if self.system is not None and turns[0][0] != "system":
            turns = [("system", self.system), *turns]
        texts = [f"{self.around[role][0]}{content}{self.around[role][1]}" for role, content in turns]
        return "".join([self.opens, *texts, self.answer])


def turns_of(tokenizer: PreTrainedTokenizerBase) -> Turns:
    """The tokenizer's chat template in pieces.

    Raises:
        HoneError: it does more than to surround each turn.
    """
    fix = "use --to gguf: llama.cpp's server runs the template itself (--jinja)"
    try:
        found = _pieces(tokenizer)
        right = all(found.render(probe) == _prompt(probe, tokenizer) for probe in _probes(found))
    except (BadRow, ValueError, KeyError) as error:
        what = f"the chat template cannot be asked for its pieces: {error}".partition("\n")[0]
        raise HoneError(what, fix=fix) from error
    if not right:
        raise HoneError(
            "the chat template does more than to surround each turn, which Ollama's form cannot say", fix=fix
        )
    return found


def _probes(found: Turns) -> list[tuple[Turn, ...]]:
    return [probe for probe in PROBES if all(role in found.around for role, _ in probe)]


def trims(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Does the chat template cut white space off a text's ends? What only surrounds does not."""
    return " x\n" not in _prompt([("user", " x\n")], tokenizer)


def _prompt(turns: Sequence[Turn], tokenizer: PreTrainedTokenizerBase) -> str:
    return render_prompt(Chat([Message(cast(Role, role), content) for role, content in turns]), "chat", tokenizer)


def _pieces(tokenizer: PreTrainedTokenizerBase) -> Turns:
    bos = tokenizer.bos_token if begins_with_bos("chat", tokenizer) else ""

    def prompt(*turns: Turn) -> str:
        return _prompt(turns, tokenizer).removeprefix(str(bos))

    questions, answers = [("user", f"U{i}u") for i in range(3)], [("assistant", f"A{i}a") for i in range(2)]
    one, three = prompt(questions[0]), prompt(questions[0], answers[0], questions[1])
    before, _, tail = one.partition("U0u")  # tail: what follows the user's text, and opens the answer
    ahead, _, rest = three.removeprefix(f"{before}U0u").partition("A0a")
    behind, _, last = rest.partition("U1u")  # after an answer, up to the next text of the user
    five = prompt(questions[0], answers[0], questions[1], answers[1], questions[2])
    if last != tail or five != f"{before}U0u{ahead}A0a{behind}U1u{ahead}A1a{behind}U2u{tail}":
        raise ValueError("a later turn is written otherwise than the first")
    # The border between two turns is free as long as the whole stays: as much as can be belongs to the later one.
    before_user, opens_answer = _common_end(before, behind), _common_end(ahead, tail)
    after_user, opens = ahead.removesuffix(opens_answer), before.removesuffix(before_user)
    if not tail.startswith(after_user):  # an answer of the past is opened otherwise than the next one
        after_user = _common_end(ahead[::-1], tail[::-1])[::-1]
        opens_answer = ahead.removeprefix(after_user)
    roles = {
        "user": (before_user, after_user),
        "assistant": (opens_answer, behind.removesuffix(before_user)),
    }
    answer, system = tail.removeprefix(after_user), None
    try:
        with_system = prompt(("system", "S0s"), questions[0])
    except (BadRow, HoneError):  # it has no place for one
        return Turns(f"{bos}{opens}", roles, answer, None)
    head, found, rest = with_system.partition("S0s")
    after_system = rest.partition("U0u")[0].removesuffix(before_user)
    if not found or rest != f"{after_system}{before_user}U0u{tail}":
        raise ValueError("a system message is not a turn of its own")
    if opens.startswith(head) and opens.endswith(after_system) and len(opens) > len(head) + len(after_system):
        system, opens = opens[len(head) : len(opens) - len(after_system)], ""  # one is put in where there is none
    if not head.startswith(opens):
        raise ValueError("a system message changes what stands before it")
    roles["system"] = (head.removeprefix(opens), after_system)
    return Turns(f"{bos}{opens}", roles, answer, system)


def _common_end(a: str, b: str) -> str:
    """The longest end that both have.

    >>> _common_end("<s>[user]", "</s>[user]")
    's>[user]'
    """
    n = 0
    while n < min(len(a), len(b)) and a[-1 - n] == b[-1 - n]:
        n += 1
    return a[len(a) - n :]
