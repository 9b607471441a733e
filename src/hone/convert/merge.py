"""`hone export --to merged`: one model folder that loads without PEFT and answers the same, of any run.

Of a LoRA run, base and adapter are added in float32 and saved in the dtype of the base's files; any other model is
saved as it is, without what its training left beside it. The folder is loaded again and compared with the source, base
and adapter side by side, before it gets its name (`verified_write.py`).

>>> merge("runs/lora", Path("merged"), tokenizer).difference              # doctest: +SKIP
2.1e-07
"""

import math
import warnings
from dataclasses import dataclass, replace
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
from hone.convert.verified_write import refuse_existing, same_logits, verified_write
from hone.errors import HoneError, first_line
from hone.files import read_json, write_json_atomic
from hone.models.adapter import adapter_error, check_base
from hone.models.classifier_head import adapter_labels
from hone.models.inspect import max_positions
from hone.models.load import kind_of, load_finished, load_model, quiet_libraries
from hone.models.source import ADAPTER, check_adapter

# Largest |difference of logits| over their standard deviation that is taken for the same model. float32: the order of
# sums. The others: each weight is rounded once more, to 8 or 11 significant bits (2⁻⁹ or 2⁻¹² of it), in every layer.
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1, "float16": 0.0125}
DTYPES = tuple(TOLERANCE)
FIX = "name the base that it was trained on with --base"
PROBE_ROWS, PROBE_TOKENS = 2, 64


@dataclass(frozen=True)
class Whole:
    """A run's model, in float32, and where it comes from.

    base: of an adapter, else None. dtype: of the files of base or model. base_checked: whether the base is known to be
    the very one that the adapter was trained on; true where there is no adapter.
    """

    model: Any
    base: str | None
    dtype: str
    base_checked: bool


@dataclass(frozen=True)
class Merged:
    """What came of it. difference: of the reloaded model's logits, over their standard deviation."""

    folder: Path
    base: str | None
    dtype: str
    n_parameters: int
    difference: float
    tolerance: float
    base_checked: bool


def merge(
    source: str,
    target: Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    base: str | None = None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
) -> Merged:
    """Write the model of `source` to `target`, in one piece, with tokenizer, template and a model card.

    Args:
        source: a run folder, any PEFT adapter's folder, a model folder or a hub name. tokenizer: the one of it.
        base: where an adapter's base is now, if not where the adapter says.
        dtype: of the saved weights, float32, bfloat16 or float16; None takes that of the base's, or model's, files.

    Raises:
        HoneError: no such model, its base is missing or another one, `target` exists, or the reloaded model does not
            answer as the source does; nothing is left at `target` then.
    """
    quiet_libraries()
    refuse_existing(target)
    whole = load_whole(source, tokenizer, base, trust_remote_code=trust_remote_code)
    saved_in = dtype or whole.dtype
    ids = probe_ids(whole.model, tokenizer)
    before = logits_of(whole.model, ids)
    spread = float(before.std().clamp(min=1e-12))
    model = summed(whole).to(getattr(torch, saved_in))
    about = Merged(
        *(target, whole.base, saved_in, sum(p.numel() for p in model.parameters())),
        *(math.nan, TOLERANCE[saved_in], whole.base_checked),
    )
    check = same_logits(
        before,
        lambda path: logits_of(load_finished(str(path), trust_remote_code=trust_remote_code).float(), ids),
        tolerance=TOLERANCE[saved_in] * spread,
        fix="try --dtype float32, or use the run as it is",
    )
    with verified_write(target, check, lambda found: _card(replace(about, difference=found / spread), source)) as done:
        _save(model, tokenizer, Path(source), done.path)
        del model, whole  # one copy of the weights at a time
    return replace(about, difference=float(done.found or 0) / spread)


# ---- what is merged --------------------------------------------------------------------------------------------------


def load_whole(
    source: str, tokenizer: PreTrainedTokenizerBase, base: str | None, *, trust_remote_code: bool = False
) -> Whole:
    """The model in float32; of an adapter, base and adapter side by side, as in training.

    Raises:
        HoneError: it does not load, or `base` is given where there is no adapter.
    """
    folder = Path(source)
    if not (folder / ADAPTER).is_file():
        model = load_finished(source, trust_remote_code=trust_remote_code)
        if base is not None:
            raise HoneError("this is a whole model, it has no base", where=source, fix="leave out --base")
        return Whole(model.float(), None, _stored_dtype(source, None, trust_remote_code), True)
    check_adapter(folder)
    about = read_json(folder / ADAPTER)
    name = base or str(about["base_model_name_or_path"])
    plain = _load_base(name, about, folder, tokenizer, trust_remote_code)
    adapted = _add_adapter(plain, folder, name)
    checked = check_base(adapted, folder, name, FIX)
    return Whole(adapted, name, _stored_dtype(name, about.get("revision"), trust_remote_code), checked)


def summed(whole: Whole) -> PreTrainedModel:
    """The model in one piece: the adapter is added to the base's weights, in place."""
    if whole.base is None:
        model: PreTrainedModel = whole.model
        return model
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*no longer tied.*")  # PEFT unties and says so in the config
            merged: PreTrainedModel = whole.model.merge_and_unload(safe_merge=True)
    except ValueError as error:  # safe_merge found an infinite sum
        raise HoneError(f"the adapter cannot be merged: {first_line(error)}") from error
    return merged


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


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, source: Path, folder: Path) -> None:
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    for place in (source, source.parent):  # a checkpoint's template is in its run
        if (place / "template.json").is_file():
            write_json_atomic(folder / "template.json", read_json(place / "template.json"))
            break


def _card(result: Merged, source: str) -> str:
    """The model card: how it is used, what was merged, how well, and what the source's card says that still holds."""
    name = result.base
    bundle, there = name is not None and bundled.is_meant(name), name is not None and Path(name).exists()
    made = f"`{Path(source).resolve().name if Path(source).exists() else source}` as one plain model folder."
    seen = "the model"
    if name is not None:
        base = bundled.NAME if bundle else Path(name).name if there else name
        checked = (
            "the one it was trained on (checked)" if result.base_checked else "as the adapter names it (unchecked)"
        )
        adapter = Path(source).resolve().name
        made = f"The adapter `{adapter}` is merged into the weights of its base `{base}`, which is {checked}."
        seen = "base and adapter side by side"
    about = (
        f"{made} {result.n_parameters:,} parameters in {result.dtype}. Loaded again from these files, its logits "
        f"differ from those of {seen} by at most {result.difference:.1e} of their standard deviation (accepted up to "
        f"{result.tolerance:.0e})."
    )
    own = Path(bundled.resolve(source)) / "README.md"
    before = own.read_text(encoding="utf-8", errors="replace") if own.is_file() else ""
    loader = kind_of(source).auto.__name__
    return merged_card(result.folder.resolve().name, loader, about, None if bundle or there else name, before)
