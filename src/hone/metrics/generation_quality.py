"""What written texts look like, without running them: repetition, ends, length, likeness to the reference; as code, if
it is code: does it parse, does it define, return and document.

Every number is a mean over texts with its interval. Texts are parsed by a child of this interpreter, which a text made
to break parsers may end; nothing is executed, except by `runs`, in a sandbox that is given.

>>> found = quality(["a b a b a b", "c d e f"])
>>> round(found["distinct_1"].value, 3)
0.667
"""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sacrebleu.metrics import CHRF

from hone.data.ngrams import BEGINS, plain_tokens
from hone.grading.extract import continuation, fenced
from hone.results import Kind, Level, level_of
from hone.statistics.intervals import ratio_interval, wilson_interval

if TYPE_CHECKING:
    from hone.grading.sandbox.isolation import Sandbox


def _share(heading: str) -> Kind:
    return Kind(heading=heading, higher_is_better=True, form=".2f", top=1.0)


KINDS = {  # in this order
    "parses": _share("parses"),
    "runs": _share("runs"),
    "has_def": _share("defines"),
    "has_return": _share("returns"),
    "has_docstring": _share("documents"),
    "ended": _share("ends by itself"),
    "distinct_1": _share("distinct words"),
    "distinct_2": _share("distinct pairs"),
    "distinct_3": _share("distinct triples"),
    "line_run": Kind(heading="same line in a row", higher_is_better=False, form=".1f"),
    "characters": Kind(heading="characters", higher_is_better=None, form=".1f"),
    "words": Kind(heading="words", higher_is_better=None, form=".1f"),
    "chrf": Kind(heading="chrF to the reference", higher_is_better=True, form=".1f", top=100.0),
}
DEFINES = re.compile(r"^[ \t]*(?:async[ \t]+)?def[ \t]+\w+[ \t]*\(", re.MULTILINE)
RETURNS = re.compile(r"^[ \t]*(?:return|yield)\b", re.MULTILINE)
DOCUMENTS = re.compile(r"^[ \t]*[rRuU]?(?:\"\"\"|''')", re.MULTILINE)
PARSE_S = 20.0
PARSER = """
import ast, json, sys, warnings
warnings.simplefilter("ignore")
for programs in json.load(sys.stdin):
    parsed = None
    for program in programs:
        try:
            tree = ast.parse(program)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        if tree.body:
            parsed = program
            break
    print(json.dumps(parsed), flush=True)
"""


