"""A config's model with its method applied: loaded or made, checked against the data's length, frozen or adapted."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hone.config.schema import Config
from hone.errors import HoneError, placed
from hone.hardware import best_device
from hone.models.classifier_head import head_names
from hone.models.dropout import set_dropout
from hone.models.freeze import count_trainable, freeze, trainable_lines
from hone.models.inspect import max_positions
from hone.models.load import load_model
from hone.models.lora import add_lora

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger("hone")


def build_model(
    config: Config,
    tokenizer: "PreTrainedTokenizerBase",
    labels: Sequence[str] = (),
    pad_token_id: int | None = None,
) -> "PreTrainedModel":
    """The model of a config, with exactly the parameters of its method set to train.

    Args:
        labels: names of the classes, for classification. pad_token_id: for classification and seq2seq.

    Raises:
        HoneError: the model does not load or fit, or the method does not fit the model; with the line of the config.
    """
    from transformers import set_seed

    method = config.method
    model = load_model(
        config.model,
        tokenizer,
        seed=config.train.seed,
        where=config.where,
        task=method.task,
        labels=labels,
        pad_token_id=pad_token_id,
    )
    check_positions(config, model)
    set_seed(config.train.seed)  # the adapter's initial weights
    return apply_method(config, model)


def check_positions(config: Config, model: "PreTrainedModel") -> None:
    """Refuse examples longer than what the model has positions for."""
    positions = max_positions(model)
    for key in ("max_length", "max_target_length") if config.method.task == "seq2seq" else ("max_length",):
        if positions is not None and getattr(config.data, key) > positions:
            raise HoneError(
                f"{key} is {getattr(config.data, key)}, but the model has {positions} positions",
                where=config.where(key),
                fix=f"set {key} to {positions} or less",
            )


def apply_method(config: Config, model: "PreTrainedModel") -> "PreTrainedModel":
    """`model` with exactly the parameters of the config's method set to train, and the dropout it will have."""
    method = config.method
    if (dropout := dropout_of(config)) is not None and (before := set_dropout(model, dropout)) > dropout == 0:
        log.info("dropout: none (the model comes with %g; dropout=%g keeps it)", before, before)
    heads = head_names(model) if method.task == "classification" else []
    if method.method == "freeze":
        with placed(config.where("num_unfrozen_layers") or config.where("method")):
            freeze(
                model,
                method.num_unfrozen_layers,
                unfreeze_head=method.unfreeze_head,
                unfreeze_embeddings=method.unfreeze_embeddings,
            )
        for name in heads:
            model.get_submodule(name).requires_grad_(True)  # a new head left as it is would be noise
    elif method.method == "lora":
        with placed(config.where("lora_target_modules") or config.where("method")):
            model = add_lora(model, method, heads)
        model.peft_config["default"].revision = config.model.model_revision  # saved with the adapter
    return model


def dropout_of(config: Config) -> float | None:
    """What every dropout of the model is set to; None to leave them as the model comes."""
    if config.train.dropout is not None:
        return config.train.dropout
    tunes = config.method.task == "causal" and config.model.model_name_or_path is not None
    return 0.0 if tunes and best_device(config.train.use_cpu) == "cpu" else None


def describe_model(config: Config, model: "PreTrainedModel") -> str:
    """'model: gpt2, 124,439,808 parameters, 124,439,808 trainable (100.0000 %)'; a table unless everything trains."""
    count = count_trainable(model)
    name = config.model.model_name_or_path or f"{config.model.model_type} from scratch"
    line = (
        f"model: {name}, {count.n_parameters:,} parameters, {count.n_trainable:,} trainable ({100 * count.share:.4f} %)"
    )
    return "\n".join([line, *(trainable_lines(model) if config.method.method != "full" else [])])
