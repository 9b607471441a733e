"""Attention example by example on the CPU: no mask, nothing computed across the borders of a flat row.

transformers gives flat and packed rows a block-diagonal mask, and with a mask PyTorch's CPU kernel computes every block
of the row's square. Here every linear layer still sees one stream of tokens, and attention runs on each example alone,
causally, so the work is the sum of the squares instead of the square of the sum. Forward and backward are PyTorch's.

>>> use_segments(model, max_length=512)      # True: flat rows are attended example by example # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

NAME = "hone_segments"


def use_segments(model: "PreTrainedModel", max_length: int, device: str = "cpu") -> bool:
    """Switch a model that uses PyTorch's attention to attention by segments; False if it does not apply.

    Args:
        max_length: of the examples. device: where the model will train.

    Not for other devices (their kernels skip masked blocks), for capped scores (they need another kernel), or where a
    window or chunk shorter than `max_length` hides part of an example.
    """
    from transformers.masking_utils import AttentionMaskInterface
    from transformers.modeling_utils import AttentionInterface

    config = model.config
    windows = [getattr(config, key, None) for key in ("sliding_window", "attention_chunk_size", "window_size")]
    if (
        device != "cpu"
        or config._attn_implementation != "sdpa"
        or any(isinstance(window, int) and window < max_length for window in windows)
        or getattr(config, "attn_logit_softcapping", None) is not None
    ):
        return False
    AttentionInterface.register(NAME, segment_attention)
    AttentionMaskInterface.register(NAME, segment_mask)
    try:
        model.set_attn_implementation(NAME)
    except ValueError:  # an architecture with attention code of its own
        return False
    return True


def segment_mask(*args: Any, attention_mask: "torch.Tensor | None" = None, **kwargs: Any) -> "torch.Tensor | None":
    """No mask for rows without padding, where `segment_attention` finds the borders; transformers' own otherwise."""
    from transformers.masking_utils import sdpa_mask

    if attention_mask is None and kwargs["q_length"] == kwargs["kv_length"]:
        return None
    return sdpa_mask(*args, attention_mask=attention_mask, **kwargs)


def segment_attention(
    module: "torch.nn.Module",
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    attention_mask: "torch.Tensor | None",
    position_ids: "torch.Tensor | None" = None,
    **kwargs: Any,
) -> "tuple[torch.Tensor, None]":
    """Scaled dot-product attention within each run of positions 0, 1, 2, … of a row.

    query: (B, heads, T, D); key, value: (B, key-value heads, T, D); position_ids: (B, T), 0 where an example begins.
    Returns (B, T, heads, D), as transformers' attention functions do.
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return sdpa_attention_forward(module, q, k, v, attention_mask, **kwargs)[0]

    if attention_mask is not None or position_ids is None or query.shape[2] != key.shape[2]:
        return attend(query, key, value), None
    rows: list[torch.Tensor | None] = []
    for row, positions in enumerate(position_ids.expand(query.shape[0], -1)):
        starts = torch.nonzero(positions == 0).flatten().tolist()  # of the examples in this row
        if starts == [0]:
            rows.append(None)
            continue
        lengths = [b - a for a, b in zip(starts, [*starts[1:], len(positions)], strict=True)]
        parts = (tensor[row : row + 1].split(lengths, dim=2) for tensor in (query, key, value))
        rows.append(torch.cat([attend(q, k, v) for q, k, v in zip(*parts, strict=True)], dim=1))
    if all(row is None for row in rows):  # no row holds more than one example
        return attend(query, key, value), None
    slices = [slice(row, row + 1) for row in range(len(rows))]
    return torch.cat([attend(query[s], key[s], value[s]) if r is None else r for s, r in zip(slices, rows)]), None
