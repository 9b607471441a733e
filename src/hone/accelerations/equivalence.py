"""What a model can be relied on for, checked on real tokens before the first step, never assumed.

Does it keep examples that share a row apart? Does it compute the logits of chosen positions only? Is the fused loss the
plain one? Restarting position ids make transformers build a block-diagonal mask, but not every architecture heeds them:
one that does not would train across examples in silence.

A model without numbers (meta or fake tensors, as `hone plan` has) cannot be compared: the answer is then what its
forward pass says it takes.
"""

from typing import Any, Protocol

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensor
from transformers import PreTrainedModel

from hone.accelerations.fused_cross_entropy import FusedCrossEntropy
from hone.data.batches import flat, padded
from hone.loss import causal_lm_loss, scored_positions
from hone.models.inspect import takes

PROBE_TOKENS = 48  # of each of three examples: enough to see a leak, too few to cost anything
SMALL = 1 << 20  # elements of a parameter whose gradient is compared
# of the logits' spread; a leak changes them by its order
TOLERANCE = {torch.float32: 2e-3, torch.bfloat16: 0.15, torch.float16: 0.05}


class Examples(Protocol):
    """A TokenDataset, or a list of examples with input_ids and labels."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


def has_numbers(model: PreTrainedModel) -> bool:
    """False for a model on the meta device or of fake tensors."""
    return not any(p.is_meta or isinstance(p, FakeTensor) for p in model.parameters())


def keeps_examples_apart(model: PreTrainedModel, dataset: Examples) -> bool:
    """True where examples of one row are independent; a model that takes no position ids cannot tell them apart."""
    if not takes(model, "position_ids"):
        return False
    return not has_numbers(model) or isolation_error(model, dataset) <= TOLERANCE[model.dtype]


def isolation_error(model: PreTrainedModel, dataset: Examples) -> float:
    """Largest |logits of an example in a row with others - logits of it alone|, over the spread of the logits.

    The last of three examples is compared: it sees all the others if anything leaks.
    """
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


def heeds_logits_to_keep(model: PreTrainedModel, dataset: Examples) -> bool:
    """True where the model can compute the logits of chosen positions only, and these are the ones of all positions."""
    if not takes(model, "logits_to_keep"):
        return False
    if not has_numbers(model):
        return True
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
    return bool((some - every[chosen]).abs().max() <= TOLERANCE[model.dtype] * every.std().clamp(min=1e-6))


def loss_difference(model: PreTrainedModel, fused: FusedCrossEntropy, dataset: Examples) -> str | None:
    """How the fused loss of a real example and its gradients differ from the plain ones; None if they agree."""
    if not has_numbers(model):
        return None
    batch = padded([dataset[0]], pad_token_id=0)
    ids, labels = (torch.as_tensor(batch[name])[:, :PROBE_TOKENS].to(model.device) for name in ("input_ids", "labels"))
    if not bool(scored_positions(labels).any()):
        labels = ids.clone()
    trained = [p for p in model.parameters() if p.requires_grad and p.numel() <= SMALL][-8:]
    trained += [fused.linear.weight] if fused.linear.weight.requires_grad else []
    training = model.training
    model.eval()

    def keep() -> torch.Tensor:
        return model(input_ids=ids, use_cache=False, logits_to_keep=scored_positions(labels)).logits

    try:
        with fused.head_skipped():
            hidden = keep()
        if hidden.shape[-1] != fused.linear.in_features:
            return "the output layer is called in another way"
        loss = fused.loss(hidden, labels)
        got = [loss, *torch.autograd.grad(loss, trained, allow_unused=True)]
        del hidden
        plain = causal_lm_loss(keep(), labels)
        want = [plain, *torch.autograd.grad(plain, trained, allow_unused=True)]
    finally:
        model.train(training)
    tolerance = TOLERANCE[model.dtype]
    for name, a, b in zip(("the loss", *("a gradient" for _ in trained)), got, want, strict=True):
        if (a is None) != (b is None):
            return f"{name} is missing"
        if a is not None and not bool((a - b).float().norm() <= tolerance * b.float().norm() + 1e-6):
            return f"{name} differs"
    return None
