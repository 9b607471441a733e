"""A config's model with its method applied: loaded or made, checked against the data's length, frozen or adapted."""

import logging
from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from hone.config.schema import Config
from hone.config.sections.model import ModelSection
from hone.config.sections.train import TrainSection
from hone.data.special_tokens import padding_id
from hone.errors import HoneError, placed
from hone.hardware import best_device
from hone.models.classifier_head import head_names
from hone.models.dropout import set_dropout
from hone.models.freeze import count_trainable, freeze, trainable_lines
from hone.models.inspect import max_positions
from hone.models.kinds import ModelKind
from hone.models.load import load_model
from hone.models.lora import add_lora

log = logging.getLogger("hone")


def build_model(
    config: Config,
    kind: ModelKind,
    tokenizer: PreTrainedTokenizerBase,
    outputs: Sequence[str] = (),
    *,
    weights: bool = True,
) -> PreTrainedModel:
    """The model of a config, with exactly the parameters of its method set to train.

    Args:
        weights: False reads none: for the shapes alone, within `torch.device("meta")`.
        outputs: names of what a new head scores (`Dataset.outputs`).

    Raises:
        HoneError: the model does not load or fit, or the method does not fit the model; with the line of the config.
    """
    model = load_model(
        config.model,
        kind,
        tokenizer,
        seed=config.train.seed,
        where=config.where,
        outputs=outputs,
        pad_token_id=None if kind.continues else padding_id(tokenizer),
        weights=weights,
    )
    set_seed(config.train.seed)  # the adapter's initial weights
    return apply_method(config, kind, model)


def apply_method(config: Config, kind: ModelKind, model: PreTrainedModel) -> PreTrainedModel:
    """`model` with exactly the parameters of the config's method set to train, and the dropout it will have.

    Raises:
        HoneError: it has not enough positions for the examples, or the method does not fit it.
    """
    data, method, where = config.data, config.method, config.where
    lengths = {"max_length": data.max_length}
    if kind.encoder_decoder:
        lengths["max_target_length"] = data.max_target_length
    for key, length in lengths.items():
        if (positions := max_positions(model)) is not None and length > positions:
            raise HoneError(
                f"{key} is {length}, but the model has {positions} positions",
                where=where(key),
                fix=f"set {key} to {positions} or less",
            )
    dropout = dropout_of(config.model, config.train, kind)
    if dropout is not None and (before := set_dropout(model, dropout)) > dropout == 0:
        log.info("dropout: none (the model comes with %g; dropout=%g keeps it)", before, before)
    heads = head_names(model) if kind.new_head else []
    if method.method == "freeze":
        with placed(where("num_unfrozen_layers") or where("method")):
            freeze(
                model,
                method.num_unfrozen_layers,
                unfreeze_head=method.unfreeze_head,
                unfreeze_embeddings=method.unfreeze_embeddings,
            )
        for name in heads:
            model.get_submodule(name).requires_grad_(True)  # a new head left as it is would be noise
    elif method.method == "lora":
        with placed(where("lora_target_modules") or where("method")):
            model = add_lora(model, method, peft_task=kind.peft, heads=heads)
        model.peft_config["default"].revision = config.model.model_revision  # saved with the adapter
    return model


def dropout_of(section: ModelSection, train: TrainSection, kind: ModelKind) -> float | None:
    """What every dropout of the model is set to; None to leave them as the model comes."""
    if train.dropout is not None:
        return train.dropout
    tunes = kind.continues and section.model_name_or_path is not None
    return 0.0 if tunes and best_device(train.use_cpu) == "cpu" else None


def describe_model(section: ModelSection, method: str, model: PreTrainedModel) -> str:
    """'model: gpt2, 124,439,808 parameters, 124,439,808 trainable (100.0000 %)'; a table unless everything trains."""
    count = count_trainable(model)
    name = section.model_name_or_path or f"{section.model_type} from scratch"
    line = (
        f"model: {name}, {count.n_parameters:,} parameters, {count.n_trainable:,} trainable ({100 * count.share:.4f} %)"
    )
    return "\n".join([line, *(trainable_lines(model) if method != "full" else [])])
