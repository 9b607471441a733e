"""The program in a model's answer: a continuation of the prompt, or a chat answer with or without fences.

Text is cut line by line, once, by rules that need no parser: what a model wrote is never parsed in this process. Where
the rules leave a choice, all of it is handed on in order of preference, and the sandbox runs the first that compiles.

>>> continuation("def f(x):\\n", "    return x\\n\\nprint(f(3))\\n")[0]
'def f(x):\\n    return x\\n'
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from hone.grading.tasks import Task, code_of_prompt

# What ends a continuation while it is generated. Definitions do not: they may be helpers, and `cut` decides on them.
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
FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+.#-]*)[^`]*$")
PYTHON_FENCES = frozenset({"", "python", "py", "python3", "py3", "python2", "pycon"})
KEPT = re.compile(r"(?:async\s+def|def|class|import|from)\s|@|[A-Za-z_]\w*\s*(?::[^=]+)?=(?!=)|#|\"\"\"|'''|[)\]}]")
DEFINITION = re.compile(r"(?:async\s+def|def|class)\s")
STARTS_CODE = re.compile(r"(?:(?:async\s+)?def\s+\w+\s*\(|class\s+\w+\s*[:(]|import\s+\w|from\s+[\w.]+\s+import\s|@\w)")
TOKENS = re.compile(r"\\.|\"\"\"|'''|[\"'#()\[\]{}]|\\$", re.DOTALL)
MAX_LINE = 100_000  # a longer one is taken as it is: no program of a person's


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
    return unique(_from_text(answer, head))


def continuation(prompt: str, completion: str) -> list[str]:
    """A prompt that is code, and what follows: cut at the first statement other than a definition; then as it came."""
    if completion[:1] not in (" ", "\t", "\n", "") and not DEFINITION.match(completion):
        completion = f"    {completion}"  # whoever stripped the answer stripped the indentation of its first line
    body, helpers = cut(completion, inside=True)
    shorter = [body + helpers, body + without_last(helpers), body] if body else []
    return unique([prompt + text for text in (*shorter, completion)])


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
    mark = language = ""
    for line in answer.split("\n"):
        found = FENCE.match(line) if len(line) < 200 else None
        if not mark:
            if found:
                mark, language, lines = found[1], found[2].lower(), []
        elif found and found[1].startswith(mark) and not found[2]:
            blocks.append(Block(language, _dedented(lines), True))
            mark = ""
        else:
            lines.append(line)
    if mark:
        blocks.append(Block(language, _dedented(lines), False))
    return [block for block in blocks if block.language in PYTHON_FENCES and block.text.strip()]


def _dedented(lines: list[str]) -> str:
    """Without the indentation of the fence (a list item), if a definition stands at it; a body keeps its own."""
    margins = [len(line) - len(line.lstrip(" ")) for line in lines if line.strip()]
    margin = min(margins, default=0)
    if margin and any(STARTS_CODE.match(line[margin:]) for line in lines):
        lines = [line[margin:] for line in lines]
    return "\n".join(lines) + "\n"


def defines(text: str, names: tuple[str, ...]) -> bool:
    """Does a line at the margin define one of the names?"""
    wanted = "|".join(map(re.escape, names))
    return re.search(rf"^(?:(?:async\s+)?def|class)\s+(?:{wanted})\b|^(?:{wanted})\s*=", text, re.MULTILINE) is not None


def _from_blocks(blocks: list[Block], head: str | None, prompt: str, names: tuple[str, ...]) -> Iterator[str]:
    whole = [index for index, block in enumerate(blocks) if defines(block.text, names)]
    for index in reversed(whole):  # a model that corrects itself does so at the end
        block = blocks[index]
        before = "".join("".join(cut(earlier.text, inside=False)) for earlier in blocks[:index])
        for text in [block.text] if block.closed else [block.text, *shortened(block.text)]:
            yield _with_head(head, before + text)  # imports and helpers may have a piece of their own
            yield _with_head(head, text)
    if not whole and head is not None:
        for block in blocks:
            yield from continuation(prompt, block.text)
    if not whole:
        yield "\n".join(block.text for block in blocks)
        yield blocks[0].text


def _from_text(answer: str, head: str | None) -> Iterator[str]:
    """An answer without fences: from the first line that can only be code, to the first that can only be talk."""
    lines = answer.split("\n")
    start = next((index for index, line in enumerate(lines) if STARTS_CODE.match(line)), 0)
    text = "\n".join(lines[start:])
    yield _with_head(head, text)
    for shorter in shortened(text):
        yield _with_head(head, shorter)
    yield answer


def _with_head(head: str | None, program: str) -> str:
    """The prompt's imports and helpers before a program that may lean on them."""
    return f"{head.rstrip()}\n\n\n{program}" if head else program


# --- cutting --------------------------------------------------------------------------------------------------------


def cut(text: str, *, inside: bool) -> tuple[str, str]:
    """(the first definition, further definitions, imports and assignments) up to the first other line at the margin.

    Args:
        inside: the text begins within a function, so all up to the first line at the margin belongs to it.
    """
    first: list[str] = []
    rest: list[str] = []
    kept = first
    began = inside
    for line, at_margin in margins(text):
        if at_margin:
            if not KEPT.match(line):
                break
            opens = DEFINITION.match(line) or line.startswith("@")
            if began and kept is first and (opens or inside) and line[0] not in ")]}#":
                kept = rest
            began = began or DEFINITION.match(line) is not None
        kept.append(line)
    return _joined(first), ("\n" + _joined(rest) if rest else "")


def shortened(text: str) -> list[str]:
    """A program cut where its definitions end, then also without the last one, which may be half of one."""
    program = "".join(cut(text, inside=False))
    return [program, without_last(program)]


def without_last(program: str) -> str:
    """Up to the last definition at the margin."""
    lines = list(margins(program))
    starts = [index for index, (line, at_margin) in enumerate(lines) if at_margin and DEFINITION.match(line)]
    return "".join(line for line, _ in lines[: starts[-1]]) if starts else program


def _joined(lines: list[str]) -> str:
    return "".join(lines).rstrip() + "\n" if any(line.strip() for line in lines) else ""


def margins(text: str) -> Iterator[tuple[str, bool]]:
    """(line with its end, does a statement start there at the margin?), one pass; strings and brackets are seen."""
    quote, depth, continued = "", 0, False
    for line in text.splitlines(keepends=True):
        blank = not line.strip()
        yield line, not (quote or depth or continued or blank or line[0] in " \t\f")
        if len(line) > MAX_LINE:
            continue
        quote, depth = _state_after(line, quote, depth)
        continued = not quote and line.rstrip("\r\n").endswith("\\")


def _state_after(line: str, quote: str, depth: int) -> tuple[str, int]:
    """(the open triple quote, the open brackets) after a line."""
    single = ""
    for found in TOKENS.finditer(line):
        token = found[0]
        if quote or single:
            if token == (quote or single):
                quote = single = ""
        elif token == "#":
            break
        elif len(token) == 3:
            quote = token
        elif token in "\"'":
            single = token
        elif token in "([{":
            depth += 1
        elif token in ")]}":
            depth = max(depth - 1, 0)
    return quote, depth


def unique(programs: Iterator[str] | list[str]) -> list[str]:
    """Without repetitions, in order."""
    return list(dict.fromkeys(programs))
