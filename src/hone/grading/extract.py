"""The program in a model's answer: a continuation of the prompt, or a chat answer with or without fences.

The rule: a program is kept as it came, with all of its statements. Only what stands around it is chosen from, by name:
behind a continuation, in other fences and between lines of prose, what the function needs is kept (`statements.py`),
and the rest is left. What a model wrote is never parsed in this process. Where the rules leave a choice, all of it is
handed on in order of preference, and the sandbox runs the first that compiles.

>>> continuation("def f(x):\\n", "    return x + R\\n\\nR = 3\\nprint(f(3))\\n")[0]
'def f(x):\\n    return x + R\\n\\nR = 3\\n'
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hone.grading.statements import WORD, Statement, needed, statements
from hone.grading.tasks import Task, code_of_prompt

# What ends a continuation while it is generated. Definitions do not: they may be helpers that the function needs.
STOP_STRINGS = (
    "\nif __name__",
    "\nprint(",
    "\nassert ",
    "\n```",
    "\n# Test",
    "\n# test",
    "<|endoftext|>",
    "<|im_end|>",
    "</s>",
)
END_TOKENS = re.compile(r"<\|(?:endoftext|im_end|eot_id|end|EOT|file_sep|fim_\w+)\|?>|</s>|<(?:eos|end_of_turn)>")
FENCE = re.compile(r"^([ \t]*)(`{3,}|~{3,})[ \t]*([\w+.#-]*)[^`]*$")
PYTHON_FENCES = frozenset({"", "python", "py", "python3", "py3", "python2", "pycon"})
DEFINITION = re.compile(r"(?:async\s+def|def|class)\s")
STARTS_CODE = re.compile(r"(?:(?:async\s+)?def\s+\w+\s*\(|class\s+\w+\s*[:(]|import\s+\w|from\s+[\w.]+\s+import\s|@\w)")
FUTURE = re.compile(r"^from[ \t]+__future__[ \t]+import[ \t]+\w[^\n]*\n?", re.MULTILINE)


def programs_of(task: Task, answer: str) -> list[str]:
    """Programs to try for an answer of unknown kind, best first; the last is the answer as it came."""
    answer = without_end_tokens(answer)
    head = code_of_prompt(task.prompt)
    names = (task.entry_point,) if task.entry_point else task.calls
    beginning = answer.lstrip("\r\n")[:200]
    if head is not None and beginning[:1] in (" ", "\t") and not beginning.lstrip().startswith(("```", "~~~")):
        return continuation(task.prompt, answer)  # also when it later begins the function anew
    blocks = fenced(answer)
    if blocks:
        return unique(_from_blocks(blocks, head, task.prompt, names))
    if head is not None and not defines(answer, names):
        return continuation(task.prompt, answer)
    return unique(_from_text(answer, head, names))


def continuation(prompt: str, completion: str) -> list[str]:
    """A prompt that is code and the body that follows, with the statements below that it needs; then as it came."""
    if completion[:1] not in (" ", "\t", "\r", "\n", "") and not DEFINITION.match(completion):
        completion = f"    {completion}"  # whoever stripped the answer stripped the indentation of its first line
    found = statements(completion)
    end = next((i for i, one in enumerate(found) if one.text[0] not in " \t\r\n\f#"), len(found))
    if end == 0 and found and found[0].definition:
        end = 1  # the prompt holds imports or helpers, and the function itself is written here
    body = _joined(found[:end])
    if not body:
        return unique([prompt + completion])
    above = statements(prompt)
    known = {name for one in above for name in one.binds}
    asked = next((one.binds for one in reversed(above) if one.definition), ())
    below = [one for one in found[end:] if not one.binds & known]
    below = needed(below, set(WORD.findall(prompt + body)) - known, asked=asked)
    return unique([*(prompt + body + _below(some) for some in (below, _without_last(below), [])), prompt + completion])


def without_end_tokens(text: str) -> str:
    """The text before a token that ends one, where a tokenizer has written it out."""
    found = END_TOKENS.search(text)
    return text[: found.start()] if found else text


# --- chat answers ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A fenced piece of an answer."""

    language: str
    text: str
    closed: bool


def fenced(answer: str) -> list[Block]:
    """The fenced pieces that may be Python, in order; one that is not closed goes to the end."""
    blocks: list[Block] = []
    lines: list[str] = []
    margin = mark = language = ""
    for line in answer.split("\n"):
        found = FENCE.match(line) if len(line) < 200 else None
        if not mark:
            if found:
                margin, mark, language, lines = found[1], found[2], found[3].lower(), []
        elif found and found[2].startswith(mark) and not found[3]:
            blocks.append(Block(language, _dedented(lines, len(margin)), True))
            mark = ""
        else:
            lines.append(line)
    if mark:
        blocks.append(Block(language, _dedented(lines, len(margin)), False))
    return [block for block in blocks if block.language in PYTHON_FENCES and block.text.strip()]


