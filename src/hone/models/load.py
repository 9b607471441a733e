"""Models by hub name, by folder, or from scratch; safetensors only, nothing unpickled, no remote code unless asked.

>>> model = load_model(config.model, tokenizer, seed=42)         # doctest: +SKIP
"""

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.config.sections.model import ModelSection
from hone.errors import HoneError, placed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Where = Callable[[str], str | None]  # config key -> the line it was given on

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
ADAPTER = "adapter_config.json"


def load_model(
    section: ModelSection, tokenizer: "PreTrainedTokenizerBase", *, seed: int, where: Where = lambda key: None
) -> "PreTrainedModel":
    """The model that training starts from, on the CPU, in evaluation mode.

    Args:
        seed: initial weights of a from-scratch model are a pure function of its config and this seed.
        where: names the line of a key in messages (`Config.where`).

    Raises:
        HoneError: no such model, no weights in the folder, unknown architecture key, or a tokenizer that does not fit.
    """
    if section.model_name_or_path:
        model = _load_pretrained(
            section.model_name_or_path,
            revision=section.model_revision,
            dtype=section.dtype,
            attn_implementation=section.attn_implementation,
            trust_remote_code=section.trust_remote_code,
        )
    else:
        model = _from_scratch(section, tokenizer, seed, where)
    if "vocab_size" in section.config_overrides:
        with placed(where("config_overrides")):
            check_vocabulary(model, tokenizer, fix="remove vocab_size from config_overrides: the tokenizer decides it")
    with placed(where("tokenizer_name_or_path") or where("model_name_or_path")):
        check_vocabulary(model, tokenizer)
    return model.eval()


def load_finished(folder: str, *, trust_remote_code: bool = False) -> "PreTrainedModel":
    """A saved model for use: a run folder, an adapter, any model folder, or a hub name; in its own dtype."""
    return _load_pretrained(folder, None, "auto", None, trust_remote_code).eval()


def _load_pretrained(
    name: str, revision: str | None, dtype: str, attn_implementation: str | None, trust_remote_code: bool
) -> "PreTrainedModel":
    from transformers import AutoModelForCausalLM

    check_source(name)
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            name,
            revision=revision or "main",
            dtype=dtype,
            attn_implementation=attn_implementation,
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # reported below, by name
            output_loading_info=True,
        )
    except Exception as error:  # OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError
        raise HoneError(
            f"cannot load the model: {first_line(error)}", where=name, fix=_loading_fix(name, first_line(error))
        ) from error
    _refuse_holes(name, report)
    return model


def _loading_fix(name: str, reason: str) -> str:
    if "attn" in reason or "ttention" in reason:
        return "set attn_implementation to sdpa or eager"
    if "Unrecognized configuration class" in reason:
        return "only decoders (causal language models) can be trained; name another model"
    if Path(name).is_dir():
        return "the folder is damaged or incomplete: copy or download it again, config.json and safetensors together"
    return (
        f"no folder of that name in {Path.cwd()}; a hub name needs a network (and HF_HUB_OFFLINE unset), and "
        "weights in safetensors"
    )


def _refuse_holes(name: str, report: dict[str, Any]) -> None:
    """Weights that the files lack would be random, and nobody would know."""
    if mismatched := sorted(report["mismatched_keys"]):
        key, found, wanted = mismatched[0]
        raise HoneError(
            f"config.json and the weights differ: {key} is {tuple(found)} there, {tuple(wanted)} by config.json"
            + (f" ({len(mismatched)} such)" if len(mismatched) > 1 else ""),
            where=name,
            fix="take both files from the same model",
        )
    if missing := sorted(report["missing_keys"]):
        raise HoneError(
            f"the weights are incomplete: {len(missing)} missing, such as {missing[0]}; they would be random",
            where=name,
            fix="copy or download the model again, or take the config.json that belongs to these weights",
        )


