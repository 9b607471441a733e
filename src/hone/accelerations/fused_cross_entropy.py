"""Fused cross-entropy: output layer and loss as one operation, no logits kept, float32 soft-max.

The model runs as it is, only its output layer passes the hidden states of the scored positions through. Here they are
multiplied a block of rows at a time; the soft-max and the gradients are made at once, while the block is in the cache,
three matrix products in all:

    logits = h Wᵀ       p = softmax(logits)       loss = -Σ log p[label]
    dlogits = p - onehot(label)       dh = dlogits W       dW = dlogitsᵀ h

Where the embedding is the same matrix as the output layer, its gradient is added to dW row by row, so that a dense
gradient of the whole vocabulary is made once, not twice. Gradients in the forward pass: Liger Kernel, arXiv 2410.10989.

>>> fused = FusedCrossEntropy.of(model)                       # None where it does not apply # doctest: +SKIP
>>> with fused.head_skipped():                                # doctest: +SKIP
...     hidden = model(**inputs, logits_to_keep=scored_positions(labels)).logits
>>> loss = fused.loss(hidden, labels, num_items)              # doctest: +SKIP
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Optional

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from hone.data.batches import filled
from hone.data.truncate import IGNORE_INDEX

LOGITS_BYTES = 256 << 20  # of one block of rows, in the compute type: only large vocabularies and batches need several
SOFTMAX_ELEMENTS = 1 << 20  # float32 numbers at a time: they stay in the cache between the passes
LOGITS_CHANGED = ("final_logit_softcapping", "logit_scale", "logits_scaling")  # keys of configs: after the product


class FusedCrossEntropy:
    """The loss over a model's output layer, and over its embedding where both are one matrix.

    Attributes:
        linear: (V, d) weight, with or without bias. embedding: the tied input embedding, or None.
        dtype: of the products; None: autocast's where it is on, else the hidden states'.
    """

    def __init__(
        self, linear: nn.Linear, embedding: nn.Embedding | None = None, dtype: torch.dtype | None = None
    ) -> None:
        self.linear, self.embedding, self.dtype = linear, embedding, dtype
        self._pending: list[Tensor] = []  # dW on its way from the output layer's backward to the embedding's

    @classmethod
    def of(cls, model: PreTrainedModel) -> Optional["FusedCrossEntropy"]:
        """None if the output layer is not a plain linear one (adapters and quantised layers are not)."""
        linear, embedding = model.get_output_embeddings(), model.get_input_embeddings()
        if type(linear) is not nn.Linear:
            return None
        tied = type(embedding) is nn.Embedding and embedding.weight is linear.weight
        return cls(linear, embedding if tied else None)

    @contextmanager
    def head_skipped(self) -> Iterator[None]:
        """Within it the output layer returns its input, and a tied embedding leaves its gradient to the loss's."""
        self._pending.clear()
        self.linear.forward = _identity  # type: ignore[method-assign, assignment]
        if self._shares_gradient():
            self.embedding.forward = self._embed  # type: ignore[union-attr, method-assign]
        try:
            yield
        finally:
            del self.linear.forward
            if self.embedding is not None:
                self.embedding.__dict__.pop("forward", None)

    def loss(self, hidden: Tensor, labels: Tensor, num_items: Tensor | int | None = None) -> Tensor:
        """`loss.causal_lm_loss` of hidden states (R, d) at `scored_positions(labels)`, labels (B, T)."""
        targets = labels[:, 1:][labels[:, 1:] != IGNORE_INDEX]
        if num_items is None:
            num_items = max(1, len(targets))
        pending = self._pending if self._shares_gradient() else None
        kind = hidden.device.type
        autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        loss: Tensor = _LinearCrossEntropy.apply(
            hidden,
            self.linear.weight,
            self.linear.bias,
            targets,
            1.0 / float(num_items),
            self.dtype or autocast,
            pending,
        )
        return loss

    def _shares_gradient(self) -> bool:
        return self.embedding is not None and self.linear.weight.requires_grad and torch.is_grad_enabled()

    def _embed(self, ids: Tensor) -> Tensor:
        assert self.embedding is not None
        tied = self.embedding.weight, self.embedding.padding_idx
        embedded: Tensor = _TiedEmbedding.apply(ids, *tied, self._pending)
        return embedded


