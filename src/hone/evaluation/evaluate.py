"""`hone eval`: any model on the validation data of a config."""

from hone.config.schema import Config
from hone.data.prepare import prepare
from hone.data.tokenizer import load_tokenizer
from hone.errors import HoneError
from hone.evaluation.held_out import evaluate_model as measure_model
from hone.models.inspect import check_vocabulary
from hone.models.load import check_kind, load_finished, quiet_libraries
from hone.results import Measurement
from hone.tasks import chosen
from hone.tasks.task import Task


def evaluate_model(name: str, config: Config, task: Task | None = None) -> Measurement:
    """The task's numbers of the model `name` (run, adapter, folder or hub name) with its own tokenizer.

    Raises:
        HoneError: the config has no validation data, or the model does not load.
    """
    if config.data.train_file is None and config.data.dataset_name is None:
        raise HoneError(
            "no data to measure on: neither train_file nor dataset_name is set",
            where=str(config.source_path) if config.source_path else None,
            fix="name a config that has data, `hone eval MODEL cfg.yaml`; a run folder brings its own",
        )
    config, task = chosen(config, task)
    quiet_libraries()
    tokenizer = load_tokenizer(name, trust_remote_code=config.model.trust_remote_code)
    data = prepare(config, task, tokenizer)
    if not len(data.validation):
        raise HoneError(
            "there are no validation rows to measure",
            where=config.where("validation_split_percentage"),
            fix="name some: validation_file=…, or hold some out: validation_split_percentage=10",
        )
    check_kind(name, task.model, trust_remote_code=config.model.trust_remote_code)
    model = load_finished(name, task.model, trust_remote_code=config.model.trust_remote_code)
    check_vocabulary(model, tokenizer)
    result, _ = measure_model(model, task, tokenizer, data.validation, config)
    return result