def quality(
    texts: Sequence[str],
    *,
    prompts: Sequence[str] | None = None,
    references: Sequence[str] | None = None,
    ended: Sequence[bool] | None = None,
    sandbox: "Sandbox | None" = None,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> dict[str, Level]:
    """Each number as a mean over the texts, or over those it is known of, with its interval.

    Args:
        prompts: what the texts continue. A definition in one makes the texts code, and is parsed with its text.
        references: what was written instead in the data: likeness as chrF, 0 to 100. One with a definition makes the
            texts code, too.
        ended: whether each ended by the end token, not by the limit.
        sandbox: of `hone.grading.sandbox.selftest.ready`; programs that parse are then run, alone, in it.
    """
    per_text = each(texts, prompts=prompts, references=references, sandbox=sandbox)
    if ended is not None:
        per_text["ended"] = list(ended)
    found = {}
    for name, kind in KINDS.items():
        known = [value for value in per_text.get(name, ()) if value is not None]
        if not known:
            continue
        if isinstance(known[0], bool):
            mean = wilson_interval(sum(known), len(known), confidence)
        else:
            mean = ratio_interval(np.array(known), np.ones(len(known)), confidence=confidence, resamples=resamples)
        found[name] = level_of(kind, mean, len(known) if len(known) < len(texts) else None)
    return found


def each(
    texts: Sequence[str],
    *,
    prompts: Sequence[str] | None = None,
    references: Sequence[str] | None = None,
    sandbox: "Sandbox | None" = None,
) -> dict[str, list[Any]]:
    """The numbers of each text; None where one has no such number."""
    words = [plain_tokens(text) for text in texts]
    found: dict[str, list[Any]] = {f"distinct_{n}": [distinct(one, n) for one in words] for n in (1, 2, 3)}
    found["line_run"] = [line_run(text) for text in texts]
    found |= {"characters": [len(text) for text in texts], "words": [len(one) for one in words]}
    if references is not None:
        found["chrf"] = likeness(texts, references)
    if any(BEGINS.search(text) for text in (*(prompts or ()), *(references or ()))):
        found |= _as_code(texts, prompts or [""] * len(texts), sandbox)
    return found


def distinct(words: Sequence[str], n: int) -> float | None:
    """Different n-grams of a text as a share of all of them (Li et al. 2016); None if it has none.

    >>> distinct(["a", "b", "a", "b"], 2)
    0.6666666666666666
    """
    grams = list(zip(*(words[i:] for i in range(n))))
    return len(set(grams)) / len(grams) if grams else None


def line_run(text: str) -> int:
    """How often the same line comes in a row, at most; empty lines are none.

    >>> line_run("a\\nb\\n\\n  b\\nb\\na")
    3
    """
    longest = run = 0
    before = None
    for line in (line.strip() for line in text.splitlines()):
        if line:
            run = run + 1 if line == before else 1
            longest, before = max(longest, run), line
    return longest


def likeness(texts: Sequence[str], references: Sequence[str]) -> list[float]:
    """chrF (Popović 2015) of each text to its reference, 0 to 100, white space at the ends aside."""
    chrf = CHRF()
    return [chrf.sentence_score(t.strip(), [r.strip()]).score for t, r in zip(texts, references, strict=True)]


# ---- as code --------------------------------------------------------------------------------------------------------


def _as_code(texts: Sequence[str], prompts: Sequence[str], sandbox: "Sandbox | None") -> dict[str, list[Any]]:
    parsed = parsable([candidates(text, prompt) for text, prompt in zip(texts, prompts, strict=True)])
    found: dict[str, list[Any]] = {
        "parses": [program is not None for program in parsed],
        "has_def": [bool(DEFINES.search(text)) for text in texts],
        "has_return": [bool(RETURNS.search(text)) for text in texts],
        "has_docstring": [bool(DOCUMENTS.search(text)) for text in texts],
    }
    if sandbox is not None:
        found["runs"] = [program is not None and runs(program, sandbox) for program in parsed]
    return found


def candidates(text: str, prompt: str = "") -> list[str]:
    """Programs that a text may be meant as, best first; none if it is empty."""
    if not text.strip():
        return []
    blocks = fenced(text)
    if blocks:
        return [block.text for block in blocks]
    begin = BEGINS.search(prompt)
    answer = re.search(r"^#+ *(?:Response|Answer)\b.*$", prompt, re.MULTILINE)
    return [text] if begin is None or answer else continuation(prompt[begin.start() :], text)


def parsable(groups: Sequence[Sequence[str]]) -> list[str | None]:
    """Of each group of programs the first that parses and says something, None where none does.

    One child parses all; where it does not survive a text, that text does not parse and another child goes on.
    """
    found: list[str | None] = []
    while len(found) < len(groups):
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-S", "-c", PARSER],
                input=json.dumps([list(group) for group in groups[len(found) :]]).encode(),
                capture_output=True,
                timeout=PARSE_S,
                check=False,
            )
            printed = done.stdout
        except subprocess.TimeoutExpired as late:
            printed = late.stdout or b""
        found += [json.loads(line) for line in printed.split(b"\n")[:-1]]
        if len(found) < len(groups):
            found.append(None)
    return found


def runs(program: str, sandbox: "Sandbox", seconds: float = 3.0) -> bool:
    """Whether the program comes to its end without an error, in a sandbox of its own."""
    from hone.grading.sandbox.verdict import Exam, together

    return together(sandbox, Exam((), ()), [program], seconds).verdict == "pass"
