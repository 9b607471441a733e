"""Variable-length attention on the CPU: each example of a flat row by itself, no mask, nothing across the borders.

transformers gives flat and packed rows a block-diagonal mask, and with a mask PyTorch's CPU kernel computes every block
of the row's square. Here every linear layer still sees one stream of tokens, and attention runs on each example alone,
causally, so the work is the sum of the squares instead of the square of the sum. On a GPU this is FlashAttention's
varlen form; the CPU has no such kernel.

Short examples are computed by `SegmentAttention`: PyTorch's fused CPU kernel works in small blocks, one head after
another, and on examples of a hundred tokens its backward costs ten times what the products themselves do.

>>> use_varlen_attention(model, max_length=512)      # True: flat rows are attended example by example # doctest: +SKIP
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

NAME = "hone_varlen"
LONGEST_PRODUCT = 512  # tokens: above, all scores of an example at once cost more memory than they save time
LENGTHS = 32  # examples are computed in lengths of a multiple of this


def use_varlen_attention(model: PreTrainedModel, max_length: int, device: str = "cpu") -> bool:
    """Switch a model that uses PyTorch's attention to variable-length attention; False if it does not apply.

    Args:
        max_length: of the examples. device: where the model will train.

    Not for other devices (their kernels skip masked blocks), for capped scores (they need another kernel), or where a
    window or chunk shorter than `max_length` hides part of an example.
    """
    config = model.config
    windows = [getattr(config, key, None) for key in ("sliding_window", "attention_chunk_size", "window_size")]
    if (
        device != "cpu"
        or config._attn_implementation != "sdpa"
        or any(isinstance(window, int) and window < max_length for window in windows)
        or getattr(config, "attn_logit_softcapping", None) is not None
    ):
        return False
    AttentionInterface.register(NAME, varlen_attention)
    AttentionMaskInterface.register(NAME, varlen_mask)
    try:
        model.set_attn_implementation(NAME)
    except ValueError:  # an architecture with attention code of its own
        return False
    return True


def varlen_mask(*args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
    """No mask for rows without padding, where `varlen_attention` finds the borders; transformers' own otherwise."""
    if attention_mask is None and kwargs["q_length"] == kwargs["kv_length"]:
        return None
    return sdpa_mask(*args, attention_mask=attention_mask, **kwargs)


def varlen_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    position_ids: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention within each run of positions 0, 1, 2, … of a row.

    query: (B, heads, T, D); key, value: (B, key-value heads, T, D); position_ids: (B, T), 0 where an example begins.
    Returns (B, T, heads, D), as transformers' attention functions do.
    """

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return sdpa_attention_forward(module, q, k, v, attention_mask, **kwargs)[0]

    if attention_mask is not None or position_ids is None or query.shape[2] != key.shape[2]:
        return attend(query, key, value), None
    causal = kwargs.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    products = query.device.type == "cpu" and bool(causal) and not kwargs.get("dropout")
    rows: list[Tensor] = []
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


def segment_products(
    query: Tensor, key: Tensor, value: Tensor, lengths: list[int], scaling: float | None = None
) -> Tensor:
    """Causal attention of short segments as matrix products: several times faster than the CPU's fused kernel.

    query: (1, heads, T, D); key, value: (1, key-value heads, T, D); lengths: of the segments, T in sum.
    Returns (1, T, heads, D). Scores and soft-max are float32; the other products are in the type of the query.
    """
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out: Tensor = SegmentAttention.apply(query, key, value, lengths, scale)
    return out


class SegmentAttention(torch.autograd.Function):
    """softmax(scale * q kᵀ + causal mask) v within each segment, six products over all heads at once.

    q: (1, H, T, D). k, v: (1, K, T, D), each shared by H / K heads of q in turn (grouped queries, arXiv 2305.13245).
    Out: (1, T, H, D). Scores and soft-max in float32, as the fused kernel keeps them; the rest in the type of v.

    A segment is computed together with the tokens behind it, up to a multiple of LENGTHS: the mask hides them from it,
    and what they get is dropped. So the products have few shapes, for each of which oneDNN compiles and keeps code.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, lengths: list[int], scale: float) -> Tensor:
        heads, groups, depth = q.shape[1], k.shape[1], q.shape[3]
        out = v.new_empty(1, q.shape[2], heads, depth)
        keep = any(ctx.needs_input_grad[:3])
        probabilities = []
        with torch.autocast("cpu", enabled=False):
            for a, n, m in _spans(lengths):
                query, key, value = (_heads(x, groups, a, m) for x in (q, k, v))  # (K, H/K * m, D), (K, m, D)
                scores = torch.bmm(query.float() * scale, key.float().transpose(1, 2))  # (K, H/K * m, m)
                later = torch.ones(m, m, dtype=torch.bool).triu_(1)
                scores.view(heads, m, m).masked_fill_(later, float("-inf"))
                p = torch.softmax(scores, dim=-1).to(v.dtype)
                out[0, a : a + n] = torch.bmm(p, value).view(heads, m, depth)[:, :n].transpose(0, 1)
                if keep:
                    probabilities.append(p)
        ctx.save_for_backward(q, k, v, *probabilities)
        ctx.lengths, ctx.scale = lengths, scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *probabilities = ctx.saved_tensors
        groups = k.shape[1]
        # (1, T, H, D) in memory, as the projections before the heads were split
        d_q, d_k, d_v = (torch.empty_like(x.transpose(1, 2), memory_format=torch.contiguous_format) for x in (q, k, v))
        grad = grad.transpose(1, 2).to(v.dtype)
        with torch.autocast("cpu", enabled=False):
            for (a, n, m), p in zip(_spans(ctx.lengths), probabilities, strict=True):
                query, key, value, g = (_heads(x, groups, a, m) for x in (q, k, v, grad))
                if m > n:  # the gradient of the tokens behind is their own segment's
                    g = torch.cat([g.view(-1, m, g.shape[2])[:, :n], g.new_zeros(q.shape[1], m - n, g.shape[2])], 1)
                    g = g.view(groups, -1, g.shape[2])
                d_p = torch.bmm(g, value.transpose(1, 2))
                d_s = torch._softmax_backward_data(d_p, p, -1, p.dtype).mul_(ctx.scale)
                d_q[0, a : a + n] = _by_token(torch.bmm(d_s, key.to(p.dtype)), m)[:n]
                d_k[0, a : a + n] = torch.bmm(d_s.transpose(1, 2), query.to(p.dtype)).transpose(0, 1)[:n]
                d_v[0, a : a + n] = torch.bmm(p.transpose(1, 2), g).transpose(0, 1)[:n]
        return d_q.transpose(1, 2), d_k.transpose(1, 2), d_v.transpose(1, 2), None, None


def _spans(lengths: list[int]) -> list[tuple[int, int, int]]:
    """(start, length, length with the tokens behind it) of each segment."""
    spans, start, total = [], 0, sum(lengths)
    for length in lengths:
        spans.append((start, length, min(-(-length // LENGTHS) * LENGTHS, total - start)))
        start += length
    return spans


def _heads(x: Tensor, groups: int, start: int, length: int) -> Tensor:
    """(1, H, T, D) -> (K, H/K * n, D): one segment, the heads that share a key below one another."""
    return x[0, :, start : start + length].reshape(groups, -1, x.shape[3])


def _by_token(x: Tensor, length: int) -> Tensor:
    """(K, H/K * n, D) -> (n, H, D)."""
    return x.reshape(-1, length, x.shape[2]).transpose(0, 1)