def _dedented(lines: list[str], of_fence: int) -> str:
    """Without the indentation of the fence (a list item), or of a definition within it; a body keeps its own."""
    margins = [len(line) - len(line.lstrip(" ")) for line in lines if line.strip()]
    margin = min(margins, default=0)
    if not any(STARTS_CODE.match(line[margin:]) for line in lines):
        margin = min(margin, of_fence)
    return "\n".join(line[margin:] if line.strip() else line for line in lines) + "\n"


def defines(text: str, names: tuple[str, ...]) -> bool:
    """Does a line at the margin define one of the names?"""
    wanted = "|".join(map(re.escape, names))
    pattern = rf"^(?:(?:async\s+)?def|class)\s+(?:{wanted})\b|^(?:{wanted})\s*(?::[^=\n]+)?="
    return re.search(pattern, text, re.MULTILINE) is not None


def _from_blocks(blocks: list[Block], head: str | None, prompt: str, names: tuple[str, ...]) -> Iterator[str]:
    whole = [index for index, block in enumerate(blocks) if defines(block.text, names)]
    for index in reversed(whole):  # a model that corrects itself does so at the end
        block = blocks[index]
        for text in [block.text, *_needed_of(statements(block.text), names)]:
            before, after = _of_others(blocks, index, text, names)
            yield _program(head, before, text, after)  # imports and helpers may have a piece of their own
            yield _program(head, text)
    if not whole and head is not None:
        for block in blocks:
            yield from continuation(prompt, block.text)
    if not whole:
        yield "\n".join(block.text for block in blocks)
        yield blocks[0].text


def _of_others(blocks: list[Block], index: int, text: str, names: tuple[str, ...]) -> tuple[str, str]:
    """What the pieces before and after one bring that it needs and does not bring itself."""
    own = {name for one in statements(text) for name in one.binds}
    earlier, later = (
        [one for block in some for one in statements(block.text) if not one.binds & own]
        for some in (blocks[:index], blocks[index + 1 :])
    )
    kept = needed([*earlier, *later], set(WORD.findall(text)) - own, asked=names)
    of_earlier = {id(one) for one in earlier}
    return _joined([one for one in kept if id(one) in of_earlier]), _below(
        [one for one in kept if id(one) not in of_earlier]
    )


def _from_text(answer: str, head: str | None, names: tuple[str, ...]) -> Iterator[str]:
    """An answer without fences: as it is from the first line of code on, or what the function needs of it."""
    found = statements(answer)
    start = next((i for i, one in enumerate(found) if not one.talk and one.text.strip()), 0)
    if not any(one.talk for one in found[start:]):
        yield _program(head, _joined(found[start:]))
    for text in _needed_of(found, names):
        yield _program(head, text)
    lines = answer.split("\n")
    start = next((i for i, line in enumerate(lines) if STARTS_CODE.match(line)), 0)
    yield _program(head, "\n".join(lines[start:]))
    yield answer


def _needed_of(found: Sequence[Statement], names: tuple[str, ...]) -> Iterator[str]:
    """What the functions need of these statements, then also without the last definition, which may be half of one."""
    for some in (found, _without_last(found)):
        if any(one.binds & {*names} for one in some):
            yield _joined(needed(some, names, asked=names))


def _program(head: str | None, *parts: str) -> str:
    """Parts as one program, behind the prompt's imports and helpers, on which it may lean; `__future__` comes first."""
    parts = (f"{head.rstrip()}\n\n\n", *parts) if head else parts
    parts = tuple(part for part in parts if part)
    if len(parts) < 2:
        return "".join(parts)
    futures = "".join(dict.fromkeys(found[0].strip() + "\n" for part in parts for found in FUTURE.finditer(part)))
    return futures + "".join(FUTURE.sub("", part) if futures else part for part in parts)


def _without_last(found: Sequence[Statement]) -> list[Statement]:
    """Up to the last definition."""
    last = max((i for i, one in enumerate(found) if one.definition), default=len(found))
    return [*found[:last]]


def _joined(found: Sequence[Statement]) -> str:
    text = "".join(one.text for one in found)
    return text.rstrip() + "\n" if text.strip() else ""


def _below(found: Sequence[Statement]) -> str:
    return f"\n{_joined(found)}" if found else ""


def unique(programs: Iterator[str] | list[str]) -> list[str]:
    """Without repetitions, in order."""
    return list(dict.fromkeys(programs))
