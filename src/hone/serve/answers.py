"""Answers in OpenAI's form: chat completions and completions, whole or in chunks.

>>> usage(3, 5)
{'prompt_tokens': 3, 'completion_tokens': 5, 'total_tokens': 8}
"""

from dataclasses import dataclass

from hone.serve.refusal import JsonObject
from hone.serve.worker import Piece

FINISH = {"end token": "stop", "stop text": "stop", "length": "length"}


def usage(prompt: int, answer: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


@dataclass(frozen=True)
class Frame:
    """What all chunks of a response have in common."""

    id: str
    created: int
    model: str
    chat: bool

    def response(self, choices: list[JsonObject], fingerprint: str, tokens: dict[str, int]) -> JsonObject:
        kind = "chat.completion" if self.chat else "text_completion"
        return {**self._head(kind, choices, fingerprint), "usage": tokens}

    def chunk(self, choices: list[JsonObject], fingerprint: str, tokens: dict[str, int] | None = None, *,
              with_usage: bool = False) -> JsonObject:  # fmt: skip
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return {**self._head(kind, choices, fingerprint), **({"usage": tokens} if with_usage else {})}

    def _head(self, kind: str, choices: list[JsonObject], fingerprint: str) -> JsonObject:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model,
                "system_fingerprint": fingerprint, "choices": choices}  # fmt: skip

    def choice(self, index: int, text: str, finish: str | None, logprobs: JsonObject | None) -> JsonObject:
        """A whole answer."""
        end = {"logprobs": logprobs, "finish_reason": finish}
        if self.chat:
            message: JsonObject = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
            return {"index": index, "message": message, **end}
        return {"index": index, "text": text, **end}

    def part(
        self, index: int, text: str | None, finish: str | None, logprobs: JsonObject | None, *, first: bool = False
    ) -> JsonObject:
        """A piece of an answer; the first says whose turn it is."""
        end = {"logprobs": logprobs, "finish_reason": finish}
        if self.chat:
            role = {"role": "assistant"} if first else {}
            delta = role | ({} if text is None else {"content": text}) | ({"refusal": None} if first else {})
            return {"index": index, "delta": delta, **end}
        return {"index": index, "text": text or "", **end}


@dataclass
class Written:
    """One answer as it grows. text: all of it so far; finish: why it ended, in OpenAI's words."""

    text: str = ""
    n_tokens: int = 0
    finish: str | None = None

    def add(self, piece: Piece) -> None:
        self.text += piece.text
        if piece.ended != "end token":
            self.n_tokens += 1
        if piece.ended is not None:
            self.finish = FINISH[piece.ended]
