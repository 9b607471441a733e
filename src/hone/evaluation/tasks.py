"""The tasks: what is the same engine's work with other data, another model and another loss.

Everything in which a task differs beyond its rows (`data.tasks`) and its class of model (`models.load`) is here, and is
chosen once, by `TASKS[config.method.task]`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.config.schema import Config
from hone.data.batches import labelled, pairs
from hone.data.prepare import Prepared
from hone.loss import causal_lm_loss, classification_loss, seq2seq_loss
from hone.tasks import causal, classification, seq2seq

if TYPE_CHECKING:
    from torch import Tensor

Loss = Callable[["Tensor", "Tensor", Any], "Tensor"]  # logits, labels, items of the whole step
Measured = tuple[dict[str, Any], dict[str, Any]]  # the numbers, and those of each item


@dataclass(frozen=True)
class Task:
    """collate: rows and a padding id -> a batch; None where `batching` decides. inputs: what the model is given of it.

    loss: the loss function of a config and its data. watch: numbers during training. measure: eval/*.json.
    """

    collate: Callable[..., dict[str, Any]] | None
    inputs: Callable[[Any, dict[str, Any]], dict[str, Any]]
    loss: Callable[[Config, Prepared], Loss]
    watch: Callable[..., dict[str, float]]
    measure: Callable[[Any, Any, Any, Config, str], Measured]


def _without_cache(model: Any, batch: dict[str, Any]) -> dict[str, Any]:
    """The key-value cache would switch the detection of packed examples off."""
    return {**batch, "use_cache": False}


def _as_it_is(model: Any, batch: dict[str, Any]) -> dict[str, Any]:
    return batch


def _classification_loss(config: Config, data: Prepared) -> Loss:
    weights = class_weights(data.train.counts()) if config.method.class_weights == "balanced" else None

    def loss(logits: "Tensor", labels: "Tensor", num_items: Any = None) -> "Tensor":
        return classification_loss(logits, labels, num_items, weights)

    return loss


def class_weights(counts: np.ndarray) -> list[float]:
    """rows / (classes x rows of the class): every class weighs the same, and a row 1 on average.

    Classes without rows are not counted.

    >>> class_weights(np.array([3, 1, 0]))
    [0.6666666666666666, 2.0, 0.0]
    """
    n_classes = int(np.count_nonzero(counts))
    return [float(counts.sum() / (n_classes * n)) if n else 0.0 for n in counts]


TASKS = {
    "causal": Task(None, _without_cache, lambda config, data: causal_lm_loss, causal.watch, causal.measure),
    "classification": Task(
        labelled,
        _as_it_is,
        _classification_loss,
        classification.watch,
        classification.measure,
    ),
    "seq2seq": Task(
        pairs,
        seq2seq.decoder_inputs,
        lambda config, data: seq2seq_loss,
        seq2seq.watch,
        seq2seq.measure,
    ),
}
