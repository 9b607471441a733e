"""What a model is: its positions, its vocabulary, the arguments it takes, the operations of a token."""

import inspect
from typing import Any

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hone.errors import HoneError
from hone.models.source import POSITIONS


def vocabulary_size(tokenizer: PreTrainedTokenizerBase) -> int:
    """One more than the largest id the tokenizer can give (its length, unless the ids have gaps)."""
    return max(len(tokenizer), max(tokenizer.get_vocab().values()) + 1)


def check_vocabulary(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    fix: str = "set tokenizer_name_or_path to the model's own tokenizer",
) -> None:
    """Refuse a tokenizer whose ids the model's embedding does not have.

    Fewer tokens than rows is normal (Qwen2 pads its embedding); more would read beyond the table.
    """
    rows, needed = model.get_input_embeddings().weight.shape[0], vocabulary_size(tokenizer)
    if needed > rows:
        raise HoneError(
            f"the tokenizer has {needed:,} tokens but the model's embedding only {rows:,} rows: no pair",
            fix=fix,
        )


def max_positions(model: PreTrainedModel) -> int | None:
    """How many positions the model can take, None where its config does not say."""
    return max_positions_of(model.config)


def max_positions_of(config: Any) -> int | None:
    """As `max_positions`, of a model's config alone."""
    for key in POSITIONS:
        value = getattr(config, key, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def takes(model: Any, argument: str) -> bool:
    """Whether the model's forward pass has an argument of this name; PEFT's wrapper hides it."""
    return argument in inspect.signature(unwrapped(model).forward).parameters


def unwrapped(model: Any) -> Any:
    """The model without PEFT's wrapping; its adapters stay in."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def reads_source(model: PreTrainedModel) -> bool:
    """Is this an encoder-decoder? Its answer does not continue the prompt and has a window of its own."""
    return bool(model.config.is_encoder_decoder)


def first_tokens(model: Any) -> list[int]:
    """What an encoder-decoder's decoder begins with. BART begins with two tokens, mBART's second names the language."""
    forced = getattr(model.generation_config, "forced_bos_token_id", None)
    return [int(model.config.decoder_start_token_id), *([] if forced is None else [int(forced)])]


def flops_per_token(model: nn.Module) -> float:
    """Matrix-product operations for one trained token: 2 for each weight forward, 2 more backward for the activations,
    and 2 more for each weight that trains (Kaplan et al. 2020, arXiv 2001.08361, appendix). Attention's own products,
    a few per cent at these lengths, are left out. Tied weights count once, as the head; other embeddings are look-ups.
    """
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if head is not None:
        tables.discard(id(head.weight))
    weights = [p for p in model.parameters() if p.dim() >= 2 and id(p) not in tables]
    return float(sum(p.numel() * (6 if p.requires_grad else 4) for p in weights))
