"""What a model can be relied on for, checked on real tokens before the first step, never assumed.

Does it keep examples that share a row apart? Does it compute the logits of chosen positions only?

Restarting position ids make transformers build a block-diagonal mask, but not every architecture heeds them: one that
does not would train across examples in silence.
"""

from typing import TYPE_CHECKING

import numpy as np

from hone.data.batches import flat, padded
from hone.data.truncate import TokenDataset
from hone.models.inspect import takes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

from hone.accelerations.fused_cross_entropy import FusedHead

PROBE_TOKENS = 48  # of each of three examples: enough to see a leak, too few to cost anything
SMALL = 1 << 20  # elements of a parameter whose gradient is compared
TOLERANCE = {
    "float32": 2e-3,
    "bfloat16": 0.15,
    "float16": 0.05,
}  # of the logits' spread; a leak changes them by its order


def isolation_error(model: "PreTrainedModel", dataset: TokenDataset) -> float:
    """Largest |logits of an example beside others - logits of it alone|, over the spread of the logits.

    The last of three examples is compared: it sees all the others if anything leaks.
    """
    import torch

    items = [dataset[i] for i in np.linspace(0, len(dataset) - 1, 3).astype(int).tolist()]
    for item in items:
        item["input_ids"], item["labels"] = item["input_ids"][:PROBE_TOKENS], item["labels"][:PROBE_TOKENS]
    together, alone = flat(items), flat(items[-1:])
    training = model.training
    model.eval()
    with torch.inference_mode():
        logits = [
            model(
                input_ids=torch.as_tensor(batch["input_ids"]).to(model.device),
                position_ids=torch.as_tensor(batch["position_ids"]).to(model.device),
                use_cache=False,
            ).logits.float()
            for batch in (together, alone)
        ]
    model.train(training)
    length = logits[1].shape[1]
    return float((logits[0][:, -length:] - logits[1]).abs().max() / logits[1].std().clamp(min=1e-6))


def keeps_examples_apart(model: "PreTrainedModel", dataset: TokenDataset) -> bool:
    """True where examples of one row are independent; a model that takes no position ids cannot tell them apart."""
    return takes(model, "position_ids") and isolation_error(model, dataset) <= TOLERANCE[_dtype(model)]


def heeds_logits_to_keep(model: "PreTrainedModel", dataset: TokenDataset) -> bool:
    """True where the model can compute the logits of chosen positions only, and these are the ones of all positions."""
    import torch

    from hone.loss import scored_positions

    if not takes(model, "logits_to_keep"):
        return False
    batch = padded([dataset[0]], pad_token_id=0)
    ids = torch.as_tensor(batch["input_ids"])[:, :PROBE_TOKENS].to(model.device)
    chosen = scored_positions(torch.as_tensor(batch["labels"])[:, :PROBE_TOKENS].to(model.device))
    chosen[:, 0] = True
    training = model.training
    model.eval()
    with torch.inference_mode():
        every = model(input_ids=ids, use_cache=False).logits.float()
        try:
            some = model(input_ids=ids, use_cache=False, logits_to_keep=chosen).logits.float()
        except (RuntimeError, TypeError, IndexError, ValueError):  # transformers before masks of positions
            return False
        finally:
            model.train(training)
    if some.shape != every[chosen].shape:
        return False
    return bool((some - every[chosen]).abs().max() <= TOLERANCE[_dtype(model)] * every.std().clamp(min=1e-6))


def head_difference(model: "PreTrainedModel", head: "FusedHead", dataset: TokenDataset) -> str | None:
    """How the fused loss of a real example and its gradients differ from the plain ones; None if they agree."""
    import torch

    from hone.loss import causal_lm_loss, scored_positions

    batch = padded([dataset[0]], pad_token_id=0)
    ids, labels = (torch.as_tensor(batch[name])[:, :PROBE_TOKENS].to(model.device) for name in ("input_ids", "labels"))
    if not bool(scored_positions(labels).any()):
        labels = ids.clone()
    trained = [p for p in model.parameters() if p.requires_grad and p.numel() <= SMALL][-8:]
    trained += [head.linear.weight] if head.linear.weight.requires_grad else []
    training = model.training
    model.eval()

    def keep() -> "torch.Tensor":
        return model(input_ids=ids, use_cache=False, logits_to_keep=scored_positions(labels)).logits

    try:
        with head.skipped():
            hidden = keep()
        if hidden.shape[-1] != head.linear.in_features:
            return "it is called in another way"
        fused = head.loss(hidden, labels)
        got = [fused, *torch.autograd.grad(fused, trained, allow_unused=True)]
        del hidden
        plain = causal_lm_loss(keep(), labels)
        want = [plain, *torch.autograd.grad(plain, trained, allow_unused=True)]
    finally:
        model.train(training)
    tolerance = TOLERANCE[_dtype(model)]
    for name, a, b in zip(("the loss", *("a gradient" for _ in trained)), got, want, strict=True):
        if (a is None) != (b is None):
            return f"{name} is missing"
        if a is not None and not bool((a - b).float().norm() <= tolerance * b.float().norm() + 1e-6):
            return f"{name} differs"
    return None


def _dtype(model: "PreTrainedModel") -> str:
    return str(model.dtype).removeprefix("torch.")
