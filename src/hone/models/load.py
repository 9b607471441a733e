"""Models by hub name, by folder, or from scratch; safetensors only, nothing unpickled, no remote code unless asked.

>>> model = load_model(config.model, tokenizer, seed=42)         # doctest: +SKIP
"""

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.bundled import meant, named
from hone.config.sections.model import ModelSection
from hone.errors import HoneError, first_line, placed
from hone.files import read_json
from hone.hub import WEIGHTS, no_retries
from hone.models.adapter import (
    ADAPTER,
    BASE_FIX,
    COPY_AGAIN,
    adapter_error,
    base_of,
    check_adapter,
    check_base,
    misfit,
    refuse_adapter,
)
from hone.models.classifier_head import adapter_labels, fit_head, is_head_weight, label_maps, set_padding
from hone.models.inspect import check_vocabulary, vocabulary_size

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Where = Callable[[str], str | None]  # config key -> the line it was given on

AUTO_CLASS = {  # task -> the class of transformers that builds and loads its models
    "causal": "AutoModelForCausalLM",
    "classification": "AutoModelForSequenceClassification",
    "seq2seq": "AutoModelForSeq2SeqLM",
}
MAPPING = {  # task -> the architectures that it has
    "causal": "MODEL_FOR_CAUSAL_LM_MAPPING",
    "classification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING",
    "seq2seq": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING",
}
KINDS = {
    "causal": ("decoder (causal language model)", "gpt2 or llama"),
    "classification": ("model that can classify", "bert, gpt2 or llama"),
    "seq2seq": ("encoder-decoder", "t5 or bart"),
}
ADAPTER_TASKS = {"CAUSAL_LM": "causal", "SEQ_CLS": "classification", "SEQ_2_SEQ_LM": "seq2seq"}


def load_model(
    section: ModelSection,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    seed: int,
    where: Where = lambda key: None,
    task: str = "causal",
    labels: Sequence[str] = (),
    pad_token_id: int | None = None,
) -> "PreTrainedModel":
    """The model that training starts from, on the CPU, in evaluation mode.

    Args:
        labels: names of the classes, for classification. pad_token_id: for tasks whose models have to know it.
        seed: initial weights of a from-scratch model are a pure function of its config and this seed.
        where: names the line of a key in messages (`Config.where`).

    Raises:
        HoneError: no such model, no weights in the folder, unknown architecture key, or a tokenizer that does not fit.
    """
    if section.model_name_or_path:
        refuse_adapter(section.model_name_or_path)
        model = _load_pretrained(
            section.model_name_or_path,
            revision=section.model_revision,
            dtype=section.dtype,
            attn_implementation=section.attn_implementation,
            trust_remote_code=section.trust_remote_code,
            task=task,
            labels=labels,
            seed=seed,
        )
    else:
        model = _from_scratch(section, tokenizer, seed, where, task, labels, pad_token_id)
    if pad_token_id is not None and (task == "classification" or model.config.pad_token_id is None):
        set_padding(model, pad_token_id)
    if "vocab_size" in section.config_overrides:
        with placed(where("config_overrides")):
            check_vocabulary(model, tokenizer, fix="remove vocab_size from config_overrides: the tokenizer decides it")
    with placed(where("tokenizer_name_or_path") or where("model_name_or_path")):
        check_vocabulary(model, tokenizer)
    return model.eval()


def load_finished(folder: str, *, trust_remote_code: bool = False) -> "PreTrainedModel":
    """A saved model for use: a run folder, an adapter, any model folder, or a hub name; in its own dtype."""
    check_source(folder)
    task = task_of(folder, trust_remote_code=trust_remote_code)
    if not (Path(folder) / ADAPTER).is_file():
        return _load_pretrained(folder, None, "auto", None, trust_remote_code, task=task).eval()
    base = str(base_of(Path(folder)))
    if task == "classification":
        model = _load_classifier_adapter(Path(folder), trust_remote_code)
    elif named(base) != base:  # the loader of both at once knows no such name
        model = _load_pretrained(base, None, "auto", None, trust_remote_code, task=task)
        try:
            model.load_adapter(folder)
        except Exception as error:  # RuntimeError, KeyError, SafetensorError …
            raise adapter_error(error, Path(folder), base, BASE_FIX) from error
    else:
        model = _load_pretrained(folder, None, "auto", None, trust_remote_code, task=task)
    check_base(model, Path(folder), base, BASE_FIX)
    return model.eval()


