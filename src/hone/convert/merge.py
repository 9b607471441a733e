"""An adapter and its base made into one model folder, which loads without PEFT and answers the same.

The sum is taken in float32 and saved in the dtype of the base's files; the folder is loaded again and compared with
base and adapter side by side before it gets its name (`verified_write.py`).

>>> merge_folders(Path("runs/lora"), Path("merged"), tokenizer).difference      # doctest: +SKIP
2.1e-07
"""

import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from peft.utils import load_peft_weights
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from hone import bundled
from hone.config.sections.model import ModelSection
from hone.convert.merged_card import merged_card
from hone.convert.verified_write import refuse_existing, verified_write
from hone.data.tokenizer import load_tokenizer
from hone.errors import HoneError, first_line
from hone.files import read_json, write_json_atomic
from hone.models.adapter import adapter_error, check_base
from hone.models.classifier_head import adapter_labels
from hone.models.inspect import max_positions
from hone.models.load import kind_of, load_finished, load_model, quiet_libraries
from hone.models.source import ADAPTER, check_adapter, check_source
from hone.runs import no_such_folder

# Largest |difference of logits| over their standard deviation that is taken for the same model. float32: the order of
# sums. The others: each weight is rounded once more, to 8 or 11 significant bits (2⁻⁹ or 2⁻¹² of it), in every layer.
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1, "float16": 0.0125}
DTYPES = tuple(TOLERANCE)
FIX = "name the base that it was trained on with --base"
PROBE_ROWS, PROBE_TOKENS = 2, 64


@dataclass(frozen=True)
class Merged:
    """What came of a merge. difference: of the reloaded model's logits, over their standard deviation.

    base_checked: whether the base is known to be the very one that the adapter was trained on.
    """

    folder: Path
    base: str
    dtype: str
    n_parameters: int
    difference: float
    tolerance: float
    base_checked: bool

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "folder": str(self.folder)}


def merge(source: Path, target: Path, *, base: str | None = None, dtype: str | None = None) -> Merged:
    """`merge_folders` with the tokenizer that lies beside the adapter."""
    read_adapter(source)  # what it says is clearer than what the tokenizer's loader says
    return merge_folders(source, target, load_tokenizer(source), base=base, dtype=dtype)


def merge_folders(
    source: Path,
    target: Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    base: str | None = None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
) -> Merged:
    """Write base + adapter as an ordinary model to `target`, with tokenizer, template and a model card.

    Args:
        source: a run folder with an adapter, or any PEFT adapter's folder. tokenizer: the one saved there.
        base: where the base is now, if not where the adapter says.
        dtype: of the saved weights, float32, bfloat16 or float16; None takes that of the base's files.

    Raises:
        HoneError: no adapter there, its base is missing or another one, `target` exists, or the reloaded model does
            not answer as base and adapter do; nothing is left at `target` then.
    """
    quiet_libraries()
    about = read_adapter(source)
    refuse_existing(target)
    name = base or str(about["base_model_name_or_path"])
    model = _load_base(name, about, source, tokenizer, trust_remote_code)
    saved_in = dtype or _stored_dtype(name, about.get("revision"), trust_remote_code)
    adapted = _add_adapter(model, source, name)
    checked = check_base(adapted, source, name, FIX)
    ids = probe_ids(adapted, tokenizer)
    before = logits_of(adapted, ids)
    spread = float(before.std().clamp(min=1e-12))
    merged = _merged(adapted, saved_in)
    n_parameters = sum(p.numel() for p in merged.parameters())

    def result(difference: float) -> Merged:
        tolerance = TOLERANCE[saved_in]
        return Merged(target, name, saved_in, n_parameters, difference / spread, tolerance, checked)

    with verified_write(
        target,
        before,
        lambda path: logits_of(load_finished(str(path), trust_remote_code=trust_remote_code).float(), ids),
        tolerance=TOLERANCE[saved_in] * spread,
        card=lambda difference: _card(result(difference), source),
        fix="try --dtype float32, or use base and adapter as they are",
    ) as written:
        _save(merged, tokenizer, source, written.path)
        del model, adapted, merged  # one copy of the weights at a time
    return result(written.difference)


# ---- what is merged --------------------------------------------------------------------------------------------------


def read_adapter(source: Path) -> dict[str, Any]:
    """adapter_config.json of a folder.

    Raises:
        HoneError: the folder or the file is not there, or it does not say which base it is for.
    """
    if not source.is_dir():
        raise no_such_folder(source)
    if not (source / ADAPTER).is_file():
        check_source(str(source))
        raise HoneError(
            f"no adapter here ({ADAPTER} is missing): there is nothing to merge",
            where=str(source),
            fix="a full or frozen training saves the whole model: use the folder as it is",
        )
    check_adapter(source)
    about: dict[str, Any] = read_json(source / ADAPTER)
    return about


