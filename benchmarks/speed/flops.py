"""Operations of one trained token that the method cannot do without: what a share of the ceiling is counted in."""

from typing import Any


def training_flops(model: Any) -> float:
    """Matrix-product operations of a token: 2 a weight forward, 2 for the gradient it passes down, 2 for its own.

    A frozen weight has no gradient of its own; one below everything that trains passes none down either. The head is
    counted at every position, look-ups and attention's own products are not. For a model that trains whole, or in its
    lowest block, this is hone's own count (`hone.training.flops.flops_per_token`) but for that block's first weights.
    """
    from torch import nn

    head = model.get_output_embeddings().weight
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    trains = any(parameter.requires_grad for name, parameter in model.named_parameters() if id(parameter) in tables)
    total = head.numel() * (6 if head.requires_grad else 4)
    for parameter in model.parameters():  # in the order of the forward pass
        if parameter.dim() < 2 or id(parameter) in tables or parameter is head:
            continue
        total += parameter.numel() * (6 if parameter.requires_grad else 4 if trains else 2)
        trains = trains or parameter.requires_grad
    return float(total)
