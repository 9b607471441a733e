"""`hone eval`: any model on the validation data of a config."""

from typing import Any

from hone.config.schema import Config
from hone.data.prepare import prepare
from hone.data.tokenizer import load_tokenizer
from hone.errors import HoneError
from hone.evaluation.before_after import evaluate_model as measure_model
from hone.models.load import check_vocabulary, load_finished


def evaluate_model(name: str, config: Config) -> dict[str, Any]:
    """Loss, perplexity and bits per byte of the model `name` (run, adapter, folder or hub name) with its own tokenizer.

    Raises:
        HoneError: the config has no validation data, or the model does not load.
    """
    tokenizer = load_tokenizer(name, trust_remote_code=config.model.trust_remote_code)
    data = prepare(config, tokenizer)
    if not len(data.validation):
        raise HoneError(
            "the config holds no validation rows out", fix="set validation_file or validation_split_percentage"
        )
    model = load_finished(name, trust_remote_code=config.model.trust_remote_code)
    check_vocabulary(model, tokenizer)
    result, _ = measure_model(model, tokenizer, data.validation, config)
    return result