def _load_base(
    name: str, about: dict[str, Any], source: Path, tokenizer: PreTrainedTokenizerBase, trust_remote_code: bool
) -> PreTrainedModel:
    """The base in float32, of the class that the adapter's task has."""
    kind = kind_of(str(source))
    labelled = adapter_labels(source) if kind.new_head else {}
    section = ModelSection(
        model_name_or_path=name, model_revision=about.get("revision"), trust_remote_code=trust_remote_code
    )
    try:
        return load_model(
            section,
            kind,
            tokenizer,
            seed=0,
            outputs=labelled.get("labels", ()),
            pad_token_id=labelled.get("pad_token_id"),
        )
    except HoneError as error:
        raise HoneError(
            f"the adapter's base does not load: {error.what}",
            where=error.where or name,
            fix=f"{error.fix}; or say where it is now with --base" if error.fix else "say where it is with --base",
        ) from error


def _stored_dtype(name: str, revision: str | None, trust_remote_code: bool) -> str:
    """The dtype of a model's files, as its config says; float32 where it says nothing we can save."""
    config = AutoConfig.from_pretrained(
        bundled.resolve(name), revision=revision or "main", trust_remote_code=trust_remote_code
    )
    dtype = str(getattr(config, "dtype", None)).removeprefix("torch.")
    return dtype if dtype in TOLERANCE else "float32"


def _add_adapter(model: PreTrainedModel, source: Path, name: str) -> Any:
    """Base and adapter side by side, as in training; every tensor of the adapter found its place."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they would say is checked below
            adapted = PeftModel.from_pretrained(model, str(source)).eval()
        stored = load_peft_weights(str(source), device="cpu")
    except Exception as error:  # ValueError, RuntimeError, KeyError, SafetensorError …
        raise adapter_error(error, source, name, FIX) from error
    placed = get_peft_model_state_dict(adapted)
    if strangers := sorted(set(stored) ^ set(placed)):
        raise HoneError(
            f"the adapter does not fit the base {name}: {len(strangers)} tensors have no counterpart, such as "
            f"{strangers[0]}",
            where=str(source),
            fix=FIX,
        )
    return adapted


# ---- the same answers --------------------------------------------------------------------------------------------


def probe_ids(model: Any, tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """(2, at most 64) token ids, drawn from the ordinary vocabulary by a fixed seed."""
    special = set(tokenizer.all_special_ids) | {model.config.pad_token_id}
    ordinary = torch.tensor([i for i in sorted(tokenizer.get_vocab().values()) if i not in special])
    length = min(PROBE_TOKENS, max_positions(model) or PROBE_TOKENS)
    draws = torch.randint(len(ordinary), (PROBE_ROWS, length), generator=torch.Generator().manual_seed(0))
    return ordinary[draws]


def logits_of(model: Any, ids: Tensor) -> Tensor:
    """Logits of token ids (B, T), float32: (B, T, V), or (B, classes) of a classifier."""
    writes = model.config.is_encoder_decoder and model.get_output_embeddings() is not None  # a classifier does not
    decoder = {"decoder_input_ids": ids} if writes else {}
    with torch.inference_mode():
        logits: Tensor = model(input_ids=ids, **decoder).logits.float()
    return logits


# ---- what is written -----------------------------------------------------------------------------------------------


def _merged(adapted: Any, dtype: str) -> PreTrainedModel:
    """The base with the adapter added to its weights, in `dtype`."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*no longer tied.*")  # PEFT unties and says so in the config
            merged: PreTrainedModel = adapted.merge_and_unload(safe_merge=True)
    except ValueError as error:  # safe_merge found an infinite sum
        raise HoneError(f"the adapter cannot be merged: {first_line(error)}") from error
    return merged.to(getattr(torch, dtype))


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, source: Path, folder: Path) -> None:
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    for place in (source, source.parent):  # a checkpoint's template is in its run
        if (place / "template.json").is_file():
            write_json_atomic(folder / "template.json", read_json(place / "template.json"))
            break


def _card(result: Merged, source: Path) -> str:
    """The model card: how it is used, what was merged, how well, and what the adapter's card says that still holds."""
    bundle, there = bundled.is_meant(result.base), Path(result.base).exists()
    base = bundled.NAME if bundle else Path(result.base).name if there else result.base
    checked = "the one it was trained on (checked)" if result.base_checked else "as the adapter names it (not checked)"
    about = (
        f"The adapter `{source.resolve().name}` is merged into the weights of its base `{base}`, which is {checked}. "
        f"{result.n_parameters:,} parameters in {result.dtype}. Loaded again from these files, its logits differ from "
        f"those of base and adapter side by side by at most {result.difference:.1e} of their standard deviation "
        f"(accepted up to {result.tolerance:.0e})."
    )
    own = source / "README.md"
    before = own.read_text(encoding="utf-8", errors="replace") if own.is_file() else ""
    loader = kind_of(str(source)).auto.__name__
    return merged_card(result.folder.resolve().name, loader, about, None if bundle or there else result.base, before)
