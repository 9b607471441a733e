"""Keys and values in room made beforehand, where transformers' own cache copies all of them at every token."""

from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


def growing_cache(model: Any, room: int) -> DynamicCache:
    """transformers' cache for this architecture, its plain layers replaced by ones with room for so many tokens."""
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    cache.layers = [RoomyLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class RoomyLayer(DynamicLayer):
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
