"""The decoding engine: rows enter and leave at any step, each with settings, seed and stop texts of its own.

A row's answer depends on the model, its prompt, its settings and its seed alone, not on the other rows: to the last bit
where the compiled kernel decodes, elsewhere up to rounding (PyTorch adds the numbers of a batch in another order).
Everything that lets a model write goes through here: generate, chat, serve, code tasks, memorization, the evaluation of
encoder-decoders.

>>> engine = Engine(model)                                                                 # doctest: +SKIP
>>> row = engine.add(Request([5, 7], Answer(tokenizer, [5, 7], rule), GenerateSection()))  # doctest: +SKIP
>>> while engine.busy: print(*(step.text for step in engine.step()), sep="", end="")       # doctest: +SKIP
"""

import hashlib
import logging
import random
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hone.config.sections.generate import GenerateSection
from hone.inference.fast_step import agrees
from hone.inference.padded import PaddedBatches
from hone.inference.sampling import Rule, each_by_its_rule, penalized
from hone.inference.slots import Slots
from hone.inference.stream import Answer
from hone.inference.weights import Unsuitable, weights_of

log = logging.getLogger("hone")
CACHE_BYTES = 1 << 30  # of keys and values in all rows together
MOST_ROWS = 64


@dataclass(frozen=True)
class Request:
    """What is to be answered, and how.

    answer: takes the tokens, and knows what ends it. number: which of its prompt's answers this is; with the seed and
    the prompt it decides the draws. logprobs: how many of the likeliest tokens are wanted at each step beside the
    chosen one, None for no log-probabilities at all. The penalties change the scores as OpenAI's API says (presence,
    frequency: by the answer so far) and as transformers does (repetition: by prompt and answer).
    """

    prompt: Sequence[int]
    answer: Answer
    settings: GenerateSection
    number: int = 0
    logprobs: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    min_p: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)

    @property
    def plain(self) -> bool:
        """Are the model's scores taken as they are?"""
        same = self.presence_penalty == 0 and self.frequency_penalty == 0 and self.repetition_penalty == 1
        return same and not self.logit_bias


@dataclass(eq=False)
class Row:
    """A request in the engine. tokens: all that were drawn, an end token included."""

    request: Request
    draws: random.Random
    tokens: list[int] = field(default_factory=list)
    removed: bool = False

    @property
    def gone(self) -> bool:
        return self.removed or self.request.answer.ended is not None

    @property
    def length(self) -> int:
        """Tokens it may come to."""
        return len(self.request.prompt) + self.request.answer.room


@dataclass(frozen=True)
class Step:
    """A token that a row got, and the text that has become certain by it, often "". A row that grows alone may get
    several in one step of the engine. ended: why its answer ended with it, None while it goes on.

    logprob, top: of the token and of the likeliest ones (id, log-probability), by the model's own scores, before
    penalties and temperature; None where the request wants none.
    """

    row: Row
    token: int
    text: str
    ended: str | None = None
    logprob: float | None = None
    top: list[tuple[int, float]] | None = None