def task_of(name: str, *, trust_remote_code: bool = False) -> str:
    """What a saved model is for, by its config's `architectures` (or its adapter's `task_type`); causal if unsaid."""
    from transformers import AutoConfig

    folder = Path(name)
    if (folder / ADAPTER).is_file():
        return ADAPTER_TASKS.get(str(read_json(folder / ADAPTER, COPY_AGAIN).get("task_type")), "causal")
    try:
        with no_retries(named(name)):
            config = AutoConfig.from_pretrained(named(name), trust_remote_code=trust_remote_code)
    except Exception:  # loading the model will say what is wrong, in full
        return "causal"
    architecture = (getattr(config, "architectures", None) or [""])[0]
    if architecture.endswith("ForSequenceClassification"):
        return "classification"
    return "seq2seq" if config.is_encoder_decoder and type(config) in _architectures("seq2seq") else "causal"


def _architectures(task: str) -> Any:
    import transformers

    return getattr(transformers, MAPPING[task])


def _load_classifier_adapter(folder: Path, trust_remote_code: bool) -> "PreTrainedModel":
    """Base, head and adapter: a head is no adapter matrix, so PEFT's own loader has to put it in place."""
    from peft import PeftModel

    about = adapter_labels(folder)
    name = str(base_of(folder))
    base = _load_pretrained(name, None, "auto", None, trust_remote_code, task="classification", labels=about["labels"])
    set_padding(base, about["pad_token_id"])
    try:
        return PeftModel.from_pretrained(base, str(folder))
    except Exception as error:  # RuntimeError, KeyError, SafetensorError …
        raise adapter_error(error, folder, name, BASE_FIX) from error


def _load_pretrained(
    name: str,
    revision: str | None,
    dtype: str,
    attn_implementation: str | None,
    trust_remote_code: bool,
    *,
    task: str = "causal",
    labels: Sequence[str] = (),
    seed: int = 0,
) -> "PreTrainedModel":
    import transformers

    check_source(name)
    extra = label_maps(labels) if labels else {}
    known = _trained_classes(name, revision, trust_remote_code) if labels else []
    if labels:  # what the files lack of the head is drawn by the loader
        transformers.set_seed(seed)
    try:
        with no_retries(named(name)):
            model, report = getattr(transformers, AUTO_CLASS[task]).from_pretrained(
                named(name),
                revision=revision or "main",
                dtype=dtype,
                attn_implementation=attn_implementation,
                trust_remote_code=trust_remote_code,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # reported below, by name
                output_loading_info=True,
                **extra,
            )
    except Exception as error:  # OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError
        if (Path(name) / ADAPTER).is_file():
            raise adapter_error(error, Path(name), str(base_of(Path(name))), BASE_FIX) from error
        raise HoneError(
            f"cannot load the model: {first_line(error)}", where=name, fix=loading_fix(name, first_line(error), task)
        ) from error
    if labels:  # a head may be new
        report["mismatched_keys"] = [key for key in report["mismatched_keys"] if not is_head_weight(model, key[0])]
        report["missing_keys"] = [key for key in report["missing_keys"] if not is_head_weight(model, key)]
    _refuse_holes(name, report)
    if labels:
        fit_head(model, labels, known=known, seed=seed)
    return model