def logits_changed(model: PreTrainedModel) -> str | None:
    """The key of the model's config that caps or scales its logits after the product; None for plain logits."""
    config = model.config.get_text_config(decoder=True)
    return next((key for key in LOGITS_CHANGED if getattr(config, key, None) not in (None, 1.0)), None)


def _identity(hidden: Tensor) -> Tensor:
    return hidden


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        scale: float,
        dtype: torch.dtype,
        pending: list[Tensor] | None,
    ) -> Tensor:
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        with torch.autocast(hidden.device.type, enabled=False):
            h, w = F.pad(hidden.to(dtype), (0, 0, 0, filled(len(hidden)) - len(hidden))), weight.to(dtype)
            total = hidden.new_zeros((), dtype=torch.float32)
            d_hidden = torch.empty_like(h) if need_hidden else None
            d_weight: Tensor | None = None
            d_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and need_bias else None
            block = max(1, LOGITS_BYTES // (w.shape[0] * w.element_size()))
            for rows in (slice(a, a + block) for a in range(0, len(h), block)):
                logits = F.linear(h[rows], w, None if bias is None else bias.to(dtype))
                real = len(targets[rows])
                total += _softmax_grad_(logits[:real], targets[rows], scale)
                logits[real:] = 0  # of the rows that fill h up
                if d_hidden is not None:
                    torch.mm(logits, w, out=d_hidden[rows])
                if need_weight:
                    part = logits.t() @ h[rows]
                    # several blocks are summed in the weight's own precision
                    d_weight = (
                        part if len(h) <= block else part.to(weight.dtype) if d_weight is None else d_weight.add_(part)
                    )
                if d_bias is not None:
                    d_bias += logits.sum(0, dtype=torch.float32)
            if need_weight and d_weight is None:  # nothing is supervised
                d_weight = torch.zeros_like(weight)
        ctx.save_for_backward(None if d_hidden is None else d_hidden[: len(hidden)], d_weight, d_bias)
        ctx.types, ctx.pending = (hidden.dtype, weight.dtype), pending
        return total * scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_weight, d_bias = (None if part is None else _times(part, grad) for part in ctx.saved_tensors)
        hidden_type, weight_type = ctx.types
        if d_hidden is not None:
            d_hidden = d_hidden.to(hidden_type)
        if d_weight is not None and ctx.pending is not None:
            ctx.pending.append(d_weight)  # the embedding's backward, the last one of all, returns it
            d_weight = None
        elif d_weight is not None:
            d_weight = d_weight.to(weight_type)
        return d_hidden, d_weight, None if d_bias is None else d_bias.to(weight_type), None, None, None, None


class _TiedEmbedding(torch.autograd.Function):
    """F.embedding, whose gradient is added to that of the output layer."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight: Tensor, padding: int | None, pending: list[Tensor]) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.shape, ctx.dtype, ctx.padding, ctx.pending = weight.shape, weight.dtype, padding, pending
        return F.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (ids,) = ctx.saved_tensors
        total = ctx.pending.pop().to(ctx.dtype) if ctx.pending else grad.new_zeros(ctx.shape, dtype=ctx.dtype)
        if ctx.padding is not None:  # the row of padding is never trained through the embedding
            grad = grad.masked_fill((ids == ctx.padding)[..., None], 0)
        total.index_add_(0, ids.reshape(-1), grad.reshape(-1, ctx.shape[1]).to(ctx.dtype))
        return None, total, None, None


def _softmax_grad_(logits: Tensor, targets: Tensor, scale: float) -> Tensor:
    """Overwrite logits (R, V) by the gradient of scale * loss; returns the sum of -log p of the targets (R,)."""
    total = logits.new_zeros((), dtype=torch.float32)
    step = max(1, SOFTMAX_ELEMENTS // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
    for rows in (slice(a, a + step) for a in range(0, len(logits), step)):
        log_p = torch.log_softmax(logits[rows], dim=-1, dtype=torch.float32)
        target = targets[rows, None]
        total -= log_p.gather(1, target).sum()
        p = log_p.exp_()
        p.scatter_add_(1, target, p.new_full((1, 1), -1.0).expand_as(target))
        logits[rows] = p.mul_(scale)
    return total


def _times(gradient: Tensor, factor: Tensor) -> Tensor:
    """The gradient that reaches a loss is 1 but for loss scaling: a pass over a vocabulary saved."""
    if factor.device.type == "cpu" and factor.item() == 1.0:
        return gradient
    return gradient * factor.to(gradient.dtype)
