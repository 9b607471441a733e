"""Muon for the matrices inside a network, AdamW for everything else, as one optimizer (`optim: muon`).

Muon (Jordan 2024) steps in the direction of the momentum with all its singular values brought near one, so that rare
directions move as far as common ones. Embeddings, output layers, norms and biases are not maps between hidden states
and keep AdamW. One learning rate serves both: Muon's step is scaled to the size of AdamW's (Liu et al. 2025,
arXiv 2502.16982). The two algorithms are PyTorch's; here they share groups, schedule and checkpoint.

>>> optimizer = muon(model, learning_rate=1e-3, weight_decay=0.1)        # doctest: +SKIP
"""

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from hone.errors import HoneError
from hone.models.classifier_head import head_names


class MuonAdamW(torch.optim.Optimizer):
    """See the module. Groups and state are this object's; the two parts only compute."""

    def __init__(self, matrices: torch.optim.Muon, others: torch.optim.AdamW) -> None:
        self.parts = (matrices, others)
        super().__init__([*matrices.param_groups, *others.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both parts, on the groups and the state as they are now: loading a checkpoint replaces them."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        matrices, others = self.parts
        matrices.param_groups = [group for group in self.param_groups if "ns_steps" in group]
        others.param_groups = [group for group in self.param_groups if "ns_steps" not in group]
        for part in self.parts:
            part.state = self.state
            part.step()
        return loss


def muon(
    model: PreTrainedModel,
    *,
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    decayed: Collection[str] | None = None,
) -> MuonAdamW:
    """The optimizer of a model's trainable parameters.

    Args:
        betas, eps: of AdamW. decayed: names of the parameters that decay; None for all that are no vector.

    Raises:
        HoneError: no hidden matrix trains.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    hidden = hidden_matrices(model)
    if not hidden:
        raise HoneError(
            "optim: muon needs a hidden matrix to train, and none does", fix="use optim: adamw_torch_fused instead"
        )
    decayed = {name for name, p in trained.items() if p.dim() > 1} if decayed is None else decayed
    groups = [
        {"params": [p for name, p in trained.items() if name not in hidden and (name in decayed) == decays],
         "weight_decay": weight_decay if decays else 0.0}
        for decays in (True, False)
    ]  # fmt: skip
    matrices = [p for name, p in trained.items() if name in hidden]
    return MuonAdamW(
        torch.optim.Muon(matrices, lr=learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=eps, fused=True),
    )


def hidden_matrices(model: PreTrainedModel) -> set[str]:
    """Names of the trainable weights that map hidden states to hidden states: not embeddings, not output layers."""
    outer: list[nn.Module] = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    output = model.get_output_embeddings()
    outer += [output] if output is not None else []
    outer += [model.get_submodule(name) for name in head_names(model)]
    ids = {id(parameter) for module in outer for parameter in module.parameters()}
    return {name for name, p in model.named_parameters() if p.requires_grad and p.dim() == 2 and id(p) not in ids}
