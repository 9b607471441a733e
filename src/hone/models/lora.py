"""LoRA through PEFT: small trainable matrices added to frozen weights (Hu et al. 2021, arXiv 2106.09685).

The frozen weights keep the dtype they were loaded in; the adapter's matrices are float32 whatever that is, so that
small updates are not rounded away. Modules trained whole (`lora_modules_to_save`, heads) keep the model's dtype.
"""

import warnings
from collections.abc import Sequence
from typing import Any

from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from hone.config.sections.method import MethodSection
from hone.errors import HoneError
from hone.models.freeze import blocks


def add_lora(model: PreTrainedModel, section: MethodSection, *, peft_task: str, heads: Sequence[str] = ()) -> Any:
    """Wrap `model` in a PeftModel whose adapter matrices alone train; at the start it computes what the base computes.

    Args:
        peft_task: `ModelKind.peft`.
        heads: modules that train whole and are saved with the adapter, such as a new classification head.

    Raises:
        HoneError: a module or layer does not exist; the names that do are listed.
    """
    linear = _linear_layers(model)
    whole = [*heads, *(name for name in section.lora_modules_to_save if name not in heads)]
    _check_names(model, section, linear)
    targets: str | list[str] = section.lora_target_modules
    if section.lora_layers_to_transform is not None:
        _check_layers(model, section.lora_layers_to_transform)
        if isinstance(targets, str):  # PEFT wants names where it is to choose among layers
            targets = _inner_names(model, linear)
    config = LoraConfig(
        r=section.lora_r,
        lora_alpha=section.lora_alpha,
        lora_dropout=section.lora_dropout,
        target_modules=targets,
        layers_to_transform=section.lora_layers_to_transform,
        use_rslora=section.use_rslora,
        task_type=peft_task,
        modules_to_save=whole or None,
        exclude_modules=list(heads) or None,
        fan_in_fan_out=any(isinstance(m, Conv1D) for m in linear.values()),  # GPT-2 stores its weights transposed
    )
    with warnings.catch_warnings():
        # a trained copy of a tied head or embedding: said in the table of what trains, and untied when merged
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings=True.*")
        return get_peft_model(model, config)


def _linear_layers(model: PreTrainedModel) -> "dict[str, Any]":
    """Full name -> module, of every layer that an adapter can be added to."""
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}


def _inner_names(model: PreTrainedModel, linear: dict[str, Any]) -> list[str]:
    """Last names of all linear layers but the head: what PEFT takes all-linear for."""
    head = model.get_output_embeddings()
    return sorted({name.rpartition(".")[2] for name, module in linear.items() if module is not head})


def _check_names(model: PreTrainedModel, section: MethodSection, linear: dict[str, Any]) -> None:
    """Refuse names of modules that are not there, or that would both be adapted and trained whole."""
    targets, whole = section.lora_target_modules, section.lora_modules_to_save
    if isinstance(targets, list) and (unknown := [name for name in targets if not _named(name, linear)]):
        raise HoneError(
            f"lora_target_modules: {type(model).__name__} has no linear layer '{unknown[0]}'",
            fix=f"it has {', '.join(sorted({name.rpartition('.')[2] for name in linear}))}; or use all-linear",
        )
    modules = [name for name, module in model.named_modules() if name and any(True for _ in module.parameters())]
    if unknown := [name for name in whole if not _named(name, modules)]:
        last = {name.rpartition(".")[2] for name in modules}
        raise HoneError(
            f"lora_modules_to_save: {type(model).__name__} has no module '{unknown[0]}'",
            fix=f"it has {', '.join(sorted(name for name in last if not name.isdigit()))}",
        )
    if isinstance(targets, list) and (both := [name for name in whole if name in targets]):
        raise HoneError(
            f"'{both[0]}' is in lora_target_modules and in lora_modules_to_save",
            fix="an adapted module stays frozen, one that is saved trains whole: name it in one of them",
        )


def _named(wanted: str, names: "Sequence[str] | dict[str, Any]") -> bool:
    """Whether a module is called so, by its full name or the end of it."""
    return any(name == wanted or name.endswith(f".{wanted}") for name in names)


def _check_layers(model: PreTrainedModel, wanted: list[int]) -> None:
    name, layers = blocks(model)
    if wrong := [n for n in wanted if not 0 <= n < len(layers)]:
        raise HoneError(
            f"lora_layers_to_transform: there is no layer {wrong[0]}: {type(model).__name__} has {len(layers)}",
            fix=f"the layers of {name} count from 0 to {len(layers) - 1}",
        )
