"""Text that a model wrote, made safe to look at: nothing invisible, and differences marked word by word."""

import re
from difflib import SequenceMatcher

from hone import show
from hone.report.blocks import Pieces
from hone.results import Estimate
from hone.show import figure

PIECE = re.compile(r"\w+|\s+|[^\w\s]")
LONGEST = 2_000  # pieces: comparing takes time with the square of their number
ALIKE = 0.25  # texts with less in common than this are simply different: marking all of both shows nothing
CUT = 4_000  # characters of one text that are shown


def shortened(text: str) -> str:
    """The beginning of a long text, and how much more there is."""
    return text if len(text) <= CUT else f"{text[:CUT]}\n… ({len(text) - CUT:,} more characters)"


def differences(before: str, after: str) -> tuple[Pieces, Pieces]:
    """Both texts in pieces, those that the other lacks marked; none is marked where they have little in common.

    >>> differences("return a", "return b")
    ([('return ', False), ('a', True)], [('return ', False), ('b', True)])
    """
    a, b = PIECE.findall(before), PIECE.findall(after)
    plain: tuple[Pieces, Pieces] = ([(before, False)], [(after, False)])
    if max(len(a), len(b)) > LONGEST:
        return plain
    matcher = SequenceMatcher(None, a, b, autojunk=False)
    if matcher.ratio() < ALIKE:
        return plain
    left: Pieces = []
    right: Pieces = []
    for what, a_from, a_to, b_from, b_to in matcher.get_opcodes():
        left += [("".join(a[a_from:a_to]), what != "equal")] if a_to > a_from else []
        right += [("".join(b[b_from:b_to]), what != "equal")] if b_to > b_from else []
    return left, right


def number(value: float | None, form: str) -> str:
    """A number with a real minus sign; a dash where there is none.

    >>> number(-1.25, "+.1f")
    '−1.2'
    """
    return "–" if value is None else figure(value, form).replace("-", "−")


def estimate(found: Estimate | None, form: str) -> str:
    """'4.32 [4.12, 4.55]'; without brackets where there is no interval."""
    return "–" if found is None else show.estimate(found, form).replace("-", "−")


def p_text(p: float) -> str:
    """
    >>> p_text(0.00004), p_text(0.0312)      # with spaces that no line is broken at
    ('<\xa00.0001', '=\xa00.031')
    """
    return "<\N{NO-BREAK SPACE}0.0001" if p < 0.0001 else f"=\N{NO-BREAK SPACE}{p:.2g}"


def p_cell(p: float | None) -> str:
    """The same in a column of them; a dash where there is none."""
    return "–" if p is None else p_text(p).removeprefix("=\N{NO-BREAK SPACE}")
