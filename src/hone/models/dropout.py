"""Dropout of a model's own layers: found, read and set, wherever an architecture keeps it.

Some have modules for it, others a number that their attention hands to a function. The model's config is left as it is,
so what is saved comes with its own dropout again.

>>> set_dropout(model, 0.0)                                   # the largest there was # doctest: +SKIP
0.1
"""

from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers import PreTrainedModel

NUMBERS = ("dropout", "attention_dropout", "activation_dropout", "hidden_dropout", "dropout_rate", "dropout_p")


def places(model: PreTrainedModel) -> Iterator[tuple[Any, str]]:
    """(module, attribute) of every dropout probability; those of adapters are their own."""
    for name, module in model.named_modules():
        if "lora_" in name:
            continue
        if isinstance(module, nn.Dropout):
            yield module, "p"
            continue
        for attribute in NUMBERS:
            if type(getattr(module, attribute, None)) in (int, float):
                yield module, attribute


def largest_dropout(model: PreTrainedModel) -> float:
    """0 where nothing is ever dropped."""
    return max((getattr(module, attribute) for module, attribute in places(model)), default=0.0)


def set_dropout(model: PreTrainedModel, p: float) -> float:
    """Every dropout of the model becomes `p`, where the architecture has any; returns the largest there was."""
    before = largest_dropout(model)
    for module, attribute in list(places(model)):
        setattr(module, attribute, p)
    return before
