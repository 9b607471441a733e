"""GELU in one operation instead of eight: transformers writes GPT-2's as a formula, PyTorch has it fused.

>>> fuse_gelu(model)                                          # 12 for GPT-2 # doctest: +SKIP
"""

from torch import nn
from transformers.activations import FastGELUActivation, NewGELUActivation


def fuse_gelu(model: nn.Module) -> int:
    """Replace each tanh approximation of GELU (Hendrycks & Gimpel 2016) by PyTorch's; how many there were.

    The function is the same up to rounding. The classes hold no weights, so saved models are the same too.
    """
    found = [
        (module, name)
        for module in model.modules()
        for name, child in module.named_children()
        if type(child) in (NewGELUActivation, FastGELUActivation)
    ]
    for module, name in found:
        setattr(module, name, nn.GELU(approximate="tanh"))
    return len(found)
