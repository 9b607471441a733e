"""Tokens one after another: many answers grown together by one loop, for every kind of model.

The prompts are read at once, padded on the left; then each step feeds one token a row. Keys and values are written into
room made beforehand (transformers' own cache copies all of them at every token), and rows that have ended leave the
batch. Encoder-decoders read once and write likewise; a model without such a cache reads everything anew each step.

>>> decode(model, answers, [[5, 7], [9]], settings, numbers=[0, 0])            # doctest: +SKIP
"""

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from hone.config.sections.generate import GenerateSection
from hone.errors import HoneError
from hone.inference.sampling import top_k, top_p, with_temperature
from hone.inference.stream import Answer
from hone.models.inspect import takes, unwrapped

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

SHRINK_BELOW = 0.75  # share of rows still growing: the others are taken out when it falls so far
CACHE_BYTES = 1 << 30  # of keys and values in a batch
MOST_ROWS = 64


@dataclass
class Past:
    """What a model has read of a conversation: tokens and their keys and values, for `decode` of one growing row."""

    ids: list[int] = field(default_factory=list)
    cache: Any = None


def decode(
    model: "PreTrainedModel",
    answers: Sequence[Answer],
    prompts: Sequence[Sequence[int]],
    settings: GenerateSection,
    numbers: Sequence[int],
    on_text: Callable[[str], None] | None = None,
    past: Past | None = None,
) -> None:
    """Let the answers grow, together, until each has ended.

    Args:
        prompts: ids, one row for each answer, of any lengths; none empty.
        numbers: which of its prompt's answers each one is; with the seed and the prompt it decides the draws.
        on_text: called with every piece of text of any answer. What it raises (so also Ctrl-C) ends the decoding and
            leaves the answers as far as they came.
        past: of a single row: what it has in common with the new prompt is not read again. Changed in place.

    Raises:
        HoneError: the model's scores are not numbers.
    """
    import torch

    draws = [_random(settings.sampling_seed, number, prompt) for number, prompt in zip(numbers, prompts, strict=True)]
    growing = list(range(len(answers)))
    with torch.inference_mode():
        rows = _Rows(model, prompts, max(answer.room for answer in answers), past)
        while True:
            tokens = next_tokens(rows.scores(), settings, [draws[i] for i in growing])
            for i, token in zip(growing, tokens, strict=True):
                if answers[i].ended is None and (text := answers[i].push(token)) and on_text:
                    on_text(text)
            left = [place for place, i in enumerate(growing) if answers[i].ended is None]
            if not left:
                return
            rows.append(tokens)
            if len(left) <= SHRINK_BELOW * len(growing):
                rows.keep(left)
                growing = [growing[place] for place in left]


def next_tokens(scores: "torch.Tensor", settings: GenerateSection, draws: Sequence[random.Random]) -> list[int]:
    """One token for each row of scores (B, V): the likeliest at temperature 0, else drawn with that row's luck."""
    import torch

    if scores.isnan().any():
        raise HoneError(
            "the model's scores are not numbers (NaN)",
            fix="its weights are damaged, or overflow in half precision: train it again with a lower learning_rate",
        )
    if settings.temperature == 0:
        greedy: list[int] = scores.argmax(-1).tolist()
        return greedy
    kept = top_k(with_temperature(scores.float(), float(settings.temperature)), settings.top_k)
    if settings.top_p < 1:
        kept = top_p(kept, float(settings.top_p))
    exact = torch.float32 if scores.device.type == "mps" else torch.float64
    reached = kept.to(exact).softmax(-1).cumsum(-1)
    aims = torch.tensor([[one.random()] for one in draws], dtype=exact, device=scores.device) * reached[:, -1:]
    drawn: list[int] = torch.searchsorted(reached, aims, right=True).clamp(max=scores.shape[-1] - 1)[:, 0].tolist()
    return drawn


def _random(seed: int, number: int, prompt: Sequence[int]) -> random.Random:
    """Draws that depend on the prompt too: equal luck for all prompts would make their answers fail together."""
    text = f"{seed} {number} {' '.join(map(str, prompt))}"
    return random.Random(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]))


