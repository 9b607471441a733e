"""Models by hub name, by folder, or from scratch; safetensors only, nothing unpickled, no remote code unless asked.

>>> model = load_model(config.model, DECODER, tokenizer, seed=42)         # doctest: +SKIP
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase, set_seed
from transformers.utils import logging as transformers_logging

from hone import bundled
from hone.config.schema import Where
from hone.config.sections.model import ModelSection
from hone.errors import HoneError, first_line, is_out_of_memory, placed
from hone.files import read_json
from hone.hub import no_retries
from hone.models.adapter import adapter_error, check_base, misfit
from hone.models.classifier_head import (
    CLASSIFIES,
    adapter_labels,
    fit_head,
    is_head_weight,
    label_maps,
    set_padding,
)
from hone.models.inspect import check_vocabulary
from hone.models.kinds import CLASSIFIER, DECODER, ENCODER_DECODER, ModelKind, loading_fix
from hone.models.scratch import from_scratch
from hone.models.source import ADAPTER, BASE_FIX, COPY_AGAIN, base_of, check_source, refuse_adapter

KINDS = (DECODER, CLASSIFIER, ENCODER_DECODER)


def load_model(
    section: ModelSection,
    kind: ModelKind,
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int,
    where: Where = lambda key: None,
    outputs: Sequence[str] = (),
    pad_token_id: int | None = None,
    weights: bool = True,
) -> PreTrainedModel:
    """The model that training starts from, on the CPU, in evaluation mode.

    Args:
        weights: False reads none: for the shapes alone, within `torch.device("meta")`.
        outputs: names of what a new head scores. pad_token_id: for kinds of models that have to know it.
        seed: initial weights of a from-scratch model are a pure function of its config and this seed.
        where: names the line of a key in messages (`Config.where`).

    Raises:
        HoneError: no such model, no weights in the folder, unknown architecture key, or a tokenizer that does not fit.
    """
    if section.model_name_or_path:
        refuse_adapter(section.model_name_or_path)
        model = _load_pretrained(
            section.model_name_or_path,
            kind,
            revision=section.model_revision,
            dtype=section.dtype,
            attn_implementation=section.attn_implementation,
            trust_remote_code=section.trust_remote_code,
            outputs=outputs,
            seed=seed,
            weights=weights,
        )
    else:
        model = from_scratch(
            section, kind, tokenizer, seed=seed, where=where, outputs=outputs, pad_token_id=pad_token_id
        )
    if pad_token_id is not None and (kind.new_head or model.config.pad_token_id is None):
        set_padding(model, pad_token_id)
    if "vocab_size" in section.config_overrides:
        with placed(where("config_overrides")):
            check_vocabulary(model, tokenizer, fix="remove vocab_size from config_overrides: the tokenizer decides it")
    with placed(where("tokenizer_name_or_path") or where("model_name_or_path")):
        check_vocabulary(model, tokenizer)
    return model.eval()


def load_finished(name: str, kind: ModelKind | None = None, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """A saved model for use: a run folder, an adapter, any model folder, or a hub name; in its own dtype.

    Args:
        kind: what it is; None asks its files.
    """
    check_source(name)
    kind = kind or kind_of(name, trust_remote_code=trust_remote_code)
    folder = Path(name)
    if not (folder / ADAPTER).is_file():
        return _load_pretrained(name, kind, trust_remote_code=trust_remote_code).eval()
    base = str(base_of(folder))
    if kind.new_head:
        model = _load_adapter_with_head(folder, kind, trust_remote_code)
    elif bundled.resolve(base) != base:  # the loader of both at once knows no such name
        model = _load_pretrained(base, kind, trust_remote_code=trust_remote_code)
        try:
            model.load_adapter(name)
        except Exception as error:  # RuntimeError, KeyError, SafetensorError …
            raise adapter_error(error, folder, base, BASE_FIX) from error
    else:
        model = _load_pretrained(name, kind, trust_remote_code=trust_remote_code)
    check_base(model, folder, base, BASE_FIX)
    return model.eval()


def kind_of(name: str, *, trust_remote_code: bool = False) -> ModelKind:
    """What a saved model is, by its config's `architectures` (or its adapter's `task_type`); a decoder if unsaid."""
    folder = Path(name)
    if (folder / ADAPTER).is_file():
        said = read_json(folder / ADAPTER, COPY_AGAIN).get("task_type")
        return next((kind for kind in KINDS if kind.peft == said), DECODER)
    try:
        with no_retries(bundled.resolve(name)):
            config = AutoConfig.from_pretrained(bundled.resolve(name), trust_remote_code=trust_remote_code)
    except Exception:  # loading the model will say what is wrong, in full
        return DECODER
    if _classifies(config):
        return CLASSIFIER
    both = config.is_encoder_decoder and type(config) in ENCODER_DECODER.architectures
    return ENCODER_DECODER if both else DECODER


def check_kind(name: str, kind: ModelKind, *, trust_remote_code: bool = False) -> None:
    """Refuse a saved model that says it is of another kind.

    Raises:
        HoneError: it does.
    """
    found = kind_of(name, trust_remote_code=trust_remote_code)
    if found.auto is not kind.auto and any(kind.auto is known.auto for known in KINDS):
        raise HoneError(
            f"this is {found.called}, and the task needs {kind.called}",
            where=name,
            fix="set task to one for such models, with rows of that task, or name another model",
        )


def _classifies(config: Any) -> bool:
    return (getattr(config, "architectures", None) or [""])[0].endswith(CLASSIFIES)


def _load_adapter_with_head(folder: Path, kind: ModelKind, trust_remote_code: bool) -> PreTrainedModel:
    """Base, head and adapter: a head is not one of the adapter's matrices, so PEFT's own loader puts it in place."""
    about = adapter_labels(folder)
    name = str(base_of(folder))
    base = _load_pretrained(name, kind, trust_remote_code=trust_remote_code, outputs=about["labels"])
    set_padding(base, about["pad_token_id"])
    from peft import PeftModel  # it imports adapters of all kinds: half a second, and few models have one

    try:
        return PeftModel.from_pretrained(base, str(folder))
    except Exception as error:  # RuntimeError, KeyError, SafetensorError …
        raise adapter_error(error, folder, name, BASE_FIX) from error


def _load_pretrained(
    name: str,
    kind: ModelKind,
    *,
    trust_remote_code: bool,
    revision: str | None = None,
    dtype: str = "auto",
    attn_implementation: str | None = None,
    outputs: Sequence[str] = (),
    seed: int = 0,
    weights: bool = True,
) -> PreTrainedModel:
    check_source(name, weights=weights)
    extra = label_maps(outputs) if outputs else {}
    known = _trained_outputs(name, revision, trust_remote_code) if outputs else []
    if outputs:  # what the files lack of the head is drawn by the loader
        set_seed(seed)
    try:
        with no_retries(bundled.resolve(name)):
            if not weights:
                remote = {"trust_remote_code": trust_remote_code}
                config = AutoConfig.from_pretrained(
                    bundled.resolve(name), revision=revision or "main", **remote, **extra
                )
                kept = {"dtype": getattr(torch, dtype), "attn_implementation": attn_implementation}
                shapes: PreTrainedModel = kind.auto.from_config(config, **kept, **remote)
                return shapes
            model, report = kind.auto.from_pretrained(
                bundled.resolve(name),
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
        if is_out_of_memory(error):
            raise MemoryError(first_line(error)) from error
        if (Path(name) / ADAPTER).is_file():
            raise adapter_error(error, Path(name), str(base_of(Path(name))), BASE_FIX) from error
        raise HoneError(
            f"cannot load the model: {first_line(error)[:600]}",
            where=name,
            fix=loading_fix(name, first_line(error), kind),
        ) from error
    if outputs:  # a head may be new
        report["mismatched_keys"] = [key for key in report["mismatched_keys"] if not is_head_weight(model, key[0])]
        report["missing_keys"] = [key for key in report["missing_keys"] if not is_head_weight(model, key)]
    _refuse_holes(name, report)
    if outputs:
        fit_head(model, outputs, known=known, seed=seed)
    return model


def _trained_outputs(name: str, revision: str | None, trust_remote_code: bool) -> list[str]:
    """What a model's head was trained to score; nothing where it is not a classifier."""
    try:
        config = AutoConfig.from_pretrained(
            bundled.resolve(name), revision=revision or "main", trust_remote_code=trust_remote_code
        )
    except Exception:  # loading the model will say what is wrong, in full
        return []
    return [str(config.id2label[i]) for i in sorted(config.id2label)] if _classifies(config) else []


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


def quiet_libraries() -> None:
    """Our lines say what matters; the libraries' progress bars and advice would bury them."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message=".*pin_memory.*no accelerator.*")
    warnings.filterwarnings("ignore", message=".*is deprecated and will be removed in v6.*", category=FutureWarning)
