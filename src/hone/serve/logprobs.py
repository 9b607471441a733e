"""Log-probabilities token by token, in both of OpenAI's forms. Joined, the tokens are the text of the answer.

They are the model's own, before penalties and temperature.

>>> chat_form([Spoken("a", [97], -0.5, [])])["content"][0]["logprob"]
-0.5
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from hone.inference.stream import Answer, AnswerRule
from hone.serve.refusal import JsonObject
from hone.serve.worker import Piece

BOUNDLESS = 1 << 40
LEAST = -9999.0  # JSON has no minus infinity; OpenAI writes this too


@dataclass(frozen=True)
class Spoken:
    """A token of an answer: the text it brought, its bytes, and the likeliest tokens in its place.

    A character of several tokens is the text of the last of them; each has its own bytes.
    """

    text: str
    bytes: list[int]
    logprob: float
    top: list[tuple[str, list[int], float]]


class Speech:
    """Which token said what of an answer.

    An answer holds back what a stop text might begin with, leaves out white space at its start, and cuts off a stop
    text. So the tokens are decoded once more without any of that, and what is not shown is taken off.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], *, trim: bool) -> None:
        self._bytes_of = bytes_of_tokens(tokenizer)
        self._trim = trim  # still at the start of an answer that begins without white space
        self._all = Answer(tokenizer, prompt, AnswerRule((), [], BOUNDLESS))
        self._waiting: list[tuple[Piece, str]] = []
        self._n_given = 0  # characters

    def hear(self, piece: Piece, shown: int) -> list[Spoken]:
        """The tokens that are certain now. shown: how many characters of the answer have been handed on."""
        if piece.ended != "end token":
            self._waiting.append((piece, self._all.push(piece.token)))
        if piece.ended is None:
            return self._given(self._n_certain(shown), shown)
        rest = self._all.finish()  # half a character, at the end
        if rest and self._waiting:
            last, text = self._waiting[-1]
            self._waiting[-1] = (last, text + rest)
        return self._given(len(self._waiting), shown)

    def _n_certain(self, shown: int) -> int:
        """How many of those that wait are within what is shown; those without text of their own wait for the next."""
        certain, end, trim = 0, self._n_given, self._trim
        for n, (_, text) in enumerate(self._waiting, 1):
            text = text.lstrip() if trim else text
            end += len(text)
            if end > shown:
                break
            if text:
                certain, trim = n, False
        return certain

    def _given(self, n: int, shown: int) -> list[Spoken]:
        found = []
        for piece, whole in self._waiting[:n]:
            text = whole.lstrip() if self._trim else whole
            text = text[: shown - self._n_given]
            self._n_given += len(text)
            self._trim = self._trim and not text
            if text or not whole:
                found.append(self._spoken(piece, text, whole))
        del self._waiting[:n]
        return found

    def _spoken(self, piece: Piece, text: str, whole: str) -> Spoken:
        own = self._bytes_of(piece.token)
        if text != whole or (text and _is_text(own) and own.decode() != text):
            own = text.encode()
        others = ((self._bytes_of(token), max(logprob, LEAST)) for token, logprob in piece.top or [])
        top = [(_shown(content), list(content), logprob) for content, logprob in others]
        return Spoken(text, list(own), max(piece.logprob or 0.0, LEAST), top)


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _shown(content: bytes) -> str:
    """A token as text; part of a character as OpenAI writes it, so that two of them are told apart.

    >>> _shown(b"a"), _shown(b"\\xc3")
    ('a', 'bytes:\\\\xc3')
    """
    return content.decode() if _is_text(content) else "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)


def bytes_of_tokens(tokenizer: PreTrainedTokenizerBase) -> Callable[[int], bytes]:
    """What bytes a token stands for, as a function of its id; none for special tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    byte_level = backend is not None and backend.decoder is not None and b"ByteLevel" in backend.decoder.__getstate__()
    alphabet = {character: byte for byte, character in enumerate(byte_characters())}
    added = tokenizer.added_tokens_decoder

    def bytes_of(token: int) -> bytes:
        if token in added:
            return b"" if added[token].special else str(added[token].content).encode()
        piece = str(tokenizer.convert_ids_to_tokens(token) or "")
        if byte_level and all(character in alphabet for character in piece):
            return bytes(alphabet[character] for character in piece)
        if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            return bytes.fromhex(piece[3:5])
        return piece.replace("▁", " ").encode()

    return bytes_of


def byte_characters() -> list[str]:
    """GPT-2's alphabet: the character that each of the 256 bytes is written as."""
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in plain else next(others)) for byte in range(256)]


# ---- OpenAI's two forms --------------------------------------------------------------------------------------------


def chat_form(spoken: Sequence[Spoken]) -> JsonObject:
    return {"content": [
        {"token": one.text, "logprob": one.logprob, "bytes": one.bytes,
         "top_logprobs": [{"token": text, "logprob": logprob, "bytes": content} for text, content, logprob in one.top]}
        for one in spoken
    ], "refusal": None}  # fmt: skip


def completion_form(spoken: Sequence[Spoken], offset: int) -> JsonObject:
    """offset: where in the text the first of them begins."""
    offsets = []
    for one in spoken:
        offsets.append(offset)
        offset += len(one.text)
    return {
        "tokens": [one.text for one in spoken],
        "token_logprobs": [one.logprob for one in spoken],
        "top_logprobs": [{text: logprob for text, _, logprob in one.top} for one in spoken],
        "text_offset": offsets,
    }
