"""Models by hub name, by folder, or from scratch; safetensors only, nothing unpickled, no remote code unless asked.

>>> model = load_model(config.model, tokenizer, seed=42)         # doctest: +SKIP
"""

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.config.sections.model import ModelSection
from hone.errors import HoneError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
ADAPTER = "adapter_config.json"


def load_model(section: ModelSection, tokenizer: "PreTrainedTokenizerBase", *, seed: int) -> "PreTrainedModel":
    """The model that training starts from, on the CPU, in evaluation mode.

    Args:
        seed: initial weights of a from-scratch model are a pure function of its config and this seed.

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
        model = _from_scratch(section, tokenizer, seed)
    check_vocabulary(model, tokenizer)
    return model.eval()


def load_finished(folder: str, *, trust_remote_code: bool = False) -> "PreTrainedModel":
    """A saved model for use: a run folder, an adapter, any model folder, or a hub name; in its own dtype."""
    return _load_pretrained(folder, None, "auto", None, trust_remote_code).eval()


def _load_pretrained(
    name: str, revision: str | None, dtype: str, attn_implementation: str | None, trust_remote_code: bool
) -> "PreTrainedModel":
    from transformers import AutoModelForCausalLM

    folder = Path(name)
    if folder.is_dir():
        _check_folder(folder)
    elif name.startswith((".", "/", "~")):
        raise HoneError("no such model folder", where=name, fix="check model_name_or_path")
    try:
        return AutoModelForCausalLM.from_pretrained(
            name,
            revision=revision or "main",
            dtype=dtype,
            attn_implementation=attn_implementation,
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
        )
    except (OSError, ValueError, ImportError) as error:
        raise HoneError(
            f"cannot load the model: {first_line(error)}",
            where=name,
            fix="give a model folder, or a hub name and a network (HF_HUB_OFFLINE unset); weights must be safetensors",
        ) from error


def first_line(error: BaseException) -> str:
    """The first line of a library's message: the rest is usually advice for its own callers."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _check_folder(folder: Path) -> None:
    if (folder / ADAPTER).is_file():
        return
    if not (folder / "config.json").is_file():
        raise HoneError("not a model folder: it has no config.json", where=str(folder))
    if not any((folder / name).is_file() for name in WEIGHTS):
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        raise HoneError(
            f"the model folder has no weights: expected {WEIGHTS[0]}",
            where=str(folder),
            fix=f"found {', '.join(pickled)}: convert it to safetensors first (pickle is never loaded)"
            if pickled
            else "copy the weights there, or name another folder",
        )


def _from_scratch(section: ModelSection, tokenizer: "PreTrainedTokenizerBase", seed: int) -> "PreTrainedModel":
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, set_seed

    try:
        defaults = AutoConfig.for_model(section.model_type)
    except ValueError as error:
        raise HoneError(
            f"unknown model_type '{section.model_type}'", fix="use one that transformers knows, such as gpt2 or llama"
        ) from error
    for key in section.config_overrides:
        if not hasattr(defaults, key):
            near = difflib.get_close_matches(key, vars(defaults), n=1)
            raise HoneError(
                f"config_overrides: a {section.model_type} config has no key '{key}'",
                fix=f"did you mean '{near[0]}'?" if near else None,
            )
    special: dict[str, Any] = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    try:
        config = AutoConfig.for_model(
            section.model_type, **{"vocab_size": vocabulary_size(tokenizer), **special, **section.config_overrides}
        )
        set_seed(seed)
        return AutoModelForCausalLM.from_config(
            config,
            dtype=getattr(torch, section.dtype),
            attn_implementation=section.attn_implementation,
            trust_remote_code=section.trust_remote_code,
        )
    except ValueError as error:
        raise HoneError(f"cannot build a {section.model_type} model: {first_line(error)}") from error


def vocabulary_size(tokenizer: "PreTrainedTokenizerBase") -> int:
    """One more than the largest id the tokenizer can give (its length, unless the ids have gaps)."""
    return max(len(tokenizer), max(tokenizer.get_vocab().values()) + 1)


def check_vocabulary(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
    """Refuse a tokenizer whose ids the model's embedding does not have.

    Fewer tokens than rows is normal (Qwen2 pads its embedding); more would read beyond the table.
    """
    rows, needed = model.get_input_embeddings().weight.shape[0], vocabulary_size(tokenizer)
    if needed > rows:
        raise HoneError(
            f"the tokenizer has {needed:,} tokens but the model's embedding only {rows:,} rows: no pair",
            fix="set tokenizer_name_or_path to the model's own tokenizer",
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
