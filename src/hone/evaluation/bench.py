"""What the models of a run are measured on: base and tuned alike."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from hone.config.schema import Config
from hone.data.prepare import Prepared
from hone.runs import Run
from hone.tasks.task import Task


@dataclass(frozen=True)
class Bench:
    """Made once in a run; every measurement of `evaluation.run` takes it and a model."""

    run: Run
    config: Config
    task: Task
    tokenizer: PreTrainedTokenizerBase
    data: Prepared
