"""Ids of texts by way of their words: what repeats is tokenised once.

A byte-level BPE first cuts a text into words by a pattern and then merges inside each word, so a word's ids are the
same wherever it stands, and a corpus has some hundred times fewer different words than words. ASCII text is cut here
by the same pattern and its words looked up; what is new goes to the Rust tokenizer, and so does what is not ASCII, with
what stands around it up to a place where every pattern cuts.
The ids are the tokenizer's own, for a third of its work; `word_ids` says None for tokenizers of another kind.

>>> words = word_ids(tokenizer, sample=["def f(x):"])                              # doctest: +SKIP
>>> words.ids(["a text", "another"])                                               # doctest: +SKIP
(array([64, 2420, 29214]), array([2, 1]))
"""

import json
import re
from array import array
from collections.abc import Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.data.tokenizer import start_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CACHED_CHARACTERS = 1 << 20  # of different words: about 100,000 of them and 20 MB, then the cache begins anew
SAMPLE_TEXTS, SAMPLE_CHARACTERS = 64, 2000  # compared with the plain way before the words are relied on
PROBE = "I'll SAY it's  12345\t\n\n  def f(x):\r\n    return x_1+=2 !?\x00\x1f\v\n'Tis we'RE \n"

# The patterns of GPT-2, Qwen 2 and Llama 3, as their tokenizers write them. Each leaves a word, cut out and standing
# alone, in one piece: only the look-ahead sees beyond a word, and it matters to white space only, which stays whole.
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
# Where each of them cuts, whatever else the text holds, as `streams.py` says: after a line break between two visible
# characters, and before a lone space between two. Searched from the left, and backwards from the end.
NEXT_CUT = re.compile(r"[!-~](?= [!-~])|[!-~]\n(?=[!-~])")
LAST_CUT = re.compile(r".*(?:[!-~](?= [!-~])|[!-~]\n(?=[!-~]))", re.DOTALL)
LOOKED_BACK = 100  # characters in which the last cut is looked for
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")


def word_ids(tokenizer: "PreTrainedTokenizerBase", sample: Sequence[str]) -> "WordIds | None":
    """A tokenizer by words, or None where it would not do exactly what `tokenizer` does with ordinary text.

    Args:
        sample: texts of the kind to come; the first ones are tokenised in both ways, which must agree.
    """
    if not tokenizer.is_fast:
        return None
    backend = tokenizer.backend_tokenizer
    pattern = _pattern(_description(backend.pre_tokenizer))
    normalizer = _description(backend.normalizer).get("type", "NFC")  # NFC leaves ASCII as it is
    if pattern is None or normalizer != "NFC" or getattr(backend.model, "dropout", None):
        return None
    # added tokens that are not special are found in ordinary text before it is cut into words
    added = [token.content for token in backend.get_added_tokens_decoder().values() if not token.special]
    words = WordIds(tokenizer, _for_ascii(pattern), re.compile("|".join(map(re.escape, added))) if added else None)
    texts = [PROBE, *(text[:SAMPLE_CHARACTERS] for text in sample[:SAMPLE_TEXTS])]
    plain = start_ids(tokenizer, texts, special=False)
    ids, lengths = words.ids(texts)
    same = lengths.tolist() == list(map(len, plain)) and ids.tolist() == list(chain.from_iterable(plain))
    return words if same else None


