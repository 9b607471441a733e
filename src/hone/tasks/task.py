"""What a task is: everything in which one differs from another, in one place.

A task is chosen once, by the config's name for it (`hone.tasks.task_of`) or as an argument of `hone.train`, and handed
on. Whatever is written against this class trains, measures and compares like the bundled ones.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from hone.config.schema import Config
from hone.config.sections.eval import EvalSection
from hone.config.sections.method import MethodSection
from hone.data.encode import Encoded
from hone.data.prepare import Examples, Prepared, Reading
from hone.data.records import Form
from hone.data.store import Store
from hone.loss import Loss
from hone.models.kinds import ModelKind
from hone.results import Items, Measurement

Measured = tuple[Measurement, Items]  # the numbers, and those of each item


def as_it_is(train: Any, validation: Any) -> Any:
    """The validation data, where nothing of it depends on the training data."""
    return validation


def no_answer(validation: Any, index: int, tokenizer: Any) -> None:
    """Of items that are nothing but their text."""


@dataclass(frozen=True)
class Task:
    """In the order of a run.

    name: as `method.task` says it; part of what a token store is known by, too.
    forms: of rows that the task can use.
    encode: rows to tokens.
    views: config, store and tokenizer to the training and the validation data set (`data.dataset.Dataset`).
    settle: training and validation data as they will be used, to the validation data as it is measured. Raises a
        HoneError if nothing can be learned from the training data.
    model: the kind of models.
    collate: examples and a padding id to a batch with input_ids, labels and `num_tokens`. None for rows of tokens: then
        `data.batching` lays them out, long documents may be cut, and the accelerations apply.
    inputs: model and batch to what the model is called with.
    loss: the section `method` and data to the loss function.
    watch, measure: model, tokenizer, validation data and the section `eval` to the numbers during training, and to
        eval/<name>.json and its items.
    answer: what is to be answered to an item, as text; None where the item is all there is.
    pipeline_tag: what the hub calls it. try_it: the command that uses such a model, of a run's folder; empty for none.
    """

    name: str
    forms: tuple[Form, ...]
    encode: Callable[[Examples, Reading], Iterator[Encoded]]
    views: Callable[[Config, Store, PreTrainedTokenizerBase], tuple[Any, Any]]
    model: ModelKind
    inputs: Callable[[Any, dict[str, Any]], dict[str, Any]]
    loss: Callable[[MethodSection, Prepared], Loss]
    watch: Callable[[Any, Any, Any, EvalSection], dict[str, float]]
    measure: Callable[[Any, Any, Any, EvalSection], Measured]
    pipeline_tag: str
    collate: Callable[..., dict[str, Any]] | None = None
    settle: Callable[[Any, Any], Any] = as_it_is
    try_it: str = ""
    answer: Callable[[Any, int, PreTrainedTokenizerBase], str | None] = no_answer

    @property
    def token_rows(self) -> bool:
        """Whether examples are rows of tokens, each the label of the one before it."""
        return self.collate is None
