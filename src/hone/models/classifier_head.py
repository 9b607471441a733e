"""Classification heads: which modules they are, what their classes are called, and what padding they look for.

A decoder's classifier scores the last token that is not padding, found by its id (transformers' own rule, so that a
saved model answers the same elsewhere); `data.special_tokens.padding_id` chooses one that no text holds.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, set_seed

from hone.errors import HoneError
from hone.files import read_json
from hone.models.inspect import unwrapped

CLASSIFIES = "ForSequenceClassification"  # the end of such classes' names
LABELS = "labels.json"  # class names and padding of a classifier, beside an adapter, which has no config.json


def label_maps(names: Sequence[str]) -> dict[str, Any]:
    """The two keys of a model's config that name its classes."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}


def class_names(model: PreTrainedModel) -> list[str]:
    """Names of a classifier's classes, in the order of its scores."""
    id2label = model.config.id2label
    return [str(id2label[i]) for i in range(len(id2label))]


def head_names(model: nn.Module) -> list[str]:
    """Names of the modules that exist only to classify: those beside the network, and a pooler within it."""
    base = getattr(model, "base_model_prefix", "")
    beside = [name for name, child in model.named_children() if name != base and any(True for _ in child.parameters())]
    poolers = [name for name, _ in model.named_modules() if name.rpartition(".")[2] == "pooler"]
    return beside + poolers


def is_head_weight(model: nn.Module, key: str) -> bool:
    """Whether a weight may be missing from the files of a model that did not classify yet."""
    return any(key == name or key.startswith(f"{name}.") for name in head_names(model))


def fit_head(model: PreTrainedModel, names: Sequence[str], *, known: Sequence[str], seed: int) -> None:
    """Give `model` the classes `names`; a head that scores the same classes is kept, any other begins anew.

    Args:
        known: the classes that the weights were trained for, in their order (empty for none).
        seed: a new head's weights are a function of it.
    """
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: i for i, name in enumerate(names)}
    if list(known) == list(names):
        return
    heads = [model.get_submodule(name) for name in head_names(model) if not name.endswith("pooler")]
    if sorted(known) == sorted(names):  # the same classes in another order: their scores change places
        scores = [m for head in heads for m in head.modules() if isinstance(m, nn.Linear)][-1]
        order = torch.tensor([list(known).index(name) for name in names])
        with torch.no_grad():
            for parameter in scores.parameters():
                parameter.copy_(parameter[order].clone())
        return
    set_seed(seed)
    for head in heads:
        for parameter in head.parameters():
            parameter._is_hf_initialized = False
        for module in head.modules():
            model._init_weights(module)


def architecture(model: PreTrainedModel) -> str:
    """The name of a model's class, seen through PEFT's wrapper."""
    return type(unwrapped(model)).__name__


def set_padding(model: PreTrainedModel, pad_token_id: int) -> None:
    """Tell a model which token rows are padded with."""
    model.config.pad_token_id = pad_token_id
    model.config.get_text_config().pad_token_id = pad_token_id


def adapter_labels(folder: Path) -> dict[str, Any]:
    """Class names and padding that a classifier's adapter was saved with.

    Raises:
        HoneError: they are not there.
    """
    path = folder / LABELS
    if not path.is_file():
        raise HoneError(
            f"the adapter of a classifier has no {LABELS}: what its classes are is not known",
            where=str(folder),
            fix="name the run folder; or copy labels.json from there",
        )
    found: dict[str, Any] = read_json(path)
    return found
