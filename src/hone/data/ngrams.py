"""Texts as sequences of 64-bit codes, in two forms that hide what copying changes; and the hashes of their n-grams.

    plain   words, numbers and single signs; white space is nothing
    code    from the first definition on: comments and docstrings are nothing, and a variable is known only by the
            distance to where it stood last, so that renaming changes nothing (Baker 1993, parameterized strings)

Attributes, functions that are only called, keywords, built-in names, numbers and strings are kept as written. Texts are
cut by regular expressions in linear time and never parsed: rows may be fragments, and come from anywhere. Codes are the
interpreter's own string hashes, different in each process, or, where they are stored, `StableCodes`.

>>> a, b = "def f(x):\\n    return x + 1  # one more", "def g(number):\\n  return number+1"
>>> bool(np.array_equal(code_form([a]).digests(), code_form([b]).digests()))
True
"""

import builtins
import hashlib
import keyword
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

N = 13  # tokens: what GPT-3 (Brown et al. 2020, appendix C) and many after it call an overlap
PLAIN = re.compile(r"\w+|[^\w\s]")
PLAIN_ASCII = re.compile(r"[A-Za-z0-9_]+|[^A-Za-z0-9_\s]")  # the same for ASCII texts, in six tenths of the time
CODE = re.compile(
    r"#[^\n]*"
    r"|[rbfuRBFU]{0,2}(?:\"\"\"(?:[^\"]|\"(?!\"\"))*(?:\"\"\")?|'''(?:[^']|'(?!''))*(?:''')?)"
    r"|[rbfuRBFU]{0,2}(?:\"(?:\\.|[^\"\\\n])*\"?|'(?:\\.|[^'\\\n])*'?)"  # one that is not closed ends with its line
    r"|\w+|[^\w\s]"
)
BEGINS = re.compile(r"^[ \t]*(?:@\w|(?:async[ \t]+)?def[ \t]+\w+[ \t]*\(|class[ \t]+\w+[ \t]*[(:])", re.MULTILINE)
FENCE = re.compile(r"^[ \t]*```", re.MULTILINE)
KEPT_NAMES = frozenset([*keyword.kwlist, *keyword.softkwlist, *dir(builtins), "self", "cls"])
REMEMBERED = 200_000  # tokens, some 20 MB
PRIME = 0x9E3779B97F4A7C15  # splitmix64's increment; odd: its powers, and so the hashes, lose no bits modulo 2**64


@dataclass(frozen=True)
class Form:
    """Texts in one form, end to end.

    codes: (T,) uint64 of each token. distances: (T,) int64, how many tokens ago this variable stood last in its text,
    0 for the first time and -1 for what is not a variable. owners: (T,) int64, the text of each token, ascending.
    """

    codes: np.ndarray
    distances: np.ndarray
    owners: np.ndarray
    n_texts: int

    def sizes(self) -> np.ndarray:
        """(texts,) int64: tokens of each."""
        return np.bincount(self.owners, minlength=self.n_texts)

    def digests(self) -> np.ndarray:
        """(texts,) uint64: equal for texts of equal form, 0 for those without tokens."""
        sizes = self.sizes()
        found = np.zeros(self.n_texts, np.uint64)
        if len(self.codes):
            starts = np.cumsum(sizes) - sizes
            powers = np.multiply.accumulate(np.full(int(sizes.max()) + 1, PRIME, np.uint64))
            places = np.arange(len(self.codes)) - starts[self.owners]  # within each text
            terms = splitmix64(self._seen_within(len(self.codes))) * powers[places]
            found[sizes > 0] = np.add.reduceat(terms, starts[sizes > 0])
        return found

    def ngrams(self, n: int = N) -> tuple[np.ndarray, np.ndarray]:
        """Hashes (G,) uint64 of all runs of n tokens inside a text, and the text (G,) int64 of each."""
        count = max(0, len(self.codes) - n + 1)
        hashes = np.zeros(count, np.uint64)
        # mixed, because small distances must not cancel in a sum
        fixed = None if (self.distances >= 0).any() else splitmix64(self.codes)
        for j in range(n):  # what lies before an n-gram does not count: a variable's first place in it is its first
            terms = splitmix64(self._seen_within(j)) if fixed is None else fixed
            hashes = hashes * np.uint64(PRIME) + terms[j : j + count]
        inside = self.owners[:count] == self.owners[n - 1 :]
        return hashes[inside], self.owners[:count][inside]

    def _seen_within(self, reach: int) -> np.ndarray:
        """(T,) uint64: the code, for a variable the distance to its last place if that is at most `reach`."""
        near = np.where(self.distances <= reach, self.distances, 0).astype(np.uint64)
        return np.where(self.distances < 0, self.codes, near)


