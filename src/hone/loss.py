"""The one shift and the one cross-entropy: what "loss" means everywhere in hone.

Loss is in nats per supervised token: the sum of -log p over all supervised tokens of an optimizer step, divided by how
many there are, whatever the number of micro-batches or processes they are spread over.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from hone.data.truncate import IGNORE_INDEX
from hone.errors import HoneError

Loss = Callable[[Tensor, Tensor, Any], Tensor]  # logits, labels, items of the whole step


def token_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """-log p of each label given what stands before it, in float32; 0 where the label is -100.

    logits: (B, T, V), logits[:, t] scores the token at t + 1. labels: (B, T), aligned with the input.
    Returns (B, T - 1).
    """
    following = F.pad(labels[:, 1:], (0, 1), value=IGNORE_INDEX)  # shifted here: all logits but the last are a copy
    return target_nll(logits, following)[:, :-1]


def target_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """-log p of each label, in float32; 0 where it is -100. Nothing is shifted: a decoder's inputs were.

    logits: (..., V), labels: (...). Returns (...).
    """
    return F.cross_entropy(
        logits.float().reshape(-1, logits.size(-1)), labels.reshape(-1), ignore_index=IGNORE_INDEX, reduction="none"
    ).view(labels.shape)


def scored_positions(labels: Tensor) -> Tensor:
    """Where logits are needed at all: (B, T) bool, True at t if the token at t + 1 is supervised."""
    scored = labels.roll(-1, dims=1) != IGNORE_INDEX
    scored[:, -1] = False  # nothing follows the last token
    return scored


def causal_lm_loss(logits: Tensor, labels: Tensor, num_items: Tensor | int | None = None) -> Tensor:
    """Sum of the token losses over `num_items`, the supervised tokens of the whole optimizer step.

    logits: (B, T, V), or (R, V) of the R positions in `scored_positions(labels)`. labels: (B, T).
    Without `num_items`, the mean over this batch. A batch without supervised tokens gives 0, not NaN.
    """
    if logits.dim() == 2:
        total = F.cross_entropy(logits.float(), labels[:, 1:][labels[:, 1:] != IGNORE_INDEX], reduction="sum")
    else:
        total = token_nll(logits, labels).sum()
    if num_items is None:
        num_items = (labels[:, 1:] != IGNORE_INDEX).sum().clamp(min=1)
    return total / num_items


def seq2seq_loss(logits: Tensor, labels: Tensor, num_items: Tensor | int | None = None) -> Tensor:
    """As `causal_lm_loss`, for logits (B, T, V) that score labels (B, T) place by place."""
    if num_items is None:
        num_items = (labels != IGNORE_INDEX).sum().clamp(min=1)
    return target_nll(logits, labels).sum() / num_items


def classification_loss(
    logits: Tensor,
    labels: Tensor,
    num_items: Tensor | int | None = None,
    class_weights: Sequence[float] | None = None,
) -> Tensor:
    """Sum of -log p of the true classes over `num_items`, the rows of the whole optimizer step.

    logits: (B, classes). labels: (B,). class_weights: (classes,), what a row of each class counts; the sum is still
    divided by the number of rows, so that weights of mean 1 over the data keep the scale of the loss.
    """
    nll = target_nll(logits, labels)
    if class_weights is not None:
        nll = nll * nll.new_tensor(class_weights)[labels]
    return nll.sum() / (len(labels) if num_items is None else num_items)


def refuse_bad_loss(loss: float, step: int, examples: Sequence[int] = ()) -> None:
    """Raise `Diverged` if a loss is infinite or no number: whatever follows would be too."""
    if not math.isfinite(loss):
        raise _diverged(f"the loss is {loss} at step {step}", examples)


def refuse_bad_gradient(norm: float, step: int, examples: Sequence[int] = ()) -> None:
    """Raise `Diverged` if the norm of a gradient is infinite or no number: the weights would be after the step."""
    if not math.isfinite(norm):
        raise _diverged(f"the norm of the gradient is {norm} at step {step}", examples)


def refuse_diverged(model: nn.Module) -> None:
    """Raise a HoneError if a trained weight is infinite or no number; a step may break what its own loss did not show.

    Called before weights are written: a checkpoint of such a model would only be resumed into the same end.
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not parameter.isfinite().all():
            raise _diverged(f"the weights are no longer finite ({name})")


class Diverged(HoneError):
    """Numbers of the training are not finite any more. examples: of the step in which it was seen, by their numbers."""

    examples: Sequence[int] = ()


def _diverged(what: str, examples: Sequence[int] = ()) -> Diverged:
    error = Diverged(
        f"{what}: training diverged",
        fix="lower learning_rate (try a tenth) or add warmup_steps; then begin again with overwrite=true, or in "
        "another output_dir",
    )
    error.examples = examples
    return error
