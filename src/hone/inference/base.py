"""The base of a run, to be asked beside the tuned model: under an adapter with its own weights, else loaded.

>>> base = base_conversation(conversation, note=print)                                  # doctest: +SKIP
"""

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hone.config.load import load_config
from hone.config.sections.model import ModelSection
from hone.errors import HoneError
from hone.inference.chat import Conversation, Write
from hone.inference.generate import trained_template
from hone.models.load import kind_of, load_model
from hone.models.source import ADAPTER, base_of, check_source
from hone.runs import RESOLVED


def base_conversation(conversation: Conversation, note: Write) -> Conversation:
    """The base in the same conversation: what was said, template and settings are those of the tuned model.

    Loaded at the first call, which `note` says.

    Raises:
        HoneError: there is no base, it does not load, or it is the tuned model.
    """
    c = conversation
    if c.base is None:
        name, model = _loaded(c, note)
        if same_weights(model, c.model):
            what = f"the base {name} and the tuned model have the same weights: the training changed nothing"
            raise HoneError(what, where=c.name, fix=f"look at the losses: hone report {c.name}")
        c.base = Conversation(model, c.tokenizer, c.template, c.settings, name=name)
    c.base.settings, c.base.system, c.base.asked, c.base.turns = c.settings, c.system, c.asked, list(c.turns)
    return c.base


def same_weights(base: PreTrainedModel, tuned: PreTrainedModel) -> bool:
    """Are all weights equal to the last bit; of a LoRA adapter, does it add nothing?

    Not the scores: two engines may round differently.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer  # as in `without_adapter`
    from peft.utils import AuxiliaryTrainingWrapper

    if any(isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper) for module in tuned.modules()):
        added = [weight for name, weight in tuned.named_parameters() if ".lora_A." not in name]
        kept = {id(weight) for weight in base.parameters()}
        return not any(bool(weight.any()) for weight in added if id(weight) not in kept)
    own = dict(tuned.named_parameters())
    return all(name in own and torch.equal(weight, own[name]) for name, weight in base.named_parameters())


def _loaded(c: Conversation, note: Write) -> tuple[str, PreTrainedModel]:
    if not (Path(c.name) / ADAPTER).is_file():
        section = started_from(c.name)
        if section is None:
            what, fix = "there is no run to compare", "talk with a run's folder: hone chat runs/NAME"
            raise HoneError(what, where=c.name, fix=fix)
        name = section.model_name_or_path
        if name is None:
            raise HoneError("this run has no base: it began with random weights", where=c.name)
        try:
            check_source(name)
        except HoneError as error:
            fix = "put the base back to where the run found it"
            raise HoneError(f"its base {name} is missing: {error.what}", where=c.name, fix=fix) from error
        note(f"(loading the base {name})")
    found = base_of_run(c.name, c.model, c.tokenizer)
    assert found is not None
    return found


def base_of_run(
    run: str, tuned: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> tuple[str, PreTrainedModel] | None:
    """Name and model that a run began with, in the dtype of its training; None for one that began with nothing.

    What it shares with the tuned model is in memory once. In another dtype than the training's, rounding alone would
    make the two differ.

    Raises:
        HoneError: it does not load.
    """
    if (Path(run) / ADAPTER).is_file():
        return str(base_of(Path(run))), without_adapter(tuned)
    section = started_from(run)
    if section is None or section.model_name_or_path is None:
        return None
    name = section.model_name_or_path
    check_source(name)
    base = load_model(section, kind_of(name), tokenizer, seed=0).to(tuned.device)
    share_weights(base, tuned)
    return name, base


def started_from(run: str) -> ModelSection | None:
    """The section `model` of the run that a folder, or the checkpoint's in it, belongs to."""
    if trained_template(run) is None:
        return None
    folder = Path(run)
    own = next((path for path in (folder / RESOLVED, folder.parent / RESOLVED) if path.is_file()), None)
    return load_config(own).model if own else None


def without_adapter(model: PreTrainedModel) -> PreTrainedModel:
    """The base of a model with an adapter: modules of its own over the same weights, which are not copied."""
    from peft.tuners.tuners_utils import BaseTunerLayer  # here, for a chat without an adapter begins sooner
    from peft.utils import AuxiliaryTrainingWrapper

    shared: dict[int, Any] = {id(one): one for one in (*model.parameters(), *model.buffers())}
    base = copy.deepcopy(model, shared)
    for name, module in list(base.named_modules()):
        if isinstance(module, BaseTunerLayer):
            base.set_submodule(name, module.get_base_layer())
        elif isinstance(module, AuxiliaryTrainingWrapper):  # trained whole, with the first weights kept beside it
            base.set_submodule(name, module.original_module)
    return base


def share_weights(kept: Any, other: Any) -> list[str]:
    """Let `other` use the tensors of `kept` where both are the same to the last bit; names of those that are not.

    Of an adapter's model: its frozen weights; matrices and heads of its own are left alone, and not named.
    """
    mine = dict(kept.named_parameters())
    different = []
    for name, parameter in other.named_parameters():
        plain = name.replace(".base_layer.", ".").replace(".original_module.", ".")
        twin = mine.get(plain)
        if twin is not None and twin.shape == parameter.shape and twin.dtype == parameter.dtype:
            if torch.equal(twin, parameter):
                parameter.data = twin.data
                continue
        elif twin is None and ("lora_" in name or ".modules_to_save." in name):
            continue
        different.append(plain)
    return different
