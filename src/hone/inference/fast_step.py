"""One pass of a causal model over tokens of several rows: few operations a token, nothing made anew that can stay.

The tokens of all rows stand one after another (N): first one of each row that grows, then stretches of prompts that are
read. Rows live in slots; keys and values of all slots are one tensor (layers, slots, length, 2, heads, head_dim). Rows
that grow are in the first slots, so that attention over them takes a view of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from hone.accelerations.equivalence import TOLERANCE
from hone.inference.weights import Weights
from hone.models.inspect import unwrapped

PROBE_TOKENS = (
    16  # of the first prompt, compared with the model's own forward pass: costs as much as two or three steps
)


@dataclass(frozen=True)
class Stretch:
    """A part of a prompt that is read: tokens first..end of N, which come after `past` tokens in their slot."""

    slot: int
    first: int
    end: int
    past: int

    @property
    def n(self) -> int:
        return self.end - self.first


@dataclass(frozen=True)
class Plan:
    """Where the tokens of a pass belong. lengths: of the rows that grow, in slots 0, 1, … , this token included."""

    ids: list[int]
    positions: list[int]
    slots: list[int]
    lengths: list[int]
    stretches: list[Stretch]
    wanted: list[int]  # tokens whose scores are asked for


def scores(weights: Weights, kept: Tensor, plan: Plan) -> Tensor:
    """Scores (wanted, V) of the tokens after those wanted; keys and values are written into `kept`."""
    w, device = weights, weights.device
    if w.kernel is not None:
        return w.kernel.scores(kept, plan)
    positions = torch.tensor(plan.positions, device=device)
    x = F.embedding(torch.tensor(plan.ids, device=device), w.embed).to(w.dtype)
    turns = None
    if w.positions is not None:
        x = x + F.embedding(positions, w.positions)  # of a type with fewer digits, or the same
    if w.turns is not None:
        turns = w.turns[positions][:, :, None]  # (N, 2, 1, D)
    length = kept.shape[2]
    places = torch.tensor([slot * length + p for slot, p in zip(plan.slots, plan.positions)], device=device)
    masks = _masks(plan, device, w.dtype)
    for layer, memory in zip(w.layers, kept):
        q, k, v = _heads(w, layer.heads, layer.norm_before_attention(x), turns)
        both = memory.view(-1, *memory.shape[2:])  # (slots * length, 2, H, D)
        if v is None:
            both.index_copy_(0, places, k)
        else:
            both[:, 0].index_copy_(0, places, k)
            both[:, 1].index_copy_(0, places, v)
        x = x + layer.attention_out(_attention(w, q, memory, plan, masks))
        x = x + layer.mlp(layer.norm_before_mlp(x))
    if len(plan.wanted) < x.shape[0]:
        x = x[plan.wanted]
    return w.head(w.norm(x))


def agrees(weights: Weights, model: PreTrainedModel, prompt: Sequence[int]) -> bool:
    """Are the scores of the first tokens of a prompt those of the model itself?

    All but the last are read at once, the last is fed as in decoding. Scores that are not numbers agree: the fault is
    the model's own.
    """
    ids = list(prompt[:PROBE_TOKENS])
    plain = unwrapped(model)(input_ids=torch.tensor([ids], device=weights.device), use_cache=False).logits[0].float()
    w, n = weights, len(ids) - 1
    kept = torch.empty((len(w.layers), 1, len(ids), 2, w.n_kept, w.head_dim), dtype=w.dtype, device=w.device)
    found = []
    if n:
        reading = Plan(ids[:n], list(range(n)), [0] * n, [], [Stretch(0, 0, n, 0)], list(range(n)))
        found.append(scores(w, kept, reading))
    found.append(scores(w, kept, Plan(ids[n:], [n], [0], [n + 1], [], [0])))
    apart = torch.cat(found).float() - plain
    # Where every product is rounded to eight bits, single scores of a deep model stray; all of them together do not.
    difference = apart.abs().max() if model.dtype == torch.float32 else apart.pow(2).mean().sqrt()
    return bool(plain.isnan().any()) or float(difference / plain.std().clamp(min=1e-6)) <= TOLERANCE[model.dtype]


def _heads(w: Weights, heads: Any, x: Tensor, turns: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Queries (N, H, D), keys and values (N, K, D); or keys and values in one (N, 2, K, D) where they come so."""
    n, width = x.shape[0], w.n_heads * w.head_dim
    if len(heads) == 1:
        joint = heads[0](x)
        q, both = joint[:, :width].view(n, w.n_heads, -1), joint[:, width:].view(n, 2, w.n_kept, -1)
        if turns is None:
            return q, both, None
        k, v = both.unbind(1)
    else:
        q, k, v = (head(x).view(n, -1, w.head_dim) for head in heads)
    if turns is not None:
        q, k = _turned(q, turns), _turned(k, turns)
    return q, k, v


def _turned(x: Tensor, turns: Tensor) -> Tensor:
    """Rotary positions: (a, b) becomes (a cos - b sin, b cos + a sin)."""
    return (x * turns[:, 0]).addcmul_(x.roll(x.shape[-1] // 2, -1), turns[:, 1])


def _masks(plan: Plan, device: torch.device, dtype: torch.dtype) -> list[Tensor | None]:
    """For the rows that grow, and for each stretch: what may be looked at; None where it is everything or what comes
    before."""
    masks: list[Tensor | None] = [None]
    if plan.lengths and min(plan.lengths) < max(plan.lengths):
        reach = torch.arange(max(plan.lengths), device=device)
        seen = reach < torch.tensor(plan.lengths, device=device)[:, None]
        masks = [torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, float("-inf"))[:, None, None]]
    for stretch in plan.stretches:
        if stretch.past == 0 or stretch.n == 1:
            masks.append(None)
        else:
            total = stretch.past + stretch.n
            reach = torch.arange(total, device=device)
            masks.append(reach <= reach[stretch.past :, None])
    return masks


def _attention(w: Weights, q: Tensor, memory: Tensor, plan: Plan, masks: list[Tensor | None]) -> Tensor:
    """What each token (N, H, D) finds in its slot of memory (slots, length, 2, K, D): (N, H * D)."""
    found = []
    if grown := len(plan.lengths):
        found.append(_plain_attention(w, q[:grown], memory, plan, masks[0]))
    for stretch, mask in zip(plan.stretches, masks[1:]):
        k, v = memory[stretch.slot, : stretch.past + stretch.n].permute(1, 2, 0, 3)[:, None]
        out = F.scaled_dot_product_attention(
            q[None, stretch.first : stretch.end].transpose(1, 2),
            k,
            v,
            attn_mask=mask,
            is_causal=mask is None and stretch.n > 1,
            scale=w.scale,
            enable_gqa=w.n_kept < w.n_heads,
        )
        found.append(out[0].transpose(0, 1).reshape(stretch.n, -1))
    return found[0] if len(found) == 1 else torch.cat(found)


def _plain_attention(w: Weights, q: Tensor, memory: Tensor, plan: Plan, mask: Tensor | None) -> Tensor:
    """Of the rows that grow, one token each."""
    k, v = memory[: q.shape[0], : max(plan.lengths)].permute(2, 0, 3, 1, 4)  # (B, K, T, D) each
    grouped = q.view(q.shape[0], w.n_kept, -1, w.head_dim)  # the queries that share keys, as rows of one
    out = F.scaled_dot_product_attention(grouped, k, v, attn_mask=mask, scale=w.scale)
    return out.reshape(q.shape[0], -1)
