"""Causal attention of many short segments, forward and backward, as batched matrix products.

PyTorch's fused CPU kernel works in small blocks, one head after another; on examples of a hundred tokens its backward
costs ten times what the products themselves do. Here every segment is six products over all heads at once.

A segment is computed together with the tokens behind it, up to a multiple of LENGTHS: the mask hides them from it, and
what they get is dropped. So the products have few different shapes, for each of which oneDNN compiles and keeps code.
"""

from typing import Any

import torch
from torch import Tensor

LENGTHS = 32


class SegmentAttention(torch.autograd.Function):
    """softmax(scale * q kᵀ + causal mask) v within each segment.

    q: (1, H, T, D). k, v: (1, K, T, D), each shared by H / K heads of q in turn (grouped queries, arXiv 2305.13245).
    Out: (1, T, H, D). Scores and soft-max in float32, as the fused kernel keeps them; the rest in the type of v.
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
                d_q[0, a : a + n] = _apart(torch.bmm(d_s, key.to(p.dtype)), m)[:n]
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


def _apart(x: Tensor, length: int) -> Tensor:
    """(K, H/K * n, D) -> (n, H, D)."""
    return x.reshape(-1, length, x.shape[2]).transpose(0, 1)
