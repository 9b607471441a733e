"""One answer while it is decoded: tokens in, text out as soon as it is certain.

Text is handed on only when its characters are whole (a character may take several tokens) and cannot be the beginning
of a stop text. What was handed on, joined, is exactly `text` at the end: streaming shows what non-streaming returns.
Knows nothing of models.

>>> answer = Answer(tokenizer, prompt_ids, AnswerRule(end_ids={0}, stop=["\\n\\n"], room=64))     # doctest: +SKIP
>>> for token in tokens: print(answer.push(token), end="")                                     # doctest: +SKIP
"""

import codecs
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from tokenizers.decoders import ByteLevel
from transformers import PreTrainedTokenizerBase

CONTEXT = 8  # tokens of the prompt decoded before the answer: SentencePiece drops the space of a text's first token
UNFINISHED = "\ufffd"  # what the bytes of half a character decode to


@dataclass(frozen=True)
class AnswerRule:
    """What ends an answer: one of these tokens, one of these texts, or its length in tokens.

    trim: leave out white space at the start, as chat templates do with every turn.
    """

    end_ids: Collection[int]
    stop: Sequence[str]
    room: int
    trim: bool = False


class Answer:
    """The answer to one prompt.

    ids: its tokens, without the end token. text: what has been handed on. ended: why it ended, None until then.
    room: how many tokens it may have.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int], rule: AnswerRule) -> None:
        self.ids: list[int] = []
        self.text = ""
        self.ended: Literal["end token", "stop text", "length"] | None = None
        self.room = rule.room
        self._rule = rule
        self._starts = {stop[0] for stop in rule.stop if stop}
        pieces = _pieces_of(tokenizer)
        self._reader = _InContext(tokenizer, prompt_ids) if pieces is None else _ByteByByte(pieces)
        self._held = ""  # whole characters that may still be cut off

    def push(self, token: int) -> str:
        """Take the next token; the text that has become certain, often "" and sometimes several characters."""
        assert self.ended is None, "the answer has ended"
        if token in self._rule.end_ids:
            self.ended = "end token"
            return self.finish()
        self.ids.append(token)
        given = self._hand_on(self._reader.push(token))
        if self.ended is None and len(self.ids) >= self._rule.room:
            self.ended = "length"
            given += self.finish()
        return given

    def finish(self) -> str:
        """What is still held back, when no more tokens come."""
        given = self._hand_on(self._reader.finish())
        if self.ended != "stop text":
            given += self._held
            self.text += self._held
        self._held = ""
        return given

    def _hand_on(self, new: str) -> str:
        """Hold back what a stop text might begin with; end at a stop text."""
        if not new or self.ended == "stop text":
            return ""
        if not self._held and self._starts.isdisjoint(new) and (self.text or not self._rule.trim):
            self.text += new
            return new
        text = self._held + new
        if self._rule.trim and not self.text:
            text = text.lstrip()
        if (cut := first_stop(text, self._rule.stop)) is not None:
            self.ended, self._held, certain = "stop text", "", text[:cut]
        else:
            keep = max((_overlap(text, stop) for stop in self._rule.stop), default=0)
            certain, self._held = text[: len(text) - keep], text[len(text) - keep :]
        self.text += certain
        return certain


class _InContext:
    """Tokens decoded together with those before them, as SentencePiece needs it: a reader for any tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._recent = list(prompt_ids[-CONTEXT:])  # tokens that are decoded together; the first `_known` were before
        self._known = len(self._recent)
        self._before: str | None = None  # the text of those, once it has been asked for

    def push(self, token: int) -> str:
        self._recent.append(token)
        return self._decoded(whole=True)

    def finish(self) -> str:
        return self._decoded(whole=False)

    def _decoded(self, *, whole: bool) -> str:
        """The text of the tokens since the last call that gave any; `whole`: "" while a character is unfinished."""
        if self._before is None:
            self._before = self._text(self._recent[: self._known])
        before, now = self._before, self._text(self._recent)
        if len(now) <= len(before) or (whole and now.endswith(UNFINISHED)):
            return ""
        self._recent = self._recent[self._known :]  # what was known is context enough for what comes
        self._known, self._before = len(self._recent), None
        return now[len(before) :]

    def _text(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


class _ByteByByte:
    """Tokens that are bytes, whatever stands before them: looked up instead of decoded."""

    def __init__(self, pieces: "_Pieces") -> None:
        self._pieces = pieces
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        return self._characters.decode(self._pieces[token])

    def finish(self) -> str:
        return self._characters.decode(b"", final=True)


class _Pieces(dict[int, bytes]):
    """The bytes of each token of a byte-level tokenizer, found when they are first asked for; b"" for special ones."""

    def __init__(self, backend: Any) -> None:
        super().__init__()
        self._backend = backend
        self._bytes = _byte_alphabet()

    def __missing__(self, token: int) -> bytes:
        added = self._backend.get_added_tokens_decoder().get(token)
        text = "" if added is not None and added.special else self._backend.id_to_token(token) or ""
        whole = all(one in self._bytes for one in text)
        self[token] = found = bytes(self._bytes[one] for one in text) if whole else text.encode()
        return found


@lru_cache(maxsize=4)
def _pieces_of(tokenizer: PreTrainedTokenizerBase) -> _Pieces | None:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return _Pieces(backend) if isinstance(getattr(backend, "decoder", None), ByteLevel) else None


def _byte_alphabet() -> dict[str, int]:
    """How byte-level tokenizers write bytes: those that can be read as themselves, the others from 256 on (GPT-2)."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in own]
    return {chr(byte): byte for byte in own} | {chr(256 + i): byte for i, byte in enumerate(others)}


def first_stop(text: str, stop: Sequence[str]) -> int | None:
    """Where the first of the stop texts begins, None if there is none.

    >>> first_stop("a\\n\\ndef b", ["\\ndef ", "\\n\\n"])
    1
    """
    return min((text.find(end) for end in stop if end and end in text), default=None)


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` `stop` may begin with.

    >>> _overlap("x = 1\\nde", "\\ndef ")
    3
    """
    if not text or text[-1] not in stop:  # most often so, and this is asked at every token
        return 0
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