class WordIds:
    """Keeps the ids of the words it has met, up to `CACHED_CHARACTERS`; made by `word_ids`."""

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", pattern: re.Pattern[str], apart: re.Pattern[str] | None
    ) -> None:
        self._tokenizer = tokenizer
        self._cut = pattern.findall
        self._apart = apart  # texts where this is found are not cut
        self._forget()

    def _forget(self) -> None:
        self._numbers = _Numbers()
        self._cached_characters = 0
        self._ids_so_far = array("i")  # of all words, in the order of their numbers, end to end
        self._ids = np.zeros(0, dtype=np.int32)
        self._starts, self._lengths = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)

    def ids(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids of all texts end to end: (T,) int64, and how many each text has: (texts,) int64."""
        if self._cached_characters > CACHED_CHARACTERS:
            self._forget()
        words = [self._words(text) for text in texts]
        n_words = np.fromiter(map(len, words), dtype=np.int64, count=len(words))
        known = len(self._numbers)
        # a look-up of a new word gives it the next number: see _Numbers
        numbers = np.fromiter(
            map(self._numbers.__getitem__, chain.from_iterable(words)), dtype=np.int64, count=int(n_words.sum())
        )
        if len(self._numbers) > known:
            self._learn(len(self._numbers) - known)
        lengths = self._lengths[numbers]
        ends = np.concatenate([[0], np.cumsum(lengths)])
        # token t of a word that begins at token b of the result lies at starts[word] + t - b
        at = np.repeat(self._starts[numbers] - ends[:-1], lengths) + np.arange(ends[-1])
        return self._ids[at].astype(np.int64), np.diff(ends[np.cumsum(n_words)], prepend=0)

    def _words(self, text: str) -> Sequence[str]:
        """The text in pieces that are tokenised alone: words, and what holds other characters than ASCII."""
        if self._apart and self._apart.search(text):
            return (text,)
        if text.isascii():
            words: list[str] = self._cut(text)
            return words
        pieces: list[str] = []
        at = 0
        for found in NOT_ASCII.finditer(text):
            if found.start() < at:
                continue
            last = LAST_CUT.match(text, max(at, found.start() - LOOKED_BACK), found.start())
            begin = last.end() if last else at
            after = NEXT_CUT.search(text, found.end())
            end = after.end() if after else len(text)
            pieces += self._cut(text[at:begin])
            pieces.append(text[begin:end])
            at = end
        pieces += self._cut(text[at:])
        return pieces

    def _learn(self, n_new: int) -> None:
        """Ask the tokenizer for the ids of the words numbered last."""
        new = list(islice(reversed(self._numbers), n_new))[::-1]
        found = start_ids(self._tokenizer, new, special=False)
        self._cached_characters += sum(map(len, new))
        self._ids_so_far.extend(chain.from_iterable(found))
        self._ids = np.array(self._ids_so_far, dtype=np.int32)
        self._lengths = np.concatenate([self._lengths, np.fromiter(map(len, found), dtype=np.int64, count=n_new)])
        self._starts = np.cumsum(self._lengths) - self._lengths


class _Numbers(dict[str, int]):
    """Word -> its number, in the order of first appearance; looking a new word up numbers it."""

    def __missing__(self, word: str) -> int:
        number = self[word] = len(self)
        return number


def _description(part: Any) -> dict[str, Any]:
    """How the tokenizer's file describes one of its parts; empty if there is no such part."""
    found: dict[str, Any] = json.loads(part.__getstate__()) if part is not None else {}
    return found


def _pattern(pre_tokenizer: dict[str, Any]) -> str | None:
    """The pattern a byte-level pre-tokenizer cuts by, if it is one of the three.

    >>> _pattern({"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}) == GPT2
    True
    """
    match pre_tokenizer:
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}:
            return GPT2
        case {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        } if pattern in (GPT2, QWEN2, LLAMA3):
            return pattern
    return None


def _for_ascii(pattern: str) -> re.Pattern[str]:
    r"""The same cuts for ASCII texts, in the syntax of `re`, which knows no \p{L} and \p{N}.

    >>> _for_ascii(r" ?\p{L}+|[^\s\p{N}]").pattern
    ' ?[A-Za-z]+|[^\\s0-9]'
    """
    in_class = re.sub(
        r"\[[^]]*\]", lambda found: found[0].replace(r"\p{L}", "A-Za-z").replace(r"\p{N}", "0-9"), pattern
    )
    return re.compile(in_class.replace(r"\p{L}", "[A-Za-z]").replace(r"\p{N}", "[0-9]"), re.ASCII)
