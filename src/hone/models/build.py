"""A config's model with its method applied: loaded or made, checked against the data's length, frozen or adapted."""

from typing import TYPE_CHECKING

from hone.config.schema import Config
from hone.errors import HoneError, placed
from hone.models.freeze import count_trainable, freeze
from hone.models.load import load_model, max_positions
from hone.models.lora import add_lora

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def build_model(config: Config, tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedModel":
    """The model of a config, with exactly the parameters of its method set to train.

    Raises:
        HoneError: the model does not load or fit, or the method does not fit the model; with the line of the config.
    """
    from transformers import set_seed

    model = load_model(config.model, tokenizer, seed=config.train.seed, where=config.where)
    positions = max_positions(model)
    if positions is not None and config.data.max_length > positions:
        raise HoneError(
            f"max_length is {config.data.max_length}, but the model has {positions} positions",
            where=config.where("max_length"),
            fix=f"set max_length to {positions} or less",
        )
    method = config.method
    set_seed(config.train.seed)  # the adapter's initial weights
    if method.method == "freeze":
        with placed(config.where("num_unfrozen_layers") or config.where("method")):
            freeze(
                model,
                method.num_unfrozen_layers,
                unfreeze_head=method.unfreeze_head,
                unfreeze_embeddings=method.unfreeze_embeddings,
            )
    elif method.method == "lora":
        with placed(config.where("lora_target_modules") or config.where("method")):
            model = add_lora(model, method)
    return model


def describe_model(config: Config, model: "PreTrainedModel") -> str:
    """'model: gpt2, 124,439,808 parameters, 124,439,808 trainable (100.0000 %)'."""
    count = count_trainable(model)
    name = config.model.model_name_or_path or f"{config.model.model_type} from scratch"
    return (
        f"model: {name}, {count.n_parameters:,} parameters, {count.n_trainable:,} trainable ({100 * count.share:.4f} %)"
    )
