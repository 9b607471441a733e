"""What written texts look like, without running them: repetition, ends, length, likeness to the reference; as code, if
it is code: does it parse, does it define, return and document.

Every number is a mean over texts with its interval. Texts are parsed by a child of this interpreter, which a text made
to break parsers may end; nothing is executed, except by `runs`, in a box that is given.

>>> found = quality(["a b a b a b", "c d e f"])
>>> round(found["distinct_1"], 3), found["n_texts"]
(0.667, 2)
"""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.data.ngrams import BEGINS, PLAIN
from hone.grading.extract import continuation, fenced
from hone.statistics.intervals import ratio_interval, wilson_interval

if TYPE_CHECKING:
    from hone.grading.sandbox.isolation import Sandbox

HEADINGS = {  # in this order; what is a share of texts is shown as one
    "parses": "parses",
    "runs": "runs",
    "has_def": "defines",
    "has_return": "returns",
    "has_docstring": "documents",
    "ended": "ends by itself",
    "distinct_1": "distinct words",
    "distinct_2": "distinct pairs",
    "distinct_3": "distinct triples",
    "line_run": "same line in a row",
    "characters": "characters",
    "words": "words",
    "chrf": "chrF to the reference",
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
    box: "Sandbox | None" = None,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> dict[str, Any]:
    """Each number as a mean over the texts with `<name>_interval`; `n_texts`; and `per_text`, None where not known.

    Args:
        prompts: what the texts continue. A definition in one makes the texts code, and is parsed with its text.
        references: what was written instead in the data: likeness as chrF, 0 to 100. One with a definition makes the
            texts code, too.
        ended: whether each ended by the end token, not by the limit.
        box: of `hone.grading.sandbox.selftest.ready`; programs that parse are then run, alone, in it.
    """
    per_text: dict[str, list[Any]] = _written(texts)
    if ended is not None:
        per_text["ended"] = list(ended)
    if references is not None:
        per_text["chrf"] = likeness(texts, references)
    if any(BEGINS.search(text) for text in (*(prompts or ()), *(references or ()))):
        per_text |= _as_code(texts, prompts or [""] * len(texts), box)
    result: dict[str, Any] = {"n_texts": len(texts)}
    for name in HEADINGS:
        known = [value for value in per_text.get(name, ()) if value is not None]
        if not known:
            continue
        if isinstance(known[0], bool):
            interval = wilson_interval(sum(known), len(known), confidence)
        else:
            interval = ratio_interval(np.array(known), np.ones(len(known)), confidence=confidence, resamples=resamples)
        bounds = None if interval.low is None or interval.high is None else [interval.low, interval.high]
        result |= {name: interval.value, f"{name}_interval": bounds}
        if len(known) < len(texts):
            result[f"{name}_n"] = len(known)
    return {**result, "per_text": per_text}


def _written(texts: Sequence[str]) -> dict[str, list[Any]]:
    words = [PLAIN.findall(text) for text in texts]
    found: dict[str, list[Any]] = {f"distinct_{n}": [distinct(each, n) for each in words] for n in (1, 2, 3)}
    found["line_run"] = [line_run(text) for text in texts]
    return {**found, "characters": [len(text) for text in texts], "words": [len(each) for each in words]}


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
    from sacrebleu.metrics import CHRF

    chrf = CHRF()
    return [chrf.sentence_score(t.strip(), [r.strip()]).score for t, r in zip(texts, references, strict=True)]


# ---- as code --------------------------------------------------------------------------------------------------------


def _as_code(texts: Sequence[str], prompts: Sequence[str], box: "Sandbox | None") -> dict[str, list[Any]]:
    parsed = parsable([candidates(text, prompt) for text, prompt in zip(texts, prompts, strict=True)])
    found: dict[str, list[Any]] = {
        "parses": [program is not None for program in parsed],
        "has_def": [bool(DEFINES.search(text)) for text in texts],
        "has_return": [bool(RETURNS.search(text)) for text in texts],
        "has_docstring": [bool(DOCUMENTS.search(text)) for text in texts],
    }
    if box is not None:
        found["runs"] = [program is not None and runs(program, box) for program in parsed]
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
            said = done.stdout
        except subprocess.TimeoutExpired as late:
            said = late.stdout or b""
        found += [json.loads(line) for line in said.split(b"\n")[:-1]]
        if len(found) < len(groups):
            found.append(None)
    return found


def runs(program: str, box: "Sandbox", seconds: float = 3.0) -> bool:
    """Whether the program comes to its end without an error, in a box of its own."""
    from hone.grading.sandbox.verdict import Exam, together

    return together(box, Exam((), ()), [program], seconds).verdict == "pass"


# ---- side by side -------------------------------------------------------------------------------------------------


def side_by_side(base: dict[str, Any] | None, tuned: dict[str, Any] | None) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of a table: each number of both, with its interval; what only one has is left empty."""
    names = [name for name in HEADINGS if any(name in found for found in (base, tuned) if found)]
    rows = [[HEADINGS[name], *(_cell(found, name) for found in (base, tuned))] for name in names]
    counts = {found["n_texts"] for found in (base, tuned) if found}
    return [f"over {' and '.join(f'{n:,}' for n in sorted(counts))} written texts", "base", "tuned"], rows


def _cell(found: dict[str, Any] | None, name: str) -> str:
    if not found or name not in found:
        return ""
    interval, form = found[f"{name}_interval"], ".1f" if name in ("characters", "words", "chrf", "line_run") else ".2f"
    bounds = f" [{interval[0]:{form}}, {interval[1]:{form}}]" if interval else " [no interval]"
    return f"{found[name]:{form}}{bounds}" + (f" (of {found[f'{name}_n']})" if f"{name}_n" in found else "")
