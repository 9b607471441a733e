"""Tokens one after another: many answers decoded in a batch by one loop, for every kind of model.

The prompts are read at once, padded on the left; then each step feeds one token a row. Keys and values are written into
room made beforehand (transformers' own cache copies all of them at every token), and rows that have ended leave the
batch. Encoder-decoders read once and write likewise; a model without such a cache reads everything anew each step.

>>> decode_in_batches(model, answers, [[5, 7], [9]], settings, numbers=[0, 0])            # doctest: +SKIP
"""

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.modeling_outputs import BaseModelOutput

from hone.config.sections.generate import GenerateSection
from hone.inference.sampling import next_tokens
from hone.inference.stream import Answer
from hone.models.inspect import max_positions, takes, unwrapped

SHRINK_BELOW = 0.75  # share of rows that have not ended: the others are taken out when it falls so far
CACHE_BYTES = 1 << 30  # of keys and values in a batch
MOST_ROWS = 64


@dataclass
class Past:
    """What a model has read of a conversation: tokens and their keys and values, for `decode` of one row."""

    ids: list[int] = field(default_factory=list)
    cache: Any = None


def decode_in_batches(
    model: PreTrainedModel,
    answers: Sequence[Answer],
    prompts: Sequence[Sequence[int]],
    settings: GenerateSection,
    numbers: Sequence[int],
) -> None:
    """As `decode`, of any number of answers: as many together as `batches` says."""
    for batch in batches(model, prompts, max((answer.room for answer in answers), default=0)):
        chosen = [answers[i] for i in batch]
        decode(model, chosen, [prompts[i] for i in batch], settings, [numbers[i] for i in batch])


def batches(model: PreTrainedModel, rows: Sequence[Sequence[int]], room: int) -> Iterator[list[int]]:
    """Indices of prompts that are decoded together: of similar length, as many as memory has room for; of equal length
    where the model counts positions by itself, padding included."""
    padded = reads_source(model) or takes(model, "position_ids")
    batch: list[int] = []
    for i in sorted(range(len(rows)), key=lambda i: len(rows[i])):
        full = len(batch) >= rows_that_fit(model, len(rows[i]) + room)
        if batch and (full or not (padded or len(rows[i]) == len(rows[batch[0]]))):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def rows_that_fit(model: PreTrainedModel, length: int) -> int:
    """How many rows of `length` tokens have room for their keys and values in CACHE_BYTES; 1 to MOST_ROWS."""
    config = model.config.get_text_config(decoder=True)
    heads = getattr(config, "num_attention_heads", 1)
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept = getattr(config, "num_key_value_heads", None) or heads
    per_token = 2 * config.num_hidden_layers * kept * width * model.dtype.itemsize
    return max(1, min(MOST_ROWS, CACHE_BYTES // (per_token * length)))


def reads_source(model: PreTrainedModel) -> bool:
    """Is this an encoder-decoder? Its answer does not continue the prompt and has a window of its own."""
    return bool(model.config.is_encoder_decoder)


def first_tokens(model: Any) -> list[int]:
    """What an encoder-decoder's decoder begins with. BART begins with two tokens, mBART's second names the language."""
    forced = getattr(model.generation_config, "forced_bos_token_id", None)
    return [int(model.config.decoder_start_token_id), *([] if forced is None else [int(forced)])]


def decode(
    model: PreTrainedModel,
    answers: Sequence[Answer],
    prompts: Sequence[Sequence[int]],
    settings: GenerateSection,
    numbers: Sequence[int],
    on_text: Callable[[str], None] | None = None,
    past: Past | None = None,
) -> None:
    """Decode the answers in one batch until each has ended.

    Args:
        prompts: ids, one row for each answer, of any lengths; none empty.
        numbers: which of its prompt's answers each one is; with the seed and the prompt it decides the draws.
        on_text: called with every piece of text of any answer. What it raises (so also Ctrl-C) ends the decoding and
            leaves the answers as far as they came.
        past: of a single row: what it has in common with the new prompt is not read again. Changed in place.

    Raises:
        HoneError: the model's scores are not numbers.
    """
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


def _random(seed: int, number: int, prompt: Sequence[int]) -> random.Random:
    """Draws that depend on the prompt too: the same draws for all prompts would make their answers fail together."""
    text = f"{seed} {number} {' '.join(map(str, prompt))}"
    return random.Random(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]))