def rows_that_fit(model: "PreTrainedModel", length: int) -> int:
    """How many rows of `length` tokens have room for their keys and values in CACHE_BYTES; 1 to MOST_ROWS."""
    config = model.config.get_text_config(decoder=True)
    heads = getattr(config, "num_attention_heads", 1)
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept = getattr(config, "num_key_value_heads", None) or heads
    per_token = 2 * config.num_hidden_layers * kept * width * model.dtype.itemsize
    return max(1, min(MOST_ROWS, CACHE_BYTES // (per_token * length)))


class _Rows:
    """The rows of a batch and what the model remembers of them.

    `scores` are those of the next token of each row, (B, V); `append` gives each its token; `keep` drops rows.
    """

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], room: int, past: Past | None) -> None:
        import torch

        self.model, self.past = unwrapped(model), past
        self.device = self.model.device
        width = max(map(len, prompts))
        ids = torch.zeros((len(prompts), width), dtype=torch.long)  # what stands under the padding is never looked at
        mask = torch.ones((len(prompts), width), dtype=torch.long)
        for i, prompt in enumerate(prompts):
            ids[i, width - len(prompt) :] = torch.tensor(list(prompt))
            mask[i, : width - len(prompt)] = 0
        self.mask = None if bool(mask.all()) else mask.to(self.device)
        self.fixed: dict[str, Any] = {}
        self.input, self.read = "input_ids", 0
        if self.model.config.is_encoder_decoder:
            self._read_source(ids.to(self.device), mask.to(self.device))
            ids = torch.full((len(prompts), 1), int(self.model.config.decoder_start_token_id))
        self.ids = ids.to(self.device)
        if takes(model, "logits_to_keep"):
            self.fixed["logits_to_keep"] = 1
        self.told_positions = takes(model, "position_ids") and self.input == "input_ids"
        self.cache = self._new_cache(width + room) if takes(model, "past_key_values") else None
        if self.cache is not None and past is not None:
            self.read = self._common(past, list(prompts[0]))

    def _read_source(self, ids: Any, mask: Any) -> None:
        encoder = self.model.get_encoder()
        self.fixed = {"encoder_outputs": encoder(input_ids=ids, attention_mask=mask), "attention_mask": mask}
        self.input, self.mask = "decoder_input_ids", None

    def _new_cache(self, room: int) -> Any:
        from transformers import DynamicCache, EncoderDecoderCache

        from hone.inference.cache import growing_cache

        cache = growing_cache(self.model, room)
        return cache if self.input == "input_ids" else EncoderDecoderCache(cache, DynamicCache())

    def _common(self, past: Past, prompt: list[int]) -> int:
        """Take over the past's cache as far as it has read the beginning of this prompt; at least one token is left."""
        from hone.inference.cache import RoomyLayer

        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(past.ids, prompt[:-1])))
        if not shared or any(type(layer) is not RoomyLayer for layer in past.cache.layers):
            return 0
        if (surplus := past.cache.get_seq_length() - shared) > 0:
            past.cache.crop(-surplus)
        self.cache = past.cache
        return shared

    def scores(self) -> "torch.Tensor":
        given = dict(self.fixed)
        new = self.ids[:, self.read :] if self.cache is not None else self.ids
        if self.cache is not None:
            given |= {"past_key_values": self.cache, "use_cache": True}
        if self.mask is not None:
            given["attention_mask"] = self.mask
        if self.told_positions:
            given["position_ids"] = self._positions()[:, -new.shape[1] :]
        if self.past is not None:  # a Ctrl-C in the middle leaves layers of different lengths: nothing to go on from
            self.past.ids, self.past.cache = [], None
        logits = self.model(**{self.input: new}, **given).logits[:, -1]
        self.read = self.ids.shape[1]
        if self.past is not None:
            self.past.ids, self.past.cache = self.ids[0].tolist(), self.cache
        return logits

    def _positions(self) -> Any:
        import torch

        if self.mask is None:
            return torch.arange(self.ids.shape[1], device=self.device).expand(len(self.ids), -1)
        return (self.mask.cumsum(-1) - 1).clamp(min=0)

    def append(self, tokens: list[int]) -> None:
        import torch

        new = torch.tensor(tokens, device=self.device)[:, None]
        self.ids = torch.cat([self.ids, new], 1)
        if self.mask is not None:
            self.mask = torch.cat([self.mask, torch.ones_like(new)], 1)

    def keep(self, places: list[int]) -> None:
        """Go on with the rows at these places only."""
        import torch

        chosen = torch.tensor(places, device=self.device)
        self.ids = self.ids[chosen]
        if self.mask is not None:
            self.mask = self.mask[chosen]
        if self.cache is not None:
            self.cache.batch_select_indices(chosen)
        if "encoder_outputs" in self.fixed:
            from transformers.modeling_outputs import BaseModelOutput

            states = self.fixed["encoder_outputs"].last_hidden_state[chosen]
            self.fixed["encoder_outputs"] = BaseModelOutput(last_hidden_state=states)
            self.fixed["attention_mask"] = self.fixed["attention_mask"][chosen]
