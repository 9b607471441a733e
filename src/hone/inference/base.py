"""The base of a run, to be asked beside the tuned model: under an adapter with its own weights, else loaded.

>>> base = base_conversation(conversation, note=print)                                  # doctest: +SKIP
"""

import copy
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper
from transformers import PreTrainedModel

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
    if any(isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper) for module in tuned.modules()):
        added = [weight for name, weight in tuned.named_parameters() if ".lora_A." not in name]
        kept = {id(weight) for weight in base.parameters()}
        return not any(bool(weight.any()) for weight in added if id(weight) not in kept)
    own = dict(tuned.named_parameters())
    return all(name in own and torch.equal(weight, own[name]) for name, weight in base.named_parameters())


def _loaded(c: Conversation, note: Write) -> tuple[str, PreTrainedModel]:
    if (Path(c.name) / ADAPTER).is_file():
        return str(base_of(Path(c.name))), without_adapter(c.model)
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
    return name, load_model(section, kind_of(name), c.tokenizer, seed=0).to(c.model.device)


def started_from(run: str) -> ModelSection | None:
    """The section `model` of the run that a folder, or the checkpoint's in it, belongs to."""
    if trained_template(run) is None:
        return None
    folder = Path(run)
    own = next((path for path in (folder / RESOLVED, folder.parent / RESOLVED) if path.is_file()), None)
    return load_config(own).model if own else None


def without_adapter(model: PreTrainedModel) -> PreTrainedModel:
    """The base of a model with an adapter: modules of its own over the same weights, which are not copied."""
    shared: dict[int, Any] = {id(one): one for one in (*model.parameters(), *model.buffers())}
    base = copy.deepcopy(model, shared)
    for name, module in list(base.named_modules()):
        if isinstance(module, BaseTunerLayer):
            base.set_submodule(name, module.get_base_layer())
        elif isinstance(module, AuxiliaryTrainingWrapper):  # trained whole, with the first weights kept beside it
            base.set_submodule(name, module.original_module)
    return base
