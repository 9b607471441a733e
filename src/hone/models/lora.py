"""LoRA through PEFT: small trainable matrices beside frozen weights (Hu et al. 2021, arXiv 2106.09685)."""

from typing import TYPE_CHECKING, Any

from hone.config.sections.method import MethodSection
from hone.errors import HoneError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def add_lora(model: "PreTrainedModel", section: MethodSection) -> Any:
    """Wrap `model` in a PeftModel whose adapter matrices alone train; at the start it computes what the base computes.

    Raises:
        HoneError: a target module does not exist; the names that do are listed.
    """
    from peft import LoraConfig, get_peft_model
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    targets = section.lora_target_modules
    linear = {name.rpartition(".")[2]: m for name, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D)}
    if isinstance(targets, list) and (unknown := [t for t in targets if t.rpartition(".")[2] not in linear]):
        raise HoneError(
            f"lora_target_modules: {type(model).__name__} has no linear layer '{unknown[0]}'",
            fix=f"it has {', '.join(sorted(linear))}; or use all-linear",
        )
    config = LoraConfig(
        r=section.lora_r,
        lora_alpha=section.lora_alpha,
        lora_dropout=section.lora_dropout,
        target_modules=targets,
        use_rslora=section.use_rslora,
        task_type="CAUSAL_LM",
        fan_in_fan_out=any(isinstance(m, Conv1D) for m in linear.values()),  # GPT-2 stores its weights transposed
    )
    return get_peft_model(model, config)
