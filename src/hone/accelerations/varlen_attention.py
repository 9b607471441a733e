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
LONGEST_PRODUCT = (
    512  # tokens: above, all scores of a segment at once cost more memory than the fused kernel saves time
)


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
    products = _products_apply(module, query, kwargs)
    rows: list[torch.Tensor] = []
    for row, positions in enumerate(position_ids.expand(query.shape[0], -1)):
        starts = torch.nonzero(positions == 0).flatten().tolist()  # of the examples in this row
        lengths = [b - a for a, b in zip(starts, [*starts[1:], len(positions)], strict=True)]
        q, k, v = (tensor[row : row + 1] for tensor in (query, key, value))
        if products and max(lengths) <= LONGEST_PRODUCT:
            rows.append(segment_products(q, k, v, lengths, kwargs.get("scaling")))
            continue
        parts = (tensor.split(lengths, dim=2) for tensor in (q, k, v))
        rows.append(torch.cat([attend(*part) for part in zip(*parts, strict=True)], dim=1))
    return rows[0] if len(rows) == 1 else torch.cat(rows), None


def _products_apply(module: Any, query: "torch.Tensor", kwargs: dict[str, Any]) -> bool:
    """Plain causal attention without dropout, on the CPU."""
    causal = kwargs.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    return query.device.type == "cpu" and bool(causal) and not kwargs.get("dropout")


def segment_products(
    query: "torch.Tensor", key: "torch.Tensor", value: "torch.Tensor", lengths: list[int], scaling: float | None = None
) -> "torch.Tensor":
    """Causal attention of short segments as matrix products: several times faster than the CPU's fused kernel.

    query: (1, heads, T, D); key, value: (1, key-value heads, T, D); lengths: of the segments, T in sum.
    Returns (1, T, heads, D). Scores and soft-max are float32; the other products are in the type of the query.
    """
    from hone.accelerations.segments import SegmentAttention

    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out: torch.Tensor = SegmentAttention.apply(query, key, value, lengths, scale)
    return out
