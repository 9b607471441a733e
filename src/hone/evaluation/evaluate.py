"""`hone eval`: any model on the validation data of a config."""

import logging
from dataclasses import replace
from typing import Any

from hone.config.load import KEYWORD
from hone.config.schema import Config
from hone.data.prepare import prepare
from hone.data.tokenizer import load_tokenizer
from hone.errors import HoneError
from hone.evaluation.held_out import evaluate_model as measure_model
from hone.models.fallback import with_fallback
from hone.models.inspect import check_vocabulary
from hone.models.load import check_kind, load_finished, quiet_libraries
from hone.models.source import check_source
from hone.results import Measurement
from hone.tasks import chosen
from hone.tasks.task import Task

log = logging.getLogger("hone")

NO_MODEL: dict[str, Any] = {
    "model_type": None,
    "model_revision": None,
    "offline_model_name_or_path": None,
    "config_overrides": {},
}
# Rows to measure that are the only ones: read as if they were to be trained on.
ALONE: dict[str, Any] = {
    "validation_file": None,
    "validation_split_percentage": 0,
    "deduplicate": False,
    "max_train_samples": None,
}


def evaluate_model(name: str, config: Config, task: Task | None = None) -> Measurement:
    """The task's numbers of the model `name` (run, adapter, folder or hub name) with its own tokenizer.

    Raises:
        HoneError: the config has no validation data, or the model does not load.
    """
    check_source(name)
    section = config.data
    if section.train_file is None and section.dataset_name is None and section.validation_file is None:
        raise HoneError(
            "no data to measure on: neither validation_file, train_file nor dataset_name is set",
            where=str(config.source_path) if config.source_path else None,
            fix=f"name rows, `hone eval {name} eval.jsonl`, or a config that has data; a run folder brings its own",
        )
    config, task = chosen(config, task)
    quiet_libraries()
    tokenizer = load_tokenizer(name, trust_remote_code=config.model.trust_remote_code)
    config = config.changed({**NO_MODEL, "model_name_or_path": name})  # of the config, data alone count
    config = with_fallback(config, to_train=False)
    asked_for = config.where("validation_file") in ("command line", KEYWORD)  # now, and not by the run's own config
    # classes are numbered, and their baseline is chosen, by the rows that were trained on
    alone = section.train_file is None or (asked_for and task.token_rows)
    if section.validation_file is not None and section.dataset_name is None and alone:
        data = prepare(config.changed({**ALONE, "train_file": section.validation_file}), task, tokenizer)
        for note in data.store.meta.get("notes", []):
            log.warning("note: %s", note)
        both = task.views(config, replace(data.store, val=data.store.train), tokenizer)
        validation = task.settle(data.train, both[1].head(section.max_eval_samples))
    else:
        validation = prepare(config, task, tokenizer).validation
    if not len(validation):
        raise HoneError(
            "there are no validation rows to measure",
            where=config.where("validation_split_percentage"),
            fix="name some: validation_file=…, or hold some out: validation_split_percentage=10",
        )
    check_kind(name, task.model, trust_remote_code=config.model.trust_remote_code)
    model = load_finished(name, task.model, trust_remote_code=config.model.trust_remote_code)
    check_vocabulary(model, tokenizer)
    result, _ = measure_model(model, task, tokenizer, validation, config)
    return result
