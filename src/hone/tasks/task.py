"""What a task is: everything in which one differs from another, in one place.

A task is chosen once (`hone.tasks.TASKS[config.method.task]`, or the caller's own) and handed on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hone.config.schema import Config
from hone.data.prepare import Prepared

if TYPE_CHECKING:
    from torch import Tensor

Loss = Callable[["Tensor", "Tensor", Any], "Tensor"]  # logits, labels, items of the whole step
Measured = tuple[dict[str, Any], dict[str, Any]]  # the numbers, and those of each item


@dataclass(frozen=True)
class Task:
    """collate: rows and a padding id -> a batch; None where examples are rows of tokens that `data.batching` lays out:
    then the accelerations apply, too. inputs: what the model is given of a batch.

    loss: the loss function of a config and its data. watch: numbers during training. measure: eval/*.json.
    """

    name: str
    collate: Callable[..., dict[str, Any]] | None
    inputs: Callable[[Any, dict[str, Any]], dict[str, Any]]
    loss: Callable[[Config, Prepared], Loss]
    watch: Callable[..., dict[str, float]]
    measure: Callable[[Any, Any, Any, Config, str], Measured]