class _Rows:
    """The rows of a batch and what the model remembers of them.

    `scores` are those of the next token of each row, (B, V); `append` gives each its token; `keep` drops rows.
    """

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], room: int, past: Past | None) -> None:
        self.model, self.past = unwrapped(model), past
        self.device = self.model.device
        self.input, self.read = "input_ids", 0
        self.fixed: dict[str, Any] = {}
        width, source = max(map(len, prompts)), reads_source(model)
        ids = torch.zeros((len(prompts), width), dtype=torch.long)  # what stands under the padding is never looked at
        mask = torch.zeros((len(prompts), width), dtype=torch.long)
        for i, prompt in enumerate(prompts):
            # On the left, so that all rows end at one place; a source on the right: BART's encoder counts from there.
            begin = 0 if source else width - len(prompt)
            ids[i, begin : begin + len(prompt)] = torch.tensor(list(prompt))
            mask[i, begin : begin + len(prompt)] = 1
        if source:
            mask = mask.to(self.device)
            states = self.model.get_encoder()(input_ids=ids.to(self.device), attention_mask=mask)
            self.fixed = {"encoder_outputs": states, "attention_mask": mask}
            self.input, self.mask = "decoder_input_ids", None
            ids = torch.tensor([first_tokens(self.model)] * len(prompts))
        else:
            self.mask = None if bool(mask.all()) else mask.to(self.device)
        self.ids = ids.to(self.device)
        if takes(model, "logits_to_keep"):
            self.fixed["logits_to_keep"] = 1
        self.gives_positions = takes(model, "position_ids") and not source
        self.cache = self._new_cache(self.ids.shape[1] + room) if takes(model, "past_key_values") else None
        if self.cache is not None and past is not None:
            self.read = self._common(past, list(prompts[0]))

    def _new_cache(self, room: int) -> Any:
        """transformers' cache for this architecture, its plain layers replaced by ones with room for so many tokens."""
        cache = DynamicCache(config=self.model.config.get_text_config(decoder=True))
        cache.layers = [_RoomyLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
        return cache if self.input == "input_ids" else EncoderDecoderCache(cache, DynamicCache())

    def _common(self, past: Past, prompt: list[int]) -> int:
        """Take over the past's cache as far as it has read the beginning of this prompt; at least one token is left."""
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(past.ids, prompt[:-1])))
        if not shared or any(type(layer) is not _RoomyLayer for layer in past.cache.layers):
            return 0
        if (surplus := past.cache.get_seq_length() - shared) > 0:
            past.cache.crop(-surplus)
        self.cache = past.cache
        return shared

    def scores(self) -> Tensor:
        given = dict(self.fixed)
        new = self.ids[:, self.read :] if self.cache is not None else self.ids
        if self.cache is not None:
            given |= {"past_key_values": self.cache, "use_cache": True}
        if self.mask is not None:
            given["attention_mask"] = self.mask
        if self.gives_positions:
            given["position_ids"] = self._positions()[:, -new.shape[1] :]
        if self.past is not None:  # a Ctrl-C in the middle leaves layers of different lengths: nothing to go on from
            self.past.ids, self.past.cache = [], None
        logits = self.model(**{self.input: new}, **given).logits[:, -1]
        self.read = self.ids.shape[1]
        if self.past is not None:
            self.past.ids, self.past.cache = self.ids[0].tolist(), self.cache
        return logits

    def _positions(self) -> Any:
        if self.mask is None:
            return torch.arange(self.ids.shape[1], device=self.device).expand(len(self.ids), -1)
        # A row that has ended stays until others have, and may be fed more tokens than its window holds.
        window = max_positions(self.model)
        return (self.mask.cumsum(-1) - 1).clamp(0, None if window is None else window - 1)

    def append(self, tokens: list[int]) -> None:
        new = torch.tensor(tokens, device=self.device)[:, None]
        self.ids = torch.cat([self.ids, new], 1)
        if self.mask is not None:
            self.mask = torch.cat([self.mask, torch.ones_like(new)], 1)

    def keep(self, places: list[int]) -> None:
        """Go on with the rows at these places only."""
        chosen = torch.tensor(places, device=self.device)
        self.ids = self.ids[chosen]
        if self.mask is not None:
            self.mask = self.mask[chosen]
        if self.cache is not None:
            self.cache.batch_select_indices(chosen)
        if "encoder_outputs" in self.fixed:
            states = self.fixed["encoder_outputs"].last_hidden_state[chosen]
            self.fixed["encoder_outputs"] = BaseModelOutput(last_hidden_state=states)
            self.fixed["attention_mask"] = self.fixed["attention_mask"][chosen]


class _RoomyLayer(DynamicLayer):
    """`keys` and `values` (B, heads, T, D) are views of larger tensors that are filled in place."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.keys: Tensor
        self.values: Tensor
        self._room = room
        self._whole: list[Tensor] = []

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        begin = self.get_seq_length()
        end = begin + key_states.shape[-2]
        if not self._whole or self._whole[0].shape[-2] < end:
            room = max(self._room, end + end // 2)
            whole = [new.new_empty((*new.shape[:-2], room, new.shape[-1])) for new in (key_states, value_states)]
            if begin:
                whole[0][..., :begin, :], whole[1][..., :begin, :] = self.keys, self.values
            self._whole = whole
        for whole_one, new in zip(self._whole, (key_states, value_states)):
            whole_one[..., begin:end, :] = new
        self.keys, self.values = (one[..., :end, :] for one in self._whole)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self._whole = []  # made anew, smaller, by the next update
