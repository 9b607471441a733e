"""The one shift and the one cross-entropy: what "loss" means everywhere in hone.

Loss is in nats per supervised token: the sum of -log p over all supervised tokens of an optimizer step, divided by how
many there are, whatever the number of micro-batches or processes they are spread over.
"""

from typing import TYPE_CHECKING

from hone.data.views import IGNORE_INDEX

if TYPE_CHECKING:
    from torch import Tensor


def token_nll(logits: "Tensor", labels: "Tensor") -> "Tensor":
    """-log p of each label given what stands before it, in float32; 0 where the label is -100.

    logits: (B, T, V), logits[:, t] scores the token at t + 1. labels: (B, T), aligned with the input.
    Returns (B, T - 1).
    """
    from torch.nn import functional as F

    logits, labels = logits[:, :-1].float(), labels[:, 1:]
    return F.cross_entropy(
        logits.reshape(-1, logits.size(-1)), labels.reshape(-1), ignore_index=IGNORE_INDEX, reduction="none"
    ).view(labels.shape)


def causal_lm_loss(logits: "Tensor", labels: "Tensor", num_items: "Tensor | int | None" = None) -> "Tensor":
    """Sum of the token losses over `num_items`, the supervised tokens of the whole optimizer step.

    Without `num_items`, the mean over this batch. A batch without supervised tokens gives 0, not NaN.
    """
    total = token_nll(logits, labels).sum()
    if num_items is None:
        num_items = (labels[:, 1:] != IGNORE_INDEX).sum().clamp(min=1)
    return total / num_items
