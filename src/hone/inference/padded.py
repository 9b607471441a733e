"""Rows decoded by transformers' own forward pass: any architecture, in batches that begin together.

The prompts of a batch are read at once, padded on the left; then each step feeds one token a row. Keys and values are
written into room made beforehand (transformers' own cache copies all of them at every token), and rows that have ended
leave the batch. Encoder-decoders read once and write likewise; a model without such a cache reads everything anew each
step. Rows that come later begin a batch of their own.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.modeling_outputs import BaseModelOutput

from hone.models.inspect import first_tokens, max_positions, reads_source, takes, unwrapped

if TYPE_CHECKING:
    from hone.inference.engine import Row

SHRINK_BELOW = 0.75  # share of rows that have not ended: the others are taken out when it falls so far
WORTHWHILE = 0.25  # share of the most rows: so many begin a new batch beside others, fewer only if none is left waiting


class PaddedBatches:
    """All batches of a model. `enter` begins one with rows that wait, `scores` takes each a token further."""

    def __init__(self, model: PreTrainedModel, cache_bytes: int, max_rows: int) -> None:
        self._model, self._max_rows = model, max_rows
        self._most_tokens = cache_bytes // bytes_per_token(model)
        # What stands under the padding is never looked at; but a model that counts positions by itself counts it.
        self._padded = reads_source(model) or takes(model, "position_ids")
        self._batches: list[_Batch] = []
        self._past: _Past | None = None

    @property
    def n_growing(self) -> int:
        return sum(not row.gone for batch in self._batches for row in batch.rows)

    def enter(self, waiting: "deque[Row]") -> None:
        """Take rows from the front of `waiting` that fit, one at least if none grows."""
        self._forget_ended()
        rows, left = self._fitting(waiting), len(waiting)
        if rows and (not self._batches or len(rows) == left or len(rows) >= WORTHWHILE * self._max_rows):
            for _ in rows:
                waiting.popleft()
            past, self._past = (self._past, None) if len(rows) == 1 else (None, self._past)
            self._batches.append(_Batch(self._model, rows, past))

    def _forget_ended(self) -> None:
        for batch in [batch for batch in self._batches if all(row.gone for row in batch.rows)]:
            self._batches.remove(batch)
            self._past = batch.past() or self._past

    def _fitting(self, waiting: "deque[Row]") -> "list[Row]":
        """The first rows that have room side by side; of equal length where nothing may be padded."""
        tokens = self._most_tokens - sum(batch.n_tokens for batch in self._batches)
        places = self._max_rows - sum(len(batch.rows) for batch in self._batches)
        rows: list[Row] = []
        longest = 0
        for row in waiting:
            longest = max(longest, row.length)
            alone = not rows and not self._batches
            same = not rows or self._padded or len(row.request.prompt) == len(rows[0].request.prompt)
            if not same or not (alone or (len(rows) < places and longest * (len(rows) + 1) <= tokens)):
                break
            rows.append(row)
        return rows

    def scores(self) -> "Iterator[tuple[list[Row], Tensor]]":
        """The rows of each batch that have not ended, with the scores of their next tokens (B, V)."""
        for batch in self._batches:
            if any(not row.gone for row in batch.rows):
                scores = batch.scores()
                places = [i for i, row in enumerate(batch.rows) if not row.gone]
                yield [batch.rows[i] for i in places], scores if len(places) == len(scores) else scores[places]


def bytes_per_token(model: PreTrainedModel) -> int:
    """Keys and values of a token in all layers."""
    config = model.config.get_text_config(decoder=True)
    heads = getattr(config, "num_attention_heads", 1)
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept = getattr(config, "num_key_value_heads", None) or heads
    return int(2 * config.num_hidden_layers * kept * width * model.dtype.itemsize)


@dataclass(frozen=True)
class _Past:
    """What a batch of one row has read: the next one that begins alike goes on from there, as in a conversation."""

    ids: list[int]
    cache: Any

    def common(self, prompt: Sequence[int]) -> int:
        """How many tokens a prompt has in common with it; one at least is left to read."""
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self.ids, prompt[:-1])))


class _Batch:
    """Rows that began together, and what the model remembers of them."""

    def __init__(self, model: Any, rows: "list[Row]", past: _Past | None) -> None:
        self.rows = rows
        self._model = unwrapped(model)
        self._device = self._model.device
        self._input, self._read = "input_ids", 0
        self._fixed: dict[str, Any] = {}
        self._whole = False  # has the last pass gone to its end?
        self._alone = len(rows) == 1 and not reads_source(model)
        prompts = [row.request.prompt for row in rows]
        ids, self._mask = _padded(prompts, left=not reads_source(model))
        self._mask = self._mask.to(self._device)
        if reads_source(model):
            states = self._model.get_encoder()(input_ids=ids.to(self._device), attention_mask=self._mask)
            self._fixed = {"encoder_outputs": states, "attention_mask": self._mask}
            self._input, self._mask = "decoder_input_ids", None
            ids = torch.tensor([first_tokens(self._model)] * len(rows))
        elif bool(self._mask.all()):
            self._mask = None
        self._ids = ids.to(self._device)
        if takes(model, "logits_to_keep"):
            self._fixed["logits_to_keep"] = 1
        self._gives_positions = takes(model, "position_ids") and not reads_source(model)
        room = max(row.request.answer.room for row in rows)
        self._room = self._ids.shape[1] + room
        self._cache = self._new_cache() if takes(model, "past_key_values") else None
        if past is not None and self._cache is not None:
            self._go_on_from(past)

    @property
    def n_tokens(self) -> int:
        """Tokens there is room for."""
        return len(self._ids) * self._room

    def past(self) -> _Past | None:
        """What the next row may go on from; nothing after a Ctrl-C, which leaves layers of different lengths."""
        if not (self._alone and self._whole and self._cache is not None):
            return None
        if any(type(layer) is not _RoomyLayer for layer in self._cache.layers):
            return None
        return _Past(self._ids[0, : self._read].tolist(), self._cache)

    def _new_cache(self) -> Any:
        """transformers' cache for this architecture, its plain layers replaced by ones with room made beforehand."""
        cache = DynamicCache(config=self._model.config.get_text_config(decoder=True))
        cache.layers = [_RoomyLayer(self._room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
        return cache if self._input == "input_ids" else EncoderDecoderCache(cache, DynamicCache())

    def _go_on_from(self, past: _Past) -> None:
        """Take over the past's cache as far as it has read the beginning of this prompt."""
        shared = past.common(self.rows[0].request.prompt)
        if not shared:
            return
        if (surplus := past.cache.get_seq_length() - shared) > 0:
            past.cache.crop(-surplus)
        self._cache, self._read = past.cache, shared

    def scores(self) -> Tensor:
        """Scores of the next token of each row (B, V), those included that have ended but have not been taken out."""
        if self.rows[0].tokens:
            self._keep([i for i, row in enumerate(self.rows) if not row.gone])
            self._append([row.tokens[-1] for row in self.rows])
        given = dict(self._fixed)
        new = self._ids[:, self._read :] if self._cache is not None else self._ids
        if self._cache is not None:
            given |= {"past_key_values": self._cache, "use_cache": True}
        if self._mask is not None:
            given["attention_mask"] = self._mask
        if self._gives_positions:
            given["position_ids"] = self._positions()[:, -new.shape[1] :]
        self._whole = False
        logits: Tensor = self._model(**{self._input: new}, **given).logits[:, -1]
        self._whole, self._read = True, self._ids.shape[1]
        return logits

    def _positions(self) -> Tensor:
        if self._mask is None:
            return torch.arange(self._ids.shape[1], device=self._device).expand(len(self._ids), -1)
        # A row that has ended stays until others have, and may be fed more tokens than its window holds.
        window = max_positions(self._model)
        return (self._mask.cumsum(-1) - 1).clamp(0, None if window is None else window - 1)

    def _append(self, tokens: list[int]) -> None:
        new = torch.tensor(tokens, device=self._device)[:, None]
        self._ids = torch.cat([self._ids, new], 1)
        if self._mask is not None:
            self._mask = torch.cat([self._mask, torch.ones_like(new)], 1)

    def _keep(self, places: list[int]) -> None:
        """Go on with the rows at these places only, once enough others have ended to be worth the copy."""
        if len(places) > SHRINK_BELOW * len(self.rows):
            return
        chosen = torch.tensor(places, device=self._device)
        self.rows = [self.rows[i] for i in places]
        self._ids = self._ids[chosen]
        if self._mask is not None:
            self._mask = self._mask[chosen]
        if self._cache is not None:
            self._cache.batch_select_indices(chosen)
        if "encoder_outputs" in self._fixed:
            states = self._fixed["encoder_outputs"].last_hidden_state[chosen]
            self._fixed["encoder_outputs"] = BaseModelOutput(last_hidden_state=states)
            self._fixed["attention_mask"] = self._fixed["attention_mask"][chosen]


def _padded(prompts: Sequence[Sequence[int]], *, left: bool) -> tuple[Tensor, Any]:
    """Ids and mask (B, T): on the left all rows end at one place; a source on the right, where BART's encoder begins
    to count."""
    width = max(map(len, prompts))
    ids = torch.zeros((len(prompts), width), dtype=torch.long)
    mask = torch.zeros((len(prompts), width), dtype=torch.long)
    for i, prompt in enumerate(prompts):
        begin = width - len(prompt) if left else 0
        ids[i, begin : begin + len(prompt)] = torch.tensor(list(prompt))
        mask[i, begin : begin + len(prompt)] = 1
    return ids, mask


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