def _trained_classes(name: str, revision: str | None, trust_remote_code: bool) -> list[str]:
    """The classes that a model's head was trained for; none where it is no classifier."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(
            named(name), revision=revision or "main", trust_remote_code=trust_remote_code
        )
    except Exception:  # loading the model will say what is wrong, in full
        return []
    architecture = (getattr(config, "architectures", None) or [""])[0]
    return [str(config.id2label[i]) for i in sorted(config.id2label)] if "SequenceClass" in architecture else []


def loading_fix(name: str, reason: str, task: str = "causal") -> str:
    """What to do about a model that a library refused for `reason`."""
    if "attn" in reason or "ttention" in reason:
        return "set attn_implementation to sdpa or eager"
    if "Unrecognized configuration class" in reason:
        return f"for task: {task} name another kind of model: {KINDS[task][0]}, such as {KINDS[task][1]}; or set task"
    if Path(name).is_dir():
        return "the folder is damaged or incomplete: copy or download it again, config.json and safetensors together"
    return (
        f"{meant(name)}no folder of that name in {Path.cwd()}; a hub name needs a network (and HF_HUB_OFFLINE unset), "
        "and weights in safetensors"
    )


def _refuse_holes(name: str, report: dict[str, Any]) -> None:
    """Weights that the files lack would be random, and nobody would know."""
    if mismatched := sorted(report["mismatched_keys"]):
        key, found, wanted = mismatched[0]
        if (Path(name) / ADAPTER).is_file():
            raise misfit(Path(name), key, found, wanted)
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


def check_source(name: str) -> None:
    """Refuse a name that is no model folder and cannot be a hub name either; reads no weights.

    Raises:
        HoneError: no such folder, a file, or a folder without config or weights.
    """
    folder = Path(named(name))
    if folder.is_dir():
        _check_folder(folder)
    elif folder.is_file():
        raise HoneError("a model is named by its folder, not by a file", where=name, fix=f"use {folder.parent}")
    elif name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise HoneError("no such model folder", where=name, fix=f"looked from {Path.cwd()}")


def _check_folder(folder: Path) -> None:
    if (folder / ADAPTER).is_file():
        base = check_adapter(folder)
        try:
            check_source(base)
        except HoneError as error:
            raise HoneError(f"its base {base} is missing: {error.what}", where=str(folder), fix=BASE_FIX) from error
        return
    if not (folder / "config.json").is_file():
        if (folder / "status.json").is_file():
            what = "this run has no model yet: it has not been trained to its end"
            fix = "finish it with the `hone train` it was begun with, or name one of its checkpoint-N folders"
        elif (folder / "hparams.json").is_file():
            what = "these are OpenAI's raw GPT-2 files, not a model folder"
            fix = f"convert them once: hone convert {folder} {folder}-hf"
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


def quiet_libraries() -> None:
    """Our lines say what matters; the libraries' progress bars and advice would bury them."""
    import warnings

    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message=".*pin_memory.*no accelerator.*")
    warnings.filterwarnings("ignore", message=".*is deprecated and will be removed in v6.*", category=FutureWarning)


def _from_scratch(
    section: ModelSection,
    tokenizer: "PreTrainedTokenizerBase",
    seed: int,
    where: Where,
    task: str,
    labels: Sequence[str],
    pad_token_id: int | None,
) -> "PreTrainedModel":
    import torch
    import transformers
    from transformers import AutoConfig, set_seed

    with placed(where("model_type")):
        defaults = _default_config(str(section.model_type), task)
    for key in section.config_overrides:
        if not hasattr(defaults, key):
            near = difflib.get_close_matches(key, [name for name in vars(defaults) if name[0] != "_"], n=1)
            raise HoneError(
                f"config_overrides: a {section.model_type} config has no key '{key}'",
                where=where("config_overrides"),
                fix=f"did you mean '{near[0]}'?" if near else f"see the fields of {type(defaults).__name__}",
            )
    special: dict[str, Any] = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    if task != "causal":
        special |= {"pad_token_id": pad_token_id, **(label_maps(labels) if labels else {})}
    if task == "seq2seq":
        special |= _decoder_ends(defaults, tokenizer.eos_token_id, pad_token_id)
    try:
        config = AutoConfig.for_model(
            section.model_type, **{"vocab_size": vocabulary_size(tokenizer), **special, **section.config_overrides}
        )
        if getattr(config, "num_hidden_layers", 1) < 1:
            raise ValueError(f"{config.num_hidden_layers} layers")
        set_seed(seed)
        return getattr(transformers, AUTO_CLASS[task]).from_config(
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
            fix=loading_fix("", reason, task) if "attn" in reason else "check the sizes in config_overrides",
        ) from error


def _decoder_ends(defaults: Any, eos_token_id: int | None, pad_token_id: int | None) -> dict[str, Any]:
    """What a new decoder starts with: the end token where the architecture does (BART), else padding (T5)."""
    started = getattr(defaults, "decoder_start_token_id", None)
    starts_with_end = started is not None and started == defaults.eos_token_id
    ends = {"decoder_start_token_id": eos_token_id if starts_with_end else pad_token_id}
    return ends | ({"forced_eos_token_id": eos_token_id} if hasattr(defaults, "forced_eos_token_id") else {})


def _default_config(model_type: str, task: str) -> Any:
    """The published configuration of an architecture that can do the task."""
    from transformers import CONFIG_MAPPING, AutoConfig

    kind, examples = KINDS[task]
    if model_type not in CONFIG_MAPPING:
        near = difflib.get_close_matches(model_type, CONFIG_MAPPING.keys(), n=1)
        fix = f"did you mean '{near[0]}'?" if near else f"use one that transformers knows, such as {examples}"
        raise HoneError(f"unknown model_type '{model_type}'", fix=fix)
    defaults = AutoConfig.for_model(model_type)
    if type(defaults) not in _architectures(task):
        raise HoneError(f"model_type '{model_type}' is no {kind}", fix=f"use {examples}")
    return defaults