def first_line(error: BaseException) -> str:
    """The first line of a library's message: the rest is usually advice for its own callers."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def check_source(name: str) -> None:
    """Refuse a name that is no model folder and cannot be a hub name either; reads no weights.

    Raises:
        HoneError: no such folder, a file, or a folder without config or weights.
    """
    folder = Path(name)
    if folder.is_dir():
        _check_folder(folder)
    elif folder.is_file():
        raise HoneError("a model is named by its folder, not by a file", where=name, fix=f"use {folder.parent}")
    elif name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise HoneError("no such model folder", where=name, fix=f"looked from {Path.cwd()}")


def _check_folder(folder: Path) -> None:
    if (folder / ADAPTER).is_file():
        return
    if not (folder / "config.json").is_file():
        if (folder / "status.json").is_file():
            what = "this run has no model yet: it has not been trained to its end"
            fix = "finish it with the `hone train` it was begun with, or name one of its checkpoint-N folders"
        else:
            what, fix = "not a model folder: it has no config.json", "name a run folder, a model folder or a hub name"
        raise HoneError(what, where=str(folder), fix=fix)
    if not any((folder / name).is_file() for name in WEIGHTS):
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        raise HoneError(
            f"the model folder has no weights: expected {WEIGHTS[0]}",
            where=str(folder),
            fix=f"found {', '.join(pickled)}: convert it to safetensors first (pickle is never loaded)"
            if pickled
            else "copy the weights there, or name another folder",
        )


def _from_scratch(
    section: ModelSection, tokenizer: "PreTrainedTokenizerBase", seed: int, where: Where
) -> "PreTrainedModel":
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, set_seed

    with placed(where("model_type")):
        defaults = _default_config(str(section.model_type))
    for key in section.config_overrides:
        if not hasattr(defaults, key):
            near = difflib.get_close_matches(key, [name for name in vars(defaults) if name[0] != "_"], n=1)
            raise HoneError(
                f"config_overrides: a {section.model_type} config has no key '{key}'",
                where=where("config_overrides"),
                fix=f"did you mean '{near[0]}'?" if near else f"see the fields of {type(defaults).__name__}",
            )
    special: dict[str, Any] = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    try:
        config = AutoConfig.for_model(
            section.model_type, **{"vocab_size": vocabulary_size(tokenizer), **special, **section.config_overrides}
        )
        if getattr(config, "num_hidden_layers", 1) < 1:
            raise ValueError(f"{config.num_hidden_layers} layers")
        set_seed(seed)
        return AutoModelForCausalLM.from_config(
            config,
            dtype=getattr(torch, section.dtype),
            attn_implementation=section.attn_implementation,
            trust_remote_code=section.trust_remote_code,
        )
    except Exception as error:  # impossible sizes surface wherever the architecture first uses them, as anything
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise HoneError(
            f"cannot build a {section.model_type} model: {reason}",
            where=where("config_overrides") or where("model_type"),
            fix=_loading_fix("", reason) if "attn" in reason else "check the sizes in config_overrides",
        ) from error


def _default_config(model_type: str) -> Any:
    """The published configuration of a decoder."""
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    if model_type not in CONFIG_MAPPING:
        near = difflib.get_close_matches(model_type, CONFIG_MAPPING.keys(), n=1)
        fix = f"did you mean '{near[0]}'?" if near else "use one that transformers knows, such as gpt2 or llama"
        raise HoneError(f"unknown model_type '{model_type}'", fix=fix)
    defaults = AutoConfig.for_model(model_type)
    if type(defaults) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise HoneError(f"model_type '{model_type}' is no decoder (causal language model)", fix="use gpt2 or llama")
    return defaults


def vocabulary_size(tokenizer: "PreTrainedTokenizerBase") -> int:
    """One more than the largest id the tokenizer can give (its length, unless the ids have gaps)."""
    return max(len(tokenizer), max(tokenizer.get_vocab().values()) + 1)


def check_vocabulary(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
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


def max_positions(model: "PreTrainedModel") -> int | None:
    """How many positions the model can take, None where its config does not say."""
    for key in ("max_position_embeddings", "n_positions", "max_seq_len"):
        value = getattr(model.config, key, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def best_device(use_cpu: bool = False) -> str:
    """cuda, else mps, else cpu."""
    import torch

    if not use_cpu and torch.cuda.is_available():
        return "cuda"
    return "mps" if not use_cpu and torch.backends.mps.is_available() else "cpu"
