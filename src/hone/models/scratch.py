"""A new model from an architecture's published configuration, its vocabulary and ends those of the tokenizer."""

import difflib
from collections.abc import Sequence
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedModel, PreTrainedTokenizerBase, set_seed

from hone.config.schema import Where
from hone.config.sections.model import ModelSection
from hone.errors import HoneError, placed
from hone.models.classifier_head import label_maps
from hone.models.inspect import vocabulary_size
from hone.models.kinds import ModelKind, loading_fix


def from_scratch(
    section: ModelSection,
    kind: ModelKind,
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int,
    where: Where,
    outputs: Sequence[str],
    pad_token_id: int | None,
) -> PreTrainedModel:
    """A model of the section's `model_type` with random weights, a function of its config and the seed.

    Raises:
        HoneError: an unknown architecture or one of another kind, an unknown key, or sizes that do not go together.
    """
    with placed(where("model_type")):
        defaults = _default_config(str(section.model_type), kind)
    for key in section.config_overrides:
        if not hasattr(defaults, key):
            near = difflib.get_close_matches(key, [name for name in vars(defaults) if name[0] != "_"], n=1)
            raise HoneError(
                f"config_overrides: a {section.model_type} config has no key '{key}'",
                where=where("config_overrides"),
                fix=f"did you mean '{near[0]}'?" if near else f"see the fields of {type(defaults).__name__}",
            )
    special: dict[str, Any] = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    if not kind.continues:
        special |= {"pad_token_id": pad_token_id, **(label_maps(outputs) if outputs else {})}
    if kind.encoder_decoder:
        special |= _decoder_ends(defaults, tokenizer.eos_token_id, pad_token_id)
    try:
        config = AutoConfig.for_model(
            section.model_type, **{"vocab_size": vocabulary_size(tokenizer), **special, **section.config_overrides}
        )
        if getattr(config, "num_hidden_layers", 1) < 1:
            raise ValueError(f"{config.num_hidden_layers} layers")
        set_seed(seed)
        model: PreTrainedModel = kind.auto.from_config(
            config,
            dtype=getattr(torch, section.dtype),
            attn_implementation=section.attn_implementation,
            trust_remote_code=section.trust_remote_code,
        )
        return model
    except Exception as error:  # impossible sizes surface wherever the architecture first uses them, as anything
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise HoneError(
            f"cannot build a {section.model_type} model: {reason}",
            where=where("config_overrides") or where("model_type"),
            fix=loading_fix("", reason, kind) if "attn" in reason else "check the sizes in config_overrides",
        ) from error


def _decoder_ends(defaults: Any, eos_token_id: int | None, pad_token_id: int | None) -> dict[str, Any]:
    """What a new decoder starts with: the end token where the architecture does (BART), else padding (T5)."""
    started = getattr(defaults, "decoder_start_token_id", None)
    starts_with_end = started is not None and started == defaults.eos_token_id
    ends = {"decoder_start_token_id": eos_token_id if starts_with_end else pad_token_id}
    return ends | ({"forced_eos_token_id": eos_token_id} if hasattr(defaults, "forced_eos_token_id") else {})


def _default_config(model_type: str, kind: ModelKind) -> Any:
    """The published configuration of an architecture that there is in this kind."""
    if model_type not in CONFIG_MAPPING:
        near = difflib.get_close_matches(model_type, CONFIG_MAPPING.keys(), n=1)
        fix = f"did you mean '{near[0]}'?" if near else f"use one that transformers knows, such as {kind.examples}"
        raise HoneError(f"unknown model_type '{model_type}'", fix=fix)
    defaults = AutoConfig.for_model(model_type)
    if type(defaults) not in kind.architectures:
        raise HoneError(f"model_type '{model_type}' is not {kind.called}", fix=f"use {kind.examples}")
    return defaults