class Engine:
    """One model that answers. The weights are read when it is made: after more training, make a new one.

    lookup: guess tokens of a row that grows alone from those before (`lookup.py`); the answers are the same.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        cache_bytes: int = CACHE_BYTES,
        max_rows: int = MOST_ROWS,
        lookup: bool = True,
    ) -> None:
        self._waiting: deque[Row] = deque()
        self._model, self._cache_bytes, self._max_rows, self._lookup = model, cache_bytes, max_rows, lookup
        self._rows: Slots | PaddedBatches | None = None

    def add(self, request: Request) -> Row:
        """Let a request enter at the next step; while rows or memory are full it waits, first come, first served."""
        assert len(request.prompt) and request.answer.room > 0, "an empty prompt, or no room for an answer"
        row = Row(request, _random(request.settings.sampling_seed, request.number, request.prompt))
        self._waiting.append(row)
        return row

    def remove(self, row: Row) -> None:
        """Let a row go before its answer has ended; its place is free at the next step."""
        row.removed = True

    @property
    def n_waiting(self) -> int:
        return sum(not row.gone for row in self._waiting)

    @property
    def n_rows(self) -> int:
        """Rows that grow."""
        return self._rows.n_growing if self._rows else 0

    @property
    def busy(self) -> bool:
        return self.n_waiting + self.n_rows > 0

    def step(self) -> list[Step]:
        """Read waiting prompts, and give each growing row a token, one alone perhaps several. Rows leave as they end.

        Raises:
            HoneError: the model's scores are not numbers.
        """
        while self._waiting and self._waiting[0].gone:
            self._waiting.popleft()
        if not self._waiting and not self.n_rows:
            return []
        with torch.inference_mode():
            self._rows = self._rows or self._checked(self._waiting[0].request.prompt)
            self._rows.enter(self._waiting)
            return [step for rows, scores in self._rows.scores() for step in _grow(rows, scores)]

    def _checked(self, prompt: Sequence[int]) -> Slots | PaddedBatches:
        """The fast step where it is written down for this model and says what the model says of the first prompt."""
        try:
            weights = weights_of(self._model)
            if not agrees(weights, self._model, prompt):
                raise Unsuitable("the fast step does not agree with it on the first prompt")
        except Unsuitable as reason:
            log.info("decoding by transformers' own forward pass: %s", reason)
            return PaddedBatches(self._model, self._cache_bytes, self._max_rows)
        return Slots(weights, self._cache_bytes, self._max_rows, lookup=self._lookup)

    def run(self, request: Request) -> Iterator[Step]:
        """The steps of a request that is answered alone; closed or interrupted early, the row is removed."""
        row = self.add(request)
        try:
            while not row.gone:
                yield from self.step()
        finally:
            self.remove(row)


def answer_all(engine: Engine, requests: Sequence[Request]) -> None:
    """Decode until each has ended; requests of similar length together."""
    for request in sorted(requests, key=lambda request: len(request.prompt)):
        engine.add(request)
    while engine.busy:
        engine.step()


def _random(seed: int, number: int, prompt: Sequence[int]) -> random.Random:
    """Draws that depend on the prompt too: the same draws for all prompts would make their answers fail together."""
    text = f"{seed} {number} {' '.join(map(str, prompt))}"
    return random.Random(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]))


def _grow(rows: Sequence[Row], scores: Tensor) -> Iterator[Step]:
    """Draw a token for each row from its scores (B, V) and hand it to its answer."""
    tokens = _drawn(rows, scores)
    for i, (row, token) in enumerate(zip(rows, tokens, strict=True)):
        logprob, top = None, None
        if row.request.logprobs is not None:
            logprob, top = _logprobs(scores[i], token, row.request.logprobs)
        row.tokens.append(token)
        text = row.request.answer.push(token)
        yield Step(row, token, text, row.request.answer.ended, logprob, top)


def _drawn(rows: Sequence[Row], scores: Tensor) -> list[int]:
    """A token for each row, by its own settings."""
    if any(not row.request.plain for row in rows):
        scores = torch.stack([_adjusted(row, one) for row, one in zip(rows, scores, strict=True)])
    return each_by_its_rule(scores, [Rule(row.request.settings, row.draws, row.request.min_p) for row in rows])


def _adjusted(row: Row, scores: Tensor) -> Tensor:
    """Scores (V,) after the request's penalties and biases."""
    r = row.request
    if r.plain:
        return scores
    return penalized(
        scores.float(),
        row.tokens,
        r.prompt,
        presence=r.presence_penalty,
        frequency=r.frequency_penalty,
        repetition=r.repetition_penalty,
        bias=r.logit_bias,
    )


def _logprobs(scores: Tensor, token: int, n: int) -> tuple[float, list[tuple[int, float]]]:
    """Log-probability of a token, and the n likeliest ones with theirs."""
    logprobs = scores.float().log_softmax(-1)
    best = logprobs.topk(min(n, len(logprobs)))
    return float(logprobs[token]), list(zip(best.indices.tolist(), best.values.tolist()))