def splitmix64(states: np.ndarray, nth: int = 1) -> np.ndarray:
    """The n-th output of each state, (n,) uint64: one-to-one, and well spread for any (Steele et al. 2014)."""
    mixed = states + np.uint64(nth * PRIME % (1 << 64))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed ^= mixed >> np.uint64(shift)
        mixed *= np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def character_form(texts: Sequence[str]) -> Form:
    """Each character, white space included."""
    owners = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    characters = "".join(texts).encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(characters, "<u4").astype(np.uint64)
    return Form(codes, np.full(len(codes), -1), owners, len(texts))


class StableCodes(dict[str, int]):
    """Token -> a code that is the same in every process, for what is compared between them; remembers what it met.

    >>> plain_form(["a b"], StableCodes().__getitem__).codes.tolist()
    [10239160230573914397, 6226461564811353580]
    """

    def __missing__(self, token: str) -> int:
        if len(self) >= REMEMBERED:
            self.clear()
        digest = hashlib.blake2b(token.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        code = self[token] = int.from_bytes(digest, "little", signed=True)
        return code


def plain_tokens(text: str) -> list[str]:
    """Words, numbers and signs of a text.

    >>> plain_tokens("if x_1 >= 20:")
    ['if', 'x_1', '>', '=', '20', ':']
    """
    return (PLAIN_ASCII if text.isascii() else PLAIN).findall(text)


def plain_form(texts: Sequence[str], code: Callable[[str], int] = hash) -> Form:
    """Words, numbers and signs, as they are written. code: the number of a token."""
    tokens = [plain_tokens(text) for text in texts]
    owners = np.repeat(np.arange(len(texts)), [len(found) for found in tokens])
    codes = np.fromiter(map(code, chain.from_iterable(tokens)), np.int64, len(owners)).view(np.uint64)
    return Form(codes, np.full(len(codes), -1), owners, len(texts))


def code_form(texts: Sequence[str], code: Callable[[str], int] = hash) -> Form:
    """The code of each text with its variables, comments, docstrings and layout hidden; nothing of a text without.

    code: the number of a token.
    """
    tokens = [CODE.findall(code_of(text)) for text in texts]
    owners = np.repeat(np.arange(len(texts)), [len(found) for found in tokens])
    numbers: dict[str, int] = {}
    ids = np.fromiter((numbers.setdefault(t, len(numbers)) for t in chain.from_iterable(tokens)), np.int64, len(owners))
    written = list(numbers)
    codes = np.fromiter(map(code, written), np.int64, len(written)).view(np.uint64)
    is_name = _flags(written, lambda token: token.isidentifier() and token not in KEPT_NAMES)
    is_comment = _flags(written, lambda token: token.startswith("#"))
    is_long_string = _flags(written, lambda token: token.lstrip("rbfuRBFU").startswith(('"""', "'''")))

    visible = ~is_comment[ids]
    ids, owners = ids[visible], owners[visible]
    after_colon = np.concatenate([[False], ids[:-1] == numbers.get(":", -1)])[: len(ids)]
    visible = ~(is_long_string[ids] & after_colon)
    ids, owners = ids[visible], owners[visible]
    variable = _variables(ids, owners, is_name[ids], numbers)
    return Form(codes[ids], _distances(ids, owners, variable), owners, len(texts))


def code_of(text: str) -> str:
    """The text from its first definition to the end, or to the next fence."""
    begin = BEGINS.search(text)
    if begin is None:
        return ""
    fence = FENCE.search(text, begin.start())
    return text[begin.start() : fence.start() if fence else None]


def _flags(written: list[str], is_one: Callable[[str], bool]) -> np.ndarray:
    return np.fromiter(map(is_one, written), bool, len(written))


def _variables(ids: np.ndarray, owners: np.ndarray, is_name: np.ndarray, numbers: dict[str, int]) -> np.ndarray:
    """(T,) bool: names that their text uses other than to call them, and not as an attribute; there, all of them."""

    def number(token: str) -> int:
        return numbers.get(token, -1)

    before = np.concatenate([[-1], ids[:-1]])[: len(ids)]
    after = np.concatenate([ids[1:], [-1]])[: len(ids)]
    free = is_name & (before != number("."))
    called = (after == number("(")) & (before != number("def")) & (before != number("class"))
    names = owners * max(1, len(numbers)) + ids
    return free & np.isin(names, np.unique(names[free & ~called]))


def _distances(ids: np.ndarray, owners: np.ndarray, variable: np.ndarray) -> np.ndarray:
    places = np.flatnonzero(variable)
    names = owners[places] * (int(ids.max(initial=0)) + 1) + ids[places]
    order = np.argsort(names, kind="stable")
    ordered = places[order]
    gaps = np.diff(ordered, prepend=0)
    gaps[np.diff(names[order], prepend=-1) != 0] = 0  # where it stands for the first time
    distances = np.full(len(ids), -1)
    distances[ordered] = gaps
    return distances
